"""Smoothing of a density that a classifier implies, three ways to compute it, and its blind spot."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor

from attrlib import _check, _model, _random, energy
from attrlib.regularizers._derivatives import squares, unit
from attrlib.types import Classifier, Inputs, Labels, PerSample

Values: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class DoubleBackward:
    r"""The slope itself, by automatic differentiation; its square is differentiated once more.

    $$\tfrac12 \, \|\nabla_x s(x)\|_2^2$$

    Exact at each input. On a network with kinks the weights get the derivative at points that stay
    between their kinks, and what moving a kink changes is left out: for $s = \mathrm{relu}(x - b)$ the
    mean over x depends on b, and b gets 0. Use smooth activations, or `FiniteDifference`.
    """

    def __call__(self, values: Values, x: Inputs, generator: torch.Generator | None) -> PerSample:
        """Return the values (n,), >= 0; noise is not needed."""
        return squares(_slope(values, x, graph=True)) / 2


@dataclass(frozen=True, kw_only=True)
class FiniteDifference:
    r"""A central difference along the slope, whose direction is a constant (Taylor).

    $$\tfrac12 \Big(\frac{s(x + h v) - s(x - h v)}{2 h}\Big)^2, \qquad
      v = \frac{\nabla_x s(x)}{\|\nabla_x s(x)\|_2}$$

    The slope along $v$ is the largest of all directions, so that to first order turning $v$ changes
    nothing, and leaving out its derivative is right: value and derivative in the weights are off by a
    multiple of h² on a smooth network. Across a kink it sees what moving the kink changes, if both sides
    have a slope. Where the slope is 0 there is no direction: the value is 0 and has no derivative.

    Attributes:
        h: Length of the step in l2 distance of pixels, > 0; `x ± h v` may leave [0, 1]. At least the cube
            root of the rounding unit, 0.005 in float32, 0.2 in bfloat16: below it rounding is larger than
            the error of the difference. 0.01 to 0.1 is best in float32.

    Raises:
        ValueError: If `h` is not positive; in the call, if it is too short for the type of the logits.
    """

    h: float = 0.03

    def __post_init__(self) -> None:
        """Check the step."""
        _check.positive(h=self.h)

    def __call__(self, values: Values, x: Inputs, generator: torch.Generator | None) -> PerSample:
        """Return the values (n,), >= 0; noise is not needed."""
        return _half_square(values, x, unit(_slope(values, x, graph=False)), h=self.h)


@dataclass(frozen=True, kw_only=True)
class RandomProjection:
    r"""Differences along random directions: no slope is computed at all.

    $$\frac1m \sum_{i=1}^m \frac12 \Big(\frac{s(x + \sigma \varepsilon_i)
      - s(x - \sigma \varepsilon_i)}{2 \sigma}\Big)^2, \qquad \varepsilon_i \sim \mathcal N(0, I)$$

    Unbiased for a quadratic function, and up to a multiple of σ² else. One draw is noisy: its standard
    deviation is √2 times its mean.

    Attributes:
        sigma: Standard deviation of a step in pixel units, > 0, and as `h` of `FiniteDifference` at least
            the cube root of the rounding unit.
        draws: Directions m for each sample, >= 1.

    Raises:
        ValueError: If a number is out of range; in the call, if `sigma` is too short for the type of the
            logits.
    """

    sigma: float = 0.03
    draws: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.positive(sigma=self.sigma)
        _check.count(draws=self.draws)

    def __call__(self, values: Values, x: Inputs, generator: torch.Generator | None) -> PerSample:
        """Return the values (n,), >= 0."""
        total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for _ in range(self.draws):
            direction = _random.normal_like(x, generator=generator)
            total = total + _half_square(values, x, direction, sigma=self.sigma)
        return total / self.draws


SlopeEstimator: TypeAlias = DoubleBackward | FiniteDifference | RandomProjection


@dataclass(frozen=True, kw_only=True)
class MarginalDensitySmoothing:
    r"""Half the squared slope of the marginal log-density that the logits imply, or of another density.

    $$R(x) = \tfrac12 \, \big\|\nabla_x s(x)\big\|_2^2, \qquad
      \nabla_x s = \nabla_x \log \sum_k e^{f_k(x)} = \sum_k p(k \mid x) \, \nabla_x f_k(x)$$

    No label is used. The probabilities in the sum are differentiated with the rest: taken as constants
    they leave the value as it is and spoil the derivative. What each density is blind to:

    - `energy.marginal`, the paper's: how far apart the slopes of the classes are (`energy.fisher_trace`).
      And a network can meet it with a number that it adds to all logits, which changes no prediction:
      watch `GaugeRatio`.
    - `energy.conditional`, half of `InputGradientNorm`: shifts of all logits; and it fades by itself as
      the network becomes sure.
    - `energy.joint`, the gradient map of the true class: marginal and conditional parts that cancel.
    - `energy.centered`: only shifts of all logits.

    Cost: with `DoubleBackward` one forward and one backward pass, differentiated once more in the
    weights; with `FiniteDifference` these two passes undifferentiated, and two forward passes with a
    backward pass in the weights; with `RandomProjection` two forward passes a draw, with a backward pass
    in the weights. Beside `CrossEntropy` a step takes about 3, 4 and 3 times as long as an ordinary one.

    Attributes:
        density: Whose slope is penalised: `energy.marginal`, `joint`, `conditional` or `centered`.
        estimator: `DoubleBackward`, `FiniteDifference` or `RandomProjection`. The latter two compare
            points: a layer in train mode that draws noise is refused.

    Source: Yang et al. 2024; the text of the paper was not at hand. From its abstract and summaries: the
    marginal, a norm of its slope, the softmax form and a Taylor approximation. Ours: the squared l2 norm
    and its half, in pixels, the three estimators, and the other densities (Ross and Doshi-Velez 2018 the
    conditional and the centred one, Srinivas and Fleuret 2021 the joint one).
    """

    density: energy.Density = energy.marginal
    estimator: SlopeEstimator = field(default_factory=DoubleBackward)

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
        """Return half the squared slope of each sample, in squared nats per squared unit of pixel, >= 0.

        Args:
            model: Maps a batch to logits (n, classes), before any softmax; without batch normalisation
                in train mode.
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,); used by `joint` and `conditional` only.
            z: Ignored.
            generator: Source of the directions of `RandomProjection`; None is torch's global generator.

        Returns:
            Values (n,), differentiable in the weights.

        Raises:
            ValueError: If the model gives log-probabilities, whose marginal is 0 and cannot be smoothed,
                a label is not a class of the model, the model mixes the samples, or the step is too
                short.
        """
        _check.labelled(x, y)
        if not isinstance(self.estimator, DoubleBackward):
            _model.settled(model)

        def values(at: Tensor) -> Tensor:
            found = self.density(model, at, y.repeat(len(at) // len(y)))
            if self.density is energy.marginal:
                _unnormalised(found)
            return found

        return self.estimator(values, x.detach(), generator)


@dataclass(frozen=True, kw_only=True)
class GaugeRatio:
    r"""How steep the marginal is beside itself without shifts of all logits: a diagnostic to watch.

    $$\rho(x) = \frac{\|\nabla_x s(x)\|_2}{\|\nabla_x (s - \bar f)(x)\|_2}$$

    with the marginal $s$ and the mean logit $\bar f$. With the weight 0 in a `Loss` it is in the log of
    each epoch, beside the values of the terms that are trained. Far below 1 a small penalty says that
    the network shifts all its logits, and nothing of its decisions. See `energy.gauge_ratio`.

    Cost: two forward and two backward passes.

    Source: ours; that logits have this freedom, Srinivas and Fleuret 2021.
    """

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
        """Return the ratio of each sample, >= 0.

        Args:
            model: Maps a batch to logits (n, classes); without batch normalisation in train mode.
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,); checked, and otherwise ignored.
            z: Ignored.
            generator: Ignored.

        Returns:
            Values (n,), differentiable in the weights; NaN where the slope without shifts is 0.

        Raises:
            ValueError: If a label is not a class of the model or the model mixes the samples.
        """
        return energy.gauge_ratio(model, x.detach().requires_grad_(), y)


def _slope(values: Values, x: Tensor, *, graph: bool) -> Tensor:
    x = x.clone().requires_grad_()
    with torch.enable_grad():
        return _model.slope(values(x).sum(), x, create_graph=graph)


def _half_square(values: Values, x: Tensor, direction: Tensor, **step: float) -> PerSample:
    """Half the squared central difference; raise if rounding is larger than the error of the step."""
    ((name, length),) = step.items()
    v = length * direction
    up, down = values(torch.cat([x + v, x - v])).chunk(2)
    shortest = torch.finfo(up.dtype).eps ** (1 / 3)
    if length < shortest:
        raise ValueError(
            f"Expected {name} >= {shortest:.2g} for logits of {up.dtype}, whose rounding a "
            f"shorter step magnifies, got {length!r}"
        )
    return ((up - down) / (2 * length)).square() / 2


def _unnormalised(marginals: Tensor) -> None:
    if float(marginals.detach().abs().amax()) <= 32 * torch.finfo(marginals.dtype).eps:
        raise ValueError(
            "Expected model(x) to be logits before the softmax, got log-probabilities: their marginal "
            "is 0 for every network, and so is this penalty; take the log_softmax out, or smooth "
            "energy.centered"
        )
