"""The ledger of published claims: what is asked of each, what a chapter measured, the verdict."""

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat, TypeAlias

import numpy as np
import pandas as pd
import torch

from attrlib import metrics
from attrlib.book._glue import glue

FIELDS = [
    *("claim", "source", "where", "untested", "test", "unit", "threshold"),
    *("chapter", "link", "weaker"),
]
LIST, TABLES = Path("book", "claims.toml"), Path("results", "claims")
#: Columns of a chapter's table in `results/claims/`; the last three say which run made it.
COLUMNS = ("key", "attack", "case", "effect", "low", "high", "units", "hash", "date", "device")
VERDICTS = ("holds", "partly", "does not hold here", "not testable here")

Effect: TypeAlias = SupportsFloat | Sequence[Any] | np.ndarray | torch.Tensor | pd.Series


def claims() -> pd.DataFrame:
    """Return the list of published claims, `book/claims.toml`: what each says and how it is tested.

    The file is looked for in the working directory, in each folder above it, then in the checkout this
    package is imported from.

    Returns:
        A row for each claim, by its key: `claim` in our words, `source` (a key of the bibliography) and
        `where` in it, and either why it is `untested`, or the `test`, the `unit` of an effect, the
        `threshold` above which it speaks for the claim, and `chapter` and `link` (a label there) of the
        cell that tests it. `weaker` names a weaker attack under which it was measured, too. Texts that a
        claim does not have are empty.

    Raises:
        FileNotFoundError: If there is no such file; it comes with the repository.
    """
    text = (_root() / LIST).read_text(encoding="utf-8")
    listed = pd.DataFrame.from_dict(tomllib.loads(text), orient="index").reindex(columns=FIELDS)
    return listed.fillna(dict.fromkeys(set(FIELDS) - {"threshold"}, ""))


def claim(
    key: str,
    effects: Effect | Mapping[str, Effect],
    *,
    weaker: Effect | Mapping[str, Effect] | None = None,
) -> None:
    """Enter what was measured about a published claim into the ledger; nothing is shown.

    The run of a chapter in the full budget keeps what was entered in `results/claims/`. The verdict is
    not entered: it follows from the intervals and the threshold in the list, see `verdict`.

    Args:
        key: Name of the claim in `claims()`.
        effects: How strongly the data speak for the claim, in the unit that the list names; a mapping
            with several cases, such as maps or budgets, or a single one. Each is a list, tensor or series
            of one value for an image or a seed, or of shape (seeds, images), of which the mean and its
            95 % interval are taken (`metrics.seed_interval`); a tuple (effect, low, high) whose interval
            is known; or a number that is exact.
        weaker: The same under the weaker attack that the list names.

    Raises:
        ValueError: If the key is not in the list, a value is NaN, or an effect is not in its interval.
    """
    known = claims().index
    if key not in known:
        raise ValueError(f"Expected key to be in {LIST}, got {key!r}")
    rows = []
    for attack, given in (("suite", effects), ("weaker", weaker)):
        cases = given if isinstance(given, Mapping) else {} if given is None else {"": given}
        rows += [[attack, case, *_interval(key, case, value)] for case, value in cases.items()]
    glue(**{f"claim {key}": json.dumps(rows)})


def difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Return how far a value lies above another one, with an interval, if they share no images or seeds.

    Half-widths add as squares, each end from the two ends that make it (Zou and Donner 2008). Where the
    values share images this errs on the wide side, if they rise and fall together from image to image.

    Args:
        first: A value and the ends of its interval.
        second: The other one.

    >>> difference((0.5, 0.4, 0.6), (0.3, 0.3, 0.3))
    (0.2, 0.1, 0.3)
    """
    (a, a_low, a_high), (b, b_low, b_high) = map(_floats, (first, second))
    low, high = math.hypot(a - a_low, b_high - b), math.hypot(a_high - a, b - b_low)
    return round(a - b, 6), round(a - b - low, 6), round(a - b + high, 6)


def verdict(low: Sequence[float], high: Sequence[float], *, threshold: float) -> str:
    """Return what the cases of a claim say together.

    Args:
        low: Lower end of the interval of each case's effect.
        high: Upper ends.
        threshold: What an effect must be above to speak for the claim.

    Returns:
        "holds" if every interval lies above the threshold, "does not hold here" if none does and one
        ends at or below it, "not testable here" without a case, else "partly": some cases speak for the
        claim, or the data cannot tell.

    >>> verdict([0.2, 0.1], [0.4, 0.3], threshold=0.05)
    'holds'
    >>> verdict([0.2, -0.1], [0.4, 0.3], threshold=0.05)
    'partly'
    """
    if len(low) == 0:
        return "not testable here"
    if min(low) > threshold:
        return "holds"
    none_clear, one_failed = max(low) <= threshold, min(high) <= threshold
    return "does not hold here" if none_clear and one_failed else "partly"


def ledger() -> pd.DataFrame:
    """Return what all chapters entered into the ledger, beside the list of claims.

    Returns:
        A row for each case of each claim, in the order of the list: its `key`, the fields of `claims`,
        `attack` ("suite", or "weaker" for the other attack that the list names), `case`, `effect`,
        `low`, `high`, `units` (images or seeds behind the interval, 1 if it is exact, 0 if unknown), the
        `page` of the chapter, from the folder `book`, and the `verdict` of the claim under this attack.
        A claim without a test has one row.

    Raises:
        FileNotFoundError: If no chapter has entered anything.
    """
    root, listed = _root(), claims()
    tables = [
        pd.read_csv(path, dtype={"case": str}) for path in sorted((root / TABLES).glob("*.csv"))
    ]
    if not tables:
        raise FileNotFoundError(f"Expected tables of claims in {TABLES}, got none")
    pages = {path.stem: path for path in (root / "book").rglob("*.ipynb")}
    listed["place"] = np.arange(len(listed))
    listed["page"] = [
        pages[stem].relative_to(root / "book").with_suffix("").as_posix() if stem in pages else ""
        for stem in listed["chapter"]
    ]
    rows = listed.join(pd.concat(tables).set_index("key"), how="left")
    rows = rows.rename_axis("key").reset_index().sort_values("place", kind="stable")
    rows[["attack", "case"]] = rows[["attack", "case"]].fillna("")
    for _, group in rows.groupby(["key", "attack"]):
        cases = group.dropna(subset="effect")
        threshold = group["threshold"].iloc[0]
        told = verdict([*cases["low"]], [*cases["high"]], threshold=threshold)
        rows.loc[group.index, "verdict"] = told
    return rows.drop(columns="place").reset_index(drop=True)


def _floats(values: Sequence[float]) -> tuple[float, float, float]:
    effect, low, high = map(float, values)
    return effect, low, high


def _interval(key: str, case: str, value: Effect) -> list[float | int]:
    """Return effect, low, high and the number of units of one case."""
    units, value = 1, value.numpy(force=True) if isinstance(value, torch.Tensor) else value
    if isinstance(value, tuple):
        (effect, low, high), units = _floats(value), 0
    elif (array := np.asarray(value, dtype=float)).ndim == 0:
        effect = low = high = float(array)
    else:
        values = torch.tensor(array)
        effect, units = values.mean().item(), len(values)
        low, high = metrics.seed_interval(values)
    if not -np.inf < low <= effect <= high < np.inf:
        told = f"{effect:g} in [{low:g}, {high:g}]"
        raise ValueError(f"Expected an effect in its interval, got {told} for {key!r}, {case!r}")
    return [*(round(number, 6) for number in (effect, low, high)), units]


def _root() -> Path:
    """Return the checkout that holds the list of claims."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / LIST).exists():
            return folder
    raise FileNotFoundError(
        f"Expected {LIST} in a folder above {here}; it comes with the repository, not with the package"
    )
