"""Local gradient alignment: the gradient of a neighbour, as long and as directed (Joo et al. 2023)."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from attrlib import _check
from attrlib.attacks import Ball
from attrlib.attributions import gradient
from attrlib.regularizers._derivatives import adversarial, cosine_distance, squares
from attrlib.types import Classifier, Inputs, Labels, PerSample

Neighbour = Literal["uniform", "adversarial"]


@dataclass(frozen=True, kw_only=True)
class LocalGradientAlignment:
    r"""How far the gradient of the explained logit moves, in length and in direction, to a neighbour.

    $$R(x, y) = \lambda_2 \, \|g(x) - g(x')\|_2^2
      + \lambda_{\cos} \, \frac{1 - \cos\big(g(x), g(x')\big)}{2}$$

    with the gradient $g(x) = \nabla_x f_y(x)$ and a neighbour $x' \in B_\epsilon(x)$.

    The l2 part falls when all gradients shrink, which changes no displayed map; the cosine part does not
    see their length, but falls when one linear function is added to all logits, which changes no
    probability. They are linked by

    $$\|a - b\|_2^2 = \big(\|a\|_2 - \|b\|_2\big)^2
      + 4 \, \|a\|_2 \, \|b\|_2 \, \frac{1 - \cos(a, b)}{2}$$

    For a small cube $|x'_i - x_i| \le \epsilon$ well inside [0, 1] the expected l2 part is
    $\frac{\epsilon^2}{3} \|H\|_F^2$ with the Hessian of the logit, see `HessianNorm`; unlike that one
    it needs no smooth activation, since it compares two points. On a ReLU network it does not see how
    weights move the kinks: biases get no gradient. Used beside `CrossEntropy`, or a term that uses the
    adversarial example.

    Cost: two forward and two backward passes, both differentiated once more in the weights; with
    `detach`, only those at the neighbour are. The attack of an adversarial neighbour comes on top. Beside
    `CrossEntropy` a step takes about 5 times as long as an ordinary one, and 4 times with `detach`.

    Attributes:
        l2: Weight of the squared distance, >= 0, per (logit per unit of pixel)²: the sum over all entries
            grows with the image and with the scale of the logits.
        cosine: Weight of the cosine distance, >= 0; one of both weights is positive.
        ball: `LinfBall` or `L2Ball` of positive size, in which the neighbour lies.
        neighbour: `"uniform"`, a random point of the ball for each call and sample, or `"adversarial"`,
            the example `z` that the attack of the `Loss` found, which must lie in the ball.
        detach: Take the gradient at `x` as a constant. Cheaper, but then the step follows no objective's
            gradient: what is left out is as large as what is kept, and a large `l2` can diverge.

    Source: Joo et al. 2023, with the loss of the authors' code: signed gradients of the true class, all
    channels, one neighbour. Differs: the neighbour stays in [0, 1], where the code leaves it (on a black
    background half of the noise is cut away); gradients are in pixels, where the code differentiates
    standardised images, so that its l2 weight, for a channel with the standard deviation s, is ours
    divided by s²; `detach` is True in the code; a network with batch normalisation in train mode is
    refused, where the code trains one; `"adversarial"` is ours.

    Raises:
        ValueError: If a weight is negative or both are 0, `neighbour` is unknown, or the ball has size 0.
    """

    l2: float
    cosine: float
    ball: Ball
    neighbour: Neighbour = "uniform"
    detach: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.nonnegative(l2=self.l2, cosine=self.cosine)
        if self.l2 == 0 and self.cosine == 0:
            raise ValueError("Expected l2 > 0 or cosine > 0, got l2=0 and cosine=0")
        _check.one_of(get_args(Neighbour), neighbour=self.neighbour)
        if hasattr(self.ball, "eps"):  # of size 0, the neighbour is x and every value 0
            _check.positive(eps=self.ball.eps)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        z: Inputs | None = None,
        generator: torch.Generator | None = None,
    ) -> PerSample:
        """Return the weighted sum of both parts for each sample, >= 0.

        Args:
            model: Maps a batch to logits (n, classes), smooth or not; without batch normalisation in
                train mode.
            x: Inputs (n, …), pixels in [0, 1].
            y: Classes whose logit is explained, int64 (n,).
            z: The neighbours, in the shape of `x`, if `neighbour` is `"adversarial"`; else ignored.
            generator: Source of uniform neighbours; None is torch's global generator.

        Returns:
            Values (n,), differentiable in the weights. Where a gradient has no entry of size 1e-12 it
            has no direction: the cosine part is 0 there and has no derivative.

        Raises:
            ValueError: If an adversarial `z` is missing, of another shape or outside the ball, a label
                is not a class of the model, the model mixes the samples, or `x` is not in [0, 1].
        """
        _check.labelled(x, y)
        _check.pixels(self.ball, x=x)
        x = x.detach()
        near = self._near(x, z, generator)
        if self.detach:
            a, b = gradient(model, x, y), gradient(model, near.requires_grad_(), y)
        else:
            both = torch.cat([x, near]).requires_grad_()
            a, b = gradient(model, both, y.repeat(2)).chunk(2)
        return self.l2 * squares(a - b) + self.cosine * cosine_distance(a, b) / 2

    def _near(self, x: Inputs, z: Inputs | None, generator: torch.Generator | None) -> Inputs:
        if self.neighbour == "uniform":
            return self.ball.sample(x, generator)
        near = adversarial(z, x).detach()
        away = (self.ball.project(near, x) - near).abs().flatten(1).amax(1)
        outside = ~(away <= 8 * torch.finfo(x.dtype).eps)  # by more than rounding, or NaN
        if bool(outside.any()):
            raise ValueError(
                f"Expected z in [0, 1] and within {self.ball} of x, got {int(outside.sum())} of "
                f"{len(x)} samples up to {float(away.max()):.3g} outside"
            )
        return near
