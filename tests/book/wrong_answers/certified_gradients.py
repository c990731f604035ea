"""Wrong answers to the exercises of the chapter on certified gradients: at least three for each."""

import math

import torch
from torch import Tensor

from attrlib import metrics

Ends = tuple[Tensor, Tensor]


def _turned(weight: float, bias: float, low: float, high: float) -> tuple[float, float]:
    """The slope at the high end first, which is the lower one for no weight."""
    return weight * (weight * high + bias > 0), weight * (weight * low + bias > 0)


def _middle(low: Tensor, high: Tensor, weight: Tensor, bias: Tensor) -> Ends:
    """The radius with the signed weights."""
    centre, radius = weight @ (low + high) / 2 + bias, weight @ (high - low) / 2
    return centre - radius, centre + radius


def _no_bias(low: Tensor, high: Tensor, weight: Tensor, bias: Tensor) -> Ends:
    centre, radius = weight @ (low + high) / 2, weight.abs() @ (high - low) / 2
    return centre - radius, centre + radius


def _bias_as_radius(low: Tensor, high: Tensor, weight: Tensor, bias: Tensor) -> Ends:
    centre, radius = weight @ (low + high) / 2, weight.abs() @ (high - low) / 2 + bias.abs()
    return centre - radius, centre + radius


def _matched(inside: Tensor, outside: Tensor, *, strict: bool = False) -> int:
    count = min(len(inside), len(outside))
    weakest, strongest = inside.sort().values[:count], outside.sort(descending=True).values[:count]
    lost = weakest < strongest if strict else weakest <= strongest
    return len(inside) - int(lost.sum())


def _intervals(w: Tensor, b: Tensor, v: Tensor, low: float, high: float) -> Ends:
    """What interval bounds give: each unit as if it were alone."""
    ends = torch.stack([w * low + b, w * high + b])
    least, most = (ends.amin(0) > 0).float(), (ends.amax(0) > 0).float()
    slopes = torch.stack([least * w * v, most * w * v])
    return slopes.amin(0).sum(), slopes.amax(0).sum()


def _at(w: Tensor, b: Tensor, v: Tensor, pixels: Tensor) -> Ends:
    slopes = ((pixels[:, None] * w + b > 0).float() * w * v).sum(1)
    return slopes.amin(), slopes.amax()


def _shares(least: Tensor, a: Tensor, y: Tensor, *, times: float, own: bool = False) -> Tensor:
    flat = torch.nn.functional.normalize(a.flatten(1), dim=1)
    angles = (flat @ flat.T).clamp(-1, 1).arccos()
    same = y[:, None] == y[None, :]
    if not own:
        same.fill_diagonal_(False)
    proved = angles > times * least.clamp(-1, 1).arccos()[:, None]
    return (proved & same).double().sum(1) / same.sum(1)


WRONG = {
    "slope-box": [
        _turned,
        lambda weight, bias, low, high: (min(0.0, weight), max(0.0, weight)),
        lambda weight, bias, low, high: (weight, weight),
        lambda weight, bias, low, high: max(0.0, weight),
    ],
    "through": [
        _middle,
        _no_bias,
        _bias_as_radius,
        lambda low, high, weight, bias: (weight @ low + bias, weight @ high + bias),
    ],
    "kept": [
        lambda inside, outside: int((inside > outside.max()).sum()),
        lambda inside, outside: _matched(inside, outside, strict=True),
        lambda inside, outside: (
            min(len(inside), len(outside)) - int((inside <= outside.max()).sum())
        ),
        lambda inside, outside: len(inside),
    ],
    "exact-slopes": [
        _intervals,
        lambda w, b, v, low, high: _at(w, b, v, torch.tensor([low, high])),
        lambda w, b, v, low, high: _at(w, b, v, torch.linspace(-5, 5, 20_001)),
        lambda w, b, v, low, high: _at(w, b, v, torch.tensor([(low + high) / 2])),
    ],
    "still-its-own": [
        lambda least, a, y: _shares(least, a, y, times=1),
        lambda least, a, y: _shares(least, a, y, times=2, own=True),
        lambda least, a, y: _shares(least, a, torch.zeros_like(y), times=2),
        lambda least, a, y: metrics.identification(a, a, y, score=metrics.cosine),
        lambda least, a, y: (least > math.cos(0.2)).double(),
    ],
}
