"""The table of recipes, turned so that a row holds all that was measured of one network."""

import pandas as pd

_ATTACKED, _PREFIX = "top-k suite", {"other image": "other ", "random": "random "}


def board(table: pd.DataFrame) -> pd.DataFrame:
    r"""Return the table `recipes` with a row for each recipe and seed, a column for quantity and budget.

    Of gradient maps only. Scores after the suite on the top k have their own name, with ends of intervals
    as `topk low` and `topk high`; `random topk` is left by one draw of random signs, `other topk` are two
    clean maps of different images of a class (budget 0). Accuracy and all else that needs no second map
    has budget 0, too. `LENS` is recall corrected for chance, (recall − chance) / (1 − chance).

    Args:
        table: Rows of `results("recipes")`.

    Returns:
        Numbers with the index (recipe, seed), where seed is "0", "1", …, or "all" for the mean, and
        columns (quantity, eps). NaN where nothing was measured.

    Raises:
        ValueError: If no row was made by the suite.
    """
    if not (table["attack"] == _ATTACKED).any():
        raise ValueError(f"Expected rows of the {_ATTACKED}, got {sorted(set(table['attack']))}")
    rows = table[table["attack"].isin(["model", _ATTACKED, *_PREFIX])]
    rows = rows[rows["map"].isin(["none", "gradient"])]
    quantity = rows["attack"].map(_PREFIX).fillna("") + rows["quantity"]
    parts = []
    for end, suffix in (("value", ""), ("low", " low"), ("high", " high")):
        named = rows.assign(quantity=quantity + suffix)
        parts.append(named.pivot(index=["recipe", "seed"], columns=["quantity", "eps"], values=end))
    whole = pd.concat(parts, axis=1)
    chance = whole["lens_recall_chance"]
    fair = (whole["lens_recall"] - chance) / (1 - chance)
    return whole.join(pd.concat({"LENS": fair}, axis=1, names=["quantity", "eps"])).sort_index(
        axis=1
    )


def with_ends(recipes: pd.DataFrame, score: str, eps: float) -> pd.DataFrame:
    """Return a score and the ends of its interval.

    Args:
        recipes: Rows of `board(table)`.
        score: A quantity, such as "topk".
        eps: Budget of the attack.

    Returns:
        Numbers with the index of `recipes` and three columns: `score`, `score low` and `score high`.

    Raises:
        ValueError: If the score was not measured at this budget.
    """
    columns = [score, f"{score} low", f"{score} high"]
    lacking = [name for name in columns if (name, eps) not in recipes.columns]
    if lacking:
        raise ValueError(f"Expected score to be a quantity at eps {eps}, got {score!r}")
    return recipes.xs(eps, level="eps", axis=1)[columns]


def seeds_apart(scores: pd.Series, first: str, second: str) -> bool:
    """Tell whether every seed of one recipe has more than every seed of another.

    With three seeds on either side chance alone does so in one case of twenty, if one direction is asked
    about and the seeds are alike.

    Args:
        scores: A column of `board`, with the index (recipe, seed). The seed "all" is left out.
        first: The recipe that is to lie above.
        second: The recipe that is to lie below.

    Raises:
        ValueError: If a recipe is not there, or a seed of it has no number.
    """
    ends = []
    for name, recipe in (("first", first), ("second", second)):
        if recipe not in scores.index.get_level_values("recipe"):
            raise ValueError(f"Expected {name} to be a recipe in scores, got {recipe!r}")
        values = scores[recipe].drop("all", errors="ignore")
        if values.empty or values.isna().any():
            raise ValueError(
                f"Expected a number for each seed of {recipe!r}, got {values.tolist()}"
            )
        ends.append(values)
    return bool(ends[0].min() > ends[1].max())
