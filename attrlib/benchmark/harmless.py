"""Maps where no attacker is at work: changes that nobody makes to deceive, and weights at random."""

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from attrlib import _check, _files, attributions, checkpoints, data, metrics, models
from attrlib.benchmark import _table, cells
from attrlib.benchmark.attack_strength import K
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
    path = Path(path)
    names = [name for name in RECIPES if name in checkpoints.names()]
    for name in only or ():
        _check.one_of(names, only=name)
    for name in names if only is None else [name for name in names if name in only]:
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
        if _table.in_table(path, key):
            continue
        start = time.perf_counter()
        found = {
            seed: leaked(net, images, device=device)
            if isinstance(images, data.Blocks)
            else changes(net, images, device=device)
            for seed, net in nets.items()
        }
        rows = [key | row for row in summarized(found)]
        source = _table.provenance(device, seconds=time.perf_counter() - start)
        _table.append(path, [row | source for row in rows])
        if progress:
            print(f"{name}: {source['seconds']} s", flush=True)


def changes(
    net: nn.Module, images: data.Images, *, device: str | torch.device
) -> dict[str, cells.Columns]:
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


def _without_training(net: nn.Module, a: Tensor, x: Tensor, y: Tensor) -> cells.Columns:
    """Scores of the maps with those of the network with random weights, means over draws of these."""
    other, noise = copy.deepcopy(net).cpu(), torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(_DRAWS):
        models.randomize(other.cpu(), generator=noise)
        drawn.append(_compared(a, attributions.gradient(other.to(x.device), x, y)))
    return {name: torch.stack([one[name] for one in drawn]).mean(0) for name in drawn[0]}


def leaked(
    net: nn.Module, images: data.Blocks, *, device: str | torch.device
) -> dict[str, cells.Columns]:
    """Share of the mass, and of as many top pixels as the garment has lit ones, in the null block."""
    x, y, null = (part.to(device) for part in (images.x, images.y, images.null))
    lit = ((x[:, 0] > 0) & ~null).flatten(1).sum(1)
    heat = to_heatmap(attributions.gradient(net, x, y))
    shares = {
        "leakage": metrics.leakage(heat, region=null),
        "topk_leakage": metrics.topk_leakage(heat, region=null, k=lit),
    }
    return {"clean": {name: values.cpu().double() for name, values in shares.items()}}


def summarized(found: Mapping[int, Mapping[str, cells.Columns]]) -> Iterator[dict[str, str]]:
    """Yield rows of each seed, with an interval over images, and of all seeds, over both.

    Args:
        found: Per seed and per attack the values of each image.

    Yields:
        Attack, seed and the columns of one number; of a single seed no interval for all.
    """
    for attack, columns in next(iter(found.values())).items():
        for quantity in columns:
            values = torch.stack([parts[attack][quantity] for parts in found.values()])
            for seed, one in zip(found, values, strict=True):
                yield _row(attack, str(seed), quantity, one, _over_images(one))
            known = len(values) > 1 and not bool(values.isnan().all(1).any())
            ends = metrics.seed_interval(values) if known else None
            yield _row(attack, "all", quantity, values.nanmean(1), ends, images=values.shape[1])


def _row(
    attack: str,
    seed: str,
    quantity: str,
    values: Tensor,
    ends: tuple[float, float] | None,
    *,
    images: int | None = None,
) -> dict[str, str]:
    count = len(values) if images is None else images
    head = {"attack": attack, "seed": seed}
    return head | _table.measured(quantity, count, float(values.nanmean()), ends)


def _over_images(values: Tensor) -> tuple[float, float] | None:
    if int((~values.isnan()).sum()) < 2:
        return None
    return metrics.interval(values, generator=torch.Generator().manual_seed(0))


def _compared(a: Tensor, b: Tensor) -> cells.Columns:
    scores = {
        "topk": metrics.topk_intersection(to_heatmap(a), to_heatmap(b), k=K),
        "cosine": metrics.cosine(a, b),
    }
    return {name: values.cpu().double() for name, values in scores.items()}
