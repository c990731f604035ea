"""Needs and who leads by them: terms, ties, controls, and the table that is read."""

import math

import pandas as pd
import pytest

from attrlib.book import Choice, choice_table, take, take_by_mean, with_ends

EPS = 0.1


def recipes() -> pd.DataFrame:
    """Four recipes; by top-k `a` is tied with `b` and told apart from `c` and `d`."""
    columns = {
        ("topk", EPS): [0.9, 0.85, 0.6, 0.3],
        ("topk low", EPS): [0.8, 0.75, 0.5, 0.2],
        ("topk high", EPS): [1.0, 0.95, 0.7, 0.4],
        ("other topk", 0.0): [0.8, 0.4, 0.3, 0.2],
        ("specific_topk", EPS): [0.1, 0.5, 0.4, 0.0],
        ("specific_topk low", EPS): [0.05, 0.45, 0.35, -0.1],
        ("specific_topk high", EPS): [0.15, 0.55, 0.45, 0.1],
        ("accuracy", 0.0): [0.80, 0.84, 0.88, 0.92],
        ("pgd20_accuracy", 0.0): [0.1, 0.7, 0.5, 0.0],
        ("step_ratio", 0.0): [30.0, 8.4, 7.0, 1.0],
    }
    table = pd.DataFrame(columns, index=pd.Index(list("abcd"), name="recipe"))
    table.columns.names = ["quantity", "eps"]
    return table.sort_index(axis=1)


def test_a_score_has_its_ends_beside_it() -> None:
    got = with_ends(recipes(), "topk", EPS)
    assert got.columns.tolist() == ["topk", "topk low", "topk high"]
    assert got.loc["b"].tolist() == [0.85, 0.75, 0.95]
    for score, eps in (("LENS", EPS), ("topk", 0.3), ("accuracy", 0.0)):
        with pytest.raises(ValueError, match=f"score to be a quantity at eps {eps}, got '{score}'"):
            with_ends(recipes(), score, eps)


def test_the_largest_leads_and_who_is_near_is_tied() -> None:
    got = take("the most", recipes(), "topk", EPS)
    assert got == Choice(
        "the most",
        "a",
        score=0.9,
        accuracy=0.8,
        price=30,
        control=0.8,
        specific=0.1,
        tied={"b": 8.4},
    )


@pytest.mark.parametrize(
    ("terms", "leader", "tied"),
    [
        ({"accuracy": 0.84}, "b", {}),  # the bound itself will do
        ({"accuracy": 0.85}, "c", {}),
        ({"price": 7.0}, "c", {}),
        ({"pgd": 0.5}, "b", {}),
        ({"alike": 0.4}, "b", {}),
        ({"alike": 0.4, "price": 2}, "d", {}),
    ],
)
def test_a_recipe_that_breaks_a_term_is_neither_taken_nor_tied(
    terms: dict[str, float], leader: str, tied: dict[str, float]
) -> None:
    got = take("some", recipes(), "topk", EPS, **terms)
    assert (got.recipe, got.tied) == (leader, tied)


def test_those_tied_stand_by_price() -> None:
    table = recipes()
    table[("topk low", EPS)] = 0.0
    tied = take("wide", table, "topk", EPS).tied
    assert tied is not None
    assert list(tied.items()) == [("d", 1), ("c", 7), ("b", 8.4)]


def test_a_control_is_that_of_the_score() -> None:
    table = recipes()
    for name in ("random topk", "identification_topk", "LENS"):
        for end in ("", " low", " high"):
            table[(f"{name}{end}", EPS)] = table[(f"topk{end}", EPS)]
    table = table.sort_index(axis=1)
    controls = {
        name: take("x", table, name, EPS).control
        for name in ("random topk", "identification_topk", "specific_topk", "LENS")
    }
    assert controls.pop("LENS") != controls["random topk"]  # not known
    assert controls == {"random topk": 0.8, "identification_topk": 0.5, "specific_topk": 0}
    assert take("x", table, "specific_topk", EPS).recipe == "b"
    assert math.isnan(take("x", table.drop(columns="specific_topk"), "topk", EPS).specific)


def test_a_recipe_without_a_number_is_left_out() -> None:
    table = recipes()
    table.loc["a", ("topk low", EPS)] = math.nan
    table.loc["b", ("step_ratio", 0.0)] = math.nan
    assert take("x", table, "topk", EPS).recipe == "c"


def test_terms_that_nobody_meets_or_nobody_measured_are_named() -> None:
    with pytest.raises(
        ValueError, match=r"a recipe meets, got accuracy=0\.99, price=inf, pgd=0\.0, "
    ):
        take("x", recipes(), "topk", EPS, accuracy=0.99)
    with pytest.raises(ValueError, match=r"score to be a quantity at eps 0\.1, got 'topc'"):
        take("x", recipes(), "topc", EPS)
    with pytest.raises(ValueError, match="recipes with the column 'step_ratio' at eps 0, got none"):
        take("x", recipes().drop(columns="step_ratio"), "topk", EPS)


def test_without_intervals_the_mean_decides() -> None:
    got = take_by_mean("LRP", recipes(), pd.Series({"c": 0.7, "d": 0.9, "a": math.nan}))
    assert (got.recipe, got.score, got.accuracy, got.price) == ("d", 0.9, 0.92, 1)
    assert got.tied is None
    with pytest.raises(ValueError, match=r"Expected means with a number, got \[nan\]"):
        take_by_mean("LRP", recipes(), pd.Series({"a": math.nan}))
    with pytest.raises(ValueError, match=r"Expected means of recipes in the table, got \['x'\]"):
        take_by_mean("LRP", recipes(), pd.Series({"a": 0.1, "x": 0.7}))


def test_the_table_holds_what_is_known() -> None:
    chosen = [
        take("the most", recipes(), "topk", EPS),
        take("cheap", recipes(), "topk", EPS, price=2),
        take_by_mean("LRP", recipes(), pd.Series({"b": 0.7})),
        take("cheap", recipes(), "specific_topk", EPS, price=2),
    ]
    got = choice_table(chosen)
    assert got.index.tolist() == ["the most", "cheap", "LRP", "cheap"]
    assert got.index.name == "if you need"
    assert got.to_numpy().tolist() == [
        ["a", "0.90 / 0.80", "0.10", "0.80 / 30", "b (8)"],
        ["d", "0.30 / 0.20", "0.00", "0.92 / 1", "–"],
        ["b", "0.70 / –", "–", "0.84 / 8", "not known"],
        ["d", "0.00 / 0.00", "0.00", "0.92 / 1", "–"],
    ]
    with pytest.raises(ValueError, match="Expected choices to hold one or more, got none"):
        choice_table([])
