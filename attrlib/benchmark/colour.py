"""Does the order of methods carry over from Fashion-MNIST? Four networks for CIFAR-10, one seed each."""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from attrlib import _check, _files, checkpoints, data, training
from attrlib.attacks import SUITE
from attrlib.benchmark import _table, cells, seeds
from attrlib.benchmark.seeds import Columns
from attrlib.benchmark.transferred import transfer_targets
from attrlib.recipes import CIFAR
from attrlib.training.state import contents

EPS = 8 / 255
"""The usual budget on CIFAR-10, and that of its recipes."""

PER_CLASS, POOL = 5, 50
_SUITE = "top-k suite"
_ATTACKS = ("random", _SUITE)
_OTHER_MAPS = ("input × gradient", "integrated gradients", "SmoothGrad")


def cifar(
    path: str | Path,
    *,
    folder: str | Path | None = None,
    points: str | Path = "runs/points",
    only: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure the networks for CIFAR-10 as `recipes` does those for Fashion-MNIST, in the same columns.

    `model`: accuracy on the test images. `random` and `top-k suite`: scores of gradient maps, with all
    controls, on the first five test images of each class, whatever a network predicts for them. `gradient
    top-k suite` and `random` for other maps: scores at the points found for the gradient. Intervals are
    over images: there is one seed.

    Args:
        path: Table to write, or to go on with.
        folder: The images, see `data.cifar10`.
        points: Folder of the points found, which later scores are read from.
        only: Recipes to measure; None takes all of `recipes.CIFAR`.
        device: Where to compute.
        progress: Print a line when a cell is done.

    Raises:
        ValueError: If a recipe is unknown or not shipped, or the table has rows of other images or of
            another version of the suite.
        FileNotFoundError: If there are no images.
        ModuleNotFoundError: If Captum or zennit is missing: the extra `explainers`.
    """
    path = Path(path)
    for name in only or ():
        _check.one_of(tuple(CIFAR), only=name)
    test = data.cifar10("test", folder=folder)
    images = cells.listed(test, per_class=PER_CLASS)
    _table.check_constant(path, "list", data.fingerprint(images)[:8])
    _table.check_constant(path, "suite", SUITE, empty=True)
    for name in only or CIFAR:
        made = _cells(name, test, Path(points), device)
        _table.fill(path, made, device=device, progress=progress)


def _cells(
    name: str, test: data.Images, points: Path, device: str | torch.device
) -> Iterator[_table.Cell]:
    """The cells of a network."""
    net = checkpoints.load(name).model.to(device)
    images = cells.listed(test, per_class=PER_CLASS)
    pool = cells.listed(test, per_class=POOL, start=PER_CLASS)

    def changed(attack: str) -> Tensor:
        way = cells.named(attack)
        return cells.points(net, images, way, EPS, folder=points, device=device, pool=pool)

    def rows(key: dict[str, str]) -> Iterator[dict[str, str]]:
        if key["map"] == "none":
            found: Columns = training.evaluate(
                net, test, {"accuracy": training.correct}, device=device
            )
            found = {quantity: values.cpu().double() for quantity, values in found.items()}
        else:
            attack = key["attack"].removeprefix("gradient ")
            scored = transfer_targets(test.x[0].numel())[key["map"]]
            found = cells.scores_at(
                net, images, changed(attack), pool, device=device, attribution=scored
            )
        for row in seeds.summaries({0: found}):
            if row["seed"] != "all":
                yield key | row

    for scored, attack, eps in (
        ("none", "model", 0.0),
        *(("gradient", attack, EPS) for attack in _ATTACKS),
        *((other, "random", EPS) for other in _OTHER_MAPS),
        *((other, f"gradient {_SUITE}", EPS) for other in _OTHER_MAPS),
    ):
        key = {
            "recipe": name,
            "map": scored,
            "attack": attack,
            "suite": SUITE if attack.endswith("suite") else "",
            "eps": f"{eps:.5f}",
            "list": data.fingerprint(images)[:8],
            "checkpoints": _files.digest(contents(net))[:8],
        }
        yield _table.Cell(key, functools.partial(rows, key))
