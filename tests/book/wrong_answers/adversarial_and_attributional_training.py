"""Wrong answers to the exercises of the chapter on adversarial training: at least three for each."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _halves(chosen: Tensor, live: Tensor) -> list[tuple[Tensor, Tensor]]:
    sides = (live, ~live)
    return [((chosen & s).sum((1, 2)).double(), s.sum((1, 2)).double()) for s in sides]


WRONG: dict[str, list[Callable[..., Any]]] = {
    "worst-loss": [
        lambda w, b, x, y, eps: functional.softplus(-y * (x @ w + b)),
        lambda w, b, x, y, eps: functional.softplus(-y * (x @ w + b) - eps * w.abs().sum()),
        lambda w, b, x, y, eps: functional.softplus(-y * (x @ w + b) + eps * w.norm()),
        lambda w, b, x, y, eps: functional.softplus(-y * (x @ w) + eps * w.abs().sum()),
        lambda w, b, x, y, eps: functional.softplus(-y * (x @ w + b - eps * w.abs().sum())),
    ],
    "flip-on-grey": [
        lambda weights, intercept, level: intercept.abs() / weights.abs().sum(1),
        lambda weights, intercept, level: (
            (intercept + level * weights.sum(1)) / weights.abs().sum(1)
        ),
        lambda weights, intercept, level: (
            (intercept + level * weights.sum(1)).abs() / weights.clamp(min=0).sum(1)
        ),
        lambda weights, intercept, level: (
            (intercept + level * weights.sum(1)).abs() / weights.abs().amax(1)
        ),
        lambda weights, intercept, level: (
            (intercept + level * weights.sum(1)).abs() / weights.norm(dim=1)
        ),
    ],
    "path-norm": [
        lambda slopes, x, z: ((z - x) * slopes).abs().mean(0).sum(1),
        lambda slopes, x, z: ((z - x) * slopes.mean(0)).sum(1),
        lambda slopes, x, z: slopes.mean(0).abs().sum(1),
        lambda slopes, x, z: ((z - x) * slopes.sum(0)).abs().sum(1),
    ],
    "silhouette-chance": [
        lambda chosen, live: chosen.double().mean((1, 2)),
        lambda chosen, live: (chosen & live).sum((1, 2)) / live.sum((1, 2)),
        lambda chosen, live: sum(m**2 / a for m, a in _halves(chosen, live)),
        lambda chosen, live: sum(m / a for m, a in _halves(chosen, live)) / chosen.sum((1, 2)),
        lambda chosen, live: (
            torch.stack([m**2 / a for m, a in _halves(chosen, live)])[0] / chosen.sum((1, 2))
        ),
    ],
}
