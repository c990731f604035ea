"""Correlations of values, of ranks, and of ranks of local means."""

import numpy as np
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from attrlib import _magnitude
from attrlib.metrics import _pairs
from attrlib.types import Heatmaps, Inputs, Metric, PerSample


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
    _pairs.maps(a, b)
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
    _pairs.maps(a, b)
    a, b = (_magnitude.level(m.flatten(1)) for m in (a, b))
    r = _cosine(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True))
    return r.masked_fill(_pairs.constant(a) | _pairs.constant(b), torch.nan)


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
    _pairs.heatmaps(a, b)
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
    _pairs.heatmaps(a, b)
    # One call per sample: scipy's is O(m log m), and its own batching is a Python loop as well.
    pairs = zip(_rows(a), _rows(b), strict=True)
    tau = [
        stats.kendalltau(one, other).statistic if _varies(one, other) else np.nan
        for one, other in pairs
    ]
    return torch.tensor(np.asarray(tau, dtype=np.float64)).to(a)


def lens_spearman(a: Heatmaps, b: Heatmaps, *, window: int) -> PerSample:
    r"""Return Spearman's correlation of the local means of two heatmaps.

    $$\rho_w(a, b) = \rho(\tilde a, \tilde b), \qquad
      \tilde a_p = \frac{1}{|N_w(p)|} \sum_{q \in N_w(p)} a_q$$

    Args:
        a: Heatmaps (n, h, w).
        b: Heatmaps of the same shape.
        window: Radius w >= 0 of the windows, which end at the border; 0 gives `spearman`.

    Returns:
        Values (n,) in [-1, 1]; NaN where a map or its local mean is constant. Equal means share their
        average rank. Close to 0 on average for unrelated maps, but spread wider than `spearman`.
        Unchanged by a positive factor and a shift of values, not by other increasing functions. Not
        differentiable.

    Raises:
        ValueError: If the shapes differ, are not (n, h, w), `window` is negative or larger than the
            image, or a map holds NaN.

    Source: Kamath et al. 2024 name it; neither formula nor code was at hand, and windows that end at the
    border are a choice of ours.
    """
    return _of_means(spearman, a, b, window)


def lens_kendall(a: Heatmaps, b: Heatmaps, *, window: int) -> PerSample:
    r"""Return Kendall's tau-b of the local means of two heatmaps.

    $$\tau_w(a, b) = \tau_b(\tilde a, \tilde b)$$

    with the local means of `lens_spearman`.

    Args:
        a: Heatmaps (n, h, w).
        b: Heatmaps of the same shape.
        window: Radius w >= 0 of the windows, which end at the border; 0 gives `kendall`.

    Returns:
        Values (n,) in [-1, 1]; NaN where a map or its local mean is constant. Invariances and chance as
        `lens_spearman`. Not differentiable.

    Raises:
        ValueError: If the shapes differ, are not (n, h, w), `window` is negative or larger than the
            image, or a map holds NaN.

    Source: as `lens_spearman`.
    """
    return _of_means(kendall, a, b, window)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    # Scaled to a largest entry of 1, or the squares of a saturated net's tiny maps would be zero.
    a, b = (m / m.detach().abs().amax(1, keepdim=True) for m in (a, b))
    return functional.cosine_similarity(a, b, dim=1, eps=0).clamp(-1, 1)


def _of_means(metric: Metric, a: Tensor, b: Tensor, window: int) -> Tensor:
    _pairs.heatmaps(a, b)
    _pairs.window_fits(a, window)
    # In float64, where equal sums of float32 values stay equal whatever their order; on the CPU, where
    # ranks are taken.
    means = (
        functional.avg_pool2d(m[:, None], 2 * window + 1, 1, window, count_include_pad=False)[:, 0]
        for m in (_magnitude.level(m.detach().cpu().double()) for m in (a, b))
    )
    return metric(*means).to(a).masked_fill(_pairs.constant(a) | _pairs.constant(b), torch.nan)


def _rows(a: Tensor) -> np.ndarray:
    rows: np.ndarray = a.detach().flatten(1).cpu().double().numpy()
    return rows


def _varies(*rows: np.ndarray) -> bool:
    return all(row.min() < row.max() for row in rows)
