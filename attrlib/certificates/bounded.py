"""Attributions whose maps are bounded by construction, which is all that smoothing asks of them.

A bound that was seen on some inputs is none: one input beyond it voids the certificate. A map divided by
its own length, or a set of its highest pixels, needs no such belief.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from attrlib import _check, _shape
from attrlib.maps import to_heatmap, topk_mask
from attrlib.types import Attribution, Classifier


@dataclass(frozen=True, kw_only=True)
class Bounded:
    """An attribution, what each of its maps is turned into, and what is promised of the result.

    `normalized`, `clipped` and `sparsified` make one whose promise holds whatever the network does. Made
    by hand, the promise is yours; `certify` refuses a map that breaks it, which proves nothing for the
    maps that it did not see.

    Args:
        attribution: Explains class y; may draw noise of its own, independently for each row.
        reduce: Function of the maps (n, …) that gives the bounded ones (n, …).
        bound: Largest length M of a map, > 0.
        peak: Largest absolute entry, > 0; None is `bound`.
        nonnegative: Whether no entry is below 0.
        binary: Whether all entries are 0 or 1.
        clamp: Whether inputs are clamped to [0, 1] first, as a part of the attribution. Noise leaves the
            range of pixels, where a network was never trained; clamped before the noise is drawn from its
            law, the proof would not hold.

    Raises:
        ValueError: If `bound` or `peak` is not above 0.
    """

    attribution: Attribution
    reduce: Callable[[Tensor], Tensor]
    bound: float
    peak: float | None = None
    nonnegative: bool = False
    binary: bool = False
    clamp: bool = True

    def __post_init__(self) -> None:
        _check.positive(bound=self.bound)
        if self.peak is not None:
            _check.positive(peak=self.peak)

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the largest possible entry."""
        high = self.bound if self.peak is None else self.peak
        return (0.0 if self.nonnegative else -high), high

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Return the bounded maps (n, …)."""
        _check.labelled(x, y)
        x = x.clamp(0, 1) if self.clamp else x
        return self.reduce(self.attribution(model, x, y, generator=generator))


def normalized(
    attribution: Attribution,
    *,
    reduce: Callable[[Tensor], Tensor] | None = torch.abs,
    clamp: bool = True,
) -> Bounded:
    r"""Return an attribution whose maps have length 1: only the direction of a map is left.

    $$g(x) = \frac{|a(x)|}{\|a(x)\|_2}$$

    and zero where a is zero. What compares directions or orders, as cosine and top-k do, loses nothing
    by it for a single map; the mean over noise weighs all maps alike.

    Args:
        attribution: Explains class y.
        reduce: Function of the maps (n, …) that has no negative values, applied first: `torch.abs`, or
            `to_heatmap` for one value a pixel. None keeps the sign, with a weaker certificate.
        clamp: Whether inputs are clamped to [0, 1] first.

    Returns:
        Bounded attribution with M = 1, non-negative unless `reduce` is None.

    Source: ours.

    >>> from attrlib.attributions import gradient
    >>> g = normalized(gradient)
    >>> model = torch.nn.Linear(2, 1)
    >>> round(g(model, torch.rand(1, 2), torch.tensor([0])).norm().item(), 4)
    1.0
    """
    return Bounded(
        attribution=attribution,
        reduce=partial(_unit, first=reduce),
        bound=1.0,
        nonnegative=reduce is not None,
        clamp=clamp,
    )


def clipped(attribution: Attribution, *, bound: float, clamp: bool = True) -> Bounded:
    r"""Return an attribution whose maps are shortened where they are longer than a bound.

    $$g(x) = a(x) \, \min\Big(1, \frac{M}{\|a(x)\|_2}\Big)$$

    Args:
        attribution: Explains class y.
        bound: Largest length M > 0, in the unit of the map: logits per pixel for gradients.
        clamp: Whether inputs are clamped to [0, 1] first.

    Returns:
        Bounded attribution, signed.

    Raises:
        ValueError: If `bound` is not above 0.

    Source: ours; clipping by length is common in private training, Abadi et al. 2016.
    """
    _check.positive(bound=bound)
    return Bounded(
        attribution=attribution, reduce=partial(_short, bound=bound), bound=bound, clamp=clamp
    )


def sparsified(attribution: Attribution, *, k: int, clamp: bool = True) -> Bounded:
    r"""Return an attribution whose maps are 1 at the k highest pixels and 0 elsewhere.

    Smoothed, it is the probability that a pixel is among the k highest under noise.

    Args:
        attribution: Explains class y, maps (n, channels, h, w).
        k: Pixels per set, >= 1.
        clamp: Whether inputs are clamped to [0, 1] first.

    Returns:
        Bounded attribution of maps (n, h, w) of zeros and ones, M = √k.

    Raises:
        ValueError: If `k` is below 1; when it is called, if `k` is more than the pixels of a map.

    Source: Levine et al. 2019, Sparsified SmoothGrad, its version of zeros and ones. Differs: it ranks
    pixels by the sum of their channels, not channels; and the class is that of y, not the one with the
    largest logit under noise.
    """
    _check.count(k=k)
    return Bounded(
        attribution=attribution,
        reduce=partial(_highest, k=k),
        bound=k**0.5,
        peak=1.0,
        nonnegative=True,
        binary=True,
        clamp=clamp,
    )


def _unit(a: Tensor, *, first: Callable[[Tensor], Tensor] | None) -> Tensor:
    a = a if first is None else first(a)
    # By the largest entry first, or the squares of a saturated network's tiny maps would be zero.
    for size in (_largest(a), None):
        size = torch.linalg.vector_norm(a.flatten(1), dim=1) if size is None else size
        a = a / _shape.wide(torch.where(size == 0, 1, size), a)
    return a


def _short(a: Tensor, *, bound: float) -> Tensor:
    largest = _largest(a)
    safe = torch.where(largest == 0, 1, largest)
    size = torch.linalg.vector_norm((a / _shape.wide(safe, a)).flatten(1), dim=1)
    long = size > bound / safe
    return torch.where(
        _shape.wide(long, a), a / _shape.wide(safe, a) / _shape.wide(size / bound, a), a
    )


def _highest(a: Tensor, *, k: int) -> Tensor:
    return topk_mask(to_heatmap(a), k=k).to(a)


def _largest(a: Tensor) -> Tensor:
    return a.detach().flatten(1).abs().amax(1)
