"""How a piece of work is timed beside the bare work and beside another library's: cases and rows."""

import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attrlib._files import whole

RESULTS = Path(__file__).resolve().parent.parent / "results"
SHORTEST = 0.05  # seconds; what takes less is called several times a turn
LONGEST = 16.0  # seconds for all turns of a case; a slow one gets fewer, 3 at least
LIMIT = 1.1

Work = Callable[[], object]
Net = tuple[nn.Module, Tensor, Tensor]  # with images and labels


class Case(NamedTuple):
    """Something of ours, the work it cannot do without, and the same from another library.

    `limit` is the highest ratio ours/bare allowed; None where a comparison is only of interest.
    `start` is the part of ours that does not count: it is timed alone and taken off. `longest` bounds
    the seconds of all turns. `theirs_limit` is the highest ratio ours/theirs allowed.
    """

    name: str
    batch: int
    ours: Work
    bare: tuple[str, Work]
    theirs: tuple[str, Work] | None = None
    limit: float | None = LIMIT
    start: Work | None = None
    longest: float = LONGEST
    theirs_limit: float | None = None


class Row(NamedTuple):
    """One line of the table."""

    case: str
    batch: int
    milliseconds: float
    bare: str
    ratio_bare: float
    limit: float | None
    theirs: str
    ratio_theirs: float | None
    theirs_limit: float | None

    @property
    def verdict(self) -> str:
        pairs = (self.ratio_bare, self.limit), (self.ratio_theirs, self.theirs_limit)
        held = [ratio <= limit for ratio, limit in pairs if None not in (ratio, limit)]
        return "–" if not held else "pass" if all(held) else "FAIL"


def passes(model: nn.Module, x: Tensor, y: Tensor, *, times: int) -> None:
    """Forward and backward passes, by the shortest code there is."""
    for _ in range(times):
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(model(leaf).gather(1, y[:, None]).sum(), leaf)


def fastest(works: dict[int, Work], *, device: torch.device, repeats: int = 3) -> int:
    """The key of the work that takes least time, measured in turns; the first turn warms up."""
    seconds: dict[int, list[float]] = {key: [] for key in works}
    for turn in range(repeats if len(works) > 1 else 0):
        for key, work in works.items():
            start = clock(device)
            work()
            if turn:
                seconds[key].append(clock(device) - start)
    return min(works, key=lambda key: median(seconds[key] or [0.0]))


def clock(device: torch.device) -> float:
    """Seconds: processor time on a CPU, else time after the device has finished."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(case: Case, *, device: torch.device, repeats: int) -> Row:
    """Time a case in turns with what it is compared to."""
    works = {"ours": case.ours, "bare": case.bare[1]}
    if case.theirs is not None:
        works["theirs"] = case.theirs[1]
    if case.start is not None:
        works["start"] = case.start

    def turn(calls: int) -> dict[str, float]:
        seconds = {}
        for name, work in works.items():
            start = clock(device)
            for _ in range(calls):
                work()
            seconds[name] = (clock(device) - start) / calls
        return seconds | {"ours": seconds["ours"] - seconds.get("start", 0.0)}

    first = turn(1)  # warms up
    calls = 1 + int(SHORTEST / first["bare"])
    turns = max(3, min(repeats, int(case.longest / calls / sum(first.values()))))
    seconds = [turn(calls) for _ in range(turns)]

    def ratio(other: str) -> float:
        return median(times["ours"] / times[other] for times in seconds)

    return Row(
        case=case.name,
        batch=case.batch,
        milliseconds=round(1e3 * median(times["ours"] for times in seconds), 3),
        bare=case.bare[0],
        ratio_bare=round(ratio("bare"), 3),
        limit=case.limit,
        theirs=case.theirs[0] if case.theirs else "",
        ratio_theirs=round(ratio("theirs"), 3) if case.theirs else None,
        theirs_limit=case.theirs_limit,
    )


def merged(
    path: Path, table: list[dict[str, object]], *, parts: Sequence[str]
) -> list[dict[str, object]]:
    """The rows of a table, and those of the parts it lacks from the file, if there is one.

    Raises:
        ValueError: If the file has other columns.
    """
    if not path.exists():
        return table
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        old: list[dict[str, object]] = [dict(row) for row in reader]
    if reader.fieldnames != list(table[0]):
        raise ValueError(f"Expected {path} to have the columns of today, got others; delete it")
    measured = {row["part"] for row in table}
    kept = [row for row in old if row["part"] not in measured]
    return sorted([*kept, *table], key=lambda row: parts.index(str(row["part"])))


def write(path: Path, table: list[dict[str, object]]) -> None:
    """Write a table whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    with whole(path) as part, part.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    print(f"Written to {path}")
