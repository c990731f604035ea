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
