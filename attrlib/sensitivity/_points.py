"""Points near images and the maps at them: several points of each image go through together."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attrlib import _check, _model, _passes, _random
from attrlib.attacks import L2Ball, LinfBall
from attrlib.types import Attribution, Classifier, Norm

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of points z, the maps b at them, and the number i of the image that each is near: one value each."""

Points = Callable[[range], Tensor]
"""Those of a range, (k, n, …), asked for in order."""


def checked(model: Classifier, x: Tensor, y: Tensor, *, batch_size: int | None) -> Tensor:
    """The images without their graph, once what all scores need is found to be right."""
    _check.labelled(x, y)
    _check.pixels(x=x)
    _check.recording(x)
    _check.batch_size(batch_size)
    _model.settled(model)
    return x.detach()


def near(
    x: Tensor, *, radius: float, samples: int, norm: Norm, generator: torch.Generator | None
) -> Points:
    """Points uniform in the ball, clipped to [0, 1], drawn one after the other."""
    _check.positive(radius=radius)
    _check.count(samples=samples)
    _check.one_of(("linf", "l2"), norm=norm)
    ball = LinfBall(eps=radius) if norm == "linf" else L2Ball(eps=radius)
    return lambda part: torch.stack([ball.sample(x, generator) for _ in part])


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps at images and at points near them, with one noise for an image and all its points.

    Attributes:
        attribution: The maps.
        model: What is explained.
        x: Images (n, …).
        y: Classes to explain.
        points: Points near each image.
        count: How many.
        batch_size: Rows of one pass.
        seed: Of the noise of a stochastic attribution.
        clean: The maps at the images.
    """

    attribution: Attribution
    model: Classifier
    x: Tensor
    y: Tensor
    points: Points
    count: int
    batch_size: int | None
    seed: int
    clean: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Explain the images."""
        object.__setattr__(self, "clean", self._at(self.x, self._images()))

    def values(self, score: Score) -> Tensor:
        """Return a score (count, n) at the points of each image, in float64."""

        def at(z: Tensor, i: Tensor, *, look: bool) -> Tensor:
            return score(z, self._at(z, i), i).double()

        stacks = _passes.passes(
            at,
            self.points,
            self._images(),
            like=self.x,
            count=self.count,
            batch_size=self.batch_size,
        )
        return torch.cat(list(stacks))

    def _images(self) -> Tensor:
        return torch.arange(len(self.x), device=self.x.device)

    def _at(self, z: Tensor, i: Tensor) -> Tensor:
        noise = torch.Generator().manual_seed(self.seed)
        with _random.part(i, of=len(self.x)):
            return self.attribution(self.model, z, self.y[i], generator=noise).detach()


def sampled(
    attribution: Attribution,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    radius: float,
    samples: int,
    norm: Norm,
    batch_size: int | None,
    generator: torch.Generator | None,
) -> Maps:
    """The maps at random points within a radius, once all arguments are found to be right."""
    x = checked(model, x, y, batch_size=batch_size)
    points = near(x, radius=radius, samples=samples, norm=norm, generator=generator)
    seed = _random.seed(generator)
    return Maps(attribution, model, x, y, points, samples, batch_size, seed)
