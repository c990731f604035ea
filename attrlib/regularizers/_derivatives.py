"""What the terms share: gradients of the loss in the input that can be differentiated once more."""

import torch
from torch.nn import functional

from attrlib import _model
from attrlib.types import Classifier, Inputs, Labels, PerSample


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
