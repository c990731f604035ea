"""What scores mean: their level by chance, and the uncertainty of their mean."""

import functools
from collections.abc import Callable
from typing import Any

import torch
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
    what is meant with `diverse`. Any other metric is averaged over `draws` random orders of the entries
    of `b`. Real maps share more than that, such as a bright centre: maps of other images are the stricter
    control.

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
