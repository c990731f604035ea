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
