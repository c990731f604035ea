"""Similarities of two batches of maps: one value per sample, higher is more alike, best value 1.

`cosine` and `pearson` compare signed maps of any shape; rank correlations and top-k overlaps compare
heatmaps (n, h, w). A score that is undefined for a sample, such as a correlation with a constant map, is
NaN for that sample; reports count these and leave them out.
"""

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from attrlib import _check
from attrlib.maps import dilate, diverse_topk, mass_center, topk_mask
from attrlib.types import Heatmaps, Inputs, PerSample

__all__ = [
    "center_shift",
    "cosine",
    "dilate",
    "diverse_topk",
    "interval",
    "kendall",
    "pearson",
    "spearman",
    "topk_intersection",
    "topk_mask",
]


def cosine(a: Inputs, b: Inputs) -> PerSample:
    r"""Return the cosine of the angle between two maps.

    $$\cos(a, b) = \frac{\langle a, b \rangle}{\|a\|_2 \|b\|_2}$$

    Args:
        a: Signed maps (n, …).
        b: Maps of the same shape.

    Returns:
        Values (n,) in [-1, 1], 1 for the same direction; NaN where a map is zero. Unchanged when a map
        is multiplied by a positive number. Differentiable.

    Raises:
        ValueError: If the shapes differ or a map holds NaN.

    >>> cosine(torch.tensor([[3.0, 4.0]]), torch.tensor([[-4.0, 3.0]])).item()
    0.0
    """
    _maps(a, b)
    return _cosine(a.flatten(1), b.flatten(1))


def pearson(a: Inputs, b: Inputs) -> PerSample:
    r"""Return Pearson's correlation, the cosine of the maps less their means.

    $$r(a, b) = \cos(a - \bar a, b - \bar b)$$

    Args:
        a: Signed maps (n, …).
        b: Maps of the same shape.

    Returns:
        Values (n,) in [-1, 1]; NaN where a map is constant. Unchanged by a positive factor and a shift of
        values. Differentiable.

    Raises:
        ValueError: If the shapes differ or a map holds NaN.
    """
    _maps(a, b)
    a, b = a.flatten(1), b.flatten(1)
    constant = (a == a[:, :1]).all(1) | (b == b[:, :1]).all(1)
    r = _cosine(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True))
    return r.masked_fill(constant, torch.nan)


def spearman(a: Heatmaps, b: Heatmaps) -> PerSample:
    r"""Return Spearman's rank correlation, Pearson's correlation of the ranks.

    Args:
        a: Heatmaps (n, h, w).
        b: Heatmaps of the same shape.

    Returns:
        Values (n,) in [-1, 1]; NaN where a map is constant. Equal values share their average rank.
        Unchanged by an increasing function of the values. Not differentiable.

    Raises:
        ValueError: If the shapes differ, are not (n, h, w), or a map holds NaN.
    """
    _heatmaps(a, b)
    ranks = [torch.from_numpy(stats.rankdata(_rows(m), axis=1)) for m in (a, b)]
    return pearson(*ranks).to(a)


def kendall(a: Heatmaps, b: Heatmaps) -> PerSample:
    r"""Return Kendall's tau-b: concordant minus discordant pairs of pixels, corrected for ties.

    $$\tau_b = \frac{C - D}{\sqrt{(N - T_a)(N - T_b)}}$$

    with $N$ pairs of pixels, $C$ of which the two maps order alike and $D$ otherwise; $T_a$ and $T_b$
    pairs are tied in one map.

    Args:
        a: Heatmaps (n, h, w).
        b: Heatmaps of the same shape.

    Returns:
        Values (n,) in [-1, 1]; NaN where a map is constant. Unchanged by an increasing function of the
        values. Not differentiable.

    Raises:
        ValueError: If the shapes differ, are not (n, h, w), or a map holds NaN.

    >>> a = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    >>> kendall(a, a.flip(2)).item()
    -1.0
    """
    _heatmaps(a, b)
    # One call per sample: scipy's is O(m log m), and its own batching is a Python loop as well.
    pairs = zip(_rows(a), _rows(b), strict=True)
    tau = [
        stats.kendalltau(one, other).statistic if _varies(one, other) else np.nan
        for one, other in pairs
    ]
    return torch.tensor(np.asarray(tau, dtype=np.float64)).to(a)


def topk_intersection(a: Heatmaps, b: Heatmaps, *, k: int) -> PerSample:
    r"""Return the share of the k highest pixels of `a` that are among the k highest of `b`.

    $$\frac{|S_k(a) \cap S_k(b)|}{k}$$

    Args:
        a: Heatmaps (n, h, w).
        b: Heatmaps of the same shape.
        k: Pixels per set, 1 to h·w.

    Returns:
        Values (n,) in [0, 1]. Two unrelated maps share k/(h·w) on average. Ties go to the lower index.
        Not differentiable.

    Raises:
        ValueError: If the shapes differ, are not (n, h, w), `k` is out of range, or a map holds NaN.

    Source: Ghorbani et al. 2019, section 2.
    """
    _heatmaps(a, b)
    both = topk_mask(a, k=k) & topk_mask(b, k=k)
    return both.flatten(1).sum(1).to(a) / k


def center_shift(a: Heatmaps, b: Heatmaps) -> PerSample:
    r"""Return how far the centre of mass moved, in pixels.

    $$\|C(a) - C(b)\|_2$$

    A distance, not a similarity: 0 for the same centre, larger is less alike.

    Args:
        a: Heatmaps (n, h, w), non-negative.
        b: Heatmaps of the same shape.

    Returns:
        Values (n,) >= 0; NaN where a map is zero. Unchanged when a map is multiplied by a positive
        number.

    Raises:
        ValueError: If the shapes differ, are not (n, h, w), or a map holds NaN or a negative number.

    Source: Ghorbani et al. 2019, section 2. Differs: centres are not rounded to whole pixels.

    >>> left, right = torch.tensor([[[1.0, 0.0, 0.0]]]), torch.tensor([[[0.0, 0.0, 7.0]]])
    >>> center_shift(left, right).item()
    2.0
    """
    _heatmaps(a, b)
    for name, h in {"a": a, "b": b}.items():
        if bool((h < 0).any()):
            raise ValueError(f"Expected {name} to be non-negative, got {float(h.min()):.4g}")
    shift: Tensor = (mass_center(a) - mass_center(b)).norm(dim=1)
    zero = (a == 0).flatten(1).all(1) | (b == 0).flatten(1).all(1)
    return shift.masked_fill(zero, torch.nan)


def interval(
    values: Tensor, *, level: float = 0.95, generator: torch.Generator
) -> tuple[float, float]:
    """Return a bootstrap confidence interval of the mean over images.

    The percentile interval of 2,000 resampled means. It speaks of other images of the same kind, not of
    other training seeds.

    Args:
        values: One value per image (n,), n >= 2; NaN entries are left out.
        level: Confidence, strictly between 0 and 1.
        generator: Source of the resampling.

    Returns:
        Lower and upper end, in the unit of the values.

    Raises:
        ValueError: If fewer than two values are numbers, or `level` is out of range.
    """
    _check.unit_interval(level=level)
    if values.ndim != 1:
        raise ValueError(f"Expected values of shape (n,), got {tuple(values.shape)}")
    known = values.detach().double().cpu()
    known = known[~known.isnan()]
    if len(known) < 2:
        raise ValueError(f"Expected values with at least 2 numbers, got {len(known)}")
    draws = torch.randint(
        len(known), (2000, len(known)), generator=generator, device=generator.device
    )
    means = known[draws.cpu()].mean(1)
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype))
    return float(low), float(high)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    # Scaled to a largest entry of 1, or the squares of a saturated net's tiny maps would be zero.
    a, b = (m / m.detach().abs().amax(1, keepdim=True) for m in (a, b))
    return functional.cosine_similarity(a, b, dim=1, eps=0).clamp(-1, 1)


def _maps(a: Tensor, b: Tensor) -> None:
    _check.floating(a=a, b=b)
    _check.same_shape(a=a, b=b)
    _check.finite(a=a, b=b)


def _heatmaps(a: Tensor, b: Tensor) -> None:
    _check.heatmaps(a=a, b=b)
    _check.same_shape(a=a, b=b)


def _rows(a: Tensor) -> np.ndarray:
    rows: np.ndarray = a.detach().flatten(1).cpu().double().numpy()
    return rows


def _varies(*rows: np.ndarray) -> bool:
    return all(row.min() < row.max() for row in rows)
