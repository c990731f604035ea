"""Robust attribution regularization: a short path of the loss around each image (Chen et al. 2019)."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from attrlib import _check
from attrlib.attacks import Ball, ascend
from attrlib.regularizers._derivatives import loss_gradient
from attrlib.regularizers.cross_entropy import CrossEntropy
from attrlib.types import Classifier, Inputs, Labels, PerSample


@dataclass(frozen=True, kw_only=True)
class IGNorm:
    r"""IG-NORM: the largest attribution of a change of the loss, over a ball around `x`.

    $$\max_{z \in B_\epsilon(x)} \big\| \mathrm{IG}^\ell(x, z) \big\|_1$$

    $$\mathrm{IG}^\ell(x, z) = (z - x) \odot \frac1m \sum_{k=1}^{m}
      \nabla \ell\Big(x + \frac{k - \frac12}{m}\,(z - x), y\Big)$$

    with the cross-entropy ℓ: integrated gradients of the loss, not of a logit, with `x` as the baseline.
    Its entries add up to ℓ(z) − ℓ(x) up to the error of the rule, so the norm is at least the size
    of that difference; it also counts changes that cancel. Used beside `CrossEntropy`.

    The term searches for itself, from a random point of the ball: at `x` the norm is 0, with a kink.
    What it finds is a lower bound of the maximum; a search may climb towards points where the loss falls.
    The found point is a constant when the norm is differentiated in the weights.

    Cost: `steps · attack_points + path_points` gradients of the loss, each differentiated once more (in
    the input while it searches, in the weights at the end). The points of a path share one batch.

    Attributes:
        ball: `LinfBall` or `L2Ball`, in which z is searched.
        steps: Steps of the search, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        path_points: Points m of the path in the norm that is trained on, >= 1.
        attack_points: Points of the path during the search, >= 1.

    Source: Chen et al. 2019, the objective IG-NORM. Differs: one value per sample, averaged over a batch
    by the trainer, where the authors' code sums over the batch; the midpoint rule, as in
    `integrated_gradients`, where the code takes right end points; fewer points than the 50, and 10 while
    searching, of the code for Fashion-MNIST; the exact log-softmax, where the code clips it.
    """

    ball: Ball
    steps: int
    step_size: float
    path_points: int = 5
    attack_points: int = 3

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_search(self)

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
        """Return the norm of each sample, in nats, >= 0.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Ignored; the term searches for its own.
            generator: Source of the random starts; None is torch's global generator.

        Returns:
            Norms (n,), differentiable in the weights.

        Raises:
            ValueError: If `x` is not in [0, 1], a label is not a class of the model, a gradient is not
                finite, or the model has batch normalisation in train mode.
        """
        x = x.detach()
        found = _search(self, partial(_norm, model, x, y, self.attack_points), x, generator)
        return _norm(model, x, y, self.path_points, found)


@dataclass(frozen=True, kw_only=True)
class IGSumNorm:
    r"""IG-SUM-NORM: the worst sum of the loss and the attribution of its change, over a ball around `x`.

    $$\max_{z \in B_\epsilon(x)} \Big\{ \ell(z, y)
      + \beta \, \big\| \mathrm{IG}^\ell(x, z) \big\|_1 \Big\}$$

    with the cross-entropy ℓ and its integrated gradients along the line from `x` to z, see `IGNorm`. A
    whole objective, used without `CrossEntropy`; β = 0 is adversarial training.

    The term searches for itself, from a random point of the ball; the found point is a constant when the
    sum is differentiated in the weights.

    Cost: as `IGNorm`, and a forward and a backward pass more for each step and at the end.

    Attributes:
        ball: `LinfBall` or `L2Ball`, in which z is searched.
        steps: Steps of the search, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        norm_weight: Weight β of the norm, >= 0.
        path_points: Points of the path in the norm that is trained on, >= 1.
        attack_points: Points of the path during the search, >= 1.

    Source: Chen et al. 2019, the objective IG-SUM-NORM; the default weight is that of the authors' code
    for Fashion-MNIST. Differs: as `IGNorm`.
    """

    ball: Ball
    steps: int
    step_size: float
    norm_weight: float = 0.1
    path_points: int = 5
    attack_points: int = 3

    def __post_init__(self) -> None:
        """Check the settings."""
        _check_search(self)
        _check.nonnegative(norm_weight=self.norm_weight)

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
        """Return the sum of each sample, in nats, >= 0.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Ignored; the term searches for its own.
            generator: Source of the random starts; None is torch's global generator.

        Returns:
            Sums (n,), differentiable in the weights.

        Raises:
            ValueError: If `x` is not in [0, 1], a label is not a class of the model, a gradient is not
                finite, or the model has batch normalisation in train mode.
        """
        x = x.detach()
        found = _search(self, partial(self._sum, model, x, y, self.attack_points), x, generator)
        return self._sum(model, x, y, self.path_points, found)

    def _sum(self, model: Classifier, x: Inputs, y: Labels, points: int, z: Inputs) -> PerSample:
        norm = _norm(model, x, y, points, z)
        return CrossEntropy()(model, z, y) + self.norm_weight * norm


def _check_search(term: IGNorm | IGSumNorm) -> None:
    _check.count(steps=term.steps)
    _check.positive(step_size=term.step_size)
    _check.count(path_points=term.path_points, attack_points=term.attack_points)


def _search(
    term: IGNorm | IGSumNorm,
    objective: Callable[[Inputs], PerSample],
    x: Inputs,
    generator: torch.Generator | None,
) -> Inputs:
    """The inner maximum: projected ascent from a random point of the ball."""
    return ascend(
        objective,
        x,
        ball=term.ball,
        steps=term.steps,
        step_size=term.step_size,
        start=term.ball.sample(x, generator),
    )


def _norm(model: Classifier, x: Inputs, y: Labels, points: int, z: Inputs) -> PerSample:
    """The l1 norm of the integrated gradients of the loss from `x` to `z`."""
    path = torch.cat([torch.lerp(x, z, (k + 0.5) / points) for k in range(points)])
    slopes, _ = loss_gradient(model, path, y.repeat(points))
    attribution = (z - x) * slopes.view(points, *x.shape).mean(0)
    return attribution.abs().flatten(1).sum(1)
