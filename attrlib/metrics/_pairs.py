"""What metrics ask of two batches of maps, and the sets of pixels they compare."""

from torch import Tensor

from attrlib import _check
from attrlib.maps import diverse_topk, topk_mask


def maps(a: Tensor, b: Tensor) -> None:
    """Raise unless both are finite batches of one shape."""
    _check.floating(a=a, b=b)
    _check.same_shape(a=a, b=b)
    _check.finite(a=a, b=b)


def heatmaps(a: Tensor, b: Tensor) -> None:
    """Raise unless both are finite heatmaps (n, h, w) of one shape."""
    _check.heatmaps(a=a, b=b)
    _check.same_shape(a=a, b=b)


def window_fits(a: Tensor, window: int) -> None:
    """Raise unless a window of this radius is at most as large as the image."""
    _check.count(window=window, low=0)
    side, (height, width) = 2 * window + 1, a.shape[1:]
    if side > max(height, width):
        raise ValueError(
            f"Expected window to be no larger than the image of {height} × {width} pixels, "
            f"got radius {window}, {side} × {side} pixels"
        )


def sets(a: Tensor, b: Tensor, *, k: int, window: int, diverse: bool) -> tuple[Tensor, Tensor]:
    """The highest pixels of both, as LENS scores compare them."""
    heatmaps(a, b)
    window_fits(a, window)
    if diverse:
        return diverse_topk(a, k=k, window=window), diverse_topk(b, k=k, window=window)
    return topk_mask(a, k=k), topk_mask(b, k=k)


def constant(a: Tensor) -> Tensor:
    """Which maps have one value everywhere."""
    rows = a.flatten(1)
    return (rows == rows[:, :1]).all(1)
