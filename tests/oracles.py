"""Small models whose attributions are known in closed form, inputs for them, and a disk that is full."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from attrlib.models import SmallCNN

CLASSES = 3


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int = 4, *, channels: int = 1, size: int = 8, seed: int = 1) -> Tensor:
    """Pixels, none of them exactly 0 or 1."""
    return 0.05 + 0.9 * torch.rand(n, channels, size, size, generator=seeded(seed))


def labels(n: int = 4, *, classes: int = CLASSES, seed: int = 2) -> Tensor:
    return torch.randint(classes, (n,), generator=seeded(seed))


def softplus_net(*, channels: int = 1, beta: float = 2.0, seed: int = 0) -> SmallCNN:
    return SmallCNN(
        size=8,
        channels=channels,
        classes=CLASSES,
        activation=partial(nn.Softplus, beta=beta),
        generator=seeded(seed),
    )


def linear_net(shape: Sequence[int] = (1, 8, 8)) -> nn.Sequential:
    """f(x) = W x + c, on images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), CLASSES))


class Quadratic(nn.Module):
    """f_c(x) = x·H_c x / 2 + w_c·x, with symmetric H_c; its gradient is H_c x + w_c."""

    def __init__(self, dim: int = 5) -> None:
        super().__init__()
        h = torch.randn(CLASSES, dim, dim, generator=seeded(3))
        self.h = nn.Parameter(h + h.transpose(1, 2))
        self.w = nn.Parameter(torch.randn(CLASSES, dim, generator=seeded(4)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("ni,cij,nj->nc", x, self.h, x) / 2 + x @ self.w.T

    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.einsum("nij,nj->ni", self.h[y], x) + self.w[y]


class Quartic(nn.Module):
    """f(x) = sum of x_i⁴, for one class; every kind of smoothing of its gradient is known."""

    def forward(self, x: Tensor) -> Tensor:
        return (x**4).flatten(1).sum(1, keepdim=True)


def full_disk(
    write: Callable[[Path, bytes], int], *, after: int = 0
) -> Callable[[Path, bytes], int]:
    """`Path.write_bytes` on a disk that takes so many files and then half of the next one."""
    taken = []

    def limited(path: Path, content: bytes) -> int:
        if len(content) == 0:
            return write(path, content)
        taken.append(path)
        if len(taken) <= after:
            return write(path, content)
        write(path, bytes(content)[: len(content) // 2])
        raise OSError(28, "No space left on device")

    return limited
