"""Raw maps and changed images of a few cells, for studies of others."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import safetensors.torch
import torch

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
    written = []
    for block, eps, scored, name in _attacked(wanted, names):
        found = [seed for seed in checkpoints.seeds(name) if seed in (block.seeds or (seed,))]
        if not found:
            continue
        loaded = checkpoints.load(f"{name}-s{found[0]}")
        net = loaded.model.to(device)
        test = data.fashion_mnist("test")
        rows = cells.first(test.y, per_class=trained.PER_CLASS)
        some = cells.first(test.y[rows], per_class=block.per_class or trained.PER_CLASS)
        images = test[rows[some]]
        x, y = images.x.to(device), images.y.to(device)
        z = trained.changed_images(
            scored, block.attack, eps, net, some, folder=Path(points), device=device
        )
        a, b = (cells.map_at(trained.attribution(scored), net, v, y) for v in (x, z))
        tensors = dict(zip(TENSORS, (x, y, z, a, b), strict=True))
        about = {
            "recipe": name,
            "seed": found[0],
            "weights": contents(net),
            "map": scored,
            "attack": block.attack,
            "suite": SUITE,
            "eps": eps,
            "images": "Fashion-MNIST, embedded test images",
            "rows": rows[some].tolist(),
            "classes": list(images.classes),
            "tensors": TENSORS,
        }
        stem = f"{name}-s{found[0]}-{scored}-{block.attack}-{eps:.4f}"
        path = folder / f"{stem.replace(' × ', ' x ').replace(' ', '-')}.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        kept = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        with _files.whole(path) as partial:
            partial.write_bytes(safetensors.torch.save(kept))
        with _files.whole(path.with_suffix(".json")) as partial:
            text = json.dumps(about, indent=1, ensure_ascii=False)
            partial.write_text(text + "\n", encoding="utf-8")
        written.append(path)
    return written


def _attacked(
    blocks: Sequence[Block], names: Sequence[str]
) -> Iterator[tuple[Block, float, str, str]]:
    for block in blocks:
        if block.attack.split(" ")[-1] == "suite":
            here = [name for name in names if block.recipes is None or name in block.recipes]
            for cell in itertools.product(block.eps, block.maps, here):
                yield block, *cell
