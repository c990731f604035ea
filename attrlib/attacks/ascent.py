"""The one loop of all attacks that follow a slope, and the memory for the best point it passes."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from attrlib import _check, _model, _random, _shape
from attrlib._magnitude import level
from attrlib.attacks.balls import Ball
from attrlib.maps import to_heatmap
from attrlib.types import (
    Attribution,
    Classifier,
    Heatmaps,
    Inputs,
    Metric,
    PerSample,
)


def ascend(
    objective: Callable[[Inputs], PerSample],
    x: Inputs,
    *,
    ball: Ball,
    steps: int,
    step_size: float,
    start: Inputs | None = None,
    generator: torch.Generator | None = None,
) -> Inputs:
    r"""Climb an objective within a ball around each sample: projected steepest ascent.

    $$z_{t+1} = \Pi_{B(x)}\big(z_t + \eta \, s(\nabla_z D(z_t))\big)$$

    with the projection $\Pi$ and the steepest step $s$ of the ball: the sign for $\ell_\infty$, the
    direction for $\ell_2$. One forward and one backward pass of the objective for each step.

    Args:
        objective: Points (n, …) to values (n,), differentiable; row i depends on point i only.
        x: Centres (n, …), pixels in [0, 1].
        ball: `LinfBall` or `L2Ball`.
        steps: Number of steps, >= 1.
        step_size: Length η of a step in the norm of the ball, in pixel units, > 0.
        start: First points, in the shape of `x`. None starts at `x`, and samples whose gradient is zero
            there spend the first step on a jump to a random point of the ball.
        generator: Source of the random points; None is torch's global generator.

    Returns:
        The last points, exactly within the ball; detached.

    Raises:
        ValueError: If a shape or a number is wrong, a gradient is not finite, or no graph leads from the
            objective to its point, so that every point would look like the best.

    >>> from attrlib.attacks import LinfBall
    >>> x = torch.tensor([[0.5, 0.5]])
    >>> z = ascend(lambda z: z[:, 0], x, ball=LinfBall(eps=0.25), steps=2, step_size=0.2)
    >>> z.tolist()
    [[0.75, 0.5]]
    """
    check_climb(steps=steps, step_size=step_size)
    _check.floating(x=x)
    _check.finite(x=x)
    _check.pixels(ball, x=x)
    _check.recording(x)
    if start is not None:
        _check.same_shape(start=start, x=x)

    last = x
    for point in climb(
        uphill(objective),
        x.detach(),
        ball,
        [step_size] * steps,
        start=start,
        jump=start is None,
        generator=generator,
    ):
        last = point
    return last


def check_climb(*, steps: int, step_size: float) -> None:
    """Raise unless the settings of a climb make sense."""
    _check.count(steps=steps)
    _check.positive(step_size=step_size)


def climb(
    slope: Callable[[Tensor, int], Tensor],
    x: Tensor,
    ball: Ball,
    step_sizes: Sequence[float],
    *,
    momentum: float = 0,
    start: Tensor | None = None,
    jump: bool = False,
    generator: torch.Generator | None = None,
) -> Iterator[Tensor]:
    """Yield each point of the ascent.

    `slope` gives the direction of ascent at a point, in step number t. With momentum, a step follows the
    sum of all slopes so far, each scaled to mean entry 1 and weighed by momentum to the power of its
    age. With `jump`, samples without a slope spend the first step on a jump to a random point.
    """
    z = x if start is None else ball.project(start.detach(), x)
    velocity = torch.zeros_like(x)
    for step, step_size in enumerate(step_sizes):
        grad = slope(z, step)
        if momentum:
            grad = velocity = momentum * velocity + scaled(grad)
        z = ball.project(z + step_size * ball.steepest(grad), x)
        if jump and step == 0:
            # Drawn for all rows, needed or not: what one row gets depends on no other row.
            elsewhere = ball.sample(x, generator)
            moving = (grad != 0).flatten(1).any(1)
            z = torch.where(_shape.wide(moving, x), z, elsewhere)
        yield z


def uphill(objective: Callable[[Tensor], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """The slope of an objective as `climb` asks for it; raises where it is missing or not finite."""

    def direction(z: Tensor, _: int) -> Tensor:
        grad = slope(objective, z, graph=True)
        _check.finite(gradient=grad)
        return grad

    return direction


def scaled(grad: Tensor) -> Tensor:
    """Gradients with mean absolute entry 1; zero where all of it is zero."""
    grad = level(grad)  # the mean of tiny entries may not exist in float32
    mean = _shape.wide(grad.abs().flatten(1).mean(1), grad)
    return grad / torch.where(mean == 0, 1, mean)


class Best:
    """The point with the lowest score so far, for each sample; at first `x` itself."""

    def __init__(
        self,
        x: Tensor,
        score: Callable[[Tensor], Tensor],
        admissible: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.z, self._score, self._admissible = x.clone(), score, admissible
        self.lowest = score(x)

    def consider(self, z: Tensor) -> None:
        """Keep the rows of `z` that score lower; an undefined score (NaN) is never lower."""
        value = self._score(z)
        better = value < self.lowest
        if self._admissible is not None:
            better &= self._admissible(z)
        self.lowest = torch.where(better, value, self.lowest)
        self.z = torch.where(_shape.wide(better, z), z, self.z)


def same_class(model: Classifier, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the test whether the model still predicts for `z` what it predicts for `x`."""
    with torch.no_grad():
        label = _model.decision(model, x)

    @torch.no_grad()
    def test(z: Tensor) -> Tensor:
        return _model.decision(model, z) == label

    return test


def maps_of(
    attribution: Attribution, model: Classifier, generator: torch.Generator | None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the maps of the real model as a function of `z` and `y`, all made with the same noise.

    Common noise keeps a stochastic attribution from looking changed by luck. Its seed is drawn from
    `generator`, so that it is other noise than that of the ascent.
    """
    seed, device = _random.seed(generator), None if generator is None else generator.device

    def maps(z: Tensor, y: Tensor) -> Tensor:
        noise = torch.Generator(device or "cpu").manual_seed(seed)
        return attribution(model, z, y, generator=noise).detach()

    return maps


def defined(a: Tensor) -> Tensor:
    """Which maps are finite and not zero."""
    rows = a.flatten(1)
    return rows.isfinite().all(1) & (rows != 0).any(1)


def compared(score: Metric, a: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a metric as a function of its second map, reduced to heatmaps if it asks for them.

    A metric whose first parameter is annotated `Heatmaps` gets heatmaps; any other gets the signed maps.
    Where a map is zero or not finite the score is undefined (NaN): all pixels of a zero map are tied, and
    a set of the first ones would pass for a change.
    """
    inner = score
    while isinstance(inner, functools.partial):
        inner = inner.func
    first = next(iter(inspect.signature(inner).parameters.values()), None)
    wants_heat = first is not None and first.annotation is Heatmaps
    start = to_heatmap(a) if wants_heat else a

    def value(b: Tensor) -> Tensor:
        known = defined(b)
        b = torch.where(_shape.wide(known, b), b, 0)
        scores = score(start, to_heatmap(b) if wants_heat else b)
        _one_each(b, score=scores)
        return scores.masked_fill(~known, torch.nan)

    return value


def slope(objective: Callable[[Tensor], Tensor], z: Tensor, *, graph: bool = False) -> Tensor:
    """The gradient of each sample's objective; zero where the objective does not depend on `z`.

    `graph` makes it an error if no sample's does.
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = objective(z)
        total = value.sum()
    _one_each(z, objective=value)
    with _model.second_derivative():
        if graph:
            return _model.slope(total, z)
        if not value.requires_grad:
            return torch.zeros_like(z)
        (grad,) = torch.autograd.grad(total, z, materialize_grads=True)
    return grad


def _one_each(x: Tensor, **values: Tensor) -> None:
    for name, value in values.items():
        if value.shape != (len(x),):
            raise ValueError(
                f"Expected {name} of one value for each of {len(x)} samples, "
                f"got shape {tuple(value.shape)}"
            )
