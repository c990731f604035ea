"""By how much do scores that sample miss the change that an attack of the same radius reaches?"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attrlib import _check, attributions, checkpoints, data, metrics, sensitivity, training
from attrlib._random import seeded
from attrlib.attacks import SUITE, standard
from attrlib.attacks.suite import Effort, Goal
from attrlib.benchmark import _table
from attrlib.benchmark.attack_strength import K

SAMPLING_NETS = tuple(
    f"{name}-s{seed}"
    for seed, name in itertools.product(range(3), ("natural", "madry", "hessian", "ssr-medium"))
)
SAMPLES = (10, 200, 1000)
"""Random images near each image; 10 is the default of Captum, 200 that of Quantus."""

EFFORT: Effort = "standard"
_GOALS: tuple[Goal, ...] = ("top-k", "cosine")


class Case(NamedTuple):
    """A network, images that it classifies correctly, and their gradient maps."""

    model: nn.Module
    x: Tensor
    y: Tensor
    a: Tensor


def _logits(model: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(x))


def _change(case: Case, z: Tensor, b: Tensor) -> Tensor:
    return sensitivity.relative_change(case.a, b)


def _slope(case: Case, z: Tensor, b: Tensor) -> Tensor:
    return sensitivity.lipschitz_quotient(case.a, b, case.x, z)


def _against_input(case: Case, z: Tensor, b: Tensor) -> Tensor:
    return sensitivity.relative_input_quotient(case.a, b, case.x, z)


def _against_output(case: Case, z: Tensor, b: Tensor) -> Tensor:
    f, g = (_logits(case.model, points) for points in (case.x, z))
    return sensitivity.relative_output_quotient(case.a, b, f, g)


def _miss(case: Case, z: Tensor, b: Tensor) -> Tensor:
    column = case.y[:, None]
    f, g = (_logits(case.model, points).gather(1, column)[:, 0] for points in (case.x, z))
    return (((case.x - z) * case.a).flatten(1).sum(1) - (f - g)).square()


class _Pair(NamedTuple):
    """A score that samples, and what it takes the largest, or the mean, of."""

    sampled: Callable[..., Tensor]
    at: Callable[[Case, Tensor, Tensor], Tensor]


SCORES: Mapping[str, _Pair] = {
    "max sensitivity": _Pair(sensitivity.max_sensitivity, _change),
    "average sensitivity": _Pair(sensitivity.average_sensitivity, _change),
    "local Lipschitz": _Pair(sensitivity.local_lipschitz, _slope),
    "relative input stability": _Pair(sensitivity.relative_input_stability, _against_input),
    "relative output stability": _Pair(sensitivity.relative_output_stability, _against_output),
    "infidelity": _Pair(sensitivity.infidelity, _miss),
}


def sampling(
    path: str | Path,
    *,
    images: int = 30,
    eps: float = 8 / 255,
    nets: tuple[str, ...] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Score gradient maps at random images near each image, and at the points of the suite.

    On the first validation images of the full set that a network classifies correctly. The suite goes
    for the top 100 pixels and for the cosine; neither is the score itself, so that an attack on the score
    may find more. `share` is the median over images of the value as a share of the larger one at the two
    points of the suite, and `below` the share of images at which it is smaller. A larger sample holds the
    smaller ones.

    Args:
        path: Table to write, or to go on with.
        images: Number of images at most, >= 2.
        eps: Radius, and budget of the attack in each pixel, > 0.
        nets: Checkpoints; None is `SAMPLING_NETS`.
        device: Where to compute.
        progress: Print each row as it is done.

    Raises:
        ValueError: If a number is out of range.
        FileNotFoundError: If the full Fashion-MNIST set is not found.
    """
    _check.count(images=images, low=2)
    _check.positive(eps=eps)
    validation = data.fashion_mnist("val", full=True)

    def cell(net: str) -> _table.Cell:
        head = {"net": net, "map": "gradient", "eps": f"{eps:.5f}", "images": str(images)}

        def rows() -> Iterator[dict[str, str]]:
            model = checkpoints.load(net).model.to(device)
            right = training.only_correct(model, validation[: 2 * images], device=device)
            x, y = right.x[:images].to(device), right.y[:images].to(device)
            case = Case(model, x, y, attributions.gradient(model, x, y))
            for row in _rows(case, eps=eps):
                yield head | row

        return _table.Cell(head | {"suite": SUITE}, rows)

    _table.fill(path, map(cell, nets or SAMPLING_NETS), device=device, progress=progress)


def _rows(case: Case, *, eps: float) -> list[dict[str, str]]:
    """The scores at random points, and at those of the suite."""
    attacked = {}
    for goal in _GOALS:
        attack = standard(eps=eps, attribution=attributions.gradient, k=K, effort=EFFORT, goal=goal)
        z = attack(case.model, case.x, case.y, generator=seeded(0))
        attacked[goal] = z, attributions.gradient(case.model, z, case.y)
    rows = []
    for name, score in SCORES.items():
        draw = functools.partial(
            score.sampled, attributions.gradient, case.model, case.x, case.y, radius=eps
        )
        values = {f"{m} samples": draw(samples=m, generator=seeded(1)) for m in SAMPLES}
        found = {f"suite, {goal}": score.at(case, z, b) for goal, (z, b) in attacked.items()}
        best = torch.stack(list(found.values())).amax(0)
        for points, value in (values | found).items():
            suite = {"effort": EFFORT, "suite": SUITE}
            row = {"score": name, "points": points, **suite, **_summary(value, best)}
            rows.append(row)
    return rows


def _summary(value: Tensor, best: Tensor) -> dict[str, str]:
    """The mean with its interval, and how it stands to the value at the points of the suite."""
    low, high = metrics.interval(value, generator=seeded(0))
    known = ~(value / best).isnan()
    numbers = {
        "value": float(value.nanmean()),
        "value_low": low,
        "value_high": high,
        "share": float((value / best).nanmedian()),
        "below": float((value < best)[known].double().mean()),
    }
    return {name: f"{number:.4g}" for name, number in numbers.items()}  # from 1e-7 to 1e6
