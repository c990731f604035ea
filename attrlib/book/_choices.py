"""Needs and the recipes that lead by them: who is to be taken, and at what price."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from attrlib.book._board import with_ends
from attrlib.book._orders import told_apart

_NONE = "–"


@dataclass(frozen=True)
class Choice:
    """A need, the recipe that leads by its score, and what stands beside it.

    Attributes:
        need: What was asked for, in words.
        recipe: The recipe that leads.
        score: Its mean.
        accuracy: Its accuracy without an attack, in [0, 1].
        price: Time of a step of its training, where an ordinary one has 1.
        control: The score that the map of another image of the class has. NaN if not known.
        specific: What is specific to the image in the top k under the same attack; 0 is nothing and 1
            all. NaN if not known.
        tied: Price of each recipe that is not told apart from it, cheapest first. None if not known.
    """

    need: str
    recipe: str
    score: float
    accuracy: float
    price: float
    control: float = math.nan
    specific: float = math.nan
    tied: Mapping[str, float] | None = None


def take(
    need: str,
    recipes: pd.DataFrame,
    score: str,
    eps: float,
    *,
    accuracy: float = 0.0,
    price: float = math.inf,
    pgd: float = 0.0,
    alike: float = 1.0,
) -> Choice:
    """Return the recipe that leads among those that meet the terms, and who is tied with it.

    Args:
        need: How the choice is named.
        recipes: A row for each recipe, `board(table).xs("all", level="seed")`.
        score: The quantity that is to be large.
        eps: Budget of the attack.
        accuracy: Least accuracy without an attack.
        price: Highest price, in steps of ordinary training.
        pgd: Least accuracy under the attack on predictions, PGD.
        alike: Largest share of the top k that the clean maps of two images of a class may share.

    Returns:
        The choice. Recipes without a number for the score or a term are left out. The control of an
        identification is 1/2, that of a specific score 0, and that of another one is read in `recipes`.

    Raises:
        ValueError: If the score or a term was not measured, or no recipe meets the terms.
    """
    fits = (
        (_column(recipes, "accuracy") >= accuracy)
        & (_column(recipes, "step_ratio") <= price)
        & (_column(recipes, "pgd20_accuracy") >= pgd)
        & (_column(recipes, "other topk") <= alike)
    )
    ends = with_ends(recipes, score, eps)[fits].dropna()
    if ends.empty:
        terms = f"{accuracy=}, {price=}, {pgd=}, {alike=}"
        raise ValueError(f"Expected terms that a recipe meets, got {terms}")
    leader = ends[score].idxmax()
    apart = told_apart(ends).loc[leader]
    prices = _column(recipes, "step_ratio")[ends.index]
    tied = prices[~apart].drop(leader).sort_values()
    return Choice(
        need,
        leader,
        score=ends[score][leader],
        accuracy=_column(recipes, "accuracy")[leader],
        price=prices[leader],
        control=_control(recipes.loc[leader], score),
        specific=recipes.loc[leader].get(("specific_topk", eps), math.nan),
        tied=tied.to_dict(),
    )


def take_by_mean(need: str, recipes: pd.DataFrame, means: pd.Series) -> Choice:
    """Return the recipe with the largest mean of a score without intervals.

    Args:
        need: How the choice is named.
        recipes: A row for each recipe, `board(table).xs("all", level="seed")`.
        means: The score of some of these recipes.

    Returns:
        The choice; its control, its specific score and who is tied with it are not known.

    Raises:
        ValueError: If means have no number, or are of a recipe that is not in `recipes`.
    """
    if means.isna().all():
        raise ValueError(f"Expected means with a number, got {means.tolist()}")
    strangers = means.index.difference(recipes.index)
    if len(strangers):
        raise ValueError(f"Expected means of recipes in the table, got {strangers.tolist()}")
    leader = means.idxmax()
    return Choice(
        need,
        leader,
        score=means[leader],
        accuracy=_column(recipes, "accuracy")[leader],
        price=_column(recipes, "step_ratio")[leader],
    )


def choice_table(choices: Sequence[Choice]) -> pd.DataFrame:
    """Return choices as a table to be read, with a row for each need.

    Args:
        choices: What `take` and `take_by_mean` returned.

    Returns:
        Texts with the needs as index: the recipe to take, its score beside its control, its specific
        score, its accuracy and price, and who is tied with it, with prices. "–" stands for a number that
        is not known, and for nobody who is tied.

    Raises:
        ValueError: If there is no choice.

    >>> choice_table([Choice("a map", "madry", 0.7, accuracy=0.8, price=8)])["take"].to_dict()
    {'a map': 'madry'}
    """
    if not choices:
        raise ValueError("Expected choices to hold one or more, got none")
    rows = [_texts(choice) for choice in choices]
    return pd.DataFrame(rows).set_index("if you need")


def _texts(choice: Choice) -> dict[str, str]:
    """Return a row of the table, by its columns."""
    tied = "not known"
    if choice.tied is not None:
        tied = ", ".join(f"{name} ({price:.0f})" for name, price in choice.tied.items())
    return {
        "if you need": choice.need,
        "take": choice.recipe,
        "score / control": f"{choice.score:.2f} / {_two_digits(choice.control)}",
        "specific": _two_digits(choice.specific),
        "accuracy / price": f"{choice.accuracy:.2f} / {choice.price:.0f}",
        "tied with it (price)": tied or _NONE,
    }


def _two_digits(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.2f}"


def _control(recipe: pd.Series, score: str) -> float:
    """Return what a score is for the clean map of another image of the class."""
    if score.startswith("identification"):
        return 0.5
    if score.startswith("specific"):
        return 0.0
    return float(recipe.get((f"other {score.removeprefix('random ')}", 0.0), math.nan))


def _column(recipes: pd.DataFrame, quantity: str) -> pd.Series:
    """Return what needs no attack of a map, and so has the budget 0."""
    if (quantity, 0.0) not in recipes.columns:
        raise ValueError(f"Expected recipes with the column {quantity!r} at eps 0, got none")
    return recipes[quantity, 0.0]
