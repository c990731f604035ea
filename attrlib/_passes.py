"""Passes of a model over many points of each sample: a path, noisy copies, images with hidden pixels.

A pass has a fixed cost, which a few rows do not pay for, and memory for each of its rows. So as many
points go through together as a limit on the rows of a pass allows, and a batch above the limit goes
through in parts.
"""

from collections.abc import Callable, Iterator
from functools import reduce
from math import ceil

import torch
from torch import Tensor

# Rows of a pass, and bytes of its input. On a CPU more rows are slower again, since what they keep
# leaves the caches: measured on SmallCNN, 28×28, and EfficientNet-Lite0, 224×224 (two rows). On an
# accelerator the limits keep memory low: 33 images of 224×224, by estimate 3 to 4 GB for a ResNet-50.
_CPU = 192, 1_500_000
_ACCELERATOR = 2048, 20_000_000


def passes(
    function: Callable[..., Tensor],
    points: Callable[[range], Tensor],
    y: Tensor,
    *,
    like: Tensor,
    count: int,
    batch_size: int | None = None,
) -> Iterator[Tensor]:
    """Yield a function of `count` points (n, …) shaped like `like`, k points at a time: (k, n, …).

    `points` gives those of a range, (k, n, …), and is called in order, so that only as many as go
    through together exist at a time. `batch_size` is the limit on the rows of a pass; None chooses it by
    the size of a row. The function gets rows and their labels, and `look`: whether this is the first
    time for these labels.
    """
    limit = rows_at_once(like) if batch_size is None else batch_size
    together = _share(count, max(1, limit // len(like)))
    for first in range(0, count, together):
        stack = points(range(first, min(first + together, count)))
        rows, labels = stack.flatten(0, 1), y.expand(len(stack), -1).flatten()
        if len(rows) <= limit:
            result = function(rows, labels, look=first == 0)
        else:
            size = _share(len(rows), limit)
            parts = zip(torch.split(rows, size), torch.split(labels, size), strict=True)
            result = torch.cat([function(*part, look=first == 0) for part in parts])
        yield result.reshape(*stack.shape[:2], *result.shape[1:])


def mean(
    function: Callable[..., Tensor],
    points: Callable[[range], Tensor],
    y: Tensor,
    *,
    like: Tensor,
    count: int,
    batch_size: int | None,
) -> Tensor:
    """The mean (n, …) of a function over `count` points, see `passes`."""
    stacks = passes(function, points, y, like=like, count=count, batch_size=batch_size)
    return reduce(torch.add, (stack.sum(0) for stack in stacks)) / count


def rows_at_once(like: Tensor) -> int:
    """The rows of one pass, by the size of a row."""
    rows, size = _CPU if like.device.type == "cpu" else _ACCELERATOR
    return max(1, min(rows, size * len(like) // like.nbytes))


def _share(total: int, limit: int) -> int:
    """The size of equal parts, the largest that does not pass the limit."""
    return ceil(total / ceil(total / limit))
