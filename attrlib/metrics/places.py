"""Where the important pixels are: shared sets of pixels, and the centre of mass."""

import torch
from torch import Tensor

from attrlib.maps import dilate, mass_center, topk_mask
from attrlib.metrics import _pairs
from attrlib.types import Heatmaps, PerSample


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
    _pairs.heatmaps(a, b)
    both = topk_mask(a, k=k) & topk_mask(b, k=k)
    return both.flatten(1).sum(1).to(a) / k


def lens_recall(
    a: Heatmaps, b: Heatmaps, *, k: int, window: int, diverse: bool = False
) -> PerSample:
    r"""Return the share of the k highest pixels of `b` that lie near one of the k highest of `a`.

    $$R_w = \frac{|N_w(S) \cap T|}{|T|}$$

    with the sets $S$ of `a` and $T$ of `b`, and the windows $N_w$ of `dilate`. Never below the top-k
    intersection and never smaller for a larger window, also where that is due to area alone: report
    `chance_level` beside it. 1 - R is no metric of distance for w >= 1.

    Args:
        a: Heatmaps (n, h, w), whose windows are drawn; by custom the maps before a change.
        b: Heatmaps of the same shape.
        k: Pixels per set, 1 to h·w.
        window: Radius w >= 0, so that a window has (2w + 1)² pixels; 0 gives `topk_intersection`.
        diverse: Compare the sets of `diverse_topk` with this window instead of the k highest pixels.
            Where fewer than k picks are possible, the sets are smaller and the value is 1.

    Returns:
        Values (n,) in [0, 1], 1 where all of T is near S. Two unrelated maps give the area of the windows
        on average, not k/(h·w). Ties go to the lower index. Not symmetric. Not differentiable.

    Raises:
        ValueError: If the shapes differ, are not (n, h, w), `k` or `window` is out of range or the window
            larger than the image, or a map holds NaN.

    Source: Kamath et al. 2024, LENS-recall@k and, with `diverse`, LENS-recall@k-div. Differs: windows end
    at the border and the size of T is the divisor, where the authors' code wraps around and divides by k.

    >>> a, b = torch.eye(3)[None], torch.eye(3)[None].roll(1, 2)
    >>> lens_recall(a, b, k=3, window=0).item(), lens_recall(a, b, k=3, window=1).item()
    (0.0, 1.0)
    """
    s, t = _pairs.sets(a, b, k=k, window=window, diverse=diverse)
    return _share(dilate(s, window=window) & t, t).to(a)


def lens_precision(
    a: Heatmaps, b: Heatmaps, *, k: int, window: int, diverse: bool = False
) -> PerSample:
    r"""Return the share of the k highest pixels of `a` that lie near one of the k highest of `b`.

    $$P_w = \frac{|S \cap N_w(T)|}{|S|}$$

    `lens_recall` with the maps exchanged. The two are 0 together, and one is at most (2w + 1)² times the
    other; within that they can differ a lot, so report both.

    Args:
        a: Heatmaps (n, h, w); by custom the maps before a change.
        b: Heatmaps of the same shape, whose windows are drawn.
        k: Pixels per set, 1 to h·w.
        window: Radius w >= 0, so that a window has (2w + 1)² pixels; 0 gives `topk_intersection`.
        diverse: Compare the sets of `diverse_topk` with this window, as in `lens_recall`.

    Returns:
        Values (n,) in [0, 1], 1 where all of S is near T. Ties go to the lower index. Not differentiable.

    Raises:
        ValueError: If the shapes differ, are not (n, h, w), `k` or `window` is out of range or the window
            larger than the image, or a map holds NaN.

    Source: Kamath et al. 2024, LENS-prec@k, in the authors' naming. In information retrieval, with `a`
    relevant and `b` retrieved, their recall is called precision. Differs: as `lens_recall`.
    """
    s, t = _pairs.sets(a, b, k=k, window=window, diverse=diverse)
    return _share(dilate(t, window=window) & s, s).to(a)


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
    _pairs.heatmaps(a, b)
    for name, h in {"a": a, "b": b}.items():
        if bool((h < 0).any()):
            raise ValueError(f"Expected {name} to be non-negative, got {float(h.min()):.4g}")
    shift: Tensor = (mass_center(a) - mass_center(b)).norm(dim=1)
    zero = (a == 0).flatten(1).all(1) | (b == 0).flatten(1).all(1)
    return shift.masked_fill(zero, torch.nan)


def _share(part: Tensor, whole: Tensor) -> Tensor:
    inside, size = (m.flatten(1).sum(1, dtype=torch.int32).double() for m in (part, whole))
    return inside / size
