"""Wrong answers to the exercises of the chapter on local gradient alignment: at least three each."""

import torch
from torch import Tensor, nn

from attrlib import attributions
from attrlib.metrics import cosine as cosine_of


def _lengths(a: Tensor, b: Tensor) -> Tensor:
    return (a.flatten(1).norm(dim=1) - b.flatten(1).norm(dim=1)).square()


def _squared(a: Tensor, b: Tensor) -> Tensor:
    return (a - b).flatten(1).square().sum(1)


def _across(a: Tensor, bend: Tensor) -> Tensor:
    return bend - (bend * a).sum(1, keepdim=True) / a.square().sum(1, keepdim=True) * a


def _loss(
    model: nn.Module, x: Tensor, y: Tensor, z: Tensor, l2: float, cosine: float, kind: str = ""
) -> Tensor:
    here = x.clone().requires_grad_(kind != "constant")
    there = z.clone().requires_grad_(kind != "constant")
    a = attributions.gradient(model, here, y)
    b = attributions.gradient(model, there, y)
    if kind == "detached":
        a = a.detach()
    turn = 1 - cosine_of(a, b)
    turn = turn if kind == "no half" else turn / 2
    distance = (a - b).flatten(1).square()
    distance = distance.mean(1) if kind == "mean" else distance.sum(1)
    at = z if kind == "noisy" else x
    return nn.functional.cross_entropy(model(at), y) + (l2 * distance + cosine * turn).mean()


def _centred(model: nn.Module, x: Tensor, y: Tensor, kind: str = "") -> Tensor:
    def spread(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixels)
        middle = logits.amax(1, keepdim=True) if kind == "largest" else logits.mean(1, keepdim=True)
        return logits + middle if kind == "sign" else logits - middle

    return attributions.gradient(spread, x, y)


WRONG = {
    "two-parts": [
        lambda a, b: (_squared(a, b), _lengths(a, b)),
        lambda a, b: (_lengths(a, b), _squared(a, b)),
        lambda a, b: (_lengths(a, b).sqrt(), _squared(a, b) - _lengths(a, b)),
        lambda a, b: _lengths(a, b) + _squared(a, b),
        lambda a, b: (_lengths(a, b), (1 - cosine_of(a, b)) / 2),
    ],
    "leading-turn": [
        lambda a, bend: bend.square().sum(1) / (4 * a.square().sum(1)),
        lambda a, bend: _across(a, bend).square().sum(1) / a.square().sum(1),
        lambda a, bend: _across(a, bend).square().sum(1) / 4,
        lambda a, bend: (bend - _across(a, bend)).square().sum(1) / (4 * a.square().sum(1)),
    ],
    "align-loss": [
        lambda model, x, y, z, l2, cosine: _loss(model, x, y, z, l2, cosine, "no half"),
        lambda model, x, y, z, l2, cosine: _loss(model, x, y, z, l2, cosine, "mean"),
        lambda model, x, y, z, l2, cosine: _loss(model, x, y, z, l2, cosine, "noisy"),
        lambda model, x, y, z, l2, cosine: _loss(model, x, y, z, l2, cosine, "detached"),
        lambda model, x, y, z, l2, cosine: _loss(model, x, y, z, l2, cosine, "constant"),
        lambda model, x, y, z, l2, cosine: _loss(model, x, y, z, cosine, l2),
    ],
    "centred": [
        lambda model, x, y: attributions.gradient(model, x, y),
        lambda model, x, y: _centred(model, x, y, "largest"),
        lambda model, x, y: _centred(model, x, y, "sign"),
        lambda model, x, y: _centred(model, x.clone().requires_grad_(), y),
        lambda model, x, y: torch.zeros_like(x),
    ],
}
