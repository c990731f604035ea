"""The cards of the metrics: one for each, and what is measured on them is what is known."""

import math
import sys

import pytest
import torch

from attrlib import metrics
from attrlib.metrics.cards import CARDS, SIZE, WINDOW, K, MetricCard, rounded
from tests.book.building import ROOT

sys.path.append(str(ROOT / "tools" / "sphinx"))
from metric_cards import PAIRS, Facts, examples, facts, shuffled, text

NO_METRICS = {"chance_level", "corrected", "dilate", "diverse_topk", "interval", "topk_mask"}
NO_METRICS |= {"seed_interval", "Estimate"}
NO_METRICS |= {
    "identification",
    "rank_one",
    "specific",
    "outside_template",
}  # of all images together
NO_METRICS |= {"leakage", "topk_leakage"}  # of one map and a region
NO_METRICS |= {"auroc", "group_means"}  # of scores
NO_METRICS |= {"OnWords", "word_lens_recall", "word_neighbours", "valence_agreement"}  # of words
SETS = ("topk_intersection", "lens_recall", "lens_precision", "lens_recall, diverse")
RANKS = ("spearman", "kendall")
MEANS = ("lens_spearman", "lens_kendall")
VALUES = ("cosine", "pearson")

every_card = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.title)


@pytest.fixture(scope="module")
def measured() -> dict[str, Facts]:
    return {card.title: facts(card) for card in CARDS}


def test_every_metric_has_a_card() -> None:
    named = {card.title.partition(",")[0] for card in CARDS}
    assert named == set(metrics.__all__) - NO_METRICS
    assert len({card.title for card in CARDS}) == len(CARDS)
    for card in CARDS:
        function = getattr(card.metric, "func", card.metric)
        assert function is getattr(metrics, card.title.partition(",")[0])


@every_card
def test_values_stay_in_the_range_and_reach_its_lower_end(card: MetricCard) -> None:
    a, b = examples(card.takes)
    opposite = -a if card.takes == "signed maps" else a.amax((1, 2), keepdim=True) - a
    far = torch.zeros(2, 1, SIZE, SIZE, dtype=a.dtype)
    far[0, 0, :3], far[1, 0, -3:] = torch.rand(2, 3, SIZE, dtype=a.dtype)
    values = [card.metric(*pair) for pair in ((a, b), (a, a), (a, opposite), (far[0], far[1]))]
    smallest, largest = torch.cat(values).aminmax()
    assert card.low - 1e-9 <= smallest <= largest <= card.high + 1e-9
    if "diverse" not in card.title:  # its picks go everywhere
        assert float(smallest) == pytest.approx(card.low, abs=1e-6)


def test_equal_maps_are_best(measured: dict[str, Facts]) -> None:
    for card in CARDS:
        best = 0 if card.title == "center_shift" else 1
        assert measured[card.title].best == pytest.approx(best)
        if math.isfinite(card.high):
            assert best == card.high


def test_copies_that_look_the_same(measured: dict[str, Facts]) -> None:
    for card in CARDS:
        found = measured[card.title]
        assert found.scaled == pytest.approx(found.best)
    # Most values of maps whose few pixels stand out are below the first level: rounding ties them.
    loses = {name for name, found in measured.items() if abs(found.rounded - found.best) > 0.05}
    assert loses == {"kendall"}
    a = rounded(torch.tensor([[[1.0, -0.5, 0.0019]], [[2.0, 0.004, 0.0039]]]))
    levels = torch.tensor([[[255.0, -128, 0]], [[255, 1, 0]]])
    torch.testing.assert_close(a, levels * torch.tensor([1.0, 2.0]).view(2, 1, 1) / 255)


def test_chance_is_what_is_known(measured: dict[str, Facts]) -> None:
    assert measured["topk_intersection"].chance == pytest.approx(K / SIZE**2, abs=0.01)
    for name in (*RANKS, *MEANS, *VALUES):
        assert measured[name].chance == pytest.approx(0, abs=0.03)
    a, b = examples("heatmaps")
    for card in CARDS[1:4]:
        area = metrics.chance_level(card.metric, a, b)
        assert measured[card.title].chance == pytest.approx(float(area.mean()), abs=0.03)
        assert measured[card.title].chance > 5 * K / SIZE**2


def test_who_can_exchange_the_maps(measured: dict[str, Facts]) -> None:
    one_way = {name for name, found in measured.items() if not found.symmetric}
    assert one_way == {"lens_recall", "lens_precision", "lens_recall, diverse"}


def test_what_leaves_scores_as_they_are(measured: dict[str, Facts]) -> None:
    factor, added, stretched, order = (
        {name for name, found in measured.items() if change in found.unchanged_by}
        for change in (
            "a positive factor",
            "a constant added",
            "an increasing function",
            "shuffling the pixels of both maps alike",
        )
    )
    assert factor == set(measured)
    assert added == {*SETS, *RANKS, *MEANS, "pearson"}
    assert stretched == {*SETS, *RANKS}
    assert order == {"topk_intersection", *RANKS, *VALUES}


def test_what_ties_and_constant_maps_do(measured: dict[str, Facts]) -> None:
    assert {name for name, found in measured.items() if found.ties_by_place} == set(SETS)
    undefined = {name for name, found in measured.items() if math.isnan(found.constant)}
    assert undefined == {*RANKS, *MEANS, "pearson"}


def test_judgements_agree_with_what_is_measured(measured: dict[str, Facts]) -> None:
    top, recall = measured["topk_intersection"], measured["lens_recall"]
    assert top.moved < 0.5 < 0.9 < recall.moved  # a move by one pixel
    assert top.low_half == top.top == recall.low_half == recall.top == 1  # blind below k and within
    assert measured["lens_recall, diverse"].chance > 1.3 * recall.chance
    for name in RANKS:
        assert measured[name].low_half < 0.9  # the order of what is near zero
        assert measured[name].top > 0.99  # few pixels, few ranks
        assert measured[f"lens_{name}"].low_half > measured[name].low_half + 0.05
        assert measured[f"lens_{name}"].moved > measured[name].moved + 0.2
    for name in VALUES:
        assert measured[name].low_half > 0.99
        assert measured[name].top < 0.6
    assert measured["kendall"].cost > 3 > measured["cosine"].cost


def test_places_of_chosen_ranks_are_shuffled() -> None:
    a = torch.tensor([[[5.0, -1.0, 3.0], [2.0, 0.5, 4.0]]])
    low = shuffled(a, slice(3))
    assert torch.equal(low.flatten().sort().values, a.flatten().sort().values)
    kept = a.abs() > 2
    assert torch.equal(low[kept], a[kept])
    assert not torch.equal(low, a)


def test_a_card_says_all_that_is_known() -> None:
    card = next(card for card in CARDS if card.title == "lens_recall, diverse")
    found = Facts(
        best=1,
        rounded=0.987,
        scaled=1,
        chance=-0.001,
        moved=0.5,
        low_half=1,
        top=0.25,
        symmetric=False,
        unchanged_by=("one", "two"),
        ties_by_place=True,
        constant=math.nan,
        cost=12.34,
    )
    lines = text(card, found)
    assert (
        lines[0]
        == ":::{grid-item-card} {py:func}`lens_recall <attrlib.metrics.lens_recall>`, diverse"
    )
    assert lines[-1] == ":::"
    told = dict(line.removeprefix("- **").split(".** ", 1) for line in lines[1:-1])
    assert told["By chance"] == "0.00"
    assert told["Copy rounded to 256 levels"] == "0.99"
    assert told["Copy seven times as large"] == "1.00"
    assert told["A constant map"] == "undefined"
    assert told["Range"] == "0 to 1; equal maps give 1"
    assert told["Unchanged by"] == "one; two"
    assert told["Cost"] == "about 12 × `topk_intersection`"
    assert told["Forgives"] == card.forgives
    assert examples("heatmaps")[0].shape == (PAIRS, SIZE, SIZE)
    assert WINDOW > 0
