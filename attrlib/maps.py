"""What an attribution map is reduced to before it is shown, ranked or compared."""

from typing import Literal

import torch

from attrlib import _check
from attrlib.types import Heatmaps, Inputs, Masks

HeatmapMode = Literal["abs_sum", "sum", "max_abs"]


def to_heatmap(a: Inputs, *, mode: HeatmapMode = "abs_sum") -> Heatmaps:
    r"""Reduce the channels of attribution maps to one number per pixel.

    $$h_{ij} = \sum_c |a_{cij}| \quad (\text{abs\_sum}), \qquad
      \sum_c a_{cij} \quad (\text{sum}), \qquad \max_c |a_{cij}| \quad (\text{max\_abs})$$

    Args:
        a: Maps (n, channels, h, w), signed.
        mode: `abs_sum`, the convention of the attribution-robustness papers: no channel can cancel
            another, and the sign is lost. `sum` keeps the sign and the completeness of integrated
            gradients, and lets channels cancel. `max_abs` is the reduction of the first saliency maps.

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
    _check.count(k=k, high=a[0].numel() if len(a) else None)
    order = a.flatten(1).argsort(dim=1, descending=True, stable=True)[:, :k]
    return torch.zeros_like(a, dtype=torch.bool).flatten(1).scatter(1, order, True).view_as(a)
