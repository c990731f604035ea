"""What to know about each metric before a number of it is printed."""

import functools
import math
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from attrlib.metrics.correlations import (
    cosine,
    kendall,
    lens_kendall,
    lens_spearman,
    pearson,
    spearman,
)
from attrlib.metrics.places import center_shift, lens_precision, lens_recall, topk_intersection
from attrlib.types import Metric

SIZE = 56
"""Height and width of the maps on which the options of the cards make sense."""

K = 100
"""Pixels in a set, 3 % of such a map."""

WINDOW = 2
"""Radius of the windows, 5×5 pixels."""


@dataclass(frozen=True, kw_only=True)
class MetricCard:
    """The judgement on a metric, and its range; what can be measured is measured instead.

    Attributes:
        title: Name of the function in `attrlib.metrics`, with an option that makes a difference.
        metric: The function with its options.
        takes: What it compares.
        low: No value is below.
        high: No value is above.
        punishes: Differences that it makes too much of.
        forgives: Differences that it does not see.
        use: When to use it.
    """

    title: str
    metric: Metric
    takes: Literal["heatmaps", "signed maps"] = "heatmaps"
    low: float
    high: float = 1.0
    punishes: str
    forgives: str
    use: str


CARDS: tuple[MetricCard, ...] = (
    MetricCard(
        title="topk_intersection",
        metric=functools.partial(topk_intersection, k=K),
        low=0,
        punishes="A move by one pixel, which nobody would notice, and swaps of nearly equal values at "
        "rank k.",
        forgives="Everything below rank k and the order within the set. A lost pixel counts the same "
        "whether its replacement is next to it or on the other side of the image.",
        use="When the question is whether the very same pixels are named. Beside a LENS score, which "
        "tells a move from a loss.",
    ),
    MetricCard(
        title="lens_recall",
        metric=functools.partial(lens_recall, k=K, window=WINDOW),
        low=0,
        punishes="Little: a move beyond the window counts in full, however short.",
        forgives="Moves within the window. Scattered first maps, whose windows cover much of the image "
        "whatever the second map says. A second map that crowds around one part of the first.",
        use="When a tolerance in pixels can be stated beforehand. Always with its level by chance, and "
        "with `lens_precision`.",
    ),
    MetricCard(
        title="lens_precision",
        metric=functools.partial(lens_precision, k=K, window=WINDOW),
        low=0,
        punishes="Little: a move beyond the window counts in full, however short.",
        forgives="Moves within the window. Scattered second maps. A second map that adds places the "
        "first one does not have, as long as a few pixels stay near each old one.",
        use="Together with `lens_recall`, whose mirror image it is. A large gap between the two says "
        "that one map is scattered and the other is not.",
    ),
    MetricCard(
        title="lens_recall, diverse",
        metric=functools.partial(lens_recall, k=K, window=WINDOW, diverse=True),
        low=0,
        punishes="The order of weak places: once the strong ones are taken, faint pixels are picked.",
        forgives="Almost everything when k is large. The picks spread their windows, so the level by "
        "chance is high; where fewer than k picks are possible the windows cover the image and the "
        "value is 1.",
        use="On images with several objects, with a k that is clearly below the number of possible "
        "picks. Report that number.",
    ),
    MetricCard(
        title="spearman",
        metric=spearman,
        low=-1,
        punishes="A new order of the many pixels near zero. They are most of the ranks, and their order "
        "is noise.",
        forgives="A change of the few highest pixels, which are few ranks; any stretching of the values.",
        use="When the order of all pixels is meant, on maps without large areas of equal values.",
    ),
    MetricCard(
        title="kendall",
        metric=kendall,
        low=-1,
        punishes="A new order of the many pixels near zero, as `spearman` does.",
        forgives="A change of the few highest pixels; any stretching of the values.",
        use="To compare with papers on attributional robustness. Without ties it has a meaning that one "
        "can say: the maps order a random pair of pixels alike with probability (1 + τ) / 2.",
    ),
    MetricCard(
        title="lens_spearman",
        metric=functools.partial(lens_spearman, window=WINDOW),
        low=-1,
        punishes="A new order of the pixels near zero, though less than `spearman`: means are steadier.",
        forgives="Everything that averages out within a window, so also a loss of fine detail.",
        use="When ranks are wanted and small moves should not count. Its level by chance stays at 0, "
        "unlike that of `lens_recall`.",
    ),
    MetricCard(
        title="lens_kendall",
        metric=functools.partial(lens_kendall, window=WINDOW),
        low=-1,
        punishes="A new order of the pixels near zero, though less than `kendall`.",
        forgives="Everything that averages out within a window.",
        use="As `lens_spearman`, where tau is asked for.",
    ),
    MetricCard(
        title="cosine",
        metric=cosine,
        takes="signed maps",
        low=-1,
        punishes="A move by one pixel when the sign changes from pixel to pixel, as in gradient maps.",
        forgives="Changes of the many small values: a few large ones make up most of the length.",
        use="As the smooth stand-in in a loss or a bound: it can be differentiated. Not as evidence "
        "about ranks.",
    ),
    MetricCard(
        title="pearson",
        metric=pearson,
        takes="signed maps",
        low=-1,
        punishes="The same as `cosine`.",
        forgives="The same as `cosine`, and a constant added to the map.",
        use="In place of `cosine` where the zero of the map has no meaning.",
    ),
    MetricCard(
        title="center_shift",
        metric=center_shift,
        low=0,
        high=math.inf,
        punishes="A faint haze far from the object, which pulls the centre.",
        forgives="Every change that keeps the balance: two spots left and right have the same centre as "
        "one in the middle.",
        use="Against attacks that push the map to one side. A distance in pixels, to be read beside the "
        "size of the object.",
    ),
)
"""One card for each metric of `attrlib.metrics`."""


def rounded(a: Tensor) -> Tensor:
    """Return maps as a picture file keeps them: 256 levels up to the largest entry, the sign apart.

    Args:
        a: Maps (n, …), none of zeros.

    Returns:
        Maps in the shape of `a`.
    """
    step = a.abs().amax(tuple(range(1, a.ndim)), keepdim=True) / 255
    return (a / step).round() * step
