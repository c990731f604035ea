"""What the tests of terms share: models with known derivatives, and derivatives by differences."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from attrlib.models import SmallCNN
from tests import oracles

STEP = 1e-6


class Sigmoid(nn.Module):
    """Two classes with the logits w·x + c and 0: the loss depends on one margin."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1) @ self.weight + 0.3
        return torch.stack([margin, torch.zeros_like(margin)], 1)


class Recorder(nn.Module):
    """A model with a record of the points at which it was asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.points: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.points.append(x.detach().clone())
        return self.model(x)


def net(activation: Callable[[], nn.Module] | None = None) -> SmallCNN:
    """A small network whose probabilities vary from image to image, as after training; smooth or not."""
    model = SmallCNN(
        size=8,
        classes=oracles.CLASSES,
        activation=activation or partial(nn.Softplus, beta=5.0),
        generator=oracles.seeded(0),
    )
    with torch.no_grad():
        for layer in model.layers:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight.mul_(3)
    return model


def batch_norm_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, oracles.CLASSES)
    )


def slopes(values: Callable[[], Tensor], model: nn.Module) -> tuple[Tensor, Tensor]:
    """Derivative of the sum along one random direction of all weights: by autograd, by differences."""
    weights = list(model.parameters())
    noise = oracles.seeded(9)
    ways = [torch.randn(w.shape, generator=noise, dtype=w.dtype) for w in weights]
    grads = torch.autograd.grad(values().sum(), weights, materialize_grads=True)
    analytic = torch.stack([(g * way).sum() for g, way in zip(grads, ways, strict=True)]).sum()
    shifted = []
    for sign in (1, -1):
        with torch.no_grad():
            for w, way in zip(weights, ways, strict=True):
                w.add_(sign * STEP * way)
        shifted.append(values().detach().sum())
        with torch.no_grad():
            for w, way in zip(weights, ways, strict=True):
                w.sub_(sign * STEP * way)
    return analytic, (shifted[0] - shifted[1]) / (2 * STEP)
