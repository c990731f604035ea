"""The one loop of all attacks, and the memory for the best point it passes."""

import functools
import inspect
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attrlib import _check, _model, _random
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
    _check.pixels(x=x)
    _check.recording(x)
    if start is not None:
        _check.same_shape(start=start, x=x)
    last = x
    for point, _ in climb(
        objective, x.detach(), ball, steps, step_size, start=start, generator=generator, graph=True
    ):
        last = point
    return last


def check_climb(*, steps: int, step_size: float) -> None:
    """Raise unless the settings of a climb make sense."""
    _check.count(steps=steps)
    _check.positive(step_size=step_size)


def climb(
    objective: Callable[[Tensor], Tensor],
    x: Tensor,
    ball: Ball,
    steps: int,
    step_size: float,
    *,
    start: Tensor | None,
    generator: torch.Generator | None,
    graph: bool = False,
) -> Iterator[tuple[Tensor, bool]]:
    """Yield each point of the ascent, and whether any sample had a gradient to follow.

    Without a graph from the objective to its point there is none to follow; `graph` makes it an error.
    """
    z = x if start is None else ball.project(start.detach(), x)
    for step in range(steps):
        grad = _slope(objective, z, graph=graph)
        moving = (grad != 0).flatten(1).any(1)
        z = ball.project(z + step_size * ball.steepest(grad), x)
        if start is None and step == 0:
            # Drawn for all rows, needed or not: what one row gets depends on no other row.
            elsewhere = ball.sample(x, generator)
            z = torch.where(moving.view(-1, *[1] * (x.ndim - 1)), z, elsewhere)
        yield z, bool(moving.any())


class Best:
    """The point with the lowest score so far, for each sample; at first `x` itself."""

    def __init__(
        self,
        x: Tensor,
        score: Callable[[Tensor], Tensor],
        admissible: Callable[[Tensor], Tensor] | None,
    ) -> None:
        self.z, self._score, self._admissible = x.clone(), score, admissible
        self._lowest = score(x)
        _one_each(x, score=self._lowest)

    def consider(self, z: Tensor) -> None:
        """Keep the rows of `z` that score lower; an undefined score (NaN) is never lower."""
        value = self._score(z)
        better = value < self._lowest
        if self._admissible is not None:
            better &= self._admissible(z)
        self._lowest = torch.where(better, value, self._lowest)
        self.z = torch.where(better.view(-1, *[1] * (z.ndim - 1)), z, self.z)


def same_class(model: Classifier, x: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the test whether the model still predicts for `z` what it predicts for `x`."""
    with torch.no_grad():
        label = _model.decision(model, x)

    @torch.no_grad()
    def test(z: Tensor) -> Tensor:
        return _model.decision(model, z) == label

    return test


def maps_of(
    attribution: Attribution, model: Classifier, y: Tensor, generator: torch.Generator | None
) -> Callable[[Tensor], Tensor]:
    """Return the maps of the real model as a function of `z`, all made with the same noise.

    Common noise keeps a stochastic attribution from looking changed by luck. Its seed is drawn from
    `generator`, so that it is other noise than that of the ascent.
    """
    seed, device = _random.seed(generator), None if generator is None else generator.device

    def maps(z: Tensor) -> Tensor:
        noise = torch.Generator(device or "cpu").manual_seed(seed)
        return attribution(model, z, y, generator=noise).detach()

    return maps


def compared(score: Metric, a: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a metric as a function of its second map, reduced to heatmaps if it asks for them.

    A metric whose first parameter is annotated `Heatmaps` gets heatmaps; any other gets the signed maps.
    """
    inner = score
    while isinstance(inner, functools.partial):
        inner = inner.func
    first = next(iter(inspect.signature(inner).parameters.values()), None)
    if first is not None and first.annotation is Heatmaps:
        heat = to_heatmap(a)
        return lambda b: score(heat, to_heatmap(b))
    return lambda b: score(a, b)


def _slope(objective: Callable[[Tensor], Tensor], z: Tensor, *, graph: bool) -> Tensor:
    """The gradient of each sample's objective; zero where the objective does not depend on `z`."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = objective(z)
        total = value.sum()
    _one_each(z, objective=value)
    with _model.second_derivative():
        if graph:
            grad = _model.slope(total, z)
        elif not value.requires_grad:
            return torch.zeros_like(z)
        else:
            (grad,) = torch.autograd.grad(total, z, materialize_grads=True)
    _check.finite(gradient=grad)
    return grad


def _one_each(x: Tensor, **values: Tensor) -> None:
    for name, value in values.items():
        if value.shape != (len(x),):
            raise ValueError(
                f"Expected {name} of one value for each of {len(x)} samples, "
                f"got shape {tuple(value.shape)}"
            )
