"""How much of a map lies where nothing can matter: leakage."""

import torch
from torch import Tensor

from attrlib import _check
from attrlib.types import Heatmaps, PerSample


def leakage(a: Heatmaps, *, region: Tensor) -> PerSample:
    r"""Return the share of a map that lies in a region.

    $$\frac{\sum_{i \in R} a_i}{\sum_i a_i}$$

    With a region that says nothing about the class, such as `data.Blocks.null`, it is what has leaked. A
    map spread evenly gives the share of the area, 1/2 for blocks.

    Args:
        a: Heatmaps (n, h, w), non-negative, such as `to_heatmap` of any attribution.
        region: Where to look, bool (n, h, w), or (1, h, w) for all maps.

    Returns:
        Values (n,) in [0, 1], lower is better where the region says nothing; NaN where a map is zero.
        Unchanged when a map is multiplied by a positive number. Differentiable.

    Raises:
        TypeError: If `a` is not floating-point or `region` not boolean.
        ValueError: If shapes disagree or a map holds NaN or a negative number.

    Source: ours, for the leakage of Shah et al. 2021 and Yang et al. 2024, whose score was not at hand;
    it is not the number printed in the latter, which exceeds 1.

    >>> a, region = torch.tensor([[[3.0, 1.0]]]), torch.tensor([[[False, True]]])
    >>> leakage(a, region=region).item()
    0.25
    """
    region = _region(a, region)
    if bool((a < 0).any()):
        raise ValueError(f"Expected a to be non-negative, got {float(a.min()):.4g}")
    rows = a.flatten(1)
    rows = rows / rows.detach().amax(1, keepdim=True)  # sums of large maps overflow
    return (rows * region.flatten(1)).sum(1) / rows.sum(1)


def topk_leakage(a: Heatmaps, *, region: Tensor, k: int | Tensor) -> PerSample:
    r"""Return the share of the k highest pixels that lie in a region.

    $$\frac{|S_k(a) \cap R|}{k}$$

    Unlike `leakage` it does not see how high the highest pixels are, nor the many low ones. A fair k is
    the number of lit pixels outside the region, one for each image: then 0 can be reached.

    Args:
        a: Heatmaps (n, h, w).
        region: Where to look, bool (n, h, w), or (1, h, w) for all maps.
        k: Pixels in the top set, 1 to h·w; one number, or one for each map, int64 (n,).

    Returns:
        Values (n,) in [0, 1], lower is better where the region says nothing. Ties go to the lower index.
        Not differentiable.

    Raises:
        TypeError: If `a` is not floating-point, `region` not boolean or `k` not an integer.
        ValueError: If shapes disagree, `k` is out of range, or a map holds NaN.

    Source: ours; compare `topk_intersection`.
    """
    region = _region(a, region)
    size = a[0].numel()
    if isinstance(k, Tensor):
        if k.is_floating_point() or k.dtype == torch.bool:
            raise TypeError(f"Expected k to be an int64 tensor, got {k.dtype}")
        if k.shape != (len(a),):
            raise ValueError(f"Expected k of shape ({len(a)},), got {tuple(k.shape)}")
        _check.count(k=int(k.min()), high=size)
        _check.count(k=int(k.max()), high=size)
        counts = k.to(a.device)
    else:
        _check.count(k=k, high=size)
        counts = torch.full((len(a),), int(k), device=a.device)
    order = a.detach().flatten(1).argsort(dim=1, descending=True, stable=True)
    chosen = torch.arange(size, device=a.device) < counts[:, None]
    inside = region.flatten(1).gather(1, order) & chosen
    return (inside.sum(1).double() / counts).to(a)


def _region(a: Tensor, region: Tensor) -> Tensor:
    """The region in the shape of the maps, once both are found to be right."""
    _check.heatmaps(a=a)
    _check.boolean(region=region)
    if region.ndim != 3 or region.shape[1:] != a.shape[1:] or len(region) not in (1, len(a)):
        raise ValueError(
            f"Expected region of shape {tuple(a.shape)} or one row of it, got {tuple(region.shape)}"
        )
    return region.to(a.device).expand_as(a)
