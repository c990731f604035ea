"""Models whose attacks are known in closed form, and an attack with the usual settings."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from attrlib.attacks import AttributionAttack, LinfBall, TopK
from attrlib.attributions import gradient


class Bowl(nn.Module):
    """f(x) = ‖x‖² / 2 for one class: the map is the image, so every optimum can be written down."""

    def forward(self, x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1, keepdim=True) / 2


class Touchy(Bowl):
    """A bowl that predicts class 0 at the images it was given and class 1 elsewhere."""

    def __init__(self, known: Tensor) -> None:
        super().__init__()
        self.known = known

    def forward(self, x: Tensor) -> Tensor:
        rows = x.detach().flatten(1)
        seen = (rows[:, None] == self.known.flatten(1)).all(2).any(1)
        return torch.stack([super().forward(x)[:, 0], torch.where(seen, -1.0, 1e6).to(x)], 1)


class Spy:
    """The gradient attribution, with a record of where and on which model it was asked for."""

    def __init__(self) -> None:
        self.scored: list[Tensor] = []
        self.climbed: list[Tensor] = []
        self.models: list[object] = []
        self.noise: list[Tensor] = []

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        (self.climbed if x.requires_grad else self.scored).append(x.detach().clone())
        if x.requires_grad:
            self.models.append(model)
        self.noise.append(torch.rand(1, generator=generator))
        return gradient(model, x, y)


@dataclass
class Fixed:
    """An attack that knows its points, with a record of the batches it was given."""

    points: Tensor
    attribution: Any = None
    sizes: list[int] = field(default_factory=list)

    def __call__(
        self,
        model: Any,
        x: Tensor,
        y: Tensor,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        self.sizes.append(len(x))
        return self.points.clone()

    def rows(self, index: Tensor) -> "Fixed":
        return replace(self, points=self.points[index])


def attack(**changes: Any) -> AttributionAttack:
    usual: dict[str, Any] = {
        "attribution": gradient,
        "objective": TopK(k=5),
        "ball": LinfBall(eps=0.1),
        "steps": 10,
        "step_size": 0.02,
    }
    return AttributionAttack(**usual | changes)


def zeros(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.int64)
