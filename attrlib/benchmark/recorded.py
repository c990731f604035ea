"""Interval bounds at the points that the grid recorded: does any map there leave its box?"""

import functools
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from attrlib import attributions, certificates, checkpoints, data, metrics
from attrlib.attacks import LinfBall
from attrlib.benchmark import _table, cells
from attrlib.benchmark.adversaries import gap_row
from attrlib.benchmark.attack_strength import K
from attrlib.benchmark.grid import BUDGETS
from attrlib.benchmark.proved import least
from attrlib.benchmark.trained import PER_CLASS, chosen
from attrlib.maps import to_heatmap
from attrlib.training.state import contents

_ATTACK = cells.named("top-k suite")


def found(points: Path, *, device: str | torch.device) -> tuple[list[_table.Cell], int]:
    """Return a cell for each shipped network and budget whose points are there, and how many are not.

    Args:
        points: Folder of points.
        device: Where to compute.
    """
    images = cells.listed(data.fashion_mnist("test"), per_class=PER_CLASS)
    names, _ = chosen(())
    made, missing = [], 0
    for net in (f"{name}-s{seed}" for name in names for seed in checkpoints.seeds(name)):
        model = checkpoints.load(net).model
        for eps in BUDGETS:
            path = cells.place(model, images, _ATTACK, eps, folder=points)
            if not path.exists():
                missing += 1
                continue
            key = {"net": net, "kind": "recorded", "eps": f"{eps:.5f}"}
            key |= {"weights": contents(model), "images": str(len(images))}
            made.append(
                _table.Cell(key, functools.partial(_rows, key, images, eps, points, device))
            )
    return made, missing


def _rows(
    key: dict[str, str],
    images: data.Images,
    eps: float,
    points: Path,
    device: str | torch.device,
) -> Iterator[dict[str, str]]:
    model = checkpoints.load(key["net"]).model.to(device)
    z = cells.points(model, images, _ATTACK, eps, folder=points, device=device, pool=images)
    for row in against_points(model, images.x.to(device), images.y.to(device), z, eps=eps):
        yield key | row


def against_points(
    model: nn.Module, x: Tensor, y: Tensor, z: Tensor, *, eps: float, k: int = K
) -> list[dict[str, str]]:
    """Set points that are given against the box of maps, and against the scores that follow from it.

    Args:
        model: Maps a batch to logits; is put in float64, in which the bounds are proved.
        x: Images.
        y: Classes to explain.
        z: A point for each; moved into the box in float64, which may be outside by rounding.
        eps: Budget in each entry.
        k: Pixels in the top set.

    Returns:
        A row for the entries, of which -1 times the largest excess over a bound is the gap, and one for
        each score.
    """
    model, x = model.double(), x.double()
    a = attributions.gradient(model, x, y)
    b = attributions.gradient(model, LinfBall(eps=eps).project(z.double(), x), y)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=eps)
    inside = torch.minimum(b - lower, upper - b).flatten(1).amin(1).clamp(max=0)
    before, after = to_heatmap(a), to_heatmap(b)
    certified = least(lower, upper, a, k=k)
    window = cells.WINDOW
    pairs = {
        "entries": (torch.zeros_like(inside), inside),
        f"top {k}": (certified["topk"], metrics.topk_intersection(before, after, k=k)),
        "LENS": (certified["lens_recall"], metrics.lens_recall(before, after, k=k, window=window)),
        "Kendall": (certified["kendall"], metrics.kendall(before, after)),
        "cosine": (certified["cosine"], metrics.cosine(a, b)),
    }
    return [
        gap_row(name, proved, left, alpha=0.0, random=torch.empty(0))
        for name, (proved, left) in pairs.items()
    ]
