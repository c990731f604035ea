"""Training for bounds: a worst-case prediction, and a narrow box of gradient maps."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch.nn import functional

from attrlib import _check
from attrlib.certificates import interval
from attrlib.types import Classifier, Inputs, Labels, PerSample

Of = Literal["gradient", "input_x_gradient"]
"""Maps whose box can be narrowed."""

_LENGTH = 1e-3  # added to the length of the middle of the box, in the unit of the map


@dataclass(frozen=True, kw_only=True)
class IntervalBounds:
    r"""What is not proved about prediction and gradient map in the box around `x`.

    $$R(x, y) = \kappa \, \ell\big(\hat f, y\big) + \gamma \log\left(1 + \frac{\|\overline g -
      \underline g\|_2}{\frac12 \|\overline g + \underline g\|_2 + 10^{-3}}\right)$$

    with the cross-entropy $\ell$ of the worst logits $\hat f$, the lower bound for the label and the
    upper bound for every other class, as of `certificates.logit_bounds`, and the bounds
    $\underline g, \overline g$ of `certificates.gradient_bounds`. The first part makes certified
    accuracy, and narrows the maps, too, since it keeps neurons from switching; the second narrows the box
    of maps relative to their length. It also makes maps of one class alike, and draws them to pixels that
    are black in most images, where a steady slope lengthens the map and costs little: report
    `metrics.identification`, and scores on the lit pixels, beside it.

    With `of="input_x_gradient"` the box is that of $z \odot \nabla f_y(z)$, as of
    `certificates.input_x_gradient_bounds`. However steady a slope of size s is, on a black pixel, whose
    input lies in $[0, \epsilon]$, it then adds εs to the width and εs/2 to the length; on a pixel at p,
    with ε <= p <= 1 - ε, it adds 2εs and ps.

    The slope of ReLU is a step, so the second part does not see that a weight is about to make a neuron
    unstable, and biases get no gradient from it; on a smooth network they do.

    Cost: two forward passes, one with the absolute weights, and with `maps` two backward passes likewise,
    all differentiated once more in the weights. Beside `CrossEntropy` a step takes about 7 times as long
    as an ordinary one, and 4 times without `maps`.

    Attributes:
        eps: Largest change of each entry in pixel units, 0 <= eps < 1.
        prediction: Weight κ of the worst-case cross-entropy, >= 0.
        maps: Weight γ of the width of maps, >= 0; 0 leaves the backward passes out.
        of: Which map: `gradient`, or `input_x_gradient` with the box of the input.

    Source: the first part is Gowal et al. 2018, equation 12, beside `CrossEntropy`; bounds of gradients
    are trained by Wicker et al. 2023, whose abstract was at hand. Differs: the form of the second part is
    ours, a ratio, since a width alone falls when all gradients shrink, and so is its map
    `input_x_gradient`; bounds have no margin for rounding here.

    Raises:
        ValueError: If `eps` is negative or spans the whole range of pixels, a weight is negative, or `of`
            is another name.
    """

    eps: float
    prediction: float
    maps: float
    of: Of = "gradient"

    def __post_init__(self) -> None:
        """Check the settings."""
        interval.check_budget(self.eps)
        _check.nonnegative(prediction=self.prediction, maps=self.maps)
        _check.one_of(get_args(Of), of=self.of)

    def at(self, done: float) -> "IntervalBounds":
        """Return the term for a share of the training steps done, in [0, 1].

        All three settings rise linearly from 0 over the first half: a network that is not yet trained has
        bounds so wide that they say nothing.
        """
        share = min(1.0, 2 * done)
        return replace(
            self, eps=share * self.eps, prediction=share * self.prediction, maps=share * self.maps
        )

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
            model: Maps a batch to logits (n, classes), of operations that `gradient_bounds` knows.
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Ignored.
            generator: Ignored.

        Returns:
            Values (n,), in nats; differentiable in the weights, not in `x`.

        Raises:
            ValueError: If a label is not a class of the model, the model has an operation without bounds,
                mixes the samples or draws noise, or `x` is not in [0, 1].
        """
        _check.labelled(x, y)
        _check.pixels(x=x)
        _check.recording(x)
        x = x.detach()
        low, high = (x - self.eps).clamp(min=0), (x + self.eps).clamp(max=1)
        learn = torch.is_grad_enabled()
        output = interval.forward(model, low, high, y, like=x, learn=learn)
        down, up = output.ends()
        worst = torch.where(functional.one_hot(y, down.shape[1]).bool(), down, up)
        value = self.prediction * functional.cross_entropy(worst, y, reduction="none")
        if self.maps == 0:
            return value
        ends = interval.back(output, y)
        if self.of == "input_x_gradient":
            ends = interval.product(ends, (low, high))
        lower, upper = (bound.flatten(1) for bound in ends)
        length = (upper + lower).norm(dim=1) / 2 + _LENGTH
        return value + self.maps * torch.log1p((upper - lower).norm(dim=1) / length)
