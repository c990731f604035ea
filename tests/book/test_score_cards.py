"""The cards of scores that ask a model, and what random explanations do to all scores."""

import math
import sys

import pytest
import torch

from attrlib import metrics, sensitivity
from attrlib.metrics.cards import CARDS
from attrlib.sensitivity.cards import SENSITIVITY_CARDS
from tests.book.building import ROOT
from tests.rows import QUOTIENTS
from tests.tables import rows

sys.path.append(str(ROOT / "tools" / "sphinx"))
from score_cards import (
    CHANGE,
    REAL,
    SAMPLING,
    ScoreFacts,
    _short,
    card_text,
    case,
    explanations,
    facts,
    outputs,
    passes,
    sampled_text,
    table_text,
)

FIXED, NOISE, UNTRAINED = "One map", "Noise", "Untrained"


@pytest.fixture(autouse=True)
def _single() -> None:
    """The page is built in float32; fixtures of the module come before the dtype of the run is set."""
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def measured() -> dict[str, ScoreFacts]:
    return {card.title: facts(card) for card in SENSITIVITY_CARDS}


@pytest.fixture(scope="module")
def found() -> dict[str, tuple[dict[str, float], float]]:
    return outputs()


def test_every_score_has_a_card() -> None:
    assert {card.title for card in SENSITIVITY_CARDS} == set(sensitivity.__all__) - set(QUOTIENTS)
    for card in SENSITIVITY_CARDS:
        assert getattr(card.score, "func", card.score) is getattr(sensitivity, card.title)


def test_perfect_explanations_have_the_best_value(measured: dict[str, ScoreFacts]) -> None:
    for name, seen in measured.items():
        assert seen.perfect == pytest.approx(0, abs=1e-9), name
        assert seen.value > 0.005


def test_judgements_agree_with_what_is_measured(measured: dict[str, ScoreFacts]) -> None:
    relative = {"relative_input_stability", "relative_output_stability"}
    for name, seen in measured.items():
        if name in relative:
            assert seen.rounded > 50  # entries near zero
        else:
            assert seen.rounded == pytest.approx(1, abs=0.02)
    same = {name for name, seen in measured.items() if seen.scaled == pytest.approx(1, rel=1e-3)}
    assert same == {"max_sensitivity", "average_sensitivity", *relative}
    for name in ("local_lipschitz", "continuity"):
        assert measured[name].scaled == pytest.approx(7, rel=1e-3)
    for name in ("infidelity", "square_infidelity"):
        assert measured[name].scaled > 20
    fixed = {name for name, seen in measured.items() if seen.more is None}
    assert fixed == {"continuity", "square_infidelity"}
    for name in ("max_sensitivity", "local_lipschitz", *relative):
        assert measured[name].more > 1.05
    assert measured["relative_output_stability"].more > measured["max_sensitivity"].more
    for name in ("average_sensitivity", "infidelity"):
        assert measured[name].more == pytest.approx(1, abs=0.1)


def test_only_what_asks_the_model_or_the_other_images_sees_one_map_for_all(
    found: dict[str, tuple[dict[str, float], float]],
) -> None:
    assert set(found) == {card.title for card in (*CARDS, *SENSITIVITY_CARDS)} | {"identification"}
    notice = {name for name, (values, sign) in found.items() if not passes(values, sign, FIXED)}
    assert notice == {"identification", "infidelity", "square_infidelity"}
    assert found["identification"][0][FIXED] == pytest.approx(0.5)
    for card in CARDS:
        best = 0 if math.isinf(card.high) else card.high
        assert found[card.title][0][FIXED] == pytest.approx(best)
    untrained = {n for n, (values, sign) in found.items() if not passes(values, sign, UNTRAINED)}
    assert untrained == {"infidelity", "square_infidelity"}
    noise = {name for name, (values, sign) in found.items() if passes(values, sign, NOISE)}
    assert noise == {"lens_recall, diverse"}


def test_explanations_know_nothing_of_the_network() -> None:
    model, x, y = case()
    given = explanations()
    assert next(iter(given)) == REAL
    one, other = (given[FIXED](model, z, y) for z in (x, 1 - x))
    assert torch.equal(one, other)
    assert torch.equal(one[0], one[1])
    assert not torch.equal(given[NOISE](model, x, y), given[NOISE](model, x, y))
    again = given[UNTRAINED](model, x, y)
    assert torch.equal(again, given[UNTRAINED](None, x, y))  # type: ignore[arg-type]
    assert metrics.cosine(again, given[REAL](model, x, y)).abs().mean() < 0.3
    sizes = [a(model, x, y).square().mean().sqrt().item() for a in given.values()]
    assert max(sizes) < 1.1 * min(sizes)


def test_a_card_and_the_table_say_what_is_known() -> None:
    card = SENSITIVITY_CARDS[0]
    seen = ScoreFacts(perfect=1e-12, value=0.42, rounded=1, scaled=445.2, more=1.136)
    lines = card_text(card, seen)
    told = dict(line.removeprefix("- **").split(".** ", 1) for line in lines[1:-1])
    assert told["Perfect explanation"] == "0.00, for a linear network"
    assert told["Map seven times as large"] == "445 times that"
    assert told["Map rounded to 256 levels"] == "unchanged"
    assert told["Ten times the samples"] == "1.14 times that"
    assert told["Forgives"] == card.forgives
    plain = ScoreFacts(perfect=0, value=1, rounded=1, scaled=1, more=None)
    assert not any("Ten times" in line for line in card_text(card, plain))
    table = table_text()
    assert len(table) == 2 + len(CARDS) + 1 + len(SENSITIVITY_CARDS)
    assert table[2].count(" passes") == 2


def test_networks_are_ordered_by_samples_and_by_the_suite() -> None:
    values = {"wild-s0": (1, 2, 9, 8), "wild-s1": (1, 4, 9, 10), "calm-s0": (2, 5, 6, 5)}
    values["calm-s1"] = values["calm-s0"]
    points = ("10 samples", "90 samples", "suite, top-k", "suite, cosine")
    table = [
        {"net": net, "score": score, "points": place, "value": str(value), "share": str(value / 10)}
        | {"images": "30", "suite": "9", "effort": "quick"}
        for net, found in values.items()
        for score in ("max sensitivity", "other")
        for place, value in zip(points, found, strict=True)
    ]
    lines = sampled_text(table)
    assert lines[0] == "| Network | 10 samples | 90 samples | suite | reached |"
    assert lines[2:4] == [
        "| `calm` | 2.00 | 5.00 | 6.00 | 50% |",
        "| `wild` | 1.00 | 3.00 | 9.00 | 30% |",
    ]
    assert "2 networks of each recipe and 30 images; the suite (version 9, quick)" in lines[-1]
    assert "the samples say `wild`, `calm`; the suite says `calm`, `wild`." in lines[-1]


def test_the_page_says_of_samples_what_the_table_says() -> None:
    nets = {row["net"] for row in rows(SAMPLING)}
    found = {
        net: {row["points"]: row for row in rows(SAMPLING, net=net, score=CHANGE)} for net in nets
    }
    shares = [float(points["1000 samples"]["share"]) for points in found.values()]
    assert max(shares) > 2 * min(shares)  # no factor corrects it
    for points in found.values():
        few, many = (float(points[name]["value"]) for name in ("200 samples", "1000 samples"))
        assert few <= many < 1.25 * few  # more samples help little
        assert float(points["1000 samples"]["below"]) > 0.5
    lipschitz = rows(SAMPLING, score="local Lipschitz", points="1000 samples")
    assert any(float(row["share"]) > 1 for row in lipschitz)
    *_, said = sampled_text(rows(SAMPLING))
    samples, suite = (said.split(f"{who} say")[1] for who in ("samples", "suite"))
    assert samples.split(";")[0].strip() != suite[1:].strip(" .")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.00"), (4.7e-15, "0.00"), (-0.001, "-0.001"), (0.0079, "0.0079"), (1641.8, "1,600")],
)
def test_numbers_are_short(value: float, shown: str) -> None:
    assert _short(value) == shown
    assert _short(math.nan) == "undefined"
