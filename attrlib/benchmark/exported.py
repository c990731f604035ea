"""Raw maps and changed images of a few cells, for studies of others."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from attrlib import _files, checkpoints, data
from attrlib.attacks import SUITE
from attrlib.benchmark import cells, trained
from attrlib.benchmark.grid import Block
from attrlib.training.state import contents

TENSORS = {
    "x": "clean images (n, 1, 28, 28) in [0, 1]",
    "y": "their labels, which are explained (n,)",
    "z": "changed images, each entry within eps of x",
    "map_x": "signed map of x, before any reduction",
    "map_z": "signed map of z, with the same noise where there is any",
}
"""What a file holds."""


def export(
    folder: str | Path,
    *,
    blocks: Sequence[Block],
    points: str | Path = "runs/points",
    only: Sequence[str] | None = None,
    maps: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
) -> list[Path]:
    """Write images and maps of the first seed of each attacked cell, with a text that says what they are.

    Args:
        folder: Where to write `CELL.safetensors` and `CELL.json`; files of these names are replaced.
        blocks: As for `recipes`; those without a suite of attacks have nothing to write.
        points: Folder of the points found; what is missing there is found now.
        only: Recipes; None for all.
        maps: Maps; None for all of the blocks.
        device: Where to compute.

    Returns:
        The files of tensors.

    Raises:
        ValueError: If a recipe or a map is not there.
    """
    folder = Path(folder)
    names, wanted = trained.chosen(blocks, only=only, maps=maps)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for block, eps, scored, name in _attacked(wanted, names):
        for seed in _first_seed(name, block):
            tensors, about = _contents(block, eps, scored, (name, seed), Path(points), device)
            stem = f"{name}-s{seed}-{scored}-{block.attack}-{eps:.4f}"
            path = folder / f"{stem.replace('×', 'x').replace(' ', '-')}.safetensors"
            with _files.whole(path) as partial:
                partial.write_bytes(safetensors.torch.save(tensors))
            with _files.whole(path.with_suffix(".json")) as partial:
                text = json.dumps(about, indent=1, ensure_ascii=False)
                partial.write_text(text + "\n", encoding="utf-8")
            written.append(path)
    return written


def _attacked(
    blocks: Sequence[Block], names: Sequence[str]
) -> Iterator[tuple[Block, float, str, str]]:
    """The cells of suites of attacks."""
    for block in blocks:
        if block.attack.endswith(" suite"):
            here = [name for name in names if block.recipes is None or name in block.recipes]
            for cell in itertools.product(block.eps, block.maps, here):
                yield block, *cell


def _first_seed(name: str, block: Block) -> list[int]:
    """The first seed of a block that is shipped, if any is."""
    shipped = checkpoints.seeds(name)
    return [seed for seed in shipped if block.seeds is None or seed in block.seeds][:1]


def _contents(
    block: Block,
    eps: float,
    scored: str,
    which: tuple[str, int],
    points: Path,
    device: str | torch.device,
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The tensors of a cell, and what they are."""
    name, seed = which
    net = checkpoints.load(f"{name}-s{seed}").model.to(device)
    test = data.fashion_mnist("test")
    listed = cells.first(test.y, per_class=trained.PER_CLASS)
    some = cells.first(test.y[listed], per_class=block.per_class or trained.PER_CLASS)
    rows = listed[some]
    x, y = test.x[rows].to(device), test.y[rows].to(device)
    z = trained.changed_images(scored, block.attack, eps, net, some, folder=points, device=device)
    a, b = (cells.map_at(trained.attribution(scored), net, v, y) for v in (x, z))
    tensors = dict(zip(TENSORS, (x, y, z, a, b), strict=True))
    about = {
        "recipe": name,
        "seed": seed,
        "weights": contents(net),
        "map": scored,
        "attack": block.attack,
        "suite": SUITE,
        "eps": eps,
        "images": "Fashion-MNIST, embedded test images",
        "rows": rows.tolist(),
        "classes": list(test.classes),
        "tensors": TENSORS,
    }
    return {key: value.detach().cpu().contiguous() for key, value in tensors.items()}, about
