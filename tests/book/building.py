"""The contents of the book and how it is built."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Build:
    """What a build of the book left behind."""

    html: Path
    returncode: int
    log: str


def toc_pages() -> list[str]:
    """Return every page of the table of contents, in order and without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))

    def walk(entry: object) -> Iterator[str]:
        if isinstance(entry, dict):
            yield from [entry["file"]] if "file" in entry else []
            for value in entry.values():
                yield from walk(value)
        elif isinstance(entry, list):
            for value in entry:
                yield from walk(value)

    return [toc["root"], *walk(toc)]


def build(out: Path) -> Build:
    """Build the whole book from nothing, the way `make book` does, into a folder of its own."""
    command = Path(sys.executable).with_name("jupyter-book")
    arguments = [command, "build", ".", "-n", "-W", "--keep-going", "--path-output", out]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    return Build(out / "_build" / "html", done.returncode, done.stdout + done.stderr)
