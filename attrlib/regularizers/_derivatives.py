"""What the terms share: gradients of the loss in the input that can be differentiated once more."""

import torch
from torch import nn
from torch.nn import functional

from attrlib import _check
from attrlib.types import Classifier, Inputs, Labels, PerSample

_COUPLED = (nn.modules.batchnorm._BatchNorm,)


def loss_gradient(model: Classifier, x: Inputs, y: Labels) -> tuple[Inputs, PerSample]:
    """Gradient of each sample's cross-entropy in its own input, and the cross-entropy itself.

    Both can be differentiated in the weights, and in `x` if it requires grad.
    """
    independent(model)
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(x)
        _check.logits(logits, y)
        loss = functional.cross_entropy(logits, y, reduction="none")
        (slope,) = torch.autograd.grad(loss.sum(), x, create_graph=True)
    return slope, loss


def independent(model: Classifier) -> None:
    """Check that no layer mixes the samples of a batch, which would mix their input gradients."""
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if isinstance(module, _COUPLED) and module.training:
            raise ValueError(
                "Expected model without batch normalisation in train mode (samples must not depend on "
                f"each other), got {type(module).__name__} {name!r}"
            )


def adversarial(z: Inputs | None, x: Inputs) -> Inputs:
    """Check that the loss came with an attack, whose result `z` is."""
    if z is None:
        raise ValueError("Expected z, the adversarial example (give Loss an attack), got None")
    if z.shape != x.shape:
        raise ValueError(f"Expected z of shape {tuple(x.shape)}, got {tuple(z.shape)}")
    return z
