"""Whether a changed map still belongs to its own image, or could be that of another one of its class.

A map that is the same for every coat survives any attack and says little about this coat. The controls
here compare the map after an attack with the clean map of its image and with the clean maps of other
images of the class. They look at all images together, so none of them is a `Metric`.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attrlib import _check
from attrlib.maps import topk_mask
from attrlib.metrics import _pairs
from attrlib.types import Heatmaps, Inputs, Labels, Metric, PerSample

CHUNK = 2**20
"""Entries of the maps that are compared at once, so that memory does not grow with the pool."""

DRAWS = 2000
"""Resampled sets of images behind an interval."""


class Estimate(NamedTuple):
    """A number and its confidence interval."""

    value: float
    low: float
    high: float


def identification(
    a: Inputs,
    b: Inputs,
    y: Labels,
    *,
    score: Metric,
    pool: Tensor | None = None,
    pool_y: Tensor | None = None,
) -> PerSample:
    r"""Return how often a changed map is more like its own clean map than like that of another image.

    $$\frac{1}{|O_i|} \sum_{j \in O_i} [s_j < s_i] + \tfrac12 \, [s_j = s_i], \qquad
      s_j = s(a_j, b_i)$$

    with the other images $O_i$ of the class of image $i$. Each term asks to which of two images the
    changed map belongs, so the mean over images is an area under the ROC curve: 1 if every map still
    belongs to its image, 1/2 by chance, as for maps that are the same for the whole class, less if the
    change made the map of an image look like those of others.

    Args:
        a: Clean maps (n, …) as the score takes them: heatmaps (n, h, w), or signed maps for `cosine`.
        b: Changed maps of the same shape.
        y: Classes, int64 (n,).
        score: Similarity, larger is more alike, called as `score(clean, changed)`; not the distance
            `center_shift`. It is asked for each pair of a class, in large batches: 1,000 pairs for 100
            images of 10 classes, 10,000 with a pool of 1,000. `kendall` sorts anew for each pair and
            takes about 0.3 ms of one core for 28 × 28 pixels, 3 s for 10,000 pairs: 20 times as long as
            `topk_intersection` or `cosine`; `spearman` takes a third of that.
        pool: Clean maps (m, …) to take the others from in place of `a`. More others make the value of an
            image finer. The image itself may be in the pool: of the maps that equal its own up to
            rounding the nearest one is left out, and only that one. Further copies count as ties, so that
            a network with one map for the whole class gets 1/2.
        pool_y: Classes of the pool, int64 (m,).

    Returns:
        Values (n,) in [0, 1]; NaN where the class has no other image or the score with its own map is
        undefined. An other whose score is undefined is left out. Not differentiable.

    Raises:
        TypeError: If maps are not floating-point or classes not int64.
        ValueError: If shapes disagree, a map holds NaN, `pool` comes without `pool_y` or the other way
            round, or the score does not give one value a pair.

    Source: ours, after the area under the ROC curve as a probability, Hanley and McNeil 1982.

    >>> from attrlib.metrics import cosine
    >>> a = torch.eye(3)[:, None]
    >>> identification(a, a.roll(1, 0), torch.zeros(3, dtype=torch.int64), score=cosine).tolist()
    [0.25, 0.25, 0.25]
    """
    own, others = _scores(a, b, y, score, pool, pool_y)
    less, equal = others < own[:, None], others == own[:, None]
    share = (less.double() + equal.double() / 2).sum(1) / (~others.isnan()).sum(1)
    return share.masked_fill(own.isnan(), torch.nan).to(a)


def rank_one(
    a: Inputs,
    b: Inputs,
    y: Labels,
    *,
    score: Metric,
    pool: Tensor | None = None,
    pool_y: Tensor | None = None,
) -> PerSample:
    """Return whether the clean map most like a changed map, within the class, is that of its own image.

    Retrieval at rank 1. Harder than `identification`, and chance falls with the number of others: it is
    1 / (1 + others), so compare values of equally many others only.

    Args:
        a: Clean maps (n, …) as the score takes them.
        b: Changed maps of the same shape.
        y: Classes, int64 (n,).
        score: Similarity, called as in `identification`.
        pool: Clean maps (m, …) to take the others from in place of `a`, as in `identification`.
        pool_y: Classes of the pool, int64 (m,).

    Returns:
        Values (n,): 1 if no other map scores as high, 0 if one scores higher, 1 / t if t maps, its own
        among them, share the highest score; NaN as in `identification`. Not differentiable.

    Raises:
        TypeError: If maps are not floating-point or classes not int64.
        ValueError: If shapes disagree, a map holds NaN, `pool` comes without `pool_y` or the other way
            round, or the score does not give one value a pair.

    >>> from attrlib.metrics import cosine
    >>> a = torch.eye(3)[:, None]
    >>> rank_one(a, a, torch.zeros(3, dtype=torch.int64), score=cosine).tolist()
    [1.0, 1.0, 1.0]
    """
    own, others = _scores(a, b, y, score, pool, pool_y)
    first = 1 / (1 + (others == own[:, None]).sum(1).double())
    first = first.masked_fill((others > own[:, None]).any(1), 0)
    unknown = own.isnan() | others.isnan().all(1)
    return first.masked_fill(unknown, torch.nan).to(a)


def specific(
    a: Inputs,
    b: Inputs,
    y: Labels,
    *,
    score: Metric,
    generator: torch.Generator,
    level: float = 0.95,
) -> Estimate:
    r"""Return how much of the part of a map that is its image's own is left after a change.

    $$\frac{\overline{s(a_i, b_i)} - \overline{s(a_j, b_i)}}{1 - \overline{s(a_j, a_i)}}$$

    with means over images $i$, and over the other images $j$ of the class for each. 1 for unchanged
    maps; 0 if the changed maps are no more like their own clean maps than like those of others; below 0
    if less. The shorter
    $(\overline{s(a_i, b_i)} - c) / (1 - c)$ with $c = \overline{s(a_j, a_i)}$, both maps clean, is not
    sound: it takes for granted that an attack leaves alone what the class shares. Where the attack
    destroys that first, it is below 0 for maps that are still told apart without a mistake.

    Args:
        a: Clean maps (n, …) as the score takes them.
        b: Changed maps of the same shape.
        y: Classes, int64 (n,).
        score: Similarity with best value 1, called as in `identification`, on twice as many pairs.
        generator: Source of the resampling.
        level: Confidence of the interval, strictly between 0 and 1.

    Returns:
        Value and ends of the interval. A ratio of means, steady where ratios of single images are not.
        Images without another of their class, and pairs whose score is undefined, are left out; NaN if
        none is left, or if the clean maps are all alike up to rounding. The interval is the percentile
        interval of images drawn anew, each with its pairs; copies of an image are no pair. It speaks of
        other images of the same kind, not of other training seeds.

    Raises:
        TypeError: If maps are not floating-point or classes not int64.
        ValueError: If shapes disagree, a map holds NaN, `level` is out of range, or the score does not
            give one value a pair.

    Source: ours.

    >>> from attrlib.metrics import cosine
    >>> a, y = torch.eye(3)[:, None], torch.zeros(3, dtype=torch.int64)
    >>> specific(a, a, y, score=cosine, generator=torch.Generator().manual_seed(0)).value
    1.0
    """
    _check.unit_interval(level=level)
    own, crossed = _scores(a, b, y, score, None, None)
    _, clean = _scores(a, a, y, score, None, None)
    known = ~(own[:, None] - crossed - clean).isnan()
    left = torch.where(known, own[:, None] - crossed, 0).cpu()
    room = torch.where(known, 1 - clean, 0).cpu()
    known, least = known.cpu().double(), _rounding(a)

    def ratio(times: Tensor) -> Tensor:
        """The ratio for draws of images, given how many times (draws, n) each was drawn."""
        pairs = times @ known.T
        weight = torch.where(pairs > 0, times / pairs, 0)
        above, below = ((weight * (times @ part.T)).sum(1) for part in (left, room))
        return (above / below).masked_fill(below <= least * (weight * pairs).sum(1), torch.nan)

    n = len(a)
    drawn = torch.randint(n, (DRAWS, n), generator=generator, device=generator.device).cpu()
    times = torch.zeros(DRAWS, n, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = ratio(times).nanquantile(ends)
    return Estimate(float(ratio(torch.ones(1, n, dtype=torch.float64))), float(low), float(high))


def outside_template(
    a: Heatmaps,
    b: Heatmaps,
    y: Labels,
    *,
    k: int,
    pool: Tensor | None = None,
    pool_y: Tensor | None = None,
) -> PerSample:
    r"""Return the share of the k highest pixels outside the class template that stay among the k highest.

    $$\frac{|S_k(a_i) \cap S_k(b_i) \setminus M_i|}{|S_k(a_i) \setminus M_i|}$$

    $$M_i = \{p : p \in S_k(a_j) \text{ for at least half of the } j \in O_i\}$$

    with the other images $O_i$ of the class. What a class shares, such as the outline of every coat, is
    in the template $M_i$; `topk_intersection` counts it as survival, here it does not count.

    Args:
        a: Clean heatmaps (n, h, w).
        b: Changed heatmaps of the same shape.
        y: Classes, int64 (n,).
        k: Pixels per set, 1 to h·w.
        pool: Clean heatmaps (m, h, w) to take the others from in place of `a`, as in `identification`.
        pool_y: Classes of the pool, int64 (m,).

    Returns:
        Values (n,) in [0, 1]; NaN where the class has no other image, or no pixel is outside its
        template. Unrelated maps share #T / (h·w - #M), with the pixels T of the changed map outside the
        template. Ties go to the lower index. Not differentiable.

    Raises:
        TypeError: If maps are not floating-point or classes not int64.
        ValueError: If shapes disagree, `k` is out of range, a map holds NaN, or `pool` comes without
            `pool_y` or the other way round.

    Source: ours.

    >>> a = torch.tensor([[[3.0, 2.0, 1.0, 0.0]], [[3.0, 0.0, 1.0, 2.0]]])
    >>> y = torch.zeros(2, dtype=torch.int64)
    >>> outside_template(a, a.roll(1, 0), y, k=2).tolist()
    [0.0, 0.0]
    """
    _pairs.heatmaps(a, b)
    others, rival = _others(a, y, pool, pool_y)
    stay, first, seen = (topk_mask(m, k=k).flatten(1) for m in (b, a, others))
    count = rival.double() @ seen.double()
    own = first & (2 * count < rival.sum(1, keepdim=True))
    return ((own & stay).sum(1) / own.sum(1).double()).to(a)


def _scores(
    a: Tensor, b: Tensor, y: Tensor, score: Metric, pool: Tensor | None, pool_y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Scores (n,) with the own clean map, and (n, m) with those of others: NaN where there is none."""
    _pairs.maps(a, b)
    others, rival = _others(a, y, pool, pool_y)
    a, b, others = a.detach(), b.detach(), others.detach()
    every = torch.arange(len(a), device=a.device)
    table = torch.full(rival.shape, torch.nan, dtype=torch.float64, device=a.device)
    i, j = rival.nonzero().unbind(1)
    if len(i):
        table[i, j] = _paired(score, others, b, j, i)
    return _paired(score, a, b, every, every), table


def _paired(score: Metric, a: Tensor, b: Tensor, j: Tensor, i: Tensor) -> Tensor:
    """The scores of the pairs (a[j], b[i]), a chunk at a time."""
    values = []
    rows = max(1, CHUNK // a[0].numel())
    for first, second in zip(torch.split(j, rows), torch.split(i, rows), strict=True):
        value = score(a[first], b[second])
        if value.shape != first.shape:
            raise ValueError(
                f"Expected score of one value for each of {len(first)} pairs, "
                f"got shape {tuple(value.shape)}"
            )
        values.append(value.detach().double())
    return torch.cat(values)


def _others(
    a: Tensor, y: Tensor, pool: Tensor | None, pool_y: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The maps (m, …) to compare with, and which (n, m) are of another image of the same class."""
    _check.labels(len(a), y=y)
    if pool is None and pool_y is None:
        rival = y[:, None] == y
        return a, rival & ~torch.eye(len(a), dtype=torch.bool, device=a.device)
    if pool is None or pool_y is None:
        missing = "pool" if pool is None else "pool_y"
        raise ValueError(f"Expected pool and pool_y together, got no {missing}")
    _check.floating(pool=pool)
    if pool.shape[1:] != a.shape[1:]:
        raise ValueError(
            f"Expected pool of maps {tuple(a.shape[1:])}, got shape {tuple(pool.shape)}"
        )
    _check.finite(pool=pool)
    _check.labels(len(pool), pool_y=pool_y)
    pool, pool_y = pool.to(a), pool_y.to(y.device)
    rival = y[:, None] == pool_y
    for i, mine in enumerate(a):
        same = rival[i].nonzero()[:, 0]
        if len(same):
            gap, nearest = (pool[same] - mine).flatten(1).abs().amax(1).min(0)
            rival[i, same[nearest]] = bool(gap > _rounding(a) * mine.abs().max())
    return pool, rival


def _rounding(a: Tensor) -> float:
    """Relative differences below this are those of rounding, such as between sizes of a batch."""
    return float(torch.finfo(a.dtype).eps ** 0.5)
