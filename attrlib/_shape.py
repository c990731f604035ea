"""One number for each sample, in a shape that fits samples of many."""

from torch import Tensor


def wide(values: Tensor, x: Tensor) -> Tensor:
    """Values (n,) as (n, 1, …, 1), with as many dimensions as `x`: they scale or choose whole samples."""
    return values.view(-1, *[1] * (x.ndim - 1))
