"""Tables in `results/`: rows that are added one by one, and where each comes from."""

import csv
import datetime
import json
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from attrlib import _files

Row = Mapping[str, str]


@dataclass(frozen=True)
class Cell:
    """One piece of a study.

    Attributes:
        key: Fields that its rows, and no others, have; by them a table is asked whether it was made.
        rows: Makes its rows, without the columns that say where they are from.
        made_of: Fields of the key in which rows that agree in all others must agree, too: the weights,
            say, that a row is of.
    """

    key: Row
    rows: Callable[[], Iterable[Row]]
    made_of: tuple[str, ...] = ()

    def made(self, device: str | torch.device) -> list[dict[str, str]]:
        """Make the rows, and say where they are from."""
        start = time.perf_counter()
        rows = list(self.rows())
        source = provenance(device, seconds=time.perf_counter() - start)
        return [{**row, **source} for row in rows]


Runner = Callable[[Iterable[Cell], str | torch.device], Iterator[tuple[Cell, list[dict[str, str]]]]]


def _one_by_one(
    cells: Iterable[Cell], device: str | torch.device
) -> Iterator[tuple[Cell, list[dict[str, str]]]]:
    """Make cells in this process, in their order."""
    for cell in cells:
        yield cell, cell.made(device)


def fill(
    path: str | Path,
    cells: Iterable[Cell],
    *,
    device: str | torch.device,
    progress: bool = False,
    runner: Runner | None = None,
) -> None:
    """Add the rows of each cell that a table does not have yet; what is done is never lost.

    Args:
        path: Table to write, or to go on with.
        cells: In the order in which they are asked for.
        device: Where to compute.
        progress: Print a line when a cell is done.
        runner: Makes cells and gives each with its rows when it is done, in any order; None makes them
            here, one by one.

    Raises:
        ValueError: If the table is another one, or has rows of a missing cell that were made of something
            else.
    """
    path = Path(path)
    done = _Done(path)
    missing = (cell for cell in cells if done.lacks(cell))
    for cell, rows in (runner or _one_by_one)(missing, device):
        append(path, rows)
        done.add(rows)
        if progress:
            words = ", ".join(f"{name} {value}" for name, value in cell.key.items() if value)
            print(f"{words}: {rows[0]['seconds']} s", flush=True)


class _Done:
    """The rows of a table, read once, and asked by the fields of many keys."""

    def __init__(self, path: Path) -> None:
        """Read the table."""
        self._path = path
        self._columns, self._rows = _read(path)
        self._found: dict[tuple[str, ...], set[tuple[str, ...]]] = {}

    def add(self, rows: Iterable[Row]) -> None:
        """Count these rows, too."""
        for row in rows:
            self._rows.append(dict(row))
            for names, found in self._found.items():
                found.add(tuple(row[name] for name in names))

    def lacks(self, cell: Cell) -> bool:
        """Whether no row is of this cell; raises if one is, but made of something else."""
        if self._has(cell.key):
            return False
        others = {name: value for name, value in cell.key.items() if name not in cell.made_of}
        if cell.made_of and self._has(others):
            said = ", ".join(f"{name} {value}" for name, value in cell.key.items() if value)
            raise ValueError(
                f"Expected {self._path} with rows of {said}, got some with other "
                f"{' and '.join(cell.made_of)}; take these rows out, or write a new table"
            )
        return True

    def _has(self, key: Row) -> bool:
        names = tuple(key)
        if names not in self._found:
            _expect(self._path, self._columns, names)
            self._found[names] = {tuple(row[name] for name in names) for row in self._rows}
        return tuple(key.values()) in self._found[names]


def provenance(device: str | torch.device, *, seconds: float) -> dict[str, str]:
    """Return the columns that every table in `results/` has.

    Args:
        device: Where the row was computed.
        seconds: How long it took.

    Returns:
        The commit (with a plus sign if the tree has changes), whose lock file names the packages; the
        day; the device; the version of torch, which may be another than in that file; seconds.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = "+" if git("status", "--porcelain", "--", "attrlib") else ""
    device = torch.device(device)
    cuda = device.type == "cuda"
    count = torch.get_num_threads()
    threads = "1 thread" if count == 1 else f"{count} threads"
    return {
        "commit": commit + changed,
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if cuda else f"{device.type}, {threads}",
        "versions": f"torch {torch.__version__.partition('+')[0]}",
        "seconds": f"{seconds:.1f}",
    }


def rounded(row: Mapping[str, float]) -> dict[str, str]:
    """Four decimals."""
    return {name: f"{value:.4f}" for name, value in row.items()}


def measured(
    quantity: str, images: int, value: float, ends: tuple[float, float] | None = None
) -> dict[str, str]:
    """The columns of one number: of how many images it is, and its interval if there is one."""
    low, high = (f"{end:.4f}" for end in ends) if ends else ("", "")
    return {
        "quantity": quantity,
        "images": str(images),
        "value": f"{value:.4f}",
        "low": low,
        "high": high,
    }


def check_constant(path: Path, column: str, value: str, *, empty: bool = False) -> None:
    """Raise if a table holds rows with another value in a column that must be one for all, or empty."""
    columns, rows = _read(path)
    _expect(path, columns, [column])
    others = {row[column] for row in rows} - {value} - ({""} if empty else set())
    if others:
        raise ValueError(
            f"Expected {path} with {column} {value} in every row, got {sorted(others)}; "
            "write a new table"
        )


@contextmanager
def made_of(path: Path, **contents: str) -> Iterator[None]:
    """Add rows within the block; raise if those before were made of other contents of the same names.

    The contents (digests of weights and images) stand beside the table in `<table>.contents.json` as
    long as there is a table. One that has none beside it is trusted; without contents nothing is done.
    """
    note = path.with_suffix(".contents.json")
    if not contents:
        yield
        return
    if not path.exists():
        with _files.whole(note) as partial:
            partial.write_text(json.dumps(contents, indent=1) + "\n", encoding="utf-8")
    elif note.exists():
        try:
            stored = dict(json.loads(note.read_text(encoding="utf-8")))
        except (TypeError, ValueError) as error:
            raise ValueError(f"Expected {note} as it was written, got {error}") from error
        changed = [name for name in contents if stored.get(name) != contents[name]]
        if changed:
            raise ValueError(
                f"Expected {path} to be made of the same {', '.join(changed)}, got other contents; "
                "write a new table"
            )
    try:
        yield
    finally:
        if not path.exists():
            note.unlink(missing_ok=True)


def append(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Add rows, all or none; the table is written anew under another name and renamed."""
    columns = list(rows[0])
    found, old = _read(path)
    if found and found != columns:
        raise _other(path, columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        _files.whole(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*old, *rows])


def _read(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Columns and rows of a table; none if there is no file."""
    if not path.exists():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        try:
            reader = csv.reader(file, strict=True)
            columns, *rows = list(reader) or [[]]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"Expected {path} to be a table in UTF-8, got {error}") from error
    rows = [row for row in rows if row]  # a spreadsheet may leave empty lines
    ragged = [number for number, row in enumerate(rows, 2) if len(row) != len(columns)]
    if ragged:
        raise ValueError(
            f"Expected {path} with {len(columns)} fields in every row, got another number in row "
            f"{ragged[0]}; was it edited elsewhere?"
        )
    return columns, [dict(zip(columns, row, strict=True)) for row in rows]


def _expect(path: Path, columns: Sequence[str], needed: Iterable[str]) -> None:
    if path.exists() and not set(needed) <= set(columns):
        raise _other(path, list(needed))


def _other(path: Path, columns: Sequence[str]) -> ValueError:
    return ValueError(
        f"Expected {path} with the columns {', '.join(columns)}, got another table; "
        "if another program saved it, bring back the commas and the first line"
    )
