"""The attack on the density that a classifier implies."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attrlib import _check, _model, energy
from attrlib.attacks.ascent import Best, check_climb, climb, uphill
from attrlib.attacks.balls import Ball
from attrlib.types import Classifier, Inputs, Labels


@dataclass(frozen=True, kw_only=True)
class DensityAttack:
    r"""Move a log-density of the input as far as it goes, up or down.

    $$z \approx \arg\max_{z' \in B(x)} \big|s(z') - s(x)\big|$$

    One ascent and one descent from the image; of all their points the one that moved farthest. Report
    `energy.density_shift`, which divides by the spread over the images. Two forward and one backward pass
    for each step, twice.

    Attributes:
        ball: `LinfBall` or `L2Ball`.
        steps: Number of steps in each direction, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        density: What is moved: `energy.marginal`, `joint`, `conditional` or `centered`.

    Source: ours; Yang et al. 2024 attack the density, and how was not at hand.
    """

    ball: Ball
    steps: int
    step_size: float
    density: energy.Density = energy.marginal

    def __post_init__(self) -> None:
        """Check the settings."""
        check_climb(steps=self.steps, step_size=self.step_size)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return the points whose density is farthest from that of `x`.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, …), pixels in [0, 1].
            y: Classes, int64 (n,); used by `joint` and `conditional` only.
            generator: Ignored; all attacks share one call.

        Returns:
            Images exactly within the ball; detached. `x` itself where the density has no slope.

        Raises:
            TypeError: If `x` is not floating-point or `y` not int64.
            ValueError: If shapes disagree, a label is not a class of the model, `x` is not in [0, 1], or
                a gradient is not finite.
        """
        _check.labelled(x, y)
        _check.pixels(self.ball, x=x)
        _check.recording(x)
        _model.settled(model)
        x = x.detach()
        with torch.no_grad():
            here = self.density(model, x, y)

        @torch.no_grad()
        def nearness(z: Tensor) -> Tensor:
            return -(self.density(model, z, y) - here).abs()

        best = Best(x, nearness, None)
        up = uphill(lambda z: self.density(model, z, y))
        down = uphill(lambda z: -self.density(model, z, y))
        for direction in (up, down):
            for z in climb(direction, x, self.ball, [self.step_size] * self.steps):
                best.consider(z)
        return best.z
