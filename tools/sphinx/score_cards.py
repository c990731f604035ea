r"""Directives on scores that ask a model, and on what a random explanation does to all scores.

Syntax, without body or options::

    ```{sensitivity-cards}
    ```

    ```{sampled-and-attacked}
    ```

    ```{random-outputs}
    ```

Cards of the scores in `attrlib.sensitivity.cards`; the largest change found by sampling beside that found
by the suite, from `results/sampling.csv`; and a table of all scores for explanations that know nothing of
the network. All but the second is measured when the page is built, on a shipped network.
"""

from __future__ import annotations

import csv
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import torch
from sphinx.util.docutils import SphinxDirective
from torch import Tensor, nn

from attrlib import attributions, checkpoints, data, metrics, models
from attrlib.attacks import RandomSign
from attrlib.maps import to_heatmap
from attrlib.metrics.cards import CARDS, K, rounded
from attrlib.sensitivity.cards import RADIUS, SAMPLES, SENSITIVITY_CARDS, SIDE, SensitivityCard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from docutils import nodes
    from sphinx.application import Sphinx

    from attrlib.types import Attribution

NET, IMAGES = "natural-s0", 32
FACTOR, MORE = 7, 10
REAL = "Gradient"
SAMPLING = Path(__file__).resolve().parents[2] / "results" / "sampling.csv"
CHANGE = "max sensitivity"


@dataclass(frozen=True, kw_only=True)
class ScoreFacts:
    """What was measured of a score; values are means over images.

    Attributes:
        perfect: Value for a linear network, whose map is right and never changes.
        value: Value for the maps of the network.
        rounded: Value for its maps rounded to 256 levels, as a multiple of `value`.
        scaled: Value for maps seven times as large, as a multiple of `value`.
        more: Value with ten times the samples, as a multiple of `value`; None where nothing is sampled.
    """

    perfect: float
    value: float
    rounded: float
    scaled: float
    more: float | None


@functools.cache
def case() -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network and validation images that it classifies correctly, with their labels."""
    model = checkpoints.load(NET).model
    images = data.fashion_mnist("val")
    with torch.no_grad():
        right = (model(images.x).argmax(1) == images.y).nonzero()[:IMAGES, 0]
    return model, images.x[right], images.y[right]


def facts(card: SensitivityCard) -> ScoreFacts:
    """Measure a score that asks a model.

    Args:
        card: The score and the maps it is meant for.
    """
    model, x, y = case()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(x[0].numel(), 10))

    def value(attribution: Attribution, net: nn.Module = model, **options: int) -> float:
        return _mean(card.score(attribution, net, x, y, generator=_noise(0), **options))

    clean = value(card.takes)
    samples = getattr(card.score, "keywords", {}).get("samples")
    return ScoreFacts(
        perfect=value(card.takes, linear),
        value=clean,
        rounded=value(_changed(card.takes, rounded)) / clean,
        scaled=value(_changed(card.takes, lambda a: FACTOR * a)) / clean,
        more=value(card.takes, samples=MORE * samples) / clean if samples else None,
    )


def explanations() -> Mapping[str, Attribution]:
    """Return the gradient, and three explanations that know nothing of the network."""
    model, x, y = case()
    untrained = models.SmallCNN(generator=_noise(0)).eval()
    # Entries of one size, for scores that see the length of a map.
    size, weak = (
        attributions.gradient(net, x, y).square().mean().sqrt() for net in (model, untrained)
    )
    picture = size * torch.randn(1, *x.shape[1:], generator=_noise(1))
    source = _noise(2)

    def other(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return size / weak * attributions.gradient(untrained, x, y)

    def fixed(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return picture.expand(len(x), *picture.shape[1:]).clone()

    def noise(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return size * torch.randn(x.shape, generator=source)

    return {
        REAL: attributions.gradient,
        "Untrained": other,
        "One map": fixed,
        "Noise": noise,
    }


def outputs() -> dict[str, tuple[dict[str, float], float]]:
    """Return for each score its value for each explanation, and 1 if higher is better, else -1."""
    model, x, y = case()
    z = RandomSign(eps=RADIUS)(model, x, y, generator=_noise(3))
    pairs = {name: (a(model, x, y), a(model, z, y)) for name, a in explanations().items()}
    heats = {name: tuple(to_heatmap(a) for a in pair) for name, pair in pairs.items()}
    overlap = functools.partial(metrics.topk_intersection, k=K)
    found: dict[str, tuple[dict[str, float], float]] = {}
    for card in CARDS:
        signed = card.takes == "signed maps"
        values = {
            name: _mean(card.metric(*pair)) for name, pair in (pairs if signed else heats).items()
        }
        values = {name: round(value, 2) + 0.0 for name, value in values.items()}
        found[card.title] = values, -1 if math.isinf(card.high) else 1
    found["identification"] = (
        {
            name: _mean(metrics.identification(a, b, y, score=overlap))
            for name, (a, b) in heats.items()
        },
        1,
    )
    for score in SENSITIVITY_CARDS:
        product = score.takes is attributions.input_x_gradient
        values = {
            name: _mean(
                score.score(_times_input(a) if product else a, model, x, y, generator=_noise(0))
            )
            for name, a in explanations().items()
        }
        found[score.title] = values, -1
    return found


def passes(values: Mapping[str, float], sign: float, name: str) -> bool:
    """Return whether an explanation has a value at least as good as that of the gradient.

    Args:
        values: Of one score.
        sign: 1 if higher is better, else -1.
        name: The explanation.
    """
    return sign * (values[name] - values[REAL]) >= 0


def card_text(card: SensitivityCard, measured: ScoreFacts) -> list[str]:
    """Return a card as lines of MyST.

    Args:
        card: The judgement.
        measured: The facts.
    """
    rows = {
        "Asks about": "maps times the image"
        if card.takes is not attributions.gradient
        else "gradients",
        "Values": f"0 and up, smaller is better; unit: {card.unit}",
        "Perfect explanation": f"{_short(measured.perfect)}, for a linear network",
        "Gradient of a trained network": _short(measured.value),
        "Map rounded to 256 levels": _times(measured.rounded),
        "Map seven times as large": _times(measured.scaled),
        "Ten times the samples": "" if measured.more is None else _times(measured.more),
        "Punishes": card.punishes,
        "Forgives": card.forgives,
        "Use it": card.use,
    }
    lines = [f"- **{key}.** {value}" for key, value in rows.items() if value]
    link = f"{{py:func}}`{card.title} <attrlib.sensitivity.{card.title}>`"
    return [f":::{{grid-item-card}} {link}", *lines, ":::"]


def table_text() -> list[str]:
    """Return the table of all scores and explanations as lines of MyST."""
    names = list(explanations())
    lines = [
        "| Score | " + " | ".join(names) + " |",
        "|:--|" + "--:|" * len(names),
    ]
    for title, (values, sign) in outputs().items():
        cells = [
            _short(values[name])
            + (" passes" if name != REAL and passes(values, sign, name) else "")
            for name in names
        ]
        lines.append(f"| {title.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return lines


def sampled_text(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return how much sampling misses of what the suite finds, as lines of MyST.

    Args:
        rows: Of the table that `python -m attrlib bench sampling` writes.
    """
    rows = [row for row in rows if row["score"] == CHANGE]
    recipes = list(dict.fromkeys(row["net"].rpartition("-s")[0] for row in rows))
    drawn = list(dict.fromkeys(row["points"] for row in rows if "samples" in row["points"]))

    def column(name: str, recipe: str, points: str) -> float:
        """Its mean over the seeds."""
        return mean(
            float(row[name])
            for row in rows
            if row["net"].rpartition("-s")[0] == recipe and row["points"] == points
        )

    values = {recipe: [column("value", recipe, points) for points in drawn] for recipe in recipes}
    goals = {row["points"] for row in rows} - set(drawn)
    attacked = {r: max(column("value", r, points) for points in goals) for r in recipes}
    lines = [
        "| Network | " + " | ".join(drawn) + " | suite | reached |",
        "|:--|" + "--:|" * (len(drawn) + 2),
    ]
    for recipe in sorted(recipes, key=attacked.__getitem__):
        cells = [*map(_short, values[recipe]), _short(attacked[recipe])]
        share = f"{column('share', recipe, drawn[-1]):.0%}"
        lines.append(f"| `{recipe}` | " + " | ".join([*cells, share]) + " |")
    orders = [
        ", ".join(f"`{recipe}`" for recipe in sorted(recipes, key=key))
        for key in (lambda recipe: values[recipe][-1], attacked.__getitem__)
    ]
    images, suite = rows[0]["images"], f"version {rows[0]['suite']}, {rows[0]['effort']}"
    said = (
        f"Means over {len({row['net'] for row in rows}) // len(recipes)} networks of each recipe and "
        f"{images} images; the suite ({suite}) at the larger of its two goals, top-k and cosine. "
        f"*Reached* is the median over images of what {drawn[-1]} find, as a share of what the suite "
        f"does. From stable to unstable, the samples say {orders[0]}; the suite says {orders[1]}."
    )
    return [*lines, "", said]


class SensitivityCards(SphinxDirective):
    """Write one card for each score that asks a model."""

    def run(self) -> list[nodes.Node]:
        """Return how it was measured, and the cards."""
        how = (
            f"Measured when this page was built, on `{NET}` and {IMAGES} garments, with {SAMPLES} random "
            f"images within 8/255 of each, or squares of {SIDE}×{SIDE} pixels. Scores are means."
        )
        lines = [how, "", "::::{grid} 1 1 2 2", ":gutter: 3", ""]
        for card in SENSITIVITY_CARDS:
            lines += [*card_text(card, facts(card)), ""]
        return self.parse_text_to_nodes("\n".join([*lines, "::::"]))


class SampledAndAttacked(SphinxDirective):
    """Write the largest change by sampling beside that at the points of the suite."""

    def run(self) -> list[nodes.Node]:
        """Return the table, and the orders of the networks."""
        with SAMPLING.open(newline="", encoding="utf-8") as file:
            lines = sampled_text(list(csv.DictReader(file)))
        return self.parse_text_to_nodes("\n".join(lines))


class RandomOutputs(SphinxDirective):
    """Write the table of all scores for explanations that know nothing of the network."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes("\n".join(table_text()))


def _changed(attribution: Attribution, change: Any) -> Attribution:
    """An attribution whose maps are changed."""

    def changed(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.as_tensor(change(attribution(model, x, y, generator=generator)))

    return changed


def _times_input(attribution: Attribution) -> Attribution:
    def product(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return x * attribution(model, x, y, generator=generator)

    return product


def _times(ratio: float) -> str:
    """How a value stands to the one before."""
    return "unchanged" if abs(ratio - 1) < 0.005 else f"{ratio:.3g} times that"


def _short(value: float) -> str:
    """Two decimals for values around one, two digits for others; what is left of rounding is zero."""
    if math.isnan(value):
        return "undefined"
    if abs(value) < 1e-9 or 0.1 <= abs(value) < 10:
        return f"{round(value, 2) + 0.0:.2f}"
    return f"{float(f'{value:.2g}'):,g}"


def _mean(values: Tensor) -> float:
    return float(values.double().nanmean())


def _noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("sensitivity-cards", SensitivityCards)
    app.add_directive("sampled-and-attacked", SampledAndAttacked)
    app.add_directive("random-outputs", RandomOutputs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
