"""Wrong answers to the exercises of the chapter on IGR: at least three for each."""

from typing import Any

import torch
from torch import Tensor, nn

from attrlib.attributions import gradient, integrated_gradients


def _turn(model: nn.Module, x: Tensor, z: Tensor, y: Tensor, steps: int, kind: str = "") -> Tensor:
    here, there = (p.clone().requires_grad_(kind != "constant") for p in (x, z))
    if kind == "gradient":
        a, b = gradient(model, here, y), gradient(model, there, y)
    else:
        a, b = (integrated_gradients(model, p, y, steps=steps) for p in (here, there))
    if kind == "heatmaps":
        a, b = a.abs(), b.abs()
    if kind == "one side":
        a = a.detach()
    cosine = torch.cosine_similarity(a.flatten(1), b.flatten(1))
    return cosine if kind == "cosine" else 1 - cosine


def _wrong_turn(kind: str) -> Any:
    return lambda model, x, z, y, steps: _turn(model, x, z, y, steps, kind)


def _beaten(accuracy: Tensor, kept: Tensor) -> Tensor:
    better = (accuracy[:, None] <= accuracy) & (kept[:, None] <= kept)
    return better.sum(1) > 1


WRONG = {
    "worst-cosine": [
        lambda length, distance: (
            (1 - (distance / length) ** 2) ** 0.5 if distance < length else 0.0
        ),
        lambda length, distance: max(-1.0, 1 - distance / length),
        lambda length, distance: distance / length,
        lambda length, distance: length / (length**2 + distance**2) ** 0.5,
    ],
    "unit-distance": [
        lambda a, b: (a - b).square().sum(1) / 2,
        lambda a, b: (a / a.norm() - b / b.norm()).square().sum(1) / 2,
        lambda a, b: (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).norm(
            dim=1
        ),
        lambda a, b: torch.cosine_similarity(a, b),
    ],
    "state-cosine": [
        lambda u, v: ((u > 0) == (v > 0)).double().mean(1).float(),
        lambda u, v: ((u > 0) & (v > 0)).sum(1) / (u > 0).sum(1),
        lambda u, v: torch.cosine_similarity(u, v),
        lambda u, v: ((u > 0) & (v > 0)).sum(1) / ((u > 0) | (v > 0)).sum(1),
    ],
    "map-turn": [
        *map(_wrong_turn, ("constant", "gradient", "heatmaps", "one side", "cosine")),
    ],
    "best-tradeoffs": [
        lambda accuracy, kept: accuracy == accuracy.max(),
        lambda accuracy, kept: accuracy + kept >= (accuracy + kept).median(),
        lambda accuracy, kept: _beaten(accuracy, kept),
        lambda accuracy, kept: ~_beaten(accuracy, kept),
        lambda accuracy, kept: (accuracy == accuracy.max()) | (kept == kept.max()),
    ],
}
