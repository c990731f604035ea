"""Numbers of a network trained with several seeds: a row for each seed, and one for all of them."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from attrlib import metrics
from attrlib._random import seeded
from attrlib.benchmark import _table

Columns = dict[str, Tensor]
"""Per quantity one value for each image, or value and interval (3,) of what is no mean over images."""

RATIO = "specific_"
"""How quantities begin whose value and interval are there already: they are ratios of means."""


def summaries(found: Mapping[int, Columns]) -> Iterator[dict[str, str]]:
    """Yield rows of each seed, with an interval over images, and of all seeds, over both.

    Args:
        found: Per seed the values of the same images.

    Yields:
        Seed and the columns of one number.
    """
    for quantity in next(iter(found.values())):
        values = torch.stack([columns[quantity] for columns in found.values()])
        if quantity.startswith(RATIO):
            for seed, (value, low, high) in zip(found, values.tolist(), strict=True):
                yield row(str(seed), quantity, 0, value, (low, high))
            yield over_seeds(quantity, values[:, 0])
            continue
        for seed, one in zip(found, values, strict=True):
            yield row(str(seed), quantity, len(one), float(one.nanmean()), over_images(one))
        yield over_seeds(quantity, values)


def over_seeds(quantity: str, values: Tensor) -> dict[str, str]:
    """The row of all seeds: of values (seeds, images), or of one a seed (seeds,)."""
    known = values.double()
    means = known if known.ndim == 1 else known.nanmean(1)
    images = 0 if known.ndim == 1 else known.shape[1]
    several = len(means) > 1 and not bool(means.isnan().any())
    ends = metrics.seed_interval(known) if several else None
    return row("all", quantity, images, float(means.mean()), ends)


def over_images(values: Tensor) -> tuple[float, float] | None:
    """The interval of a mean over images; None without two numbers."""
    if int((~values.isnan()).sum()) < 2:
        return None
    return metrics.interval(values, generator=seeded(0))


def row(
    seed: str, quantity: str, count: int, value: float, ends: tuple[float, float] | None = None
) -> dict[str, str]:
    """Seed and the columns of one number."""
    return {"seed": seed} | _table.measured(quantity, count, value, ends)
