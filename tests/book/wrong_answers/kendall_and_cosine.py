"""Wrong answers to the exercises of the chapter on Kendall's tau and the cosine."""

import math

import torch
from torch import Tensor

_ALL = {"l2", "cosine", "kendall", "top-k"}
_RIGHT = {
    "3 * b": {"cosine", "kendall", "top-k"},
    "b + 1": {"kendall", "top-k"},
    "b ** 3": {"kendall", "top-k"},
    "both shuffled": _ALL,
}


def _gaps(a: Tensor) -> Tensor:
    return torch.pdist((a / a.norm())[:, None])


def _erf(r: Tensor, angle: float) -> Tensor:
    return torch.erf(torch.pdist(r[:, None]) / (2 * math.tan(angle))).mean()


def _zeros(a: Tensor) -> Tensor:
    m, d = int((a == 0).sum()), len(a)
    return torch.tensor(1 - m * (m - 1) / (d * (d - 1))).sqrt()


def _tied(a: Tensor) -> Tensor:
    counts = a.unique(return_counts=True)[1].double()
    return (counts * (counts - 1)).sum() / (len(a) * (len(a) - 1))


WRONG = {
    "fooling-pair": [
        lambda n: (torch.arange(1.0, n + 1), torch.arange(1.0, n + 1).flip(0)),
        lambda n: (torch.arange(1.0, n + 1), torch.arange(1.0, n + 1)),
        lambda n: (torch.ones(n), torch.ones(n)),
        lambda n: (1000 + torch.arange(n) / n, -1000 - torch.arange(n) / n),
        lambda n: torch.ones(n),
    ],
    "unchanged": [
        dict.fromkeys(_RIGHT, _ALL),
        {**_RIGHT, "b + 1": {"cosine", "kendall", "top-k"}},
        {**_RIGHT, "3 * b": _ALL},
        {**_RIGHT, "both shuffled": {"kendall", "top-k"}},
        ["kendall", "top-k"],
    ],
    "erf-tau": [
        lambda a, angle: _erf(a, angle),
        lambda a, angle: _erf(a / a.norm(), angle),
        lambda a, angle: _erf(a / a.std(), angle),
        lambda a, angle: _erf(a / a.square().mean().sqrt(), math.atan(2 * math.tan(angle))),
    ],
    "ceiling-b": [
        _zeros,
        lambda a: 1 - _tied(a),
        lambda a: (1 + _tied(a)).sqrt(),
        lambda a: torch.tensor(1.0),
    ],
    "certain-share": [
        lambda a, angle: (_gaps(a) >= math.sin(angle)).double().mean(),
        lambda a, angle: (
            (torch.pdist(a[:, None]) >= math.sqrt(2) * math.sin(angle)).double().mean()
        ),
        lambda a, angle: (_gaps(a) >= math.sqrt(2) * math.tan(angle)).double().mean(),
        lambda a, angle: (_gaps(a) < math.sqrt(2) * math.sin(angle)).double().mean(),
    ],
}
