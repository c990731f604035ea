"""Objectives on the order of the pixels, by soft counts that turn hard as a temperature falls."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attrlib import _check
from attrlib._magnitude import level
from attrlib._select import kth_highest
from attrlib.attacks.objectives import pair, top_set
from attrlib.maps import to_heatmap
from attrlib.types import Inputs, PerSample

_FLOOR = 1e-12  # of a heat in average pixels, whose logarithm is taken


@dataclass(frozen=True, kw_only=True)
class Rank:
    r"""Swap pixels of the top k for others, whatever their importance.

    $$D(a, b) = \sum_{p \notin S_k(a)} \sigma\Big(\frac{\log h_p(b) - \tau}{T}\Big)
               - \sum_{p \in S_k(a)} \sigma\Big(\frac{\log h_p(b) - \tau}{T}\Big)$$

    with the heatmap $h$ (absolute values summed over channels) and $\tau$ the k-th largest logarithm of
    it at `z`, a constant in the derivative. As the temperature $T$ falls, the sums count the pixels
    outside and inside $S_k(a)$ that are in the top k at `z`, the k-th by half. `TopK` moves mass, and
    mass sits in few pixels; here each pixel near the threshold counts alike.

    Attributes:
        k: Pixels in the set $S_k(a)$, 1 to h·w.
        temperature: T > 0, in units of log heat; or its first and last value, between which it falls
            geometrically over the steps of an attack.
        window: Radius >= 0. Above 0 the set is grown by this window, so that the top k must leave the
            neighbourhood: the attack against LENS scores.
        diverse: Take the diverse set `maps.diverse_topk(a, k=k, window=window)`.
        relative: Heat is in units of its mean, so that nothing is gained by a larger map. False takes the
            mean as a constant in the derivative: larger maps then seem to gain, and an ascent takes other
            ways, which are shorter on some networks.

    Source: ours; soft ranks by sigmoids as in the objectives for learning to rank of Qin et al. 2010.
    """

    k: int
    temperature: float | tuple[float, float] = (0.1, 0.02)
    window: int = 0
    diverse: bool = False
    relative: bool = True

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check.count(k=self.k)
        _check.count(window=self.window, low=0)
        _temperatures(self.temperature)

    def __call__(self, a: Inputs, b: Inputs, /) -> PerSample:
        """Return soft count outside minus soft count inside, in [-h·w, h·w]; 0 where `b` is zero.

        Args:
            a: Signed maps (n, channels, h, w) at `x`, which give the set.
            b: Signed maps of the same shape, at `z`.

        Raises:
            ValueError: If the shapes differ, are not (n, channels, h, w), or `k` exceeds h·w.
        """
        pair(a, b)
        return self.against(a)(b)

    def at(self, progress: float) -> "Rank":
        """Return the objective with the temperature of a step.

        Args:
            progress: Share of the steps, 0 to 1.
        """
        return replace(self, temperature=_temperature(self.temperature, progress))

    def against(self, a: Inputs) -> Callable[[Tensor], Tensor]:
        """Return the objective as a function of `b` alone; the set is found once.

        Args:
            a: Signed maps (n, channels, h, w) at `x`.
        """
        inside = top_set(a, k=self.k, window=self.window, diverse=self.diverse)
        return _RankAgainst(self, inside.flatten(1))


@dataclass(frozen=True, eq=False)
class _RankAgainst:
    rank: Rank
    inside: Tensor

    def at(self, progress: float) -> "_RankAgainst":
        return replace(self, rank=self.rank.at(progress))

    def __call__(self, b: Tensor) -> Tensor:
        heat = _log_heat(b, relative=self.rank.relative)
        _check.same_shape(a=self.inside, b=heat)
        threshold = kth_highest(heat, self.rank.k)[:, None]
        soft = torch.sigmoid((heat - threshold) / _temperature(self.rank.temperature, 1.0))
        return _undefined_to_zero(torch.where(self.inside, -soft, soft).sum(1), b)


@dataclass(frozen=True, kw_only=True)
class Order:
    r"""Put the pixels into another order.

    $$D(a, b) = -\mathrm{corr}\big(r(a), r(b)\big), \qquad
      r_p(b) = \frac1m \sum_{j=1}^{m} \sigma\Big(\frac{\log h_p(b) - \tau_j}{T}\Big)$$

    the correlation of ranks with soft ranks: $r(a)$ holds the ranks of the heatmap at `x`, ties averaged
    by the levels, and $\tau_1, \dots, \tau_m$ are evenly spaced quantiles of the log heat at `z`,
    constants in the derivative. The attack against rank correlations.

    Attributes:
        temperature: T > 0, in units of log heat; or its first and last value, as for `Rank`.
        levels: Number m of quantiles, >= 2.

    Source: ours; a soft form of Spearman's coefficient, which moves together with Kendall's.
    """

    temperature: float | tuple[float, float] = (0.5, 0.1)
    levels: int = 32

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check.count(levels=self.levels, low=2)
        _temperatures(self.temperature)

    def __call__(self, a: Inputs, b: Inputs, /) -> PerSample:
        """Return minus the soft rank correlation, in [-1, 1]; 0 where a map is constant.

        Args:
            a: Signed maps (n, channels, h, w) at `x`.
            b: Signed maps of the same shape, at `z`.

        Raises:
            ValueError: If the shapes differ or are not (n, channels, h, w).
        """
        pair(a, b)
        return self.against(a)(b)

    def at(self, progress: float) -> "Order":
        """Return the objective with the temperature of a step.

        Args:
            progress: Share of the steps, 0 to 1.
        """
        return replace(self, temperature=_temperature(self.temperature, progress))

    def against(self, a: Inputs) -> Callable[[Tensor], Tensor]:
        """Return the objective as a function of `b` alone; the ranks of `a` are found once.

        Args:
            a: Signed maps (n, channels, h, w) at `x`.
        """
        heat = to_heatmap(a.detach()).flatten(1)
        # A rank with ties averaged: how many are below, plus half of the equal ones.
        ordered = heat.sort(dim=1).values
        below = torch.searchsorted(ordered, heat, right=False)
        upto = torch.searchsorted(ordered, heat, right=True)
        ranks = (below + upto).to(heat)
        return _OrderAgainst(self, _standard(ranks))


@dataclass(frozen=True, eq=False)
class _OrderAgainst:
    order: Order
    ranks: Tensor

    def at(self, progress: float) -> "_OrderAgainst":
        return replace(self, order=self.order.at(progress))

    def __call__(self, b: Tensor) -> Tensor:
        heat = _log_heat(b)
        _check.same_shape(a=self.ranks, b=heat)
        count = self.order.levels
        places = (torch.arange(count).to(heat) + 0.5) / count * heat.shape[1]
        levels = heat.detach().sort(dim=1).values[:, places.long()]
        temperature = _temperature(self.order.temperature, 1.0)
        soft = torch.sigmoid((heat[:, :, None] - levels[:, None]) / temperature)
        return _undefined_to_zero(-(self.ranks * _standard(soft.mean(2))).sum(1), b)


def _log_heat(b: Tensor, *, relative: bool = True) -> Tensor:
    heat = level(to_heatmap(b))
    mean = heat.mean((1, 2), keepdim=True)
    mean = mean if relative else mean.detach()
    return (heat / torch.where(mean == 0, 1, mean)).flatten(1).clamp(min=_FLOOR).log()


def _undefined_to_zero(values: Tensor, b: Tensor) -> Tensor:
    return torch.where((b == 0).flatten(1).all(1), 0, values)


def _standard(rows: Tensor) -> Tensor:
    """Rows of mean 0 and length 1; constant rows become zero."""
    rows = rows - rows.mean(1, keepdim=True)
    square = rows.square().sum(1, keepdim=True)
    return rows / torch.where(square == 0, 1, square).sqrt()


def _temperature(temperature: float | tuple[float, float], progress: float) -> float:
    if not isinstance(temperature, tuple):
        return temperature
    first, last = temperature
    return float(first * (last / first) ** progress)


def _temperatures(temperature: float | tuple[float, float]) -> None:
    for value in temperature if isinstance(temperature, tuple) else (temperature,):
        _check.positive(temperature=value)
    if isinstance(temperature, tuple) and len(temperature) != 2:
        raise ValueError(f"Expected temperature to be one number or two, got {temperature!r}")
