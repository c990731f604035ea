"""The table of short runs, turned so that a row holds all of one run, and how far two runs are apart."""

import pandas as pd

from attrlib.book._claims import difference

_MAPS = {"none": "", "gradient": "gradient ", "integrated gradients": "IG "}
_ENDS = {"": "value", "_low": "low", "_high": "high"}
_WIDTH = 3.92  # a 95 % interval of a normal distribution, in standard errors


def short_runs(table: pd.DataFrame, *, eps: float = 0.1) -> pd.DataFrame:
    """Return the table `frontier` with a row for each run, a column for each score.

    A column is named after its map, if it has one, and the quantity: "accuracy", "gradient topk",
    "IG topk". Other maps are left out. The ends of intervals have their own columns beside it, as
    `plotting.show_intervals` wants them.

    Args:
        table: Rows of `results("frontier")`, of one version of the suite.
        eps: Budget of the scores. What has no budget, such as accuracy, is there with any.

    Returns:
        Numbers with the index (family, setting), in the order of the table, and columns `name`,
        `name_low` and `name_high`; the time of the run is `hours`. NaN where nothing was measured.

    Raises:
        ValueError: If rows are of two versions of the suite or lists of images, none has the budget, or a
            run is there twice.
    """
    for constant in ("suite", "list"):
        found = sorted(set(table[constant]))
        if len(found) != 1:
            raise ValueError(f"Expected rows of one {constant}, got {found}")
    near = (table["eps"] - eps).abs() < 1e-4
    if not near.any():
        raise ValueError(f"Expected eps to be one of {sorted(set(table['eps']))}, got {eps}")
    rows = table[table["map"].isin(_MAPS) & (near | table["eps"].eq(0))]
    names, index = rows["map"].map(_MAPS) + rows["quantity"], ["family", "setting"]
    again = rows[rows.duplicated([*index, "map", "quantity"])]
    if len(again):
        twice = tuple(again[index].iloc[0])
        raise ValueError(f"Expected each run once, got rows of {twice} twice")
    parts = [
        rows.assign(name=names + end).pivot(index=index, columns="name", values=column)
        for end, column in _ENDS.items()
    ]
    seconds = rows.groupby(index, sort=False)["seconds"].first()
    return pd.concat(parts, axis=1).loc[seconds.index].assign(hours=seconds / 3600)


def standard_errors(runs: pd.DataFrame, column: str, first: object, second: object) -> float:
    """Return by how many standard errors of the difference one row lies above another.

    The error is read off the 95 % intervals, added as `difference` does. Where runs share images and rise
    and fall together from image to image, this errs on the small side. It speaks of other images; a run
    has one seed, and another seed may move it.

    Args:
        runs: Rows such as those of `short_runs`.
        column: A score with an interval, in `<column>_low` and `<column>_high`.
        first: Label of a row.
        second: Label of the row below it, if the result is positive.

    Raises:
        ValueError: If the column or a row is missing, an interval is not a number, or both have no width.
    """
    wanted = [f"{column}{end}" for end in _ENDS]
    missing = [name for name in wanted if name not in runs.columns]
    if missing:
        raise ValueError(f"Expected runs with the columns {', '.join(wanted)}, got no {missing[0]}")
    for name, label in (("first", first), ("second", second)):
        if label not in runs.index:
            raise ValueError(f"Expected {name} to be a row of runs, got {label!r}")
    gap, low, high = difference(*([*runs.loc[label, wanted]] for label in (first, second)))
    if not high > low:
        raise ValueError(f"Expected intervals of {column} with a width, got [{low}, {high}]")
    return gap / ((high - low) / _WIDTH)
