"""Attacks on the prediction by its margin: with gradients and restarts, and without any gradient."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attrlib import _check, _model, _random
from attrlib.attacks.ascent import Best, check_climb, climb, uphill
from attrlib.attacks.balls import Ball, LinfBall
from attrlib.types import Classifier, Inputs, Labels, PerSample

# Share of the queries done, and by how much the squares have shrunk by then, as in the authors' code.
_SHRUNK = (
    (0.8, 512),
    (0.6, 256),
    (0.4, 128),
    (0.2, 64),
    (0.1, 32),
    (0.05, 16),
    (0.02, 8),
    (0.005, 4),
    (0.001, 2),
    (0.0, 1),
)


@dataclass(frozen=True, kw_only=True)
class MarginPGD:
    r"""Lower the margin of class $y$ from several random starts, and keep the worst point of all.

    $$m(z) = f_y(z) - \max_{k \ne y} f_k(z), \qquad
      z_{t+1} = \Pi_{B(x)}\big(z_t - \eta \, s(\nabla_z m(z_t))\big)$$

    The slope of the margin does not fade where the model is sure, as that of the cross-entropy in `PGD`
    does. Every point on the way is compared, the image itself, too. Two forward and one backward pass for
    each step.

    Attributes:
        ball: `LinfBall` or `L2Ball`.
        steps: Number of steps of each start, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        restarts: Random starts, >= 1.

    Source: Carlini and Wagner 2017 for the margin, with the steps of Madry et al. 2018.
    """

    ball: Ball
    steps: int
    step_size: float
    restarts: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        check_climb(steps=self.steps, step_size=self.step_size)
        _check.count(restarts=self.restarts)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return the points of lowest margin; a margin below 0 is a wrong prediction.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            generator: Source of the starts; None is torch's global generator.

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
        down = uphill(lambda z: -_margin(model, z, y))
        best = Best(x, torch.no_grad()(lambda z: _margin(model, z, y)), None)
        for _ in range(self.restarts):
            start = self.ball.sample(x, generator)
            best.consider(start)
            for z in climb(down, x, self.ball, [self.step_size] * self.steps, start=start):
                best.consider(z)
        return best.z


@dataclass(frozen=True, kw_only=True)
class Square:
    r"""Lower the margin of class $y$ by random squares: an attack that asks for logits and no gradient.

    It starts from vertical stripes of $\pm \varepsilon$. Each query sets one square of random place, of
    one sign in each channel, to $\pm \varepsilon$ and keeps it if the margin falls; squares shrink as
    queries are spent. An image whose prediction is wrong is left alone. Where it does better than `PGD`,
    gradients mislead: the network hides from them and is not robust. One forward pass for each query.

    Attributes:
        eps: Budget in each entry, in pixel units, >= 0.
        queries: Forward passes for each image, >= 1; the first goes to the stripes.
        share: Share of the pixels in the first squares, in (0, 1).

    Source: Andriushchenko et al. 2020, algorithms 1 and 2 for the l-infinity ball, with the schedule of
    the authors' code. Differs: signs that happen to change nothing are not drawn anew.
    """

    eps: float
    queries: int = 1000
    share: float = 0.8

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.nonnegative(eps=self.eps)
        _check.count(queries=self.queries)
        _check.unit_interval(share=self.share)

    @torch.no_grad()
    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return the first wrongly predicted points, and where there is none those of lowest margin.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, channels, h, w), pixels in [0, 1].
            y: True classes, int64 (n,).
            generator: Source of places and signs; None is torch's global generator.

        Returns:
            Images within eps of `x` in every entry, exactly; detached.

        Raises:
            TypeError: If `x` is not floating-point or `y` not int64.
            ValueError: If shapes disagree, a label is not a class of the model, or a pixel is not in
                [0, 1].
        """
        _check.labelled(x, y)
        _check.pixels(x=x)
        if x.ndim != 4:
            raise ValueError(f"Expected x of shape (n, channels, h, w), got {tuple(x.shape)}")
        _model.settled(model)
        ball, x = LinfBall(eps=self.eps), x.detach()
        best, lowest = x.clone(), _margin(model, x, y)
        for query in range(self.queries):
            # Drawn for all rows, needed or not: what one row gets depends on no other row.
            change = (
                self._stripes(x, generator) if query == 0 else self._square(x, query, generator)
            )
            rows = (lowest >= 0).nonzero()[:, 0]
            if len(rows) == 0:
                break
            near, x_near, change = best[rows], x[rows], change[rows]
            z = ball.project(torch.where(change == 0, near, x_near + change), x_near)
            margin = _margin(model, z, y[rows])
            better = rows[margin < lowest[rows]]
            best[better], lowest[better] = z[margin < lowest[rows]], margin[margin < lowest[rows]]
        return best

    def _stripes(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """A change of ±eps, the same all the way down each column."""
        return self.eps * _random.sign_like(x[:, :, :1], generator=generator).expand_as(x)

    def _square(self, x: Tensor, query: int, generator: torch.Generator | None) -> Tensor:
        """A change of ±eps in a square of each image, and 0 elsewhere."""
        height, width = x.shape[2:]
        done = query / self.queries
        shrunk = next(factor for share, factor in _SHRUNK if done >= share)
        side = round((self.share / shrunk * height * width) ** 0.5)
        side = min(max(side, 1), height, width)
        corner = (_random.uniform_like(x[:, 0, 0, :1].expand(-1, 2), generator=generator) + 1) / 2
        inside = [
            _within((corner[:, axis] * (size - side + 1)).long().clamp(max=size - side), side, size)
            for axis, size in enumerate((height, width))
        ]
        square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        signs = _random.sign_like(x[:, :, :1, :1], generator=generator)
        return torch.where(square, self.eps * signs, 0)


def _within(first: Tensor, side: int, size: int) -> Tensor:
    """Which places of each row lie in its interval, bool (n, size)."""
    place = torch.arange(size, device=first.device) - first[:, None]
    return (place >= 0) & (place < side)


def _margin(model: Classifier, z: Inputs, y: Labels) -> PerSample:
    """How far the logit of the label is above all others."""
    return _model.lead(_model.logits(model, z, y, classes=2), y)
