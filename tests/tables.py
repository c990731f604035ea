"""Reading what a study wrote, in tests of studies."""

import csv
from pathlib import Path


def rows(path: Path, **where: str) -> list[dict[str, str]]:
    """The rows of a table that have these values."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if where.items() <= row.items()]


def number(path: Path, **where: str) -> float:
    """The number in the only row that has these values."""
    (row,) = rows(path, **where)
    return float(row["value"])
