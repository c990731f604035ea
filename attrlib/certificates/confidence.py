"""What a sample of bounded values says for certain about their mean, up to a failure probability.

`hoeffding`, `bernstein` and `betting` give a lower bound of a mean and have one call, so that any of them
can be given to `certify`. They take the values in parts, in order, and keep none of them: memory does not
depend on how many there are, and the bound does not depend on how they are cut into parts.
"""

import math
from collections.abc import Iterable
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from attrlib import _check

BETS = 1024
"""Means that `betting` tries; its bound is one of them, so it is at most a share 1 / BETS too low."""

_LARGEST_BET = 0.9  # share of the capital that may be lost at once
# Factors multiplied before a logarithm is taken: the product stays far from 0 and infinity.
_TOGETHER = 64


@runtime_checkable
class LowerBound(Protocol):
    """A lower bound of a mean: `hoeffding`, `bernstein` or `betting`."""

    def __call__(
        self, values: Iterable[Tensor], /, *, low: float, high: float, samples: int, alpha: float
    ) -> Tensor:
        """Return the lower bounds (n,) of values that come in parts (k, n)."""
        ...


def hoeffding(
    values: Iterable[Tensor], *, low: float, high: float, samples: int, alpha: float
) -> Tensor:
    r"""Return Hoeffding's lower bound of a mean, which knows the range only.

    $$\bar w - (b - a) \sqrt{\frac{\ln (1 / \alpha)}{2m}}$$

    Args:
        values: Independent draws in parts (k, n), in order: n means at once.
        low: Least possible value a.
        high: Largest possible value b > a.
        samples: Draws m in all parts together, >= 1.
        alpha: Probability that the bound is above the mean, at most; strictly between 0 and 1.

    Returns:
        Lower bounds (n,), float64; never below `low`.

    Raises:
        ValueError: If a number is out of range, a value is outside [low, high], or the parts hold another
            number of draws.

    Source: Hoeffding 1963, theorem 2.

    >>> hoeffding([torch.ones(200, 1)], low=0.0, high=1.0, samples=200, alpha=0.01).item()
    0.892
    """
    mean, _ = _moments(values, low, high, samples, alpha)
    return (mean - (high - low) * math.sqrt(math.log(1 / alpha) / (2 * samples))).clamp(min=low)


def bernstein(
    values: Iterable[Tensor], *, low: float, high: float, samples: int, alpha: float
) -> Tensor:
    r"""Return the empirical Bernstein lower bound of a mean, which uses the variance of the sample.

    $$\bar w - \sqrt{\frac{2 V \ln (2 / \alpha)}{m}} - \frac{7 (b - a) \ln (2 / \alpha)}{3 (m - 1)}$$

    with the unbiased variance $V$ of the sample.

    Args:
        values: Independent draws in parts (k, n), in order: n means at once.
        low: Least possible value a.
        high: Largest possible value b > a.
        samples: Draws m in all parts together, >= 2.
        alpha: Probability that the bound is above the mean, at most; strictly between 0 and 1.

    Returns:
        Lower bounds (n,), float64; never below `low`.

    Raises:
        ValueError: If a number is out of range, a value is outside [low, high], or the parts hold another
            number of draws.

    Source: Maurer and Pontil 2009, theorem 4.

    >>> bernstein([torch.ones(200, 1)], low=0.0, high=1.0, samples=200, alpha=0.01).item()
    0.937
    """
    _check.count(samples=samples, low=2)
    mean, variance = _moments(values, low, high, samples, alpha)
    rare = math.log(2 / alpha)
    width = torch.sqrt(2 * variance * rare / samples) + 7 * (high - low) * rare / (
        3 * (samples - 1)
    )
    return (mean - width).clamp(min=low)


def betting(
    values: Iterable[Tensor], *, low: float, high: float, samples: int, alpha: float
) -> Tensor:
    r"""Return the lower bound of a mean from bets that it is higher, often the best of the three.

    With values scaled to [0, 1], a bet against the mean $\mu$ grows a capital of 1 to

    $$K(\mu) = \prod_{t=1}^m \big(1 + \lambda_t(\mu) (w_t - \mu)\big), \qquad
      \lambda_t(\mu) = \min\Big(\sqrt{\frac{2 \ln (1 / \alpha)}{m \hat\sigma^2_{t-1}}},
      \frac{0.9}{\mu}\Big)$$

    and the bound is the largest $\mu$ with $K(\mu) \ge 1 / \alpha$. If $\mu$ is the mean, the game is
    fair, so by Markov's inequality K reaches $1 / \alpha$ with probability at most $\alpha$. Bets follow
    from the draws before them alone, $\hat\sigma^2_t = (1/4 + \sum_{i \le t} (w_i - \hat\mu_i)^2) /
    (t + 1)$ with $\hat\mu_t = (1/2 + \sum_{i \le t} w_i) / (t + 1)$. K falls in $\mu$, so trying `BETS`
    means rounds the bound down and costs no probability.

    Args:
        values: Independent draws in parts (k, n), in order: n means at once.
        low: Least possible value a.
        high: Largest possible value b > a.
        samples: Draws m in all parts together, >= 1.
        alpha: Probability that the bound is above the mean, at most; strictly between 0 and 1.

    Returns:
        Lower bounds (n,), float64; never below `low`. The order of the draws counts a little.

    Raises:
        ValueError: If a number is out of range, a value is outside [low, high], or the parts hold another
            number of draws.

    Source: Waudby-Smith and Ramdas 2024, section 4, with their predictable plug-in bets. Differs:
    one-sided, and capital is looked at once, after the last draw.

    >>> betting([torch.ones(200, 1)], low=0.0, high=1.0, samples=200, alpha=0.01).item()
    0.974
    """
    _check_range(low, high, samples, alpha)
    rare, seen = math.log(1 / alpha), 0
    means: Tensor | None = None
    for part in values:
        w = (_inside(part, low, high) - low) / (high - low)
        if means is None:
            means = torch.arange(BETS, dtype=torch.float64, device=w.device) / BETS
            largest = _LARGEST_BET / means  # infinite at 0, where no bet can lose
            one = means.new_ones(1)
            capital = w.new_zeros(w.shape[1], BETS)
            together = max(1, _TOGETHER // w.shape[1])
            room = w.new_empty(together, w.shape[1], BETS)
            total, squares = w.new_full((w.shape[1],), 0.5), w.new_full((1,), 0.25)
        times = torch.arange(seen + 1, seen + len(w) + 1, device=w.device)[:, None]
        sums = total + w.cumsum(0)
        spread = squares + ((w - sums / (times + 1)) ** 2).cumsum(0)
        before = torch.cat([squares.expand(1, w.shape[1]), spread[:-1]]) / times
        bets = torch.sqrt(2 * rare / (samples * before))
        total, squares, seen = sums[-1], spread[-1], seen + len(w)
        blocks = (torch.split(values, together) for values in (w, bets))
        for draws, most in zip(*blocks, strict=True):
            factors = room[: len(draws)]  # one array for all: new ones cost more than the sums
            torch.minimum(most[..., None], largest, out=factors)
            torch.addcmul(one, factors, draws[..., None] - means, out=factors)
            capital += factors.prod(0).log()
    _check_seen(seen, samples)
    assert means is not None
    beaten = (capital >= rare).cumprod(1).sum(1)
    return low + (high - low) * means[(beaten - 1).clamp(min=0)]


def vector_error(samples: int, *, bound: float, alpha: float, norm: float = 0.0) -> float:
    r"""Return how far a mean map of vectors of bounded length is from the ideal one, in any dimension.

    The smaller of two bounds, with $s = \ln(1 / \alpha)$ and $V = M^2 - H^2$, which no variance exceeds:

    $$\frac{M (1 + \sqrt{2s})}{\sqrt N}, \qquad
      \sqrt{\frac VN} + \sqrt{\frac{2s}{N} \Big(V + 4M \sqrt{\frac VN}\Big)} + \frac{2Ms}{3N}$$

    Args:
        samples: Independent maps N in the mean, >= 1.
        bound: Bound M > 0 on the length of each.
        alpha: Probability that the distance is larger, at most; strictly between 0 and 1.
        norm: Lower bound H of the length of the ideal map, from 0 to `bound`.

    Returns:
        The bound on $\|\hat h - h\|_2$, in the unit of `bound`.

    Raises:
        ValueError: If a number is out of range.

    Source: the first by McDiarmid 1989, the second by Bousquet 2002. Which one is smaller does not depend
    on the draws if `norm` is fixed; a lower bound of the length, if right, only makes the result larger.

    >>> round(vector_error(1000, bound=1.0, alpha=0.001), 3)
    0.149
    >>> round(vector_error(1000, bound=1.0, alpha=0.001, norm=0.95), 3)
    0.058
    """
    _check.count(samples=samples)
    _check.positive(bound=bound)
    _check.unit_interval(alpha=alpha)
    if not 0 <= norm <= bound:
        raise ValueError(f"Expected norm from 0 to bound {bound:.6g}, got {norm!r}")
    rare, variance = math.log(1 / alpha), bound**2 - norm**2
    by_range = bound * (1 + math.sqrt(2 * rare)) / math.sqrt(samples)
    mean = math.sqrt(variance / samples)
    by_variance = (
        mean
        + math.sqrt(2 * rare * (variance + 4 * bound * mean) / samples)
        + 2 * bound * rare / (3 * samples)
    )
    return min(by_range, by_variance)


def entry_bounds(
    mean: Tensor, *, samples: int, alpha: float, low: float = 0.0, high: float = 1.0, binary: bool
) -> tuple[Tensor, Tensor]:
    r"""Return bounds between which all entries of an ideal map lie at once.

    $$\hat h_i \pm (b - a) \sqrt{\frac{\ln(2d / \alpha)}{2N}}$$

    by Hoeffding and a union over the $d$ entries; for maps of zeros and ones the exact interval of
    Clopper and Pearson at $\alpha / d$ instead, much narrower for entries near 0 and 1.

    Args:
        mean: Mean of the maps of one image, of any shape.
        samples: Independent maps N in the mean, >= 1.
        alpha: Probability that some entry is outside, at most; strictly between 0 and 1.
        low: Least possible entry a.
        high: Largest possible entry b > a.
        binary: Whether all entries are 0 or 1; then `low` is 0 and `high` 1.

    Returns:
        Lower and upper bounds, float64, in the shape of `mean`, within [low, high].

    Raises:
        ValueError: If a number is out of range, or a mean is outside [low, high].

    Source: Levine et al. 2019 for Hoeffding and the union; Clopper and Pearson 1934.

    >>> low, high = entry_bounds(torch.tensor([0.5]), samples=1000, alpha=0.05, binary=True)
    >>> round(low.item(), 3), round(high.item(), 3)
    (0.469, 0.531)
    """
    _check_range(low, high, samples, alpha)
    inside = _inside(mean, low, high)
    if not binary:
        width = (high - low) * math.sqrt(math.log(2 * mean.numel() / alpha) / (2 * samples))
        return (inside - width).clamp(min=low), (inside + width).clamp(max=high)
    hits, tail = np.round(inside.cpu().numpy() * samples), alpha / (2 * mean.numel())
    lower = least_chance(hits, samples=samples, alpha=tail)
    missed = np.maximum(samples - hits, 1)
    upper = np.where(hits < samples, stats.beta.isf(tail, hits + 1, missed), 1)
    return torch.as_tensor(lower).to(mean.device), torch.as_tensor(upper).to(mean.device)


def least_chance(hits: np.ndarray, *, samples: int, alpha: float) -> np.ndarray:
    """The exact lower bounds of Clopper and Pearson of probabilities, for so many hits of the samples."""
    found = stats.beta.ppf(alpha, np.maximum(hits, 1), samples - hits + 1)
    return np.where(hits > 0, found, 0)


def _moments(
    values: Iterable[Tensor], low: float, high: float, samples: int, alpha: float
) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance of draws that come in parts."""
    _check_range(low, high, samples, alpha)
    seen, mean, squares = 0, torch.zeros(1), torch.zeros(1)
    for part in values:
        w = _inside(part, low, high)
        gap = w.mean(0) - mean.to(w)
        squares = squares.to(w) + ((w - w.mean(0)) ** 2).sum(0)
        squares = squares + gap**2 * seen * len(w) / (seen + len(w))
        mean = mean.to(w) + gap * len(w) / (seen + len(w))
        seen += len(w)
    _check_seen(seen, samples)
    return mean, squares / max(samples - 1, 1)


def _inside(values: Tensor, low: float, high: float) -> Tensor:
    """The values as float64; raise if one is outside the range by more than rounding."""
    w, slack = values.detach().double(), 1e-9 * (high - low)
    if not bool(((w >= low - slack) & (w <= high + slack)).all()):
        bad = w[~((w >= low - slack) & (w <= high + slack))][0]
        raise ValueError(f"Expected values from {low:.6g} to {high:.6g}, got {float(bad):.6g}")
    return w.clamp(low, high)


def _check_range(low: float, high: float, samples: int, alpha: float) -> None:
    _check.count(samples=samples)
    _check.unit_interval(alpha=alpha)
    if not low < high:
        raise ValueError(f"Expected low < high, got {low!r} and {high!r}")


def _check_seen(seen: int, samples: int) -> None:
    if seen != samples:
        raise ValueError(f"Expected {samples} samples in all parts together, got {seen}")
