"""What scores mean: their level by chance, and the uncertainty of their mean."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from scipy import stats
from torch import Tensor

from attrlib import _check, _random
from attrlib.maps import dilate
from attrlib.metrics import _pairs
from attrlib.metrics.correlations import kendall, pearson, spearman
from attrlib.metrics.places import lens_precision, lens_recall, topk_intersection
from attrlib.types import Inputs, Metric, PerSample


def chance_level(
    metric: Metric,
    a: Inputs,
    b: Inputs,
    *,
    draws: int = 100,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return what a metric gives on average if the maps have nothing to do with each other.

    Known without drawing for these metrics, their options bound with `functools.partial`:

    - `topk_intersection`: $k / hw$
    - `lens_recall`: $|N_w(S)| / hw$, the area of the windows of `a`
    - `lens_precision`: $|N_w(T)| / hw$, the area of the windows of `b`
    - `pearson`, `spearman`, `kendall`: 0

    These hold when the pixels of one map are put in random order: of `a` for `lens_precision`, of `b`
    for the rest. The areas hold as well for a set that keeps its shape and lies anywhere, and that is
    what is meant with `diverse`: greedy picks of a map in random order score a little less, as they favour
    the border, where fewer windows reach (gradient maps of garments, k = 50, window = 2: about 0.91 where
    the area is 0.92). Any other metric is averaged over `draws` random orders of the entries of `b`. Real
    maps share more than that, such as a bright centre: maps of other images are the stricter control.

    Args:
        metric: Similarity of two batches of maps.
        a: Maps as the metric takes them.
        b: Maps of the same shape.
        draws: Random orders, >= 1, where no formula is known.
        generator: Source of the orders; None is torch's global generator.

    Returns:
        Values (n,) in the range of the metric; NaN where it is undefined. Not differentiable.

    Raises:
        ValueError: If `draws` is below 1, or the metric refuses the maps.

    Source: ours; the paper on LENS leaves the area of the windows in its scores.

    >>> a, b = torch.rand(1, 4, 4), torch.rand(1, 4, 4)
    >>> chance_level(functools.partial(topk_intersection, k=4), a, b).item()
    0.25
    """
    _check.count(draws=draws)
    function, options = metric, {}
    if isinstance(metric, functools.partial) and not metric.args:
        function, options = metric.func, metric.keywords
    if function in _CHANCE:
        return _CHANCE[function](a, b, **options)
    _pairs.maps(a, b)
    a, rows = a.detach(), b.detach().flatten(1)
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for _ in range(draws):
        order = _random.uniform_like(rows.double(), generator=generator).argsort(dim=1)
        total += metric(a, rows.gather(1, order).view_as(b))
    return (total / draws).to(a)


def corrected(values: PerSample, chance: PerSample) -> PerSample:
    r"""Return a score on the scale from chance, 0, to the best value, 1.

    $$\frac{v - c}{1 - c}$$

    Args:
        values: Scores (n,) with best value 1.
        chance: Their chance levels (n,), from `chance_level`.

    Returns:
        Values (n,), at most 1, below 0 for less than chance; NaN where the chance level is 1 and the
        score says nothing. Differentiable in `values`.

    Raises:
        ValueError: If the shapes differ or a chance level is above 1.

    >>> corrected(torch.tensor([0.6]), torch.tensor([0.2])).item()
    0.5
    """
    _check.same_shape(values=values, chance=chance)
    if bool((chance > 1).any()):
        raise ValueError(f"Expected chance <= 1, got {float(chance.max()):.4g}")
    return ((values - chance) / (1 - chance)).masked_fill(chance == 1, torch.nan)


def interval(
    values: Tensor, *, level: float = 0.95, generator: torch.Generator
) -> tuple[float, float]:
    """Return a bootstrap confidence interval of the mean over images.

    The percentile interval of 2,000 resampled means. It speaks of other images of the same kind, not of
    other training seeds.

    Args:
        values: One value per image (n,), n >= 2; NaN entries are left out.
        level: Confidence, strictly between 0 and 1.
        generator: Source of the resampling.

    Returns:
        Lower and upper end, in the unit of the values.

    Raises:
        ValueError: If fewer than two values are numbers, or `level` is out of range.
    """
    _check.unit_interval(level=level)
    if values.ndim != 1:
        raise ValueError(f"Expected values of shape (n,), got {tuple(values.shape)}")
    known = values.detach().double().cpu()
    known = known[~known.isnan()]
    if len(known) < 2:
        raise ValueError(f"Expected values with at least 2 numbers, got {len(known)}")
    draws = torch.randint(
        len(known), (2000, len(known)), generator=generator, device=generator.device
    )
    means = known[draws.cpu()].mean(1)
    low, high = means.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype))
    return float(low), float(high)


def seed_interval(values: Tensor, *, level: float = 0.95) -> tuple[float, float]:
    r"""Return a confidence interval of the mean over training seeds and images, honest for few seeds.

    $$\bar v \pm \sqrt{\frac{t_{S-1}^2 \, s_\mathrm{seeds}^2}{S}
      + \frac{t_{n-1}^2 \, s_\mathrm{images}^2}{n}}$$

    with the variance $s_\mathrm{seeds}^2$ of the means of the $S$ seeds, the variance
    $s_\mathrm{images}^2$ of the means of the $n$ images, and quantiles $t$ of Student's distribution.
    Where all seeds see the same images, their means share the luck of these images: their differences do
    not show it, hence the second term. Each term alone is the usual t interval, and noise of single cells
    is in both, which errs on the wide side. Resampling the seeds instead is far too narrow: three numbers
    cover the mean about 70 times in 100 where seeds differ more than images, not 95.

    Args:
        values: One value for each seed and image (seeds, images), the same images in each row, or one
            value a seed (seeds,), for which the second term is missing: as it must be where the images of
            the seeds differ, and where they do not, the interval speaks of these images only. At least 2
            seeds, and 2 images. NaN entries are left out.
        level: Confidence, strictly between 0 and 1.

    Returns:
        Lower and upper end, in the unit of the values, around the mean of the seeds' means.

    Raises:
        ValueError: If the shape is wrong, fewer than two seeds or images have a number, a seed has none,
            or `level` is out of range.

    Source: ours. Each mean of the two-way layout with random seeds and images gets its exact interval;
    half-widths of independent parts add as squares, as in Zou and Donner 2008.

    >>> low, high = seed_interval(torch.tensor([0.5, 0.6, 0.7]))
    >>> round(low, 2), round(high, 2)
    (0.35, 0.85)
    """
    _check.unit_interval(level=level)
    if values.ndim not in (1, 2):
        raise ValueError(
            f"Expected values of shape (seeds,) or (seeds, images), got {tuple(values.shape)}"
        )
    table = values.detach().double().cpu()
    table = table[:, None] if values.ndim == 1 else table
    seeds = table.nanmean(1)
    if len(seeds) < 2 or bool(seeds.isnan().any()):
        raise ValueError(
            f"Expected values with at least 2 seeds and a number in each, got "
            f"{int((~seeds.isnan()).sum())} of {len(seeds)} with a number"
        )
    square = _half_width(seeds, level) ** 2
    if values.ndim == 2:
        images = (table - seeds[:, None]).nanmean(0)
        images = images[~images.isnan()]
        if len(images) < 2:
            raise ValueError(f"Expected values with at least 2 images, got {len(images)}")
        square += _half_width(images, level) ** 2
    mean = float(seeds.mean())
    return mean - square**0.5, mean + square**0.5


def _half_width(values: Tensor, level: float) -> float:
    """Half the t interval of the mean."""
    quantile = stats.t.ppf((1 + level) / 2, len(values) - 1)
    return float(quantile * values.std() / len(values) ** 0.5)


def _chance_topk(a: Tensor, b: Tensor, *, k: int) -> Tensor:
    _pairs.heatmaps(a, b)
    _check.count(k=k, high=a[0].numel())
    return a.new_full((len(a),), k / a[0].numel())


def _chance_recall(a: Tensor, b: Tensor, *, k: int, window: int, diverse: bool = False) -> Tensor:
    s, _ = _pairs.sets(a, b, k=k, window=window, diverse=diverse)
    return dilate(s, window=window).double().mean((1, 2)).to(a)


def _chance_precision(a: Tensor, b: Tensor, **options: Any) -> Tensor:
    return _chance_recall(b, a, **options)


def _chance_correlation(a: Tensor, b: Tensor) -> Tensor:
    _pairs.maps(a, b)
    return a.new_zeros(len(a)).masked_fill(_pairs.constant(a) | _pairs.constant(b), torch.nan)


_CHANCE: dict[Callable[..., Tensor], Callable[..., Tensor]] = {
    topk_intersection: _chance_topk,
    lens_recall: _chance_recall,
    lens_precision: _chance_precision,
    **dict.fromkeys((pearson, spearman, kendall), _chance_correlation),
}
