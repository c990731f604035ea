"""The attack of our own recipe: the neighbour whose map turns farthest away."""

from dataclasses import dataclass
from functools import partial

import torch

from attrlib import _check, _model
from attrlib.attacks import Ball, ascend
from attrlib.attributions import gradient
from attrlib.regularizers._derivatives import cosine_distance
from attrlib.types import Attribution, Classifier, Inputs, Labels, PerSample


@dataclass(frozen=True, kw_only=True)
class AlignmentAttack:
    r"""Turn the map of an image away: what `LocalGradientAlignment` and IGR can be trained against.

    $$\max_{z \in B_\epsilon(x)} 1 - \cos\big(A_y(x), A_y(z)\big)$$

    by projected steepest ascent from a random point of the ball: at `x` itself the slope is zero. One or
    two steps are enough to train with. The last point is returned, whether the prediction changed or
    not. On a ReLU network the slope does not see how kinks move, see `attacks`; smooth activations are
    what this attack is meant for.

    Cost: a map at `x`; then, for each step, a map at the moved point and a backward pass through it.

    Attributes:
        ball: `LinfBall` or `L2Ball`.
        steps: Number of steps, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        attribution: The map; signed.

    Source: ours. The inner maximum is that of FAR (Ivankay et al. 2020) with the cosine in place of
    Pearson's correlation, and without the classification loss.

    Raises:
        ValueError: If `steps` or `step_size` is not positive.
    """

    ball: Ball
    steps: int
    step_size: float
    attribution: Attribution = gradient

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.count(steps=self.steps)
        _check.positive(step_size=self.step_size)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return the changed images.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, …), pixels in [0, 1].
            y: Classes whose logit is explained, int64 (n,).
            generator: Source of the random starts; None is torch's global generator.

        Returns:
            Images exactly within the ball; detached.

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
        return ascend(
            partial(_turn, self.attribution, model, y, self.attribution(model, x, y)),
            x,
            ball=self.ball,
            steps=self.steps,
            step_size=self.step_size,
            start=self.ball.sample(x, generator),
        )


def _turn(
    attribution: Attribution, model: Classifier, y: Labels, a: Inputs, z: Inputs
) -> PerSample:
    return cosine_distance(a, attribution(model, z, y))
