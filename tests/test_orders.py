"""Orders of recipes: who is told apart, and how far two orders agree."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from attrlib.book import compare_orders, orders_agree, tied_pairs, told_apart


def frame(*seeds: list[float]) -> pd.DataFrame:
    names = [f"r{k}" for k in range(len(seeds[0]))]
    return pd.DataFrame({str(k): values for k, values in enumerate(seeds)}, index=names)


def test_intervals_that_are_far_apart_tell_and_others_do_not() -> None:
    ends = pd.DataFrame([[0.5, 0.4, 0.6], [0.3, 0.2, 0.4], [0.32, 0.3, 0.34]], list("abc"))
    got = told_apart(ends)
    assert got.loc["a"].tolist() == [False, True, True]  # .2 against .141, .18 against .102
    assert not got.loc[["b", "c"]].to_numpy().any()
    with pytest.raises(ValueError, match="Expected ends to have 3 columns, got 2"):
        told_apart(ends[[0, 1]])


def test_pairs_that_are_not_told_apart_are_counted() -> None:
    apart = pd.DataFrame(np.zeros((4, 4), dtype=bool), list("abcd"), list("abcd"))
    assert tied_pairs(apart) == 6
    apart.loc["a", ["b", "c"]] = True
    assert tied_pairs(apart) == 4
    assert tied_pairs(apart.loc[["b", "c"], ["b", "c"]]) == 1
    with pytest.raises(ValueError, match=r"same rows and columns, got \['a'\] and \['a', 'b', "):
        tied_pairs(apart.loc[["a"]])
    apart.loc["b", "a"] = True
    with pytest.raises(ValueError, match="Expected apart to tell no pair both ways"):
        tied_pairs(apart)


def test_the_same_seed_never_meets_itself() -> None:
    one = frame([4, 3, 2, 1], [1, 2, 3, 4])
    assert orders_agree(one, one).tolist() == [-1]
    assert orders_agree(one, one["1"].to_frame()).tolist() == [-1]


def test_it_is_kendalls_tau_with_ties() -> None:
    a, b = [4.0, 3.0, 3.0, 1.0, 0.0], [1.0, 2.0, 1.0, 0.0, 0.0]
    got = orders_agree(frame(a), frame(b).rename(columns={"0": "1"}))
    assert got[0] == pytest.approx(stats.kendalltau(a, b).statistic)


def test_recipes_that_one_side_lacks_are_left_out() -> None:
    first = frame([3, 2, 1, 9], [3, 2, 1, 0])
    assert orders_agree(first, first.drop("r3")).tolist() == [1]
    with pytest.raises(ValueError, match="share 2 recipes or more, got 1"):
        orders_agree(first, first.loc[["r1"]])


def test_draws_are_of_recipes_and_do_not_pair_one_with_itself() -> None:
    draw = torch.Generator().manual_seed(0)
    got = orders_agree(frame([3, 2, 1], [2, 3, 1]), frame([3, 2, 1]), draws=200, generator=draw)
    assert got.shape == (201,)
    assert got[0] == pytest.approx(1 / 3)
    values = set(np.unique(got[~np.isnan(got)]).round(3))
    assert {-1, 1} <= values  # only the swapped pair, or only others
    assert np.isnan(got).any()  # the same recipe three times
    draw.manual_seed(0)
    again = orders_agree(frame([3, 2, 1], [2, 3, 1]), frame([3, 2, 1]), draws=200, generator=draw)
    assert np.array_equal(got, again, equal_nan=True)


def test_one_seed_has_no_second_one() -> None:
    with pytest.raises(ValueError, match=r"columns of different seeds, got \['0'\] twice"):
        orders_agree(frame([1, 2]), frame([2, 1]))
    with pytest.raises(ValueError, match="Expected draws"):
        orders_agree(frame([1, 2], [1, 2]), frame([1, 2]), draws=-1)


def test_a_comparison_stands_beside_its_ceiling() -> None:
    """The first has the ceiling 1, as its seeds agree, and the second 1/3: one of three pairs turns."""
    first, second = frame([3, 2, 1], [3, 2, 1]), frame([1, 2, 3], [2, 1, 3])
    got = compare_orders(first, second, generator=torch.Generator().manual_seed(0))
    assert list(got.index) == ["tau", "low", "high", "ceiling", "short", "error"]
    assert got["tau"] == pytest.approx((-1 - 1 / 3) / 2)
    assert got["ceiling"] == pytest.approx((1 + 1 / 3) / 2)
    assert got["short"] == pytest.approx(got["ceiling"] - got["tau"])
    assert -1 <= got["low"] <= got["tau"] <= got["high"] <= 1
    assert got["error"] > 0


def test_a_measurement_is_not_below_its_own_ceiling() -> None:
    """All comparisons draw the same recipes, so nothing is left of the difference."""
    one = frame([4, 3, 2, 1], [4, 2, 3, 1], [3, 4, 1, 2])
    got = compare_orders(one, one, generator=torch.Generator().manual_seed(3))
    assert got[["short", "error"]].tolist() == [0, 0]
    again = compare_orders(one, one, generator=torch.Generator().manual_seed(3))
    pd.testing.assert_series_equal(got, again)


def test_the_interval_and_the_error_are_those_of_the_draws() -> None:
    first, second = frame([5, 4, 3, 2, 1], [5, 3, 4, 2, 1]), frame([4, 5, 3, 1, 2]).add_prefix("9")

    def drawn(one: pd.DataFrame, other: pd.DataFrame) -> np.ndarray:
        return orders_agree(one, other, draws=400, generator=torch.Generator().manual_seed(1))

    got = compare_orders(first, second, draws=400, generator=torch.Generator().manual_seed(1))
    tau, best = drawn(first, second), drawn(first, first)  # the second has no ceiling
    assert got["low"] == pytest.approx(np.nanpercentile(tau[1:], 2.5))
    assert got["high"] == pytest.approx(np.nanpercentile(tau[1:], 97.5))
    assert got["ceiling"] == best[0]
    assert got["error"] == pytest.approx(np.nanstd(best[1:] - tau[1:]))


def test_recipes_that_one_side_lacks_count_nowhere() -> None:
    first, second = frame([5, 4, 3, 2, 1], [1, 5, 4, 3, 2]), frame([5, 4, 3], [4, 3, 5])
    drawn = [
        compare_orders(one, second, draws=50, generator=torch.Generator().manual_seed(0))
        for one in (first, first[:3])
    ]
    pd.testing.assert_series_equal(*drawn)


def test_without_a_pair_or_a_second_seed_there_is_no_comparison() -> None:
    flat = frame([1, 1, 1], [1, 1, 1])
    assert compare_orders(flat, flat).isna().all()
    with pytest.raises(ValueError, match="Expected first or second to have two seeds or more"):
        compare_orders(frame([1, 2]), frame([2, 1]).add_prefix("9"))
    with pytest.raises(ValueError, match="Expected draws to be an integer >= 2, got 1"):
        compare_orders(flat, flat, draws=1)
    with pytest.raises(ValueError, match="share 2 recipes or more, got 0"):
        compare_orders(flat, flat.rename("x{}".format))


def test_the_global_generator_draws_if_there_is_none() -> None:
    one = frame([4, 3, 2, 1], [1, 3, 2, 4])
    torch.manual_seed(5)
    got = compare_orders(one, one[["1"]])
    after = torch.rand(())
    torch.manual_seed(5)
    pd.testing.assert_series_equal(got, compare_orders(one, one[["1"]]))
    assert after == torch.rand(())
