"""Short runs in a table of their own, and how far apart two rows and two recipes are."""

import pandas as pd
import pytest

from attrlib.book import results, seeds_apart, short_runs, standard_errors

COLUMNS = [
    *("family", "setting", "map", "eps", "quantity", "value", "low", "high"),
    *("suite", "list", "seconds"),
]


def table(*rows: tuple[object, ...]) -> pd.DataFrame:
    """Rows of the study; suite, list and seconds are the same where they are not given."""
    return pd.DataFrame([row + (3, "ab", 1800.0)[len(row) - 8 :] for row in rows], columns=COLUMNS)


RUNS = table(
    ("igr", "strong", "none", 0.0, "accuracy", 0.8, 0.7, 0.9),
    ("igr", "strong", "gradient", 0.1, "topk", 0.5, 0.4, 0.6),
    ("igr", "strong", "gradient", 0.03137, "topk", 0.9, 0.9, 0.9),
    ("igr", "strong", "integrated gradients", 0.1, "topk", 0.3, 0.2, 0.4),
    ("aligned", "ours", "none", 0.0, "accuracy", 0.7, 0.6, 0.8),
    ("aligned", "ours", "gradient", 0.1, "topk", 0.2, 0.1, 0.3),
    ("aligned", "ours", "input × gradient", 0.1, "topk", 0.6, 0.5, 0.7),  # no name, left out
)


def test_a_run_has_one_row_with_its_scores_and_their_ends() -> None:
    runs = short_runs(RUNS)
    assert runs.index.tolist() == [("igr", "strong"), ("aligned", "ours")]  # not sorted
    mine = runs.loc["igr", "strong"]
    assert mine[["accuracy", "gradient topk", "IG topk"]].tolist() == [0.8, 0.5, 0.3]
    assert mine[["IG topk_low", "IG topk_high", "hours"]].tolist() == [0.2, 0.4, 0.5]
    assert runs["IG topk"].isna().tolist() == [False, True]
    assert not [name for name in runs if "input" in name]
    mild = short_runs(RUNS, eps=8 / 255)
    assert mild.loc["igr", "strong"]["gradient topk"] == 0.9
    assert "accuracy" in mild
    assert "IG topk" not in mild


def test_rows_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected eps to be one of \[0.0, .*0.1\], got 0.2"):
        short_runs(RUNS, eps=0.2)
    older = table(("lga", "old", "gradient", 0.1, "topk", 0.4, 0.3, 0.5, 1))
    with pytest.raises(ValueError, match=r"Expected rows of one suite, got \[1, 3\]"):
        short_runs(pd.concat([RUNS, older]))
    elsewhere = table(("lga", "here", "gradient", 0.1, "topk", 0.4, 0.3, 0.5, 3, "cd"))
    with pytest.raises(ValueError, match=r"Expected rows of one list, got \['ab', 'cd'\]"):
        short_runs(pd.concat([RUNS, elsewhere]))
    with pytest.raises(ValueError, match=r"each run once, got rows of \('aligned', 'ours'\) twice"):
        short_runs(pd.concat([RUNS, RUNS[-2:-1]]))


def test_every_run_of_the_study_has_a_row() -> None:
    study = results("frontier", suite=3)
    runs = short_runs(study)
    assert len(runs) == len(study.drop_duplicates(["family", "setting"]))
    assert runs[["accuracy", "gradient topk_low", "hours"]].notna().all(axis=None)


def test_errors_add_as_squares() -> None:
    ends = {"topk": [0.5, 0.3], "topk_low": [0.4, 0.1], "topk_high": [0.6, 0.5]}
    runs = pd.DataFrame(ends, ["a", "b"])
    right = 0.2 / ((0.2**2 + 0.4**2) ** 0.5 / 3.92)
    assert standard_errors(runs, "topk", "a", "b") == pytest.approx(right, rel=1e-4)
    assert standard_errors(runs, "topk", "b", "a") == pytest.approx(-right, rel=1e-4)
    pairs = runs.set_axis(pd.MultiIndex.from_tuples([("f", "a"), ("f", "b")]))
    assert standard_errors(pairs, "topk", ("f", "a"), ("f", "b")) == pytest.approx(right, rel=1e-4)


def test_rows_without_an_interval_are_not_compared() -> None:
    runs = short_runs(RUNS)
    one, other = runs.index
    with pytest.raises(ValueError, match=r"Expected runs with the columns lens, .*, got no lens"):
        standard_errors(runs, "lens", one, other)
    with pytest.raises(ValueError, match=r"second to be a row of runs, got \('igr', 'weak'\)"):
        standard_errors(runs, "accuracy", one, ("igr", "weak"))
    with pytest.raises(ValueError, match=r"intervals of IG topk with a width, got \[nan, nan\]"):
        standard_errors(runs, "IG topk", one, other)
    flat = runs.assign(**{"accuracy_low": runs["accuracy"], "accuracy_high": runs["accuracy"]})
    with pytest.raises(ValueError, match="intervals of accuracy with a width"):
        standard_errors(flat, "accuracy", one, other)


def test_seeds_are_apart_if_the_worst_beats_the_best() -> None:
    keys = [(recipe, seed) for recipe in "abc" for seed in ("0", "1", "all")]
    index = pd.MultiIndex.from_tuples(keys, names=["recipe", "seed"])
    scores = pd.Series([0.5, 0.6, 0.1, 0.3, 0.5, 0.9, 0.3, 0.4, 0.35], index)
    assert seeds_apart(scores, "a", "c")  # the mean does not count
    assert not seeds_apart(scores, "a", "b")  # equal is not above
    assert not seeds_apart(scores, "c", "a")
    with pytest.raises(ValueError, match="Expected second to be a recipe in scores, got 'd'"):
        seeds_apart(scores, "a", "d")
    scores["b", "1"] = float("nan")
    with pytest.raises(ValueError, match=r"number for each seed of 'b', got \[0.3, nan\]"):
        seeds_apart(scores, "a", "b")
    with pytest.raises(ValueError, match=r"number for each seed of 'a', got \[\]"):
        seeds_apart(scores[[("a", "all"), ("c", "0")]], "a", "c")
