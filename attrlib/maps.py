"""What an attribution map is reduced to before it is shown, ranked or compared."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from attrlib import _check
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
        Heatmaps (n, h, w); non-negative except for `sum`. Differentiable in `a`.

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
    if mode == "sum":
        return a.sum(1)
    return a.abs().sum(1) if mode == "abs_sum" else a.abs().amax(1)


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
    rows = a.flatten(1)
    # One selection instead of a sort: all above the k-th value, then its ties in order of the index.
    last = rows.kthvalue(rows.shape[1] - k + 1, dim=1, keepdim=True).values
    above, tied = rows > last, rows == last
    room = k - above.sum(1, keepdim=True)
    return (above | (tied & (tied.cumsum(1) <= room))).view_as(a)


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
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"Expected mask to be a boolean tensor, got {kind}")
    if mask.ndim != 3:
        raise ValueError(f"Expected mask to be sets of pixels (n, h, w), got {tuple(mask.shape)}")
    _check.count(window=window, low=0)
    return _highest_near(mask.float(), window) > 0


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
        map. Ties go to the lower index. Any two chosen pixels are more than w rows or columns apart.

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
    # Pixels become ranks, highest best and all different, so that ties are settled once. A pixel that
    # is the best left within its window is certain to be taken, whatever happens elsewhere: rounds of
    # such pixels give the greedy set in a few steps for all maps together.
    size = a[0].numel()
    order = a.flatten(1).argsort(dim=1, descending=True, stable=True)
    places = torch.arange(size, 0, -1, device=a.device, dtype=torch.float32)
    rank = torch.zeros_like(order, dtype=torch.float32)
    rank = rank.scatter(1, order, places.expand(len(a), size)).view(a.shape)
    taken, left = torch.zeros_like(a, dtype=torch.bool), rank
    while bool((left > 0).any()):
        best = (left > 0) & (left == _highest_near(left, window))
        taken |= best
        left = left.masked_fill(_highest_near(best.float(), window) > 0, 0)
    # The greedy picks come in falling order, so the first k are the k best of all that can be taken.
    return taken & topk_mask(rank * taken, k=k)


def normalize(h: Heatmaps) -> Heatmaps:
    r"""Scale heatmaps to mean 1, so that a value says how many times the average pixel it is.

    Args:
        h: Heatmaps (n, h, w), non-negative.

    Returns:
        Heatmaps with mean 1; a map of zeros stays zero. Differentiable, with a finite gradient also
        where a map is zero.

    Raises:
        ValueError: If `h` is not (n, h, w).

    >>> normalize(torch.tensor([[[1.0, 3.0]]])).tolist()
    [[[0.5, 1.5]]]
    """
    _batch(h)
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


def _highest_near(values: Tensor, window: int) -> Tensor:
    """The highest value in the window around each pixel, of values >= 0."""
    return functional.max_pool2d(values[:, None], 2 * window + 1, 1, window)[:, 0]
