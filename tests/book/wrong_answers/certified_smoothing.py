"""Wrong answers to the exercises of the chapter on certified smoothing: at least three for each."""

import math

import torch
from torch import Tensor


def _angles(maps: Tensor) -> Tensor:
    unit = maps / maps.norm(dim=1, keepdim=True)
    return (unit @ unit.T).clamp(-1, 1).acos().fill_diagonal_(torch.inf)


def _lost(lower: Tensor, upper: Tensor, top: Tensor) -> int:
    return int((upper[~top].max() >= lower[top]).sum())


WRONG = {
    "lost-share": [
        lambda noise, shift, radius: ((noise - shift).norm(dim=1) < radius).double().mean(),
        lambda noise, shift, radius: ((noise + shift).norm(dim=1) > radius).double().mean(),
        lambda noise, shift, radius: ((noise - shift).abs().amax(1) > radius).double().mean(),
        lambda noise, shift, radius: ((noise - shift).norm(dim=1) > radius).double().sum(),
    ],
    "least-cosine": [
        lambda length, lost, bound: 1 / (1 + (2 * bound * lost / length) ** 2) ** 0.5,
        lambda length, lost, bound: max(1 - (2 * bound * lost / length) ** 2, 0) ** 0.5,
        lambda length, lost, bound: (
            -1.0 if bound * lost >= length else (1 - (bound * lost / length) ** 2) ** 0.5
        ),
        lambda length, lost, bound: (
            -1.0 if 2 * lost >= length else (1 - (2 * lost / length) ** 2) ** 0.5
        ),
    ],
    "draws-needed": [
        lambda width, alpha: int(math.log(1 / alpha) / (2 * width**2)),
        lambda width, alpha: math.ceil(math.log(2 / alpha) / (2 * width**2)),
        lambda width, alpha: math.ceil(math.log(1 / alpha) / (2 * width)),
        lambda width, alpha: math.log(1 / alpha) / (2 * width**2),
    ],
    "surely-kept": [
        lambda lower, upper, top: int(top.sum()) - _lost(lower, upper, top),
        lambda lower, upper, top: int((lower[top] > upper[~top].max()).sum()) + 1,
        lambda lower, upper, top: int(
            (
                lower[top].sort(descending=True).values
                > upper[~top].sort(descending=True).values[: int(top.sum())]
            ).sum()
        ),
        lambda lower, upper, top: int(top.sum()),
    ],
    "surely-own": [
        lambda lower, maps: _angles(maps).min(1).values > lower.acos(),
        lambda lower, maps: _angles(maps).min(1).values > 2 * lower,
        lambda lower, maps: _angles(maps).max(1).values > 2 * lower.acos(),
        lambda lower, maps: lower > 0,
    ],
}
