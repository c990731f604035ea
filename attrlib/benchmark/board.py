"""The leaderboard: what it shows, where each number is read, and which networks are told apart."""

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from attrlib import _check
from attrlib.benchmark.grid import BUDGETS

SUITE_ATTACK = "top-k suite"
PRICE = "Accuracy and cost"
_LEVEL = 0.95
_EPS = {BUDGETS[0]: "8/255"}  # how a budget is written


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column, and the rows of a table that fill it.

    Attributes:
        group: What it stands with.
        title: Its heading.
        attack: As in the column `attack` of the tables.
        quantity: As in the column `quantity`.
        eps: Budget.
        best: `high` or `low`.
        ranked: Whether networks are put in order by it.
    """

    group: str
    title: str
    attack: str
    quantity: str
    eps: float = 0.0
    best: str = "high"
    ranked: bool = False

    @property
    def place(self) -> tuple[str, str, str]:
        """Attack, budget and quantity as a table writes them."""
        return self.attack, f"{self.eps:.5f}", self.quantity


def _at_budgets(title: str, quantity: str) -> Iterator[Column]:
    for eps in BUDGETS:
        yield Column(
            group="After the suite",
            title=f"{title}, ε = {_EPS.get(eps, f'{eps:g}')}",
            attack=SUITE_ATTACK,
            quantity=quantity,
            eps=eps,
            ranked=True,
        )


COLUMNS: tuple[Column, ...] = (
    *_at_budgets("Top 100", "topk"),
    *_at_budgets("Identified", "identification_topk"),
    Column(
        group="After the suite",
        title="Identified by cosine, attacked itself, ε = 8/255",
        attack="identification suite",
        quantity="identification_cosine",
        eps=BUDGETS[0],
    ),
    Column(
        group="After the suite",
        title="Left alone",
        attack=SUITE_ATTACK,
        quantity="unchanged",
        eps=BUDGETS[0],
        best="low",
    ),
    Column(group=PRICE, title="Accuracy", attack="model", quantity="accuracy"),
    Column(group=PRICE, title="Accuracy, PGD ε = 0.1", attack="model", quantity="pgd20_accuracy"),
    Column(
        group="Noise",
        title="Top 100, noise of 8/255",
        attack="random",
        quantity="topk",
        eps=BUDGETS[0],
    ),
    Column(
        group="Noise",
        title="Identified, noise of 8/255",
        attack="random",
        quantity="identification_topk",
        eps=BUDGETS[0],
    ),
    Column(group="Benign changes", title="10 % more light", attack="brightness", quantity="topk"),
    Column(group="Benign changes", title="JPEG", attack="jpeg", quantity="topk"),
    Column(group="Benign changes", title="One pixel aside", attack="shift", quantity="topk"),
    Column(
        group="Is the map right?",
        title="Random weights, cosine",
        attack="random weights",
        quantity="cosine",
        best="low",
    ),
    Column(
        group="Is the map right?",
        title="Random weights, top 100",
        attack="random weights",
        quantity="topk",
        best="low",
    ),
    Column(
        group="Is the map right?",
        title="Grey image, top 100",
        attack="blank image",
        quantity="topk",
        best="low",
    ),
    Column(
        group="Is the map right?",
        title="Other image, top 100",
        attack="other image",
        quantity="topk",
        best="low",
    ),
)
"""What is read from tables, in the order of the page; costs, leakage and certificates are not."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A number of a table.

    Attributes:
        value: The number.
        low: Lower end of its interval; None if it has none.
        high: Upper end.
        images: How many images it is of.
    """

    value: float
    low: float | None
    high: float | None
    images: int


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A network, or several seeds of one.

    Attributes:
        name: Its recipe, or the name of a row of others.
        checkpoints: Digest of the weights of all seeds.
        seeds: Which there are.
        cells: Numbers by seed (`all` for all of them) and place.
    """

    name: str
    checkpoints: str
    seeds: tuple[str, ...]
    cells: Mapping[tuple[str, tuple[str, str, str]], Measured]

    def get(self, column: Column, seed: str = "all") -> Measured | None:
        """Return the number of a column, of all seeds or of one; None if it was not measured."""
        return self.cells.get((seed, column.place))


@dataclass(frozen=True, kw_only=True)
class Board:
    """Networks that can be compared: the same suite with the same effort on the same images.

    Attributes:
        suite: Version of the suite.
        effort: Of the suite.
        images: Digest of the list of images.
        entries: The networks.
    """

    suite: str
    effort: str
    images: str
    entries: tuple[Entry, ...]


Row = Mapping[str, str]
_NEEDED = ("recipe", "attack", "list", "checkpoints", "seed", "quantity", "images", "value")


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table of networks.

    Args:
        path: As `benchmark.recipes` or `benchmark.benign` write it.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is another table, or a number is none.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table of networks, got no file {path}")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    missing = [name for name in (*_NEEDED, "low", "high") if name not in (reader.fieldnames or ())]
    if missing:
        raise ValueError(f"Expected {path} with the column {missing[0]}, got another table")
    for number, row in enumerate(rows, 2):
        try:
            _measured(row)
        except (TypeError, ValueError) as error:
            raise ValueError(f"Expected {path} with numbers in row {number}, got {error}") from None
    return rows


def boards(
    rows: Iterable[Row], benign: Iterable[Row] = (), *, effort: str = "standard"
) -> list[Board]:
    """Sort rows into what can be compared, from the newest suite to the oldest.

    Of gradient maps only. Rows of different versions of the suite, or on other images, are never on one
    board. What needs no suite is on each of them, if it is of the same weights and images.

    Args:
        rows: Of a table of networks; a network without attacked rows is on no board.
        benign: Of the table of benign changes.
        effort: With which the suite went for all of them.

    Returns:
        A board for each version of the suite and list of images.
    """
    kept = [row for row in (*rows, *benign) if row.get("map", "gradient") in ("gradient", "none")]
    found = []
    attacked = {
        (row.get("suite", ""), row["list"]) for row in kept if row["attack"] == SUITE_ATTACK
    }
    for suite, images in sorted(
        attacked, key=lambda pair: (_version(pair[0]), pair[1]), reverse=True
    ):
        here = [
            row for row in kept if row["list"] == images and row.get("suite", "") in ("", suite)
        ]
        made: dict[tuple[str, str], list[Row]] = {}
        for row in here:
            made.setdefault((row["recipe"], row["checkpoints"]), []).append(row)
        entries = [
            _entry(*names, [*own, *_of_one_seed(here, *names)])
            for names, own in made.items()
            if any(row["attack"] == SUITE_ATTACK for row in own)
        ]
        found.append(Board(suite=suite, effort=effort, images=images, entries=tuple(entries)))
    return found


def _of_one_seed(rows: Sequence[Row], name: str, checkpoints: str) -> list[Row]:
    """Attacks of a suite that were made on the first seed only, and name the weights of that one."""
    return [
        row
        for row in rows
        if row["recipe"] == name
        and row["checkpoints"] != checkpoints
        and row["attack"] != SUITE_ATTACK
        and row["attack"].endswith(" suite")
    ]


def _version(suite: str) -> tuple[int, str]:
    return (int(suite) if suite.isdecimal() else -1, suite)


def _entry(name: str, checkpoints: str, rows: Sequence[Row]) -> Entry:
    cells = {}
    for row in rows:
        place = row["attack"], row.get("eps") or "0.00000", row["quantity"]
        cells[row["seed"], place] = _measured(row)
    seeds = sorted({seed for seed, _ in cells} - {"all"})
    return Entry(name=name, checkpoints=checkpoints, seeds=tuple(seeds), cells=cells)


def _measured(row: Row) -> Measured:
    low, high = (float(row[end]) if row[end] else None for end in ("low", "high"))
    return Measured(value=float(row["value"]), low=low, high=high, images=int(row["images"]))


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """Where a network may stand.

    Attributes:
        one: First and last rank by the 95 % intervals of this table, each for itself.
        all: The same by intervals so wide that all networks are in theirs at once.
    """

    one: tuple[int, int]
    all: tuple[int, int]


def ranks(entries: Sequence[Entry], column: Column) -> dict[str, Ranks]:
    r"""Return the ranks that each network may have, by what its interval leaves open.

    A network stands behind those whose intervals lie wholly above its own, and before those whose
    intervals lie wholly below: with $n$ networks its rank is one of

    $$1 + \#\{j : l_j > u_i\}, \ldots, n - \#\{j : u_j < l_i\}.$$

    Where all intervals hold at once with 95 %, so do all these ranges. Ordinary intervals do so less
    often, the less the more networks there are; the second range takes intervals at the level
    $1 - 0.05 / n$ (Bonferroni), with the quantiles of Student's distribution for so few seeds as there
    are.

    Args:
        entries: The networks. Those of one seed have no interval that speaks of training again: they get
            no rank and take part in no other one.
        column: By which they are put in order.

    Returns:
        Ranks by name.

    Source: Klein, Wright and Wieczorek 2020, for the range and the joint level.
    """
    known = {entry.name: entry for entry in entries if _spread(entry, column)}
    if not known:
        return {}
    found = []
    for level in (_LEVEL, 1 - (1 - _LEVEL) / len(known)):
        ends = {name: _ends(entry, column, level) for name, entry in known.items()}
        found.append({name: _range(name, ends, best=column.best) for name in known})
    return {name: Ranks(one=found[0][name], all=found[1][name]) for name in known}


def _spread(entry: Entry, column: Column) -> bool:
    """Whether there is an interval over several seeds."""
    mean = entry.get(column)
    return len(entry.seeds) > 1 and mean is not None and mean.low is not None


def _ends(entry: Entry, column: Column, level: float) -> tuple[float, float]:
    """The interval of a table at another level: its two parts, seeds and images, each made wider."""
    mean = entry.get(column)
    seeds = [one.value for one in (entry.get(column, seed) for seed in entry.seeds) if one]
    assert mean is not None  # see _spread
    assert mean.low is not None
    assert mean.high is not None
    half = (mean.high - mean.low) / 2
    middle = sum(seeds) / len(seeds)
    variance = sum((value - middle) ** 2 for value in seeds) / (len(seeds) - 1)
    of_seeds = min(half, _quantile(len(seeds), _LEVEL) * (variance / len(seeds)) ** 0.5)
    of_images = (half**2 - of_seeds**2) ** 0.5
    wider = 0.0
    for part, count in ((of_seeds, len(seeds)), (of_images, max(2, mean.images))):
        wider += (part * _quantile(count, level) / _quantile(count, _LEVEL)) ** 2
    return mean.value - wider**0.5, mean.value + wider**0.5


def _quantile(count: int, level: float) -> float:
    return float(stats.t.ppf((1 + level) / 2, count - 1))


def _range(name: str, ends: Mapping[str, tuple[float, float]], *, best: str) -> tuple[int, int]:
    _check.one_of(("high", "low"), best=best)
    low, high = ends[name]
    above = sum(other[0] > high for other in ends.values())
    below = sum(other[1] < low for other in ends.values())
    first, last = (above, below) if best == "high" else (below, above)
    return 1 + first, len(ends) - last
