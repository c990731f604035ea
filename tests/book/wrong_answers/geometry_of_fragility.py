"""Wrong answers to the exercises of the chapter on geometry: at least three for each."""

import math

import torch
from torch import Tensor

from attrlib import attributions


def _every(weights: Tensor, intercepts: Tensor, points: Tensor) -> Tensor:
    return (points @ weights.T + intercepts).abs() / weights.norm(dim=1)


def _along(direction: Tensor, hessian: Tensor) -> Tensor:
    return torch.einsum("ni,nij,nj->n", direction, hessian, direction)


def _turned(gradient: Tensor) -> Tensor:
    return gradient.flip(1) * torch.tensor([-1.0, 1.0]) / gradient.norm(dim=1, keepdim=True)


WRONG = {
    "matched": [
        lambda sigma: (sigma, 1 / sigma),
        lambda sigma: (sigma * math.sqrt(3), 2 / (sigma * math.sqrt(3))),  # equal variance
        lambda sigma: (2 / (sigma * math.sqrt(math.pi / 2)), sigma * math.sqrt(math.pi / 2)),
        lambda sigma: sigma * math.sqrt(math.pi / 2),
    ],
    "seam-distance": [
        lambda w, b, p: (p @ w.T + b).abs().amin(1),  # not divided by the slope
        lambda w, b, p: ((p @ w.T + b) / w.norm(dim=1)).amin(1),  # signed
        lambda w, b, p: _every(w, b, p),
        lambda w, b, p: _every(w, 0 * b, p).amin(1),
    ],
    "curvature": [
        lambda g, h: _along(_turned(g), h).abs(),  # not divided by the gradient
        lambda g, h: _along(g / g.norm(dim=1, keepdim=True), h).abs() / g.norm(dim=1),
        lambda g, h: torch.linalg.matrix_norm(h, 2) / g.norm(dim=1),
        lambda g, h: _along(_turned(g), h) / g.norm(dim=1),  # signed
    ],
    "average-gradient": [
        lambda model, x, y, steps: attributions.gradient(model, x, y),
        lambda model, x, y, steps: attributions.integrated_gradients(model, x, y, steps=steps),
        lambda model, x, y, steps: (  # fails where a pixel is black
            attributions.integrated_gradients(model, x, y, steps=steps) / x
        ),
        lambda model, x, y, steps: (
            attributions.integrated_gradients(model, x, y, steps=steps) / x
        ).nan_to_num(),
        lambda model, x, y, steps: (
            sum(attributions.gradient(model, x * k / steps, y) for k in range(1, steps + 1)) / steps
        ),
        lambda model, x, y, steps: sum(
            attributions.gradient(model, x * (k + 0.5) / steps, y) for k in range(steps)
        ),
    ],
    "ball-constant": [
        lambda d: math.sqrt(2 * d / math.pi),  # only close for large dimension
        lambda d: math.exp(math.lgamma(d / 2 + 1) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi),
        lambda d: 2 * math.gamma(d / 2 + 1) / math.gamma((d + 1) / 2) / math.sqrt(math.pi),
        lambda d: math.sqrt(d),
    ],
    "largest-turn": [
        lambda length, change: math.degrees(math.atan(change / length)),  # not the tangent
        lambda length, change: math.degrees(math.asin(min(1.0, change / length))),  # 90 beyond it
        lambda length, change: math.asin(change / length) if change < length else math.pi,
        lambda length, change: 180.0,
    ],
}
