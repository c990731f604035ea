r"""The directive `metric-cards`: what each metric does, measured when the page is built.

Syntax, without body or options::

    ```{metric-cards}
    ```

The judgement on each metric stands beside it, in `attrlib.metrics.cards`. Whatever can be measured is
measured here, on the package as it is.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from sphinx.util.docutils import SphinxDirective
from torch import Tensor
from torch.nn import functional

from attrlib.metrics.cards import CARDS, SIZE, WINDOW, K, MetricCard, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from docutils import nodes
    from sphinx.application import Sphinx

PAIRS = 64

INVARIANCES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "a positive factor": lambda a: 7 * a,
    "a constant added": lambda a: a + 5,
    "an increasing function": lambda a: a + 3 * a**3,
    "shuffling the pixels of both maps alike": lambda a: a.flatten(1)[:, _order(SIZE**2)].view_as(
        a
    ),
}
"""Changes of both maps that may leave a score as it is."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was measured of a metric; scores are means over pairs.

    Attributes:
        best: Score of a map and itself.
        rounded: Score of a map and its copy rounded to 256 levels, as in a picture file.
        scaled: Score of a map and its copy seven times as large.
        chance: Score of unrelated maps.
        moved: Score of a map moved by one pixel.
        low_half: Score when the smaller half of the values, without sign, is put in random order.
        top: Score when the `K` largest are put in random order.
        symmetric: Whether the maps can be exchanged.
        unchanged_by: Names of `INVARIANCES`.
        ties_by_place: Whether equal values are told apart by where they are.
        constant: Score with a constant map; NaN if undefined.
        cost: Time as a multiple of that of the first card.
    """

    best: float
    rounded: float
    scaled: float
    chance: float
    moved: float
    low_half: float
    top: float
    symmetric: bool
    unchanged_by: tuple[str, ...]
    ties_by_place: bool
    constant: float
    cost: float


def examples(takes: str) -> tuple[Tensor, Tensor]:
    """Return two batches of unrelated maps: smooth noise with heavy tails, so that few pixels stand out.

    Args:
        takes: `heatmaps`, which are not negative, or `signed maps`.
    """
    generator = torch.Generator().manual_seed(0)
    shape = 2 * PAIRS, SIZE + 2, SIZE + 2
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    maps = functional.avg_pool2d(noise, 3, stride=1) ** 3
    if takes == "heatmaps":
        maps = maps.abs()
    return maps[:PAIRS], maps[PAIRS:]


def facts(card: MetricCard) -> Facts:
    """Measure a metric on examples.

    Args:
        card: The metric and what it takes.
    """
    metric = card.metric
    a, b = examples(card.takes)
    score = metric(a, b)
    coarse = [(8 * m / m.abs().amax((1, 2), keepdim=True)).round() for m in (a, b)]
    mirrored = [m.flip(2) for m in coarse]
    return Facts(
        best=_mean(metric(a, a)),
        rounded=_mean(metric(a, rounded(a))),
        scaled=_mean(metric(a, 7 * a)),
        chance=_mean(score),
        moved=_mean(metric(a, a.roll(1, 2))),
        low_half=_mean(metric(a, shuffled(a, slice(SIZE**2 // 2)))),
        top=_mean(metric(a, shuffled(a, slice(SIZE**2 - K, None)))),
        symmetric=_same(score, metric(b, a)),
        unchanged_by=tuple(
            name
            for name, change in INVARIANCES.items()
            if _same(score, metric(change(a), change(b)))
        ),
        ties_by_place=not _same(metric(*coarse), metric(*mirrored)),
        constant=_mean(metric(torch.ones_like(b), b)),
        cost=_seconds(card) / _seconds(CARDS[0]),
    )


def shuffled(a: Tensor, ranks: slice) -> Tensor:
    """Return maps whose values at some ranks are in random order.

    Args:
        a: Maps (n, h, w).
        ranks: Which, counted from the smallest absolute value.
    """
    rows = a.flatten(1)
    places = rows.abs().argsort(dim=1)[:, ranks]
    values = rows.gather(1, places)[:, _order(places.shape[1])]
    return rows.scatter(1, places, values).view_as(a)


def _order(n: int) -> Tensor:
    return torch.randperm(n, generator=torch.Generator().manual_seed(1))


def _mean(score: Tensor) -> float:
    return float(score.mean())


def _two(score: float) -> str:
    """Two decimals, with no minus before a zero."""
    return "undefined" if math.isnan(score) else f"{round(score, 2) + 0.0:.2f}"


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-9)


@functools.cache
def _seconds(card: MetricCard) -> float:
    """Processor time of a call, which is printed as a whole number of calls of the first card."""
    a, b = examples(card.takes)

    def call() -> float:
        start = time.process_time()
        card.metric(a, b)
        return time.process_time() - start

    return min(call() for _ in range(3))


def text(card: MetricCard, measured: Facts) -> list[str]:
    """Return a card as lines of MyST.

    Args:
        card: The judgement.
        measured: The facts.
    """
    name, _, option = card.title.partition(", ")
    link = f"{{py:func}}`{name} <attrlib.metrics.{name}>`" + (f", {option}" if option else "")
    limits = f"{card.low:g} and up" if math.isinf(card.high) else f"{card.low:g} to {card.high:g}"
    both = "the maps can be exchanged" if measured.symmetric else "the maps cannot be exchanged"
    ties = (
        "told apart by place, the lower index first" if measured.ties_by_place else "treated alike"
    )
    rows = {
        "Compares": f"{card.takes}; {both}",
        "Range": f"{limits}; equal maps give {measured.best:.0f}",
        "Copy rounded to 256 levels": _two(measured.rounded),
        "Copy seven times as large": _two(measured.scaled),
        "By chance": _two(measured.chance),
        "Map moved by one pixel": _two(measured.moved),
        "Smaller half of the values shuffled": _two(measured.low_half),
        f"The {K} largest shuffled": _two(measured.top),
        "Unchanged by": "; ".join(measured.unchanged_by),
        "Equal values": ties,
        "A constant map": _two(measured.constant),
        "Cost": f"about {max(1, round(measured.cost))} × `{CARDS[0].title}`",
        "Punishes": card.punishes,
        "Forgives": card.forgives,
        "Use it": card.use,
    }
    lines = [f"- **{key}.** {value}" for key, value in rows.items()]
    return [f":::{{grid-item-card}} {link}", *lines, ":::"]


class MetricCards(SphinxDirective):
    """Write one card for each metric."""

    def run(self) -> list[nodes.Node]:
        """Return how it was measured, and the cards."""
        how = (
            f"Measured when this page was built, on {PAIRS} pairs of unrelated maps of {SIZE}×{SIZE} "
            f"pixels: smoothed noise, cubed, so that few pixels stand out. Sets have $k = {K}$ pixels "
            f"and windows the radius $w = {WINDOW}$. Scores are means; other maps give other numbers."
        )
        lines = [how, "", "::::{grid} 1 1 2 2", ":gutter: 3", ""]
        for card in CARDS:
            lines += [*text(card, facts(card)), ""]
        return self.parse_text_to_nodes("\n".join([*lines, "::::"]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("metric-cards", MetricCards)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
