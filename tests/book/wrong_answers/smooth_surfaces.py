"""Wrong answers to the exercises of the chapter on smooth surfaces: at least three for each."""

import torch
from torch import Tensor, nn

from attrlib import attributions


def _small(logits: Tensor, rows: Tensor, *, center: bool = True, root: bool = True) -> Tensor:
    p = logits.softmax(1)
    weight = p.sqrt() if root else p
    mean = p[:, None] @ rows if center else rows.mean(1, keepdim=True)
    b = weight[..., None] * (rows - mean)
    return b @ b.transpose(1, 2)


def _largest(p: Tensor, w: Tensor, root: Tensor) -> Tensor:
    b = root[:, None] * (w - p @ w)
    return torch.linalg.eigvalsh(b @ b.T)[-1]


def _slope(model: nn.Module, x: Tensor, c: Tensor) -> Tensor:
    slope = attributions.gradient(lambda z: model(z).log_softmax(1), x, c)
    return slope.flatten(1).square().sum(1)


def _lower(model: nn.Module, x: Tensor, *, power: float = 1.0, root: bool = False) -> Tensor:
    p, c = model(x).detach().softmax(1).max(1)
    slope = _slope(model, x, c)
    return (p / (1 - p)) ** power * (slope.sqrt() if root else slope)


def _logit(model: nn.Module, x: Tensor) -> Tensor:
    p, c = model(x).detach().softmax(1).max(1)
    return p / (1 - p) * attributions.gradient(model, x, c).flatten(1).square().sum(1)


def _first(model: nn.Module, x: Tensor) -> Tensor:
    p = model(x).detach().softmax(1)[:, 0]
    return p / (1 - p) * _slope(model, x, torch.zeros(len(x), dtype=torch.int64))


def _median(logits: Tensor, goal: float) -> float:
    low, high = 1e-3, 1e3
    for _ in range(60):
        k = (low * high) ** 0.5
        above = (k * logits).softmax(1).amax(1).median() > goal
        low, high = (low, k) if above else (k, high)
    return low


WRONG = {
    "two-class-bend": [
        lambda p, w1, w2: p * (1 - p) * (w1 - w2).norm(dim=1),
        lambda p, w1, w2: (w1 - w2).square().sum(1),
        lambda p, w1, w2: p * (1 - p) * (w1.square() - w2.square()).sum(1),
        lambda p, w1, w2: p * (1 - p) * (w1 - w2).square().sum(),
    ],
    "small-matrix": [
        lambda logits, rows: _small(logits, rows, center=False),
        lambda logits, rows: _small(logits, rows, root=False),
        lambda logits, rows: rows @ rows.transpose(1, 2),
        lambda logits, rows: torch.linalg.eigvalsh(_small(logits, rows))[:, -1],
    ],
    "analytic": [
        lambda z, w: _largest(z.softmax(0), w, z.softmax(0).sqrt()),  # no derivative at 0
        lambda z, w: _largest(z.softmax(0), w, z.softmax(0)),
        lambda z, w: _largest(torch.full_like(z, 1 / len(z)), w, (z.log_softmax(0) / 2).exp()),
        lambda z, w: _largest(z.softmax(0), w, (z.log_softmax(0) / 2).exp()).item(),
    ],
    "lower-bound": [
        lambda model, x: _lower(model, x, power=0.0),
        lambda model, x: _lower(model, x, power=-1.0),
        lambda model, x: _lower(model, x, root=True),
        _logit,
        _first,
    ],
    "scale-to": [
        lambda logits, goal: 1.0,
        lambda logits, goal: goal / float(logits.softmax(1).amax(1).mean()),
        _median,
        lambda logits, goal: None,
    ],
}
