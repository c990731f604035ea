"""Networks whose bounds are tested, points of their boxes, and exact gradients by enumeration."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from itertools import pairwise, product

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor, nn
from torch.nn import functional

from attrlib.models import Normalize, SmallCNN
from tests import oracles

CLASSES = oracles.CLASSES


class Residual(nn.Module):
    """A network with two sums, batch normalisation, groups and dilation, and a mean over all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.second = nn.Conv2d(4, 8, 3, stride=2, padding=1, bias=False)
        self.short = nn.Conv2d(4, 8, 1, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.norm(self.stem(x)))
        h = h + functional.relu(self.first(h))
        out = self.second(h)
        out += self.short(h)
        return self.head(self.pool(self.relu(out)).flatten(1))


class Functional(nn.Module):
    """A class of a user's own: no layers of PyTorch but for its weights, and shapes asked for."""

    def __init__(self) -> None:
        super().__init__()
        noise = oracles.seeded(11)
        self.kernel = nn.Parameter(torch.randn(3, 1, 3, 3, generator=noise) / 3)
        self.matrix = nn.Parameter(torch.randn(3 * 16, CLASSES, generator=noise) / 4)

    def forward(self, x: Tensor) -> Tensor:
        n, channels, *_ = x.shape
        assert (channels, x.ndim, x.dtype) == (1, 4, self.kernel.dtype)
        h = 1 - 2 * (x - 0.5) / 0.25
        h = torch.relu(functional.conv2d(h, self.kernel, padding="same"))
        h = functional.avg_pool2d(h, 2) + 0.1
        h = (h + h + h.clone()) / 3
        h = functional.softplus(-h.reshape(n, -1), beta=3.0)
        return h @ self.matrix + torch.ones(CLASSES, dtype=x.dtype)


def _drawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random weights and statistics, in eval mode."""
    noise = oracles.seeded(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=noise) / max(1, p[:1].numel()) ** 0.5)
        for name, buffer in model.named_buffers():
            if "running" in name:
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=noise))
    return model.eval()


def small(activation: Callable[[], nn.Module] = nn.ReLU) -> SmallCNN:
    model = SmallCNN(size=8, classes=CLASSES, activation=activation, generator=oracles.seeded(0))
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(2)
    return model


def sequential() -> nn.Sequential:
    layers = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(16, 8),
        nn.Softplus(beta=5),
        nn.Linear(8, CLASSES),
    )
    return nn.Sequential(Normalize([0.3], [0.2]), _drawn(layers)).eval()


NETS: dict[str, Callable[[], nn.Module]] = {
    "SmallCNN": small,
    "SmallCNN, softplus": partial(small, partial(nn.Softplus, beta=10)),
    "Sequential": sequential,
    "Residual": lambda: _drawn(Residual()),
    "Functional": lambda: Functional().eval(),
}


def inside(lower: Tensor, value: Tensor, upper: Tensor) -> bool:
    return bool(((lower <= value) & (value <= upper)).all())


def points(x: Tensor, eps: float, count: int, *, seed: int = 0) -> Tensor:
    """Points of the boxes (count, n, …): half of them corners, the rest from inside."""
    noise = oracles.seeded(seed)
    shift = 2 * torch.rand(count, *x.shape, generator=noise, dtype=x.dtype) - 1
    shift[::2] = shift[::2].sign()
    z = (x + eps * shift).clamp(0, 1)
    return torch.where((z - x).abs() <= eps, z, x)


def mlp(*widths: int, seed: int = 0, kind: torch.dtype = torch.float64) -> nn.Sequential:
    """Linear layers with ReLU between them, with weights of size about 1."""
    layers: list[nn.Module] = [nn.Flatten()]
    for inside, outside in pairwise(widths):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    model = nn.Sequential(*layers[:-1])
    noise = oracles.seeded(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=noise))
    return model.to(kind)


def exact_gradients(model: nn.Sequential, y: int, low: Fraction, high: Fraction) -> set[Fraction]:
    """All gradients that a network of one pixel has from low to high, in rational numbers.

    The line is cut wherever a neuron switches; the gradient is taken between the cuts and at them, where
    the slope of ReLU is 0.
    """
    layers = [m for m in model if isinstance(m, nn.Linear)]
    weights = [_fractions(m.weight) for m in layers]
    biases = [_fractions(m.bias) for m in layers]
    cuts = {low, high}
    for depth in range(len(layers) - 1):
        ordered = sorted(cuts)
        for left, right in pairwise(ordered):
            middle = (left + right) / 2
            values, slopes = _at(weights[: depth + 1], biases[: depth + 1], middle)
            for value, slope in zip(values, slopes, strict=True):
                root = middle - value / slope if slope else left
                if left < root < right:
                    cuts.add(root)
    ordered = sorted(cuts)
    places = [*ordered, *((a + b) / 2 for a, b in pairwise(ordered))]
    return {_at(weights, biases, place)[1][y] for place in places}


def _fractions(values: Tensor) -> list:
    if values.ndim == 1:
        return [Fraction(v) for v in values.tolist()]
    return [_fractions(row) for row in values]


def _at(weights: list, biases: list, x: Fraction) -> tuple[list[Fraction], list[Fraction]]:
    """What enters the last layer's activation, and its derivative in the pixel."""
    values, slopes = [x], [Fraction(1)]
    for number, (w, b) in enumerate(zip(weights, biases, strict=True)):
        if number:
            slopes = [s if v > 0 else Fraction(0) for v, s in zip(values, slopes, strict=True)]
            values = [max(v, Fraction(0)) for v in values]
        values = [sum(map(Fraction.__mul__, row, values)) + c for row, c in zip(w, b, strict=True)]
        slopes = [sum(map(Fraction.__mul__, row, slopes)) for row in w]
    return values, slopes


def region_gradients(model: nn.Sequential, y: int, low: Tensor, high: Tensor) -> Tensor:
    """The gradient in each linear region of a network with one hidden layer that meets the box."""
    _, first, _, last = model
    w, b = first.weight.detach().numpy(), first.bias.detach().numpy()
    limits = [*zip(low.tolist(), high.tolist(), strict=True), (0, None)]
    found = []
    for pattern in product((-1, 1), repeat=len(b)):
        signs = np.array(pattern)[:, None]
        # The pattern's neurons are on their sides by a margin, which is made as large as it can be.
        rows = np.hstack([-signs * w, np.ones_like(signs)])
        solved = linprog([*[0] * w.shape[1], -1], A_ub=rows, b_ub=signs[:, 0] * b, bounds=limits)
        if solved.status == 0 and solved.x[-1] > 1e-9:
            on = torch.tensor([sign > 0 for sign in pattern]).to(first.weight)
            found.append((last.weight[y] * on) @ first.weight)
    return torch.stack(found).detach()
