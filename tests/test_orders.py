"""Orders of recipes: who is told apart, and how far two orders agree."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from attrlib.book import orders_agree, told_apart


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
