"""The attack on an explanation."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attrlib import _check, _model, _shape
from attrlib.attacks.ascent import (
    Best,
    check_climb,
    climb,
    compared,
    defined,
    maps_of,
    same_class,
    scaled,
    slope,
)
from attrlib.attacks.balls import Ball
from attrlib.attacks.objectives import against, at, cut
from attrlib.types import Attribution, Classifier, Inputs, Labels, Metric, Objective


class UnattackedWarning(UserWarning):
    """Rows came back unchanged because there was nothing to follow: count them as such.

    Attributes:
        rows: Their numbers in the batch.
        reason: What was in the way.
    """

    def __init__(self, rows: Sequence[int], reason: str, *, of: int) -> None:
        """Name up to eight of the rows.

        Args:
            rows: Their numbers.
            reason: What was in the way.
            of: Rows in the batch.
        """
        self.rows, self.reason = tuple(rows), reason
        named = ", ".join(map(str, rows[:8])) + (", …" if len(rows) > 8 else "")
        super().__init__(
            f"{len(rows)} of {of} rows cannot be attacked and come back unchanged ({named}): {reason}"
        )


@dataclass(frozen=True, kw_only=True)
class AttributionAttack:
    r"""Change the explanation and keep the prediction.

    $$\max_{z \in B(x)} D\big(A(x), A(z)\big) \quad \text{such that} \quad
      \arg\max f(z) = \arg\max f(x)$$

    for an attribution $A$ and an objective $D$. Ascent follows the gradient of $D$; a map of a ReLU
    network is made of flat pieces (its gradient map) or nearly so, and a smooth copy of the network, a
    surrogate, then shows the way. Every point on the way is scored on the real model, and each image
    gets the best point, over all steps and restarts, that keeps its prediction. An image for which there
    is none comes back unchanged; count it as such.

    Start 1 is `x` (a random point where the gradient is zero there), later starts are random. A
    stochastic attribution gets fresh noise at each step, and the same noise for all scores.

    With momentum $\mu$, step t of T follows $v_t = \mu v_{t-1} + g_t / \overline{|g_t|}$ instead of the
    gradient $g_t$, and has the length $\eta \, d^{\,t/(T-1)}$ with the decay d. With a margin, $v_t$ gets
    one more summand while the logit of the predicted class is less than the margin above the next one:
    the gradient of that lead, scaled likewise.

    Cost of a step: a map and its derivative on the surrogate; a map and a forward pass on the model; with
    a margin another forward and, where a lead is short, backward pass of the model.

    Attributes:
        attribution: Whose maps are changed; of differentiable maps, such as all of `attributions`.
        objective: What is increased: `TopK`, `Rank`, `MassCenter`, `TargetMap`, `Cosine` or a function of
            the signed maps at `x` and `z`. One that offers `at(progress)` is asked for its form at each
            step, with progress from 0 to 1.
        ball: `LinfBall` or `L2Ball`.
        steps: Steps for each start, >= 1.
        step_size: Length of the first step in the norm of the ball, in pixel units, > 0.
        restarts: Number of starts, >= 1.
        keep_label: Keep the predicted class of `x`, which need not be `y` (the sign, where a model has
            one logit); False drops the condition.
        surrogates: Functions from the model to a twice differentiable one, such as
            `partial(smoothed, beta=30)`, each used for an equal share of the steps, in order. Empty
            takes the model itself.
        score: Metric that is minimised when points are compared; None is minus the objective (in its last
            form). A metric whose first parameter is annotated `Heatmaps` gets heatmaps (`to_heatmap`),
            any other gets the signed maps.
        momentum: Weight μ of the past, in [0, 1).
        step_decay: Length of the last step over that of the first, > 0.
        margin: Lead in logits below which a step also raises the lead, >= 0.

    Source: Ghorbani et al. 2019, algorithm 1; Dombrowski et al. 2019, section 3.4, for the surrogate;
    Dong et al. 2018, equation 6, for the momentum. Differs: the best point is kept, with restarts; the
    surrogate gets sharper and steps get shorter on the way.
    """

    attribution: Attribution
    objective: Objective
    ball: Ball
    steps: int
    step_size: float
    restarts: int = 1
    keep_label: bool = True
    surrogates: tuple[Callable[[Any], Classifier], ...] = ()
    score: Metric | None = None
    momentum: float = 0
    step_decay: float = 1
    margin: float = 0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_climb(steps=self.steps, step_size=self.step_size)
        _check.count(restarts=self.restarts)
        _check.positive(step_decay=self.step_decay)
        _check.nonnegative(margin=self.margin, momentum=self.momentum)
        if self.momentum >= 1:
            raise ValueError(f"Expected momentum < 1, got {self.momentum!r}")
        if not isinstance(self.surrogates, tuple) or not all(map(callable, self.surrogates)):
            raise TypeError(
                f"Expected surrogates to be a tuple of functions, got {self.surrogates!r}"
            )
        if self.steps < len(self.surrogates):
            raise ValueError(
                f"Expected steps >= {len(self.surrogates)}, one for each surrogate, got {self.steps}"
            )

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        start: Inputs | None = None,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return images whose explanations differ from those of `x`.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, …), pixels in [0, 1].
            y: Classes to explain, int64 (n,).
            start: Where start 1 is instead of `x`, such as the result of another attack. It is a
                candidate for the result, too, so that nothing that was reached is lost.
            generator: Source of random starts and of the noise of stochastic attributions; None is
                torch's global generator.

        Returns:
            Images exactly within the ball; detached. A row that could not be attacked equals that of `x`
            bit for bit.

        Raises:
            TypeError: If `x` is not floating-point or `y` not int64.
            ValueError: If shapes disagree, a label is not a class of the model, `x` is not in [0, 1], or
                no row with a map (finite and not zero) has a slope to follow (finite and not zero). Other
                rows that cannot be attacked come back unchanged and are named in an `UnattackedWarning`.
        """
        _check.labelled(x, y)
        _check.pixels(self.ball, x=x)
        _model.settled(model)
        x = x.detach()
        maps = maps_of(self.attribution, model, generator)
        clean = maps(x, y)
        alive = defined(clean)
        if getattr(self.ball, "eps", None) == 0:  # no other point is allowed, whatever the slope
            warn_unattacked(~alive, "their map is zero or not finite")
            return x.clone()
        clean = torch.where(_shape.wide(alive, x), clean, 0)
        change = against(self.objective, clean)
        last = at(change, 1.0)
        score = compared(self.score or (lambda _, b: -last(b)), clean)
        keep = same_class(model, x) if self.keep_label else None
        best = Best(x, lambda z: score(maps(z, y)), keep)
        if start is not None:
            _check.same_shape(start=start, x=x)
            best.consider(self.ball.project(start.detach(), x))
        models = [make(model) for make in self.surrogates] or [model]
        lead = _Lead(model, x, self.margin) if self.margin else None
        stages = self._stages()
        broken = torch.zeros_like(alive)
        moved = torch.zeros_like(alive)

        def direction(z: Tensor, step: int) -> Tensor:
            goal = at(change, step / max(1, self.steps - 1))
            twin = models[stages[step]]
            grad = slope(lambda p: goal(self.attribution(twin, p, y, generator=generator)), z)
            known = grad.flatten(1).isfinite().all(1)
            broken.logical_or_(~known)
            grad = torch.where(_shape.wide(known, x), grad, 0)
            moved.logical_or_((grad != 0).flatten(1).any(1))
            return grad if lead is None else scaled(grad) + lead.slope(z)

        for restart in range(self.restarts):
            points = climb(
                direction,
                x,
                self.ball,
                self._step_sizes(),
                momentum=self.momentum,
                start=self.ball.sample(x, generator) if restart else start,
                jump=restart == 0,
                generator=generator,
            )
            for z in points:
                best.consider(z)
            if start is None and restart == 0 and alive.any() and not (alive & moved).any():
                raise _no_slope(broken & alive)
        stuck = ~alive if start is not None else ~alive | ~moved
        warn_unattacked(stuck, "their map is zero or not finite, or their objective has no slope")
        return torch.where(_shape.wide(stuck, x), x, best.z)

    def rows(self, index: Tensor) -> "AttributionAttack":
        """Return the attack for some of the samples: what its objective knows of each is cut along.

        Args:
            index: Their numbers, or a mask (n,).
        """
        score = None if self.score is None else cut(self.score, index)
        return replace(self, objective=cut(self.objective, index), score=score)

    def _stages(self) -> list[int]:
        """The surrogate of each step: equal shares, earlier ones first to one more."""
        count = max(1, len(self.surrogates))
        share, more = divmod(self.steps, count)
        return [stage for stage in range(count) for _ in range(share + (stage < more))]

    def _step_sizes(self) -> list[float]:
        last = max(1, self.steps - 1)
        return [self.step_size * self.step_decay ** (step / last) for step in range(self.steps)]


class _Lead:
    """By how much the predicted class is ahead of the next one."""

    def __init__(self, model: Classifier, x: Tensor, margin: float) -> None:
        with torch.no_grad():
            label = _model.decision(model, x)
        self._model, self._margin, self._label = model, margin, label

    def slope(self, z: Tensor) -> Tensor:
        """The gradient of the lead where it is below the margin, of mean entry 1; zero elsewhere."""
        z = z.detach().requires_grad_()
        with torch.enable_grad():
            lead = _model.lead(_model.logits(self._model, z), self._label)
            short = lead < self._margin
            if not short.any():
                return torch.zeros_like(z)
            grad = _model.slope(lead[short].sum(), z)
        return scaled(grad)


def warn_unattacked(rows: Tensor, reason: str) -> None:
    """Name the rows that an attack, the caller of this, gives back unchanged."""
    if rows.any():
        numbers = rows.nonzero()[:, 0].tolist()
        warnings.warn(UnattackedWarning(numbers, reason, of=len(rows)), stacklevel=3)


def _no_slope(broken: Tensor) -> ValueError:
    if broken.any():
        return ValueError(
            "Expected gradient of the objective to be finite, got NaN or infinity in "
            f"{int(broken.sum())} of {len(broken)} samples and zero in the rest"
        )
    return ValueError(
        "Expected an objective with a gradient, got zero for the whole batch: a network with kinks (ReLU "
        "and its kin) has flat maps; attack a smooth copy (surrogates of models.smoothed, --beta 30 on "
        "the command line), and write kinks of your own with torch.relu, which it rounds"
    )
