"""Maps where no attacker is at work: changes that nobody makes to deceive, and weights at random."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from attrlib import _check, _files, attributions, checkpoints, data, metrics, models
from attrlib._random import seeded
from attrlib.benchmark import _table, cells
from attrlib.benchmark.attack_strength import K
from attrlib.benchmark.seeds import Columns, summaries
from attrlib.maps import to_heatmap
from attrlib.recipes import RECIPES, planted_blocks
from attrlib.training.state import contents

PER_CLASS = 10
RANDOM_WEIGHTS = "random weights"
_DRAWS = 5  # of random weights


def benign(
    path: str | Path,
    *,
    only: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure the gradient maps of every shipped network where no attacker is at work.

    Of networks for Fashion-MNIST, on the first ten test images of each class: overlap of the top k and
    cosine of the maps before and after each of `data.BENIGN`, and how often the prediction stays; the
    same of the maps before and after all weights are drawn anew (`models.randomize`), which a map that
    tells of the training cannot survive. Of networks for garments with a block that says nothing: the
    share of the maps that lies in this block, on as many of such images.

    Args:
        path: Table to write, or to go on with.
        only: Recipes to measure; None takes all that are shipped.
        device: Where to compute.
        progress: Print each recipe as it is done.

    Raises:
        ValueError: If a recipe is not shipped, or the table is another one.
    """
    fit, shipped = (data.fashion_mnist, planted_blocks), checkpoints.names()
    names = [name for name, recipe in RECIPES.items() if name in shipped and recipe.data in fit]
    for name in only or ():
        _check.one_of(names, only=name)
    made = (_cell(name, device) for name in names if only is None or name in only)
    _table.fill(path, made, device=device, progress=progress)


def _cell(name: str, device: str | torch.device) -> _table.Cell:
    nets = {
        seed: checkpoints.load(f"{name}-s{seed}").model.to(device)
        for seed in checkpoints.seeds(name)
    }
    blocks = RECIPES[name].data is planted_blocks
    test = planted_blocks("test") if blocks else data.fashion_mnist("test")
    images = cells.listed(test, per_class=PER_CLASS)
    key = {
        "recipe": name,
        "map": "gradient",
        "list": data.fingerprint(images)[:8],
        "checkpoints": _files.digest(*map(contents, nets.values()))[:8],
    }

    def rows() -> Iterator[dict[str, str]]:
        found = {
            seed: leaked(net, images, device=device)
            if isinstance(images, data.Blocks)
            else changes(net, images, device=device)
            for seed, net in nets.items()
        }
        for row in summarized(found):
            yield key | row

    return _table.Cell(key, rows)


def changes(
    net: nn.Module, images: data.Images, *, device: str | torch.device
) -> dict[str, Columns]:
    """Scores of the maps before and after each benign change and with weights drawn anew, by its name.

    Args:
        net: The network.
        images: Images and the classes that are explained.
        device: Where to compute.

    Returns:
        Per change and quantity one value for each image; without the last change if no layer can be
        drawn anew.
    """
    x, y = images.x.to(device), images.y.to(device)
    a = attributions.gradient(net, x, y)
    with torch.no_grad():
        before = net(x).argmax(1)
    found = {}
    for name, change in data.BENIGN.items():
        z = change(x)
        moved = change(a) if name == "shift" else a  # a map has to move along
        found[name] = _compared(moved, attributions.gradient(net, z, y))
        with torch.no_grad():
            found[name]["kept"] = (net(z).argmax(1) == before).cpu().double()
    if any(isinstance(layer, nn.Conv2d | nn.Linear) for layer in net.modules()):
        found[RANDOM_WEIGHTS] = _without_training(net, a, x, y)
    return found


def _without_training(net: nn.Module, a: Tensor, x: Tensor, y: Tensor) -> Columns:
    """Scores of the maps with those of the network with random weights, means over draws of these."""
    other, noise = copy.deepcopy(net).cpu(), seeded(0)
    drawn = []
    for _ in range(_DRAWS):
        models.randomize(other.cpu(), generator=noise)
        drawn.append(_compared(a, attributions.gradient(other.to(x.device), x, y)))
    return {name: torch.stack([one[name] for one in drawn]).mean(0) for name in drawn[0]}


def leaked(
    net: nn.Module, images: data.Blocks, *, device: str | torch.device
) -> dict[str, Columns]:
    """Share of the mass, and of as many top pixels as the garment has lit ones, in the null block."""
    x, y, null = (part.to(device) for part in (images.x, images.y, images.null))
    lit = ((x[:, 0] > 0) & ~null).flatten(1).sum(1)
    heat = to_heatmap(attributions.gradient(net, x, y))
    shares = {
        "leakage": metrics.leakage(heat, region=null),
        "topk_leakage": metrics.topk_leakage(heat, region=null, k=lit),
    }
    return {"clean": {name: values.cpu().double() for name, values in shares.items()}}


def summarized(found: Mapping[int, Mapping[str, Columns]]) -> Iterator[dict[str, str]]:
    """Yield the rows of each attack: of each seed, and of all of them.

    Args:
        found: Per seed and per attack the values of each image.

    Yields:
        Attack, seed and the columns of one number; of a single seed no interval for all.
    """
    for attack in next(iter(found.values())):
        for row in summaries({seed: parts[attack] for seed, parts in found.items()}):
            yield {"attack": attack} | row


def _compared(a: Tensor, b: Tensor) -> Columns:
    scores = {
        "topk": metrics.topk_intersection(to_heatmap(a), to_heatmap(b), k=K),
        "cosine": metrics.cosine(a, b),
    }
    return {name: values.cpu().double() for name, values in scores.items()}
