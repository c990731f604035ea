"""Tables in `results/`: rows that are added one by one, and where each comes from."""

import csv
import datetime
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from attrlib import _files


def provenance(device: str | torch.device, *, seconds: float) -> dict[str, str]:
    """Return the columns that every table in `results/` has.

    Args:
        device: Where the row was computed.
        seconds: How long it took.

    Returns:
        The commit (with a plus sign if the tree has changes), the day, the device, versions, seconds.
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
    threads = f"{torch.get_num_threads()} threads"
    return {
        "commit": commit + changed,
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if cuda else f"{device.type}, {threads}",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "seconds": f"{seconds:.1f}",
    }


def rounded(row: Mapping[str, float]) -> dict[str, str]:
    """Four decimals."""
    return {name: f"{value:.4f}" for name, value in row.items()}


def in_table(path: Path, key: Mapping[str, str]) -> bool:
    """Whether a row has these fields."""
    if not path.exists():
        return False
    with path.open(newline="", encoding="utf-8") as file:
        return any(key.items() <= row.items() for row in csv.DictReader(file))


def check_constant(path: Path, column: str, value: str) -> None:
    """Raise if a table holds rows with another value in a column that must be one for all."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        others = {row.get(column) for row in csv.DictReader(file)} - {value}
    if others:
        raise ValueError(
            f"Expected {path} with {column} {value} in every row, got {sorted(map(str, others))}; "
            "write a new table"
        )


def append(path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    """Add rows, all or none; the table is written anew under another name and renamed."""
    columns = list(rows[0])
    old = path.read_text(encoding="utf-8") if path.exists() else ",".join(columns) + "\n"
    if old.splitlines()[0].split(",") != columns:
        raise ValueError(
            f"Expected {path} with the columns {', '.join(columns)}, got another table"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        _files.whole(path) as partial,
        partial.open("w", newline="", encoding="utf-8") as file,
    ):
        file.write(old)
        csv.DictWriter(file, columns, lineterminator="\n").writerows(rows)
