"""Tables that the benchmark wrote, with where each row comes from."""

from pathlib import Path

import pandas as pd

#: Columns every table in `results/` has: the commit and day (ISO 8601) of the run, the device,
#: the version of torch ("torch 2.14.1"; older rows name Python and the build, too), and the seconds.
PROVENANCE = ("commit", "date", "device", "versions", "seconds")


def results(name: str, **where: object) -> pd.DataFrame:
    """Return the table `results/<name>.csv`.

    The folder `results` is looked for in the working directory, then in each folder above it,
    then in the checkout this package is imported from.

    Args:
        name: File name without folder and ending, e.g. "speed".
        **where: Column to value; only rows that have it are returned. Numbers match to four decimals,
            as they are rounded in the tables.

    Returns:
        The rows of the table; the columns of `PROVENANCE` say how each was made.

    Raises:
        FileNotFoundError: If no such table exists; the message lists those that do.
        ValueError: If the table lacks a column of `PROVENANCE` or one that is asked for, or has no row.
    """
    here = Path.cwd()
    folders = [folder / "results" for folder in (here, *here.parents)]
    folders.append(Path(__file__).resolve().parents[2] / "results")
    tables = {table.stem: table for folder in reversed(folders) for table in folder.glob("*.csv")}
    if name not in tables:
        known = ", ".join(sorted(tables)) or "none"
        raise FileNotFoundError(
            f"Expected name to be a table in results/ (there: {known}), got {name!r}. "
            "The tables come with the repository, not with the installed package."
        )
    frame = pd.read_csv(tables[name])
    missing = [column for column in PROVENANCE if column not in frame.columns]
    if missing or frame.empty:
        flaw = f"no column {', '.join(missing)}" if missing else "no rows"
        raise ValueError(f"Expected {name}.csv to have rows with {PROVENANCE}, got {flaw}")
    for column, value in where.items():
        if column not in frame.columns:
            raise ValueError(f"Expected a column of {name}.csv, got {column!r}")
        if isinstance(value, float):
            frame = frame.loc[(frame[column] - value).abs() < 1e-4]
        else:
            frame = frame.loc[frame[column] == value]
        if frame.empty:
            raise ValueError(f"Expected {column} of a row in {name}.csv, got {value!r}")
    return frame
