"""Wrong answers to the exercises of the chapter on attacks: at least three for each."""

import torch
from torch import Tensor, nn

from attrlib import attacks, attributions
from attrlib.metrics import topk_mask


def _step(model: nn.Module, x: Tensor, y: Tensor, eps: float, k: int, sign: float) -> Tensor:
    clean = attributions.gradient(model, x, y)
    z = x.clone().requires_grad_()
    change = attacks.TopK(k=k)(clean, attributions.gradient(model, z, y))
    (slope,) = torch.autograd.grad(change.sum(), z)
    return (x + sign * eps * slope.sign()).detach()


def _projected(model: nn.Module, x: Tensor, y: Tensor, eps: float, k: int, sign: float) -> Tensor:
    return attacks.LinfBall(eps=eps).project(_step(model, x, y, eps, k, sign), x)


def _ranks(a: Tensor, b: Tensor, k: int, temperature: float, kind: str = "") -> Tensor:
    heat = b.flatten(1) if kind == "no log" else b.flatten(1).log()
    chosen = topk_mask(b if kind == "set of b" else a, k=k).flatten(1)
    threshold = heat.topk(k, dim=1).values[:, -1:]
    if kind != "moving threshold":
        threshold = threshold.detach()
    soft = torch.sigmoid((heat - threshold) / temperature)
    return torch.where(chosen, -soft, soft).sum(1) * (-1 if kind == "sign" else 1)


def _pull(u: Tensor, rise: Tensor, reach: float, wrong: Tensor) -> Tensor:
    return rise / reach * (-u.abs() / torch.where(wrong, reach, 0.1 * reach)).exp()


WRONG = {
    "project": [
        lambda z, x, eps: z.clamp(0, 1),
        lambda z, x, eps: torch.minimum(torch.maximum(z, x - eps), x + eps),
        lambda z, x, eps: (x + eps * (z - x).sign()).clamp(0, 1),
        lambda z, x, eps: z,
    ],
    "one-sided": [
        lambda u, rise, reach: rise / reach * (-u.abs() / reach).exp(),
        lambda u, rise, reach: _pull(u, rise, reach, wrong=u < 0),
        lambda u, rise, reach: _pull(u, rise, reach, wrong=(rise > 0) == (u > 0)),
        lambda u, rise, reach: _pull(u, rise, reach, wrong=(rise > 0) == (u < 0)).abs(),
        lambda u, rise, reach: reach * _pull(u, rise, reach, wrong=(rise > 0) == (u < 0)),
    ],
    "best-step": [
        lambda scores, kept: scores.argmin(0),
        lambda scores, kept: torch.full((3,), len(scores) - 1),
        lambda scores, kept: scores.masked_fill(~kept, torch.inf).argmin(0),
        lambda scores, kept: scores.masked_fill(~kept, torch.inf).argmin(1),
    ],
    "one-step": [
        lambda model, x, y, eps, k: x,
        lambda model, x, y, eps, k: _projected(model, x, y, eps, k, sign=-1.0),
        lambda model, x, y, eps, k: _step(model, x, y, eps, k, sign=1.0),
        lambda model, x, y, eps, k: _projected(model, x, y, eps, k, sign=1.0).requires_grad_(),
    ],
    "rank-objective": [
        lambda a, b, k, temperature: _ranks(a, b, k, temperature, kind="no log"),
        lambda a, b, k, temperature: _ranks(a, b, k, temperature, kind="set of b"),
        lambda a, b, k, temperature: _ranks(a, b, k, temperature, kind="sign"),
        lambda a, b, k, temperature: _ranks(a, b, k, temperature, kind="moving threshold"),
    ],
}
