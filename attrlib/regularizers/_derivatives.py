"""What the terms share: gradients of the loss that can be differentiated once more, and their sizes."""

import torch
from torch import Tensor
from torch.nn import functional

from attrlib import _model
from attrlib.types import Classifier, Inputs, Labels, PerSample

_SHORT = 1e-12  # a map without a larger entry has no direction


def loss_gradient(model: Classifier, x: Inputs, y: Labels) -> tuple[Inputs, PerSample]:
    """Gradient of each sample's cross-entropy in its own input, and the cross-entropy itself.

    Both can be differentiated in the weights, and in `x` if it requires grad.
    """
    _model.independent(model)
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = _model.logits(model, x, y, classes=2, twice=True)
        loss = functional.cross_entropy(logits, y, reduction="none")
        slope = _model.slope(loss.sum(), x, create_graph=True)
    return slope, loss


def adversarial(z: Inputs | None, x: Inputs) -> Inputs:
    """Check that the loss came with an attack, whose result `z` is."""
    if z is None:
        raise ValueError("Expected z, the adversarial example (give Loss an attack), got None")
    if z.shape != x.shape:
        raise ValueError(f"Expected z of shape {tuple(x.shape)}, got {tuple(z.shape)}")
    return z


def squares(a: Inputs) -> PerSample:
    """Sum of squares of each sample, added up in single precision at least."""
    return _rows(a).square().sum(1).to(a.dtype)


def cosine_distance(a: Inputs, b: Inputs) -> PerSample:
    """One minus the cosine of two maps, in single precision at least.

    Where a map has no direction it is 0 and has no derivative.
    """
    u, short = _unit(_rows(a))
    v, shorter = _unit(_rows(b))
    distance = (u - v).square().sum(1) / 2  # as 1 - u·v, which cancels where the maps agree
    return torch.where(short | shorter, 0, distance).to(a.dtype)


def unit(a: Inputs) -> Inputs:
    """Maps of length 1; 0 where a map has no direction."""
    return _unit(_rows(a))[0].view_as(a).to(a.dtype)


def _rows(a: Inputs) -> Tensor:
    return a.flatten(1).to(torch.promote_types(a.dtype, torch.float32))


def _unit(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length 1, and which of them had no direction and are 0."""
    peak = rows.detach().abs().amax(1, keepdim=True)
    short = peak < _SHORT
    # Divided by the largest entry first, so that no square is lost or overflows.
    rows = torch.where(short, 0, rows / torch.where(short, 1, peak))
    square = rows.square().sum(1, keepdim=True)
    return rows / torch.where(short, 1, square).sqrt(), short.squeeze(1)
