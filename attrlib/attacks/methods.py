"""Random noise, and the attacks on predictions."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from attrlib import _check, _model, _random
from attrlib.attacks.ascent import (
    Best,
    ascend,
    check_climb,
    compared,
    maps_of,
    same_class,
)
from attrlib.attacks.balls import Ball, LinfBall
from attrlib.types import (
    Attribution,
    Classifier,
    Inputs,
    Labels,
    Logits,
    Metric,
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
        maps = maps_of(self.attribution, model, generator)
        score = compared(self.score, maps(x, y))
        best = Best(x, lambda z: score(maps(z, y)), same_class(model, x))
        for _ in range(self.draws):
            best.consider(self._draw(x, generator))
        return best.z

    def _draw(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        signs = _random.sign_like(x, generator=generator)
        return LinfBall(eps=self.eps).project(x + self.eps * signs, x)


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


def _cross_entropy(model: Classifier, y: Labels, z: Inputs) -> PerSample:
    logits = _model.logits(model, z, y, classes=2)
    return functional.cross_entropy(logits, y, reduction="none")


def _divergence(model: Classifier, clean: Logits, z: Inputs) -> PerSample:
    """KL(p(x) || p(z)), given log p(x)."""
    there = _model.logits(model, z).log_softmax(1)
    return functional.kl_div(there, clean, log_target=True, reduction="none").sum(1)
