"""Points that scores of change look at, and maps and models whose change is known."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attrlib import sensitivity
from attrlib.attacks import L2Ball, LinfBall
from attrlib.types import Attribution, Norm
from tests import oracles

RADIUS, SAMPLES = 0.04, 7
SCORES: dict[str, Callable[..., Tensor]] = {
    "max_sensitivity": sensitivity.max_sensitivity,
    "average_sensitivity": sensitivity.average_sensitivity,
    "local_lipschitz": sensitivity.local_lipschitz,
    "relative_input_stability": sensitivity.relative_input_stability,
    "relative_output_stability": sensitivity.relative_output_stability,
}


class Squares(nn.Module):
    """f_c(x) = (c + 1)·|x|² / 2: its gradient is (c + 1)·x, with the Lipschitz constant c + 1."""

    def forward(self, x: Tensor) -> Tensor:
        energy = x.flatten(1).square().sum(1, keepdim=True) / 2
        return energy * torch.arange(1, oracles.CLASSES + 1).to(x)


def neighbours(x: Tensor, *, seed: int, norm: Norm = "linf", own: bool = True) -> Tensor:
    """The points (samples, n, …) that scores with this seed look at."""
    source = oracles.seeded(seed)
    if own:
        torch.randint(2**62, (), generator=source)  # the seed of the attribution's own noise
    ball = LinfBall(eps=RADIUS) if norm == "linf" else L2Ball(eps=RADIUS)
    return torch.stack([ball.sample(x, source) for _ in range(SAMPLES)])


def constant(value: float) -> Attribution:
    """A map that is the same for every image."""

    def attribution(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.full_like(x, value)

    return attribution
