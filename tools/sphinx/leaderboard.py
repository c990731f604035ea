r"""The directive `leaderboard`: every shipped network in one table, read from `results/` and checkpoints.

Syntax, without body or options::

    ```{leaderboard}
    ```

A table for each version of the suite, so that rows of different versions never stand together. It is
plain HTML; `leaderboard.js` makes it one that can be sorted and filtered.
"""

from __future__ import annotations

import csv
import html
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

from attrlib import checkpoints
from attrlib.benchmark import COLUMNS, as_rows, boards, load_row, ranks
from attrlib.benchmark.board import PRICE, Board, Column, Entry, Measured, Ranks, read
from attrlib.data import fashion_mnist
from attrlib.recipes import RECIPES
from attrlib.training.state import contents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sphinx.application import Sphinx

NOTHING = "–"
CERTIFIED = (  # heading; certificate, kind and budget in soundness.csv
    ("Bounds, top 100", "top 100", "recorded", "0.03137"),
    ("Bounds, cosine", "cosine", "recorded", "0.03137"),
    ("Bounds at 0.1, top 100", "top 100", "recorded", "0.10000"),
    ("Smoothed, top 100", "top 100", "smoothed top-k", "0.10000"),
    ("Smoothed, cosine", "cosine of ideal maps", "smoothed cosine", "0.10000"),
)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A cell of the page.

    Attributes:
        value: By which it is sorted; None stands last.
        text: What it says.
        notes: What it says below, smaller.
    """

    value: float | None = None
    text: str = NOTHING
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Shelf:
    """A column of the page.

    Attributes:
        group: What it stands with.
        title: Its heading.
        best: `high` or `low`.
        ranked: Whether it is one of the orders.
        cell: Gives what stands there for a network and a seed, `all` for all of them.
    """

    group: str
    title: str
    best: str
    ranked: bool
    cell: Callable[[Entry, str], Shown]


@dataclass(frozen=True, kw_only=True)
class Tables:
    """What the page is made of.

    Attributes:
        boards: What can be compared.
        leakage: Rows of the table of benign changes, of the networks for blocks.
        certified: Rows of the table of certificates.
    """

    boards: Sequence[Board]
    leakage: Mapping[tuple[str, str], Measured]
    certified: Sequence[Mapping[str, str]]


def load(results: Path) -> Tables:
    """Read everything.

    Args:
        results: Folder of tables; rows of others lie in its folder `rows`.

    Raises:
        FileNotFoundError: If a table is missing.
        ValueError: If one is another table, or a row is none, or has the name of a shipped network.
    """
    recipes, benign = read(results / "recipes.csv"), read(results / "benign.csv")
    found = boards(recipes, benign)
    for path in sorted((results / "rows").glob("*.json")):
        row = load_row(path, suite=None)
        if row["name"] in RECIPES:
            raise ValueError(f"{path}: Expected a name that no recipe has, got {row['name']!r}")
        found = _joined(found, boards(as_rows(row), effort=row["effort"]))
    leakage = boards_of_blocks(benign)
    path = results / "soundness.csv"
    if not path.is_file():
        raise FileNotFoundError(f"Expected a table of certificates, got no file {path}")
    with path.open(newline="", encoding="utf-8") as file:
        certified = list(csv.DictReader(file))
    return Tables(boards=found, leakage=leakage, certified=certified)


def _joined(found: Sequence[Board], more: Sequence[Board]) -> list[Board]:
    """Networks with the others of their version, effort and images, or on a board of their own."""
    result = {(one.suite, one.effort, one.images): one for one in found}
    for one in more:
        place = one.suite, one.effort, one.images
        before = result[place].entries if place in result else ()
        entries = (*before, *one.entries)
        result[place] = Board(
            suite=one.suite, effort=one.effort, images=one.images, entries=entries
        )
    return list(result.values())


def boards_of_blocks(benign: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], Measured]:
    """Leakage by recipe and seed, for each recipe that has a counterpart trained on blocks.

    The counterpart has the same loss and the same activations, and other images.
    """
    found = {}
    for row in benign:
        if row["quantity"] == "leakage":
            for name in counterparts(row["recipe"]):
                value, low, high = (
                    float(row[end]) if row[end] else None for end in ("value", "low", "high")
                )
                assert value is not None  # read() looked
                images = int(row["images"])
                found[name, row["seed"]] = Measured(value=value, low=low, high=high, images=images)
    return found


def counterparts(blocks: str) -> list[str]:
    """Return the recipes that differ from one for blocks in their images, and in how long they train."""
    other = RECIPES[blocks]
    mine = checkpoints.describe((other.loss, other.model))
    return [
        name
        for name, recipe in RECIPES.items()
        if recipe.data is fashion_mnist
        and checkpoints.describe((recipe.loss, recipe.model)) == mine
    ]


def training_cost(name: str, ratios: Mapping[str, float]) -> float | None:
    """Return what the whole training costs, with that of its first weights; ordinary training costs 1.

    Args:
        name: A recipe.
        ratios: Cost of a pass over the data, per recipe, with that of ordinary training as unit.
    """
    if name not in ratios or name not in RECIPES:
        return None
    recipe = RECIPES[name]
    own = ratios[name] * recipe.config.epochs / RECIPES["natural"].config.epochs
    before = 0.0 if recipe.start is None else training_cost(recipe.start, ratios)
    return None if before is None else own + before


def shelves(board: Board, tables: Tables) -> list[Shelf]:
    """Return the columns of a board, without those that are empty."""
    costs = {
        entry.name: ratio.value
        for entry in board.entries
        if (ratio := entry.cells.get(("all", ("model", "0.00000", "step_ratio"))))
    }

    def leakage(entry: Entry, seed: str) -> Shown:
        return _number(tables.leakage.get((entry.name, seed)))

    def a_pass(entry: Entry, seed: str) -> Shown:
        return _times(costs.get(entry.name) if seed == "all" else None)

    def whole(entry: Entry, seed: str) -> Shown:
        return _times(training_cost(entry.name, costs) if seed == "all" else None)

    found = [_shelf(column, board) for column in COLUMNS]
    last = max(i for i, shelf in enumerate(found) if shelf.group == PRICE)
    found[last + 1 : last + 1] = [
        Shelf(group=PRICE, title=title, best="low", ranked=False, cell=cell)
        for title, cell in (("Cost of a pass", a_pass), ("Cost of training", whole))
    ]
    found.append(
        Shelf(group=found[-1].group, title="Leakage", best="low", ranked=False, cell=leakage)
    )
    for title, *place in CERTIFIED:
        cell = _certified(tables.certified, *place)
        found.append(Shelf(group="Proved", title=title, best="high", ranked=False, cell=cell))
    return [
        shelf
        for shelf in found
        if any(shelf.cell(entry, "all").value is not None for entry in board.entries)
    ]


def _shelf(column: Column, board: Board) -> Shelf:
    places = ranks(board.entries, column) if column.ranked else {}

    def cell(entry: Entry, seed: str) -> Shown:
        place = places.get(entry.name) if seed == "all" else None
        seed = entry.seeds[0] if len(entry.seeds) == 1 else seed  # with an interval over images
        return _number(
            entry.get(column, seed),
            digits=3 if column.quantity.endswith("accuracy") else 2,
            low=-1.0 if column.quantity == "cosine" else 0.0,
            ranks=place,
        )

    return Shelf(
        group=column.group,
        title=column.title,
        best=column.best,
        ranked=column.ranked,
        cell=cell,
    )


def _number(
    found: Measured | None, *, digits: int = 2, low: float = 0.0, ranks: Ranks | None = None
) -> Shown:
    if found is None:
        return Shown()

    def text(value: float) -> str:
        return f"{round(min(1.0, max(low, value)), digits) + 0.0:.{digits}f}".replace("-", "−")

    notes = []
    if found.low is not None and found.high is not None:
        notes.append(f"{text(found.low)} to {text(found.high)}")
    if ranks is not None:
        (first, last), wide = ranks.one, ranks.all
        here = f"rank {first}" if first == last else f"ranks {first}–{last}"
        notes.append(f"{here} ({wide[0]}–{wide[1]})")
    return Shown(value=found.value, text=text(found.value), notes=tuple(notes))


def _times(value: float | None) -> Shown:
    return Shown() if value is None else Shown(value=value, text=f"{value:.1f} ×")


def _certified(rows: Sequence[Mapping[str, str]], *place: str) -> Callable[[Entry, str], Shown]:
    """What is proved, beside what an attack leaves on the same images; of all seeds the mean."""

    def cell(entry: Entry, seed: str) -> Shown:
        if entry.name not in RECIPES:
            return Shown()
        wanted = checkpoints.seeds(entry.name) if seed == "all" else [int(seed)]
        names = {f"{entry.name}-s{number}" for number in wanted}
        found = [
            row
            for row in rows
            if (row["certificate"], row["kind"], row["eps"]) == place
            and row["net"] in names
            and row["weights"] == _weights(row["net"])  # else of an older file
        ]
        if not found:
            return Shown()
        proved, left = (
            fmean(float(row[name]) for row in found) for name in ("certified", "attacked")
        )
        of = (
            f"seed {found[0]['net'].rpartition('-s')[2]}"
            if len(found) == 1
            else f"{len(found)} seeds"
        )
        notes = f"attack leaves {left:.2f}", f"ε = {float(place[2]):.4g}, {of}"
        return Shown(value=proved, text=f"≥ {proved:.2f}", notes=notes)

    return cell


@cache
def _weights(name: str) -> str:
    return contents(checkpoints.load(name).model)


def page(tables: Tables) -> str:
    """Return all boards as HTML."""
    return "\n".join(table(board, tables) for board in tables.boards)


def table(board: Board, tables: Tables) -> str:
    """Return a board as HTML, in the order of its first ranked column.

    Args:
        board: The networks.
        tables: What they are compared in.
    """
    columns = shelves(board, tables)
    first = next((shelf for shelf in columns if shelf.ranked), columns[0])
    entries = sorted(board.entries, key=lambda entry: _key(first.cell(entry, "all"), first.best))
    groups = list(dict.fromkeys(shelf.group for shelf in columns))
    name = f"board-{board.suite}-{board.effort}-{board.images}"
    wide = "".join(
        f'<th scope="colgroup" colspan="{sum(s.group == g for s in columns)}" '
        f'data-group="{i}">{html.escape(g)}</th>'
        for i, g in enumerate(groups)
    )
    heads = "".join(
        f'<th scope="col" data-group="{groups.index(s.group)}" data-best="{s.best}"'
        f"{' data-ranked' if s.ranked else ''}"
        f"{_sorted(s) if s is first else ''}>{_title(s.title)}</th>"
        for s in columns
    )
    bodies = "\n".join(_body(entry, columns, groups) for entry in entries)
    about = f"Version {board.suite} of the suite, effort {board.effort}"
    return f"""<div class="leaderboard" id="{html.escape(name)}">
<p>{html.escape(summary(board))}</p>
<div class="board-scroll" tabindex="0" role="region" aria-label="Leaderboard, {html.escape(about)}">
<table>
<caption>{html.escape(about)}</caption>
<thead><tr><td></td>{wide}</tr>
<tr><th scope="col">Network</th>{heads}</tr></thead>
{bodies}
</table></div></div>"""


def summary(board: Board) -> str:
    """Return what holds for the whole table."""
    attacked = [
        found.images
        for entry in board.entries
        for column in COLUMNS
        if column.ranked and (found := entry.get(column))
    ]
    missing = [
        name
        for name in checkpoints.names()
        if RECIPES[name].data is fashion_mnist and name not in {e.name for e in board.entries}
    ]
    shipped = any(entry.name in RECIPES for entry in board.entries)
    left = f" Not measured with it: {', '.join(missing)}." if missing and shipped else ""
    return (
        f"Networks: {len(board.entries)}. Attacked images: {max(attacked, default=0)} (list "
        f"{board.images}), by version {board.suite} of the suite with effort {board.effort}.{left}"
    )


def _title(text: str) -> str:
    """As HTML, with equations in one piece."""
    return html.escape(text).replace("ε = ", "ε&nbsp;=&nbsp;")


def _sorted(shelf: Shelf) -> str:
    return f' aria-sort="{"descending" if shelf.best == "high" else "ascending"}"'


def _key(shown: Shown, best: str) -> tuple[bool, float]:
    value = shown.value or 0.0
    return shown.value is None, -value if best == "high" else value


def _body(entry: Entry, columns: Sequence[Shelf], groups: Sequence[str]) -> str:
    activation = _activation(entry.name)
    rows = [_row(entry, "all", columns, groups)]
    if len(entry.seeds) > 1:
        rows += [_row(entry, seed, columns, groups) for seed in entry.seeds]
    lines = "\n".join(rows)
    return (
        f'<tbody data-name="{html.escape(entry.name)}" data-activation="{activation}">\n'
        f"{lines}</tbody>"
    )


@cache
def _activation(name: str) -> str:
    """In lower case; empty for a network that is not shipped."""
    if name not in checkpoints.names():
        return ""
    return type(checkpoints.load(name).model.activation()).__name__.lower()


def _row(entry: Entry, seed: str, columns: Sequence[Shelf], groups: Sequence[str]) -> str:
    name = html.escape(entry.name)
    head = f"<code>{name}</code>" if seed == "all" else f"seed {seed}"
    if seed == "all" and len(entry.seeds) == 1:
        head += " <small>one seed</small>"
    cells = []
    for shelf in columns:
        shown = shelf.cell(entry, seed)
        value = "" if shown.value is None else f' data-value="{shown.value:g}"'
        notes = "".join(f" <small>{html.escape(note)}</small>" for note in shown.notes)
        place = groups.index(shelf.group)
        cells.append(f'<td data-group="{place}"{value}>{html.escape(shown.text)}{notes}</td>')
    mark = "" if seed == "all" else ' class="seed"'
    return f'<tr{mark}><th scope="row">{head}</th>{"".join(cells)}</tr>'


class Leaderboard(SphinxDirective):
    """Write the tables."""

    def run(self) -> list[nodes.Node]:
        """Return them as HTML."""
        results = Path(self.env.srcdir) / "results"
        for path in (*results.glob("*.csv"), *results.glob("rows/*.json")):
            self.env.note_dependency(str(path))
        return [nodes.raw("", page(load(results)), format="html")]


def _script(
    app: Sphinx, name: str, template: str, context: dict[str, Any], tree: nodes.document | None
) -> None:
    """Load the script where there is a table."""
    if tree is not None and 'class="leaderboard"' in context.get("body", ""):
        app.add_js_file("leaderboard.js")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive, and the script of its pages."""
    app.add_directive("leaderboard", Leaderboard)
    app.connect("html-page-context", _script)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
