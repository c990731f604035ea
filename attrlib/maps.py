"""What an attribution map is reduced to before it is shown, ranked or compared."""

import itertools
import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from attrlib import _check, _magnitude
from attrlib._select import kth_highest
from attrlib.types import Centers, Heatmaps, Inputs, Masks

HeatmapMode = Literal["abs_sum", "sum", "max_abs"]


def to_heatmap(a: Inputs, *, mode: HeatmapMode = "abs_sum") -> Heatmaps:
    r"""Reduce the channels of attribution maps to one number per pixel.

    $$h_{ij} = \sum_c |a_{cij}| \quad\text{or}\quad \sum_c a_{cij} \quad\text{or}\quad
      \max_c |a_{cij}|$$

    Args:
        a: Maps (n, channels, h, w), signed.
        mode: The three formulas in order. `abs_sum` is the convention of the attribution-robustness
            papers: no channel can cancel another, and the sign is lost. `sum` keeps the sign and the
            completeness of integrated gradients, and lets channels cancel. `max_abs` is the
            reduction of the first saliency maps.

    Returns:
        Heatmaps (n, h, w); non-negative except for `sum`. Differentiable in `a`. A map whose sums are
        beyond the largest number of its dtype comes divided by a power of two: what counts in a heatmap
        is not its unit.

    Raises:
        ValueError: If `a` is not (n, channels, h, w), or `mode` is unknown.

    Source: `abs_sum` as in the code of Ghorbani et al. 2019; `max_abs` is Simonyan et al. 2014,
    section 3.1.

    >>> import torch
    >>> to_heatmap(torch.tensor([[[[1.0]], [[-3.0]]]])).item()
    4.0
    """
    _check.floating(a=a)
    if a.ndim != 4:
        raise ValueError(f"Expected a to be maps (n, channels, h, w), got shape {tuple(a.shape)}")
    _check.one_of(("abs_sum", "sum", "max_abs"), mode=mode)
    if mode == "max_abs":
        return a.abs().amax(1)
    signed = a if mode == "sum" else a.abs()
    h = signed.sum(1)
    if a.shape[1] == 1 or math.isfinite(float(h.detach().sum())):
        return h
    over = ~h.detach().flatten(1).isfinite().all(1)
    return torch.where(over[:, None, None], (signed / 2 ** a.shape[1].bit_length()).sum(1), h)


def topk_mask(a: Heatmaps, *, k: int) -> Masks:
    """Return the set of the k highest pixels of each heatmap.

    Args:
        a: Heatmaps (n, h, w).
        k: Pixels per set, 1 to h·w.

    Returns:
        Masks (n, h, w), true at exactly k pixels a row. Ties go to the lower index, row by row.

    Raises:
        ValueError: If `a` is not (n, h, w), `k` is out of range, or a map holds NaN.

    >>> import torch
    >>> topk_mask(torch.tensor([[[1.0, 3.0], [3.0, 3.0]]]), k=2).int().tolist()
    [[[0, 1], [1, 0]]]
    """
    _check.heatmaps(a=a)
    _check.count(k=k, high=a[0].numel())
    return _highest(a.detach().flatten(1), k).view_as(a)


def dilate(mask: Masks, *, window: int) -> Masks:
    r"""Grow sets of pixels by a square window.

    $$N_w(S) = \{(p, q) : |p - i| \le w \text{ and } |q - j| \le w
      \text{ for some } (i, j) \in S\}$$

    Args:
        mask: Sets of pixels (n, h, w).
        window: Radius w >= 0; the window has (2w + 1)² pixels and is cut off at the border.

    Returns:
        Masks (n, h, w) that contain `mask`.

    Raises:
        TypeError: If `mask` is not boolean.
        ValueError: If `mask` is not (n, h, w) or `window` is negative.

    Source: Kamath et al. 2024, the window of LENS. Differs: the authors' code finds neighbours by flat
    index, so that their windows run on from the right border into the next row.

    >>> mask = torch.tensor([[[False, False, False, True]]])
    >>> dilate(mask, window=2).int().tolist()
    [[[0, 1, 1, 1]]]
    """
    _check.boolean(mask=mask)
    if mask.ndim != 3:
        raise ValueError(f"Expected mask to be sets of pixels (n, h, w), got {tuple(mask.shape)}")
    _check.count(window=window, low=0)
    return _grown(_grown(mask, window, dim=1), window, dim=2)


def diverse_topk(a: Heatmaps, *, k: int, window: int) -> Masks:
    r"""Return up to k high pixels of each heatmap, no two of them in one window.

    The greedy selection: take the highest pixel left, remove all pixels within the window around it,
    and repeat until k are taken or none is left.

    Args:
        a: Heatmaps (n, h, w).
        k: Pixels per set, 1 to h·w.
        window: Radius w >= 0 of the windows; 0 gives `topk_mask`.

    Returns:
        Masks (n, h, w), true at k pixels a row, or at fewer where the windows of fewer pixels cover the
        map: `mask.sum((1, 2))` says how many picks were possible. Ties go to the lower index. Any two
        chosen pixels are more than w rows or columns apart, and the windows of the chosen pixels hold
        every pixel that is above the last of them.

    Raises:
        ValueError: If `a` is not (n, h, w), a number is out of range, or a map holds NaN.

    Source: Kamath et al. 2024, top-k-div. Differs: all pixels are candidates and the second pick is kept;
    the authors' code starts from a short list, and loses its second pick and pixel 0.

    >>> diverse_topk(torch.tensor([[[5.0, 4.0, 3.0, 2.0, 1.0]]]), k=2, window=1).int().tolist()
    [[[1, 0, 1, 0, 0]]]
    """
    _check.heatmaps(a=a)
    _check.count(k=k, high=a[0].numel())
    _check.count(window=window, low=0)
    rows = a.detach().flatten(1)
    picks = _diverse(a.detach(), k, min(window, max(a.shape[1:]) - 1)).sort().values
    # The greedy picks come in falling order, so the first k are the k highest of all that were found.
    counts = torch.bincount(picks // rows.shape[1], minlength=len(rows))
    present = torch.arange(int(counts.max()), device=a.device) < counts[:, None]
    values = rows.new_full(present.shape, -math.inf)
    values[present] = rows.flatten()[picks]
    chosen = picks[_highest(values, min(k, values.shape[1]))[present]]
    mask = torch.zeros_like(rows, dtype=torch.bool)
    mask.view(-1)[chosen] = True
    return mask.view_as(a)


def normalize(h: Heatmaps) -> Heatmaps:
    r"""Scale heatmaps to mean 1, so that a value says how many times the average pixel it is.

    Args:
        h: Heatmaps (n, h, w), non-negative.

    Returns:
        Heatmaps with mean 1, however large or small the values; a map of zeros stays zero.
        Differentiable, with a finite gradient also where a map is zero.

    Raises:
        ValueError: If `h` is not (n, h, w).

    >>> normalize(torch.tensor([[[1.0, 3.0]]])).tolist()
    [[[0.5, 1.5]]]
    """
    _batch(h)
    mean = h.mean((1, 2), keepdim=True)
    low, high = (float(value) for value in torch.aminmax(mean.detach()))
    limits = torch.finfo(h.dtype)
    if not (low > limits.tiny / limits.eps and high < limits.max):
        h = _magnitude.level(h)
        mean = h.mean((1, 2), keepdim=True)
    return h / torch.where(mean == 0, 1, mean)


def mass_center(h: Heatmaps) -> Centers:
    r"""Return the centre of mass of each heatmap, as row and column in pixels.

    $$C = \frac{\sum_{ij} h_{ij} \, (i, j)}{\sum_{ij} h_{ij}}$$

    Args:
        h: Heatmaps (n, h, w), non-negative.

    Returns:
        Rows and columns (n, 2), from (0, 0) at the centre of the upper left pixel; (0, 0) for a map of
        zeros. Differentiable, with a finite gradient also where a map is zero.

    Raises:
        ValueError: If `h` is not (n, h, w).

    >>> mass_center(torch.tensor([[[0.0, 1.0, 1.0]]])).tolist()
    [[0.0, 1.5]]
    """
    _batch(h)
    share = normalize(h) / h[0].numel()
    rows, columns = (torch.arange(size).to(h) for size in h.shape[1:])
    return torch.stack([share.sum(2) @ rows, share.sum(1) @ columns], dim=1)


def _batch(h: Tensor) -> None:
    # Without the look at the values that `_check.heatmaps` takes: attacks call this at each step.
    _check.floating(h=h)
    if h.ndim != 3:
        raise ValueError(f"Expected h to be heatmaps (n, h, w), got shape {tuple(h.shape)}")


def _highest(rows: Tensor, k: int) -> Tensor:
    """Where the k highest entries of each row are; ties go to the lower index."""
    last = kth_highest(rows, k)[:, None]
    chosen = rows >= last
    if bool((chosen.sum(1, dtype=torch.int32) > k).any()):
        above, tied = rows > last, rows == last
        chosen = above | (tied & (tied.cumsum(1) <= k - above.sum(1, keepdim=True)))
    return chosen


def _diverse(a: Tensor, k: int, reach: int) -> Tensor:
    """Flat indices of all picks of the greedy selection that are high enough to be among the first k."""
    # A pixel that is the best left in its window is certain to be taken, whatever happens elsewhere. So
    # rounds of such pixels give the greedy set, in a few steps for all maps together. The best 2k pixels
    # go first; where they do not hold k picks, more follow. A frame keeps all windows inside.
    size = a[0].numel()
    left = functional.pad(a, (reach,) * 4, value=-math.inf)  # what can still be taken
    values, stride, side = left.view(-1), left.shape[2], range(2 * reach + 1)
    # A pixel is known by the upper left corner of its window, which has window[i][j][corner] in row i
    # and column j.
    window = [[values[i * stride + j :] for j in side] for i in side]
    seen, counts, found = 0, torch.zeros(len(a), dtype=torch.int64, device=a.device), []
    while seen < size and bool((counts < k).any()):
        seen = min(2 * seen or 2 * k, size)
        lowest = kth_highest(a.flatten(1), seen).masked_fill(counts >= k, math.inf)
        corners = (left >= lowest[:, None, None]).view(-1).nonzero()[:, 0] - reach * (stride + 1)
        while len(corners):
            best = _unbeaten(window, corners)
            for pixel in itertools.chain(*window):
                pixel.index_fill_(0, best, -math.inf)
            corners = corners[window[reach][reach].index_select(0, corners) > -math.inf]
            counts += torch.bincount(best // left[0].numel(), minlength=len(a))
            found.append(best)
    corners = torch.cat(found)
    maps, places = corners // left[0].numel(), corners % left[0].numel()
    return maps * size + places // stride * a.shape[2] + places % stride


def _unbeaten(window: list[list[Tensor]], corners: Tensor) -> Tensor:
    """The pixels that no other in their window beats; of equal values the first one wins."""
    reach, side = len(window) // 2, len(window)
    for i in sorted(range(side), key=lambda row: abs(row - reach)):
        own = window[reach][reach].index_select(0, corners)[:, None]
        near = window[i][0].unfold(0, side, 1).index_select(0, corners)
        # Columns that come before the pixel.
        before = side if i < reach else reach if i == reach else 0
        beaten = (near[:, :before] >= own).any(1) | (near[:, before:] > own).any(1)
        corners = corners[~beaten]
    return corners


def _grown(mask: Tensor, window: int, *, dim: int) -> Tensor:
    """The pixels at most `window` away from the mask along one dimension, in about log₂ w steps."""
    size, reach = mask.shape[dim], 0
    while reach < min(window, size):
        step = min(reach + 1, window - reach)  # more would leave holes beside the border
        wider = mask.clone()
        wider.narrow(dim, step, size - step).logical_or_(mask.narrow(dim, 0, size - step))
        wider.narrow(dim, 0, size - step).logical_or_(mask.narrow(dim, step, size - step))
        mask, reach = wider, reach + step
    return mask.clone() if window == 0 else mask
