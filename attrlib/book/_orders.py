"""Orders of recipes: which recipes are told apart, and how far two orders agree."""

import numpy as np
import pandas as pd
import torch

from attrlib import _check
from attrlib.book._claims import difference


def told_apart(ends: pd.DataFrame) -> pd.DataFrame:
    """Return for each pair of recipes whether the first one surely has more.

    Args:
        ends: A row for each recipe; its value and the ends of its interval are the three columns.

    Returns:
        Truths of shape (recipes, recipes): whether the interval of row less column, by `difference`, lies
        above zero. A pair that is neither way is tied: these data do not tell which is larger.

    Raises:
        ValueError: If there are not three columns.
    """
    if ends.shape[1] != 3:
        raise ValueError(f"Expected ends to have 3 columns, got {ends.shape[1]}")
    values = ends.to_numpy().tolist()
    more = [[difference(mine, other)[1] > 0 for other in values] for mine in values]
    return pd.DataFrame(more, ends.index, ends.index)


def tied_pairs(apart: pd.DataFrame) -> int:
    """Return how many pairs of recipes are tied.

    Args:
        apart: Truths of `told_apart`, shape (recipes, recipes), or those of some recipes.

    Raises:
        ValueError: If rows and columns are not the same recipes, or a pair is told apart both ways.

    >>> ends = pd.DataFrame([[0.9, 0.8, 1.0], [0.5, 0.4, 0.6], [0.6, 0.5, 0.7]], list("abc"))
    >>> tied_pairs(told_apart(ends))
    1
    """
    if not apart.index.equals(apart.columns):
        raise ValueError(
            f"Expected apart with the same rows and columns, got {list(apart.index)} "
            f"and {list(apart.columns)}"
        )
    truths = apart.to_numpy(dtype=bool)
    if (truths & truths.T).any():
        raise ValueError("Expected apart to tell no pair both ways, got a pair with two leaders")
    n = len(apart)
    return n * (n - 1) // 2 - int(truths.sum())


def orders_agree(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    draws: int = 0,
    generator: torch.Generator | None = None,
) -> np.ndarray:
    r"""Return Kendall's $\tau_b$ of two orders of recipes, measured on different seeds.

    Each column of `first` meets the columns of `second` of *other* seeds, and $\tau_b$ is averaged. So a
    measurement that meets itself agrees with itself as far as it would after training again: its ceiling.

    Args:
        first: A row for each recipe, a column for each seed. Recipes that `second` lacks are left out.
        second: The other measurement.
        draws: How many times recipes are drawn with replacement, for an interval over recipes.
        generator: Draws them.

    Returns:
        1 + draws numbers: first of the recipes as they are. A pair of a recipe with itself counts
        nowhere, and where no pair is left the number is NaN.

    Raises:
        ValueError: If fewer than two recipes are in both, or all seeds are the same one.

    >>> one = pd.DataFrame({"0": [3, 2, 1], "1": [3, 1, 2]}, index=["a", "b", "c"])
    >>> orders_agree(one, one).round(2)
    array([0.33])
    """
    _check.count(low=0, draws=draws)
    both = first.index.intersection(second.index)
    n = len(both)
    if n < 2:
        raise ValueError(f"Expected first and second to share 2 recipes or more, got {n}")
    drawn = torch.randint(n, (draws, n), generator=generator)
    counts = torch.zeros(draws, n).scatter_add_(1, drawn, torch.ones(draws, n))
    weights = np.vstack([np.ones(n), counts.numpy()])
    found = []
    for seed in first.columns:
        for again in second.columns.drop(seed, errors="ignore"):
            values = (first[seed], second[again])
            a, b = (np.sign(v[:, None] - v) for v in (v.loc[both].to_numpy() for v in values))
            alike, of_a, of_b = (((weights @ m) * weights).sum(1) for m in (a * b, a * a, b * b))
            root = np.sqrt(of_a * of_b)
            empty = np.full_like(root, np.nan)
            found.append(np.divide(alike, root, out=empty, where=root > 0))
    if not found:
        raise ValueError(f"Expected columns of different seeds, got {list(first.columns)} twice")
    mean: np.ndarray = np.mean(found, axis=0)
    return mean


def compare_orders(
    first: pd.DataFrame,
    second: pd.DataFrame,
    *,
    draws: int = 1000,
    generator: torch.Generator | None = None,
) -> pd.Series:
    r"""Return how far two orders of recipes agree, and how far they could agree at best.

    All of the recipes in both. The ceiling is the mean of what each measurement reaches with itself
    (`orders_agree`); one with a single seed has none, and is left out. Each comparison draws the same
    recipes, with the generator in the same state, so that the luck of the draw cancels in the difference.

    Args:
        first: A row for each recipe, a column for each seed.
        second: The other measurement. Recipes that one of them lacks are left out.
        draws: How many times recipes are drawn with replacement.
        generator: Draws them.

    Returns:
        Six numbers: `tau`; the ends of its 95 % interval over recipes, `low` and `high`; its `ceiling`;
        how far it lies below that, `short`; and the standard `error` of this difference. NaN where no
        pair of recipes is left.

    Raises:
        ValueError: If neither measurement has two seeds, fewer than two recipes are in both, or there
            are fewer than two draws.

    >>> one = pd.DataFrame({"0": [3, 2, 1], "1": [3, 1, 2]}, index=["a", "b", "c"])
    >>> draw = torch.Generator().manual_seed(0)
    >>> compare_orders(one, one, generator=draw)[["tau", "ceiling", "short"]].round(2).tolist()
    [0.33, 0.33, 0.0]
    """
    _check.count(low=2, draws=draws)
    both = first.index.intersection(second.index)
    first, second = first.loc[both], second.loc[both]
    repeated = [values for values in (first, second) if values.shape[1] > 1]
    if not repeated:
        raise ValueError("Expected first or second to have two seeds or more, got one in each")
    source = torch.default_generator if generator is None else generator
    start = source.get_state()
    found = []
    for one, other in [(first, second), *((values, values) for values in repeated)]:
        source.set_state(start)
        found.append(orders_agree(one, other, draws=draws, generator=source))
    tau = found[0]
    ceiling = np.mean(found[1:], axis=0)
    short = ceiling - tau
    low, high = pd.Series(tau[1:]).quantile([0.025, 0.975])
    numbers = {
        "tau": tau[0],
        "low": low,
        "high": high,
        "ceiling": ceiling[0],
        "short": short[0],
        "error": pd.Series(short[1:]).std(ddof=0),
    }
    return pd.Series(numbers)
