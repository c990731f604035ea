"""What an attack on an attribution increases: how far the map at z is from the map at x.

An objective takes two batches of signed maps (n, channels, h, w), at `x` and at `z`, and gives one value
per sample, larger for more change, differentiable in the second. Where it is undefined, as for a map of
zeros, it is constant: such a sample cannot be attacked.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attrlib import _check
from attrlib.maps import dilate, diverse_topk, mass_center, normalize, to_heatmap, topk_mask
from attrlib.types import Inputs, Objective, PerSample


@dataclass(frozen=True, kw_only=True)
class TopK:
    r"""Push importance out of the k most important pixels.

    $$D(a, b) = -\sum_{p \in S_k(a)} h_p(b)$$

    with the heatmap $h$ (absolute values summed over channels) scaled to mean 1.

    Attributes:
        k: Pixels in the set $S_k(a)$, 1 to h·w.
        window: Radius >= 0. Above 0 the set is grown by this window, so that importance must leave the
            neighbourhood: the attack against LENS scores.
        diverse: Take the diverse set `maps.diverse_topk(a, k=k, window=window)`.

    Source: Ghorbani et al. 2019, section 3; `window` as in the code of Kamath et al. 2024.
    """

    k: int
    window: int = 0
    diverse: bool = False

    def __post_init__(self) -> None:
        """Check the numbers."""
        _check.count(k=self.k)
        _check.count(window=self.window, low=0)

    def __call__(self, a: Inputs, b: Inputs, /) -> PerSample:
        """Return minus the importance left in the set, in average pixels, <= 0.

        Args:
            a: Signed maps (n, channels, h, w) at `x`, which give the set.
            b: Signed maps of the same shape, at `z`.

        Raises:
            ValueError: If the shapes differ, are not (n, channels, h, w), or `k` exceeds h·w.
        """
        pair(a, b)
        return self.against(a)(b)

    def against(self, a: Inputs) -> Callable[[Tensor], Tensor]:
        """Return the objective as a function of `b` alone; the set is found once.

        Args:
            a: Signed maps (n, channels, h, w) at `x`.
        """
        chosen = top_set(a, k=self.k, window=self.window, diverse=self.diverse)
        return functools.partial(_minus_mass, chosen)


@dataclass(frozen=True, kw_only=True)
class MassCenter:
    r"""Move the centre of mass of the heatmap.

    $$D(a, b) = \|C(b) - C(a)\|_2^2$$

    Its gradient is exactly zero where the maps are equal; the attacks start from a random point there.

    Source: Ghorbani et al. 2019, section 3. Differs: squared, which has a finite gradient everywhere;
    centres are not rounded to whole pixels.
    """

    def __call__(self, a: Inputs, b: Inputs, /) -> PerSample:
        """Return the squared shift of the centre of mass, in pixels², >= 0; 0 where a map is zero.

        Args:
            a: Signed maps (n, channels, h, w) at `x`.
            b: Signed maps of the same shape, at `z`.

        Raises:
            ValueError: If the shapes differ or are not (n, channels, h, w).
        """
        pair(a, b)
        shift = mass_center(to_heatmap(b)) - mass_center(to_heatmap(a))
        zero = (a == 0).flatten(1).all(1) | (b == 0).flatten(1).all(1)
        return torch.where(zero, 0, shift.square().sum(1))


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetMap:
    r"""Draw a chosen picture into the heatmap.

    $$D(a, b) = -\tfrac{1}{hw} \sum_p \big(h_p(b) - t_p\big)^2$$

    with the heatmap and the target both scaled to mean 1. The map at `x` plays no part.

    Attributes:
        target: The picture, non-negative and not all zero: one (h, w) for all samples, or (n, h, w).

    Source: Dombrowski et al. 2019, equation 3. Differs: the term that keeps the output is left to
    `keep_label`.
    """

    target: Tensor

    def __post_init__(self) -> None:
        """Check the picture."""
        if not isinstance(self.target, Tensor) or not self.target.is_floating_point():
            kind = getattr(self.target, "dtype", type(self.target).__name__)
            raise TypeError(f"Expected target to be a floating-point tensor, got {kind}")
        if self.target.ndim not in (2, 3) or self.target.numel() == 0:
            raise ValueError(
                f"Expected target of shape (h, w) or (n, h, w), got {tuple(self.target.shape)}"
            )
        _check.finite(target=self.target)
        if bool((self.target < 0).any()) or bool((self.target == 0).flatten(-2).all(-1).any()):
            raise ValueError("Expected target to be non-negative and not all zero")

    def __call__(self, a: Inputs, b: Inputs, /) -> PerSample:
        """Return minus the mean squared distance to the target, <= 0.

        Args:
            a: Signed maps (n, channels, h, w) at `x`; ignored but for their shape.
            b: Signed maps of the same shape, at `z`.

        Raises:
            ValueError: If the shapes differ or do not fit the target.
        """
        pair(a, b)
        heat = normalize(to_heatmap(b))
        target = self.target if self.target.ndim == 3 else self.target[None]
        if target.shape[1:] != heat.shape[1:] or len(target) not in (1, len(heat)):
            raise ValueError(
                f"Expected target to fit heatmaps {tuple(heat.shape)}, got {tuple(self.target.shape)}"
            )
        return -(heat - normalize(target.to(heat))).square().mean((1, 2))

    def rows(self, index: Tensor) -> "TargetMap":
        """Return the objective for some of the samples.

        Args:
            index: Their numbers, or a mask (n,).
        """
        if self.target.ndim == 2 or len(self.target) == 1:
            return self
        return TargetMap(target=self.target[index.to(self.target.device)])


@dataclass(frozen=True, kw_only=True)
class Cosine:
    r"""Turn the signed map away from where it points.

    $$D(a, b) = 1 - \frac{\langle a, b \rangle}{\|a\|_2 \|b\|_2}$$

    Maps of any shape. Its gradient is zero where the maps are equal; the attacks start from a random
    point there.

    Source: the differentiable objective in the evaluation of Wang and Kong 2022.
    """

    def __call__(self, a: Inputs, b: Inputs, /) -> PerSample:
        """Return one minus the cosine, in [0, 2]; 0 where a map is zero.

        Args:
            a: Signed maps (n, …) at `x`.
            b: Signed maps of the same shape, at `z`.

        Raises:
            ValueError: If the shapes differ.
        """
        pair(a, b)
        one, other = unit(a), unit(b)
        zero = (a == 0).flatten(1).all(1) | (b == 0).flatten(1).all(1)
        return torch.where(zero, 0, 1 - (one * other).sum(1))


def against(objective: Objective, a: Tensor) -> Callable[[Tensor], Tensor]:
    """The objective with its first map fixed; one that can prepare for that map does so once."""
    prepare: Callable[[Tensor], Callable[[Tensor], Tensor]] | None
    prepare = getattr(objective, "against", None)
    return functools.partial(objective, a) if prepare is None else prepare(a)


def at(change: Callable[..., Tensor], progress: float) -> Callable[..., Tensor]:
    """The form of an objective, or of one with its first map fixed, at a share of the steps, 0 to 1."""
    form: Callable[[float], Callable[..., Tensor]] | None = getattr(change, "at", None)
    if form is None and isinstance(change, functools.partial):  # made by `against`
        inner = at(change.func, progress)
        return functools.partial(inner, *change.args, **change.keywords)
    return change if form is None else form(progress)


def cut(part: Any, index: Tensor) -> Any:
    """An objective or metric for some of the samples; one that knows nothing of single ones stays."""
    rows: Callable[[Tensor], Any] | None = getattr(part, "rows", None)
    return part if rows is None else rows(index)


def top_set(a: Tensor, *, k: int, window: int, diverse: bool) -> Tensor:
    """The k highest pixels of signed maps, or the diverse picks, grown by the window: (n, h, w)."""
    heat = to_heatmap(a.detach())
    chosen = diverse_topk(heat, k=k, window=window) if diverse else topk_mask(heat, k=k)
    return dilate(chosen, window=window)


def pair(a: Tensor, b: Tensor) -> None:
    """Raise unless both are batches of maps of one shape."""
    _check.floating(a=a, b=b)
    _check.same_shape(a=a, b=b)


def _minus_mass(chosen: Tensor, b: Tensor) -> Tensor:
    heat = to_heatmap(b)
    _check.same_shape(a=chosen, b=heat)
    return -(normalize(heat) * chosen).sum((1, 2))


def unit(a: Tensor) -> Tensor:
    """The maps as rows of length 1; a map of zeros stays zero."""
    # Scaled by its largest entry first, so that squares neither vanish nor overflow; the scale is a
    # constant, and a map of zeros keeps a finite gradient.
    rows = a.flatten(1)
    peak = rows.detach().abs().amax(1, keepdim=True)
    rows = rows / torch.where(peak == 0, 1, peak)
    square = rows.square().sum(1, keepdim=True)
    return rows / torch.where(square == 0, 1, square).sqrt()
