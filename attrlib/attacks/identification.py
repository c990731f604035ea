"""The objective against identification: a map that could be that of another image."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from attrlib import _check
from attrlib.attacks.objectives import pair, unit
from attrlib.maps import to_heatmap
from attrlib.types import Inputs, PerSample


@dataclass(frozen=True, kw_only=True, eq=False)
class Identification:
    r"""Make the heatmap less like that of its own image than like those of others.

    $$D(a, b) = -\tfrac{T}{m} \sum_{j=1}^m
      \log\Big(1 + \exp\frac{\cos(h(a), h(b)) - \cos(h(o_j), h(b))}{T}\Big)$$

    with heatmaps $h$ and the maps $o_j$ of other images: a smooth form of minus the number of others that
    the map is less like, which `metrics.identification` counts. Another that is already ahead of the own
    map hardly counts any more; one that is behind pulls until it is ahead.

    Attributes:
        others: Signed clean maps (n, m, channels, h, w) of m other images for each sample, of its class
            if the attack is to fool `metrics.identification`; or (1, m, …), the same for all.
        temperature: T > 0, in units of the cosine.

    Source: ours; the logistic loss of pairs as in RankNet, Burges et al. 2005.
    """

    others: Tensor
    temperature: float = 0.05

    def __post_init__(self) -> None:
        """Check the maps."""
        _check.positive(temperature=self.temperature)
        _check.floating(others=self.others)
        if self.others.ndim != 5 or self.others.numel() == 0:
            raise ValueError(
                "Expected others of shape (n, m, channels, h, w) with m >= 1, "
                f"got {tuple(self.others.shape)}"
            )
        _check.finite(others=self.others)

    def __call__(self, a: Inputs, b: Inputs, /) -> PerSample:
        """Return the smooth count, <= 0, larger where more of the others are ahead; 0 where `b` is zero.

        Args:
            a: Signed maps (n, channels, h, w) at `x`.
            b: Signed maps of the same shape, at `z`.

        Raises:
            ValueError: If the shapes differ or do not fit the others.
        """
        pair(a, b)
        return self._behind(*self._units(a), b)

    def against(self, a: Inputs) -> Callable[[Tensor], Tensor]:
        """Return the objective as a function of `b` alone; the other heatmaps are made once.

        Args:
            a: Signed maps (n, channels, h, w) at `x`.
        """
        return functools.partial(self._behind, *self._units(a.detach()))

    def rows(self, index: Tensor) -> "Identification":
        """Return the objective for some of the samples.

        Args:
            index: Their numbers, or a mask (n,).
        """
        if len(self.others) == 1:
            return self
        others = self.others[index.to(self.others.device)]
        return Identification(others=others, temperature=self.temperature)

    def _units(self, a: Tensor) -> tuple[Tensor, Tensor]:
        """Heatmaps of length 1: own (n, h·w) and others (n or 1, m, h·w)."""
        own = unit(to_heatmap(a))
        if self.others.shape[2:] != a.shape[1:] or len(self.others) not in (1, len(a)):
            raise ValueError(
                f"Expected others to fit maps {tuple(a.shape)}, got {tuple(self.others.shape)}"
            )
        others = unit(to_heatmap(self.others.flatten(0, 1))).to(a)
        return own, others.view(*self.others.shape[:2], -1)

    def _behind(self, own: Tensor, others: Tensor, b: Tensor) -> Tensor:
        heat = unit(to_heatmap(b))
        ahead = (heat[:, None] * (own[:, None] - others)).sum(2) / self.temperature
        value = -self.temperature * functional.softplus(ahead).mean(1)
        return torch.where((b == 0).flatten(1).all(1), 0, value)
