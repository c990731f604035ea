"""The attacks: frozen settings, called with a model, images and labels."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attrlib import _check, _model, _random
from attrlib.attacks.ascent import (
    Best,
    ascend,
    check_climb,
    climb,
    compared,
    maps_of,
    same_class,
)
from attrlib.attacks.balls import Ball, LinfBall
from attrlib.attacks.objectives import against
from attrlib.types import (
    Attribution,
    Classifier,
    Inputs,
    Labels,
    Logits,
    Metric,
    Objective,
    PerSample,
)


@dataclass(frozen=True, kw_only=True)
class RandomSign:
    r"""Random noise of full size in every entry: the control for every attack.

    $$z = \Pi\big(x + \varepsilon \, s\big), \qquad s_i = \pm 1 \text{ with equal chance}$$

    One draw, as it comes; or, with a score, for each image the best of several draws that keep its
    prediction, by the rules of `AttributionAttack`: no such draw, and the image comes back unchanged.
    Against an attack that looks at N points, the fair control is the best of N draws.

    Attributes:
        eps: Size of the noise in pixel units, >= 0.
        draws: Draws for each image, >= 1; more than 1 need a score and an attribution.
        score: Metric that is minimised, see `AttributionAttack`; None takes the one draw.
        attribution: Maps that the score compares.

    Source: one-shot noise, Kamath et al. 2024. Differs: the best of N draws; the "random" attack in the
    code of Ghorbani et al. is a random walk, weaker than one full step.
    """

    eps: float
    draws: int = 1
    score: Metric | None = None
    attribution: Attribution | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.nonnegative(eps=self.eps)
        _check.count(draws=self.draws)
        if (self.score is None) != (self.attribution is None):
            missing = "score" if self.score is None else "attribution"
            raise ValueError(f"Expected score and attribution together, got no {missing}")
        if self.draws > 1 and self.score is None:
            raise ValueError(f"Expected score and attribution for draws > 1, got {self.draws!r}")

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return noisy images.

        Args:
            model: Maps a batch to logits (n, classes); not called without a score.
            x: Images (n, …), pixels in [0, 1].
            y: Classes to explain, int64 (n,).
            generator: Source of the noise; None is torch's global generator.

        Returns:
            Images within eps of `x` in every entry, exactly; detached.

        Raises:
            TypeError: If `x` is not floating-point or `y` not int64.
            ValueError: If shapes disagree or `x` is not in [0, 1].
        """
        _check.labelled(x, y)
        _check.pixels(x=x)
        x = x.detach()
        if self.score is None or self.attribution is None:
            return self._draw(x, generator)
        _model.settled(model)
        maps = maps_of(self.attribution, model, y, generator)
        score = compared(self.score, maps(x))
        best = Best(x, lambda z: score(maps(z)), same_class(model, x))
        for _ in range(self.draws):
            best.consider(self._draw(x, generator))
        return best.z

    def _draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        signs = torch.where(_random.uniform_like(x, generator=generator) < 0, -1.0, 1.0)
        return LinfBall(eps=self.eps).project(x + self.eps * signs.to(x), x)


@dataclass(frozen=True, kw_only=True)
class PGD:
    r"""Raise the cross-entropy: the attack on the prediction.

    $$z_{t+1} = \Pi_{B(x)}\big(z_t + \eta \, s(\nabla_z \, {-\log} \, \mathrm{softmax}(f(z_t))_y)\big)$$

    The last point is returned, whether the prediction changed or not. One forward and one backward pass
    for each step.

    Attributes:
        ball: `LinfBall` or `L2Ball`.
        steps: Number of steps, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        random_start: Start from a random point of the ball instead of `x`.

    Source: Madry et al. 2018, section 2.1.
    """

    ball: Ball
    steps: int
    step_size: float
    random_start: bool = False

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
        """Return adversarial images.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            generator: Source of random starting points; None is torch's global generator.

        Returns:
            Images exactly within the ball; detached.

        Raises:
            TypeError: If `x` is not floating-point or `y` not int64.
            ValueError: If shapes disagree, a label is not a class of the model, `x` is not in [0, 1], or
                a gradient is not finite.
        """
        _check.labelled(x, y)
        _model.settled(model)
        x = x.detach()
        start = self.ball.sample(x, generator) if self.random_start else x
        return ascend(
            functools.partial(_cross_entropy, model, y),
            x,
            ball=self.ball,
            steps=self.steps,
            step_size=self.step_size,
            start=start,
        )


@dataclass(frozen=True, kw_only=True)
class KLPGD:
    r"""Move the predicted probabilities away from those at $x$, whatever the label.

    $$z_{t+1} = \Pi_{B(x)}\big(z_t + \eta \, s(\nabla_z \, \mathrm{KL}(p(x) \,\|\, p(z_t)))\big)$$

    $$z_0 = x + \sigma \xi, \quad \xi \sim \mathcal N(0, I)$$

    with $p = \mathrm{softmax}(f)$. The gradient is zero at `x`, hence the noise at the start. The last
    point is returned. One forward pass, then one forward and one backward pass for each step.

    Attributes:
        ball: `LinfBall` or `L2Ball`.
        steps: Number of steps, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        noise: Standard deviation σ of the noise at the start in pixel units, > 0.

    Source: Zhang et al. 2019, algorithm 1 (TRADES), with the start and the direction of the divergence
    of the authors' code. Differs: the start is projected, too.
    """

    ball: Ball
    steps: int
    step_size: float
    noise: float = 1e-3

    def __post_init__(self) -> None:
        """Check the settings."""
        check_climb(steps=self.steps, step_size=self.step_size)
        _check.positive(noise=self.noise)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return adversarial images.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, …), pixels in [0, 1].
            y: True classes, int64 (n,); checked, and otherwise ignored.
            generator: Source of the noise at the start; None is torch's global generator.

        Returns:
            Images exactly within the ball; detached.

        Raises:
            TypeError: If `x` is not floating-point or `y` not int64.
            ValueError: If shapes disagree, a label is not a class of the model, `x` is not in [0, 1], or
                a gradient is not finite.
        """
        _check.labelled(x, y)
        _model.settled(model)
        x = x.detach()
        with torch.no_grad():
            logits = _model.logits(model, x, y, classes=2)
        return ascend(
            functools.partial(_divergence, model, logits.log_softmax(1)),
            x,
            ball=self.ball,
            steps=self.steps,
            step_size=self.step_size,
            start=torch.add(x, _random.normal_like(x, generator=generator), alpha=self.noise),
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

    Cost of a step: a map and its derivative on the surrogate; a map and a forward pass on the model.

    Attributes:
        attribution: Whose maps are changed; of differentiable maps, such as all of `attributions`.
        objective: What is increased: `TopK`, `MassCenter`, `TargetMap`, `Cosine` or a function of the
            signed maps at `x` and `z`.
        ball: `LinfBall` or `L2Ball`.
        steps: Steps for each start, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        restarts: Number of starts, >= 1.
        keep_label: Keep the predicted class of `x`, which need not be `y` (the sign, where a model has
            one logit); False drops the condition.
        surrogates: Functions from the model to a twice differentiable one, such as
            `partial(with_softplus, beta=30)`, each used for an equal share of the steps, in order. Empty
            takes the model itself.
        score: Metric that is minimised when points are compared; None is minus the objective. A metric
            whose first parameter is annotated `Heatmaps` gets heatmaps (`to_heatmap`), any other gets the
            signed maps.

    Source: Ghorbani et al. 2019, algorithm 1; Dombrowski et al. 2019, section 3.4, for the surrogate.
    Differs: the best point is kept, with restarts; the surrogate gets sharper on the way.
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

    def __post_init__(self) -> None:
        """Check the settings."""
        check_climb(steps=self.steps, step_size=self.step_size)
        _check.count(restarts=self.restarts)
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
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return images whose explanations differ from those of `x`.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, …), pixels in [0, 1].
            y: Classes to explain, int64 (n,).
            generator: Source of random starts and of the noise of stochastic attributions; None is
                torch's global generator.

        Returns:
            Images exactly within the ball; detached. A row that could not be attacked equals that of `x`
            bit for bit.

        Raises:
            TypeError: If `x` is not floating-point or `y` not int64.
            ValueError: If shapes disagree, a label is not a class of the model, `x` is not in [0, 1], a
                gradient is not finite, or the gradient of the objective is zero for the whole batch.
        """
        _check.labelled(x, y)
        _check.pixels(x=x)
        _model.settled(model)
        x = x.detach()
        maps = maps_of(self.attribution, model, y, generator)
        clean = maps(x)
        change = against(self.objective, clean)
        score = compared(self.score, clean) if self.score else lambda b: -change(b)
        best = Best(x, lambda z: score(maps(z)), same_class(model, x) if self.keep_label else None)
        models = [make(model) for make in self.surrogates] or [model]
        for restart in range(self.restarts):
            start = self.ball.sample(x, generator) if restart else None
            for stage, twin in enumerate(models):
                goal = functools.partial(
                    _change_at, change, self.attribution, twin, y, generator=generator
                )
                followed = False
                points = climb(
                    goal,
                    x,
                    self.ball,
                    self._share(stage),
                    self.step_size,
                    start=start,
                    generator=generator,
                )
                for z, moving in points:
                    best.consider(z)
                    start, followed = z, followed or moving
                if not followed:
                    raise ValueError(
                        "Expected an objective with a gradient, got zero for the whole batch: a "
                        "network with kinks (ReLU and its kin) has flat maps; attack a smooth copy "
                        "(surrogates of models.smoothed, --beta 30 on the command line)"
                    )
        return best.z

    def _share(self, stage: int) -> int:
        """Steps of a stage: equal shares, earlier stages first to one more."""
        stages = max(1, len(self.surrogates))
        return self.steps // stages + (stage < self.steps % stages)


def _change_at(
    change: Callable[[Tensor], Tensor],
    attribution: Attribution,
    model: Classifier,
    y: Tensor,
    z: Tensor,
    *,
    generator: torch.Generator | None,
) -> Tensor:
    return change(attribution(model, z, y, generator=generator))


def _cross_entropy(model: Classifier, y: Labels, z: Inputs) -> PerSample:
    logits = _model.logits(model, z, y, classes=2)
    return functional.cross_entropy(logits, y, reduction="none")


def _divergence(model: Classifier, clean: Logits, z: Inputs) -> PerSample:
    """KL(p(x) || p(z)), given log p(x)."""
    there = _model.logits(model, z).log_softmax(1)
    return functional.kl_div(there, clean, log_target=True, reduction="none").sum(1)
