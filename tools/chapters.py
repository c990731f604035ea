"""Which notebooks the book has, and how they are read and written."""

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]


def chapters(root: Path = ROOT) -> dict[str, Path]:
    """Return the notebooks listed in `_toc.yml`, by stem, in the order of the book."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    paths = [(root / name).with_suffix(".ipynb") for name in _files(toc)]
    return {path.stem: path for path in paths if path.exists()}


def _files(entry: object) -> Iterator[str]:
    """Yield every `file:` below an entry of the table of contents."""
    if isinstance(entry, dict):
        if "file" in entry:
            yield entry["file"]
        for value in entry.values():
            yield from _files(value)
    elif isinstance(entry, list):
        for value in entry:
            yield from _files(value)


def read(path: Path) -> NotebookNode:
    """Return a notebook in the current format."""
    text = path.read_text(encoding="utf-8")
    notebook: NotebookNode = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
    return notebook


def write(notebook: NotebookNode, path: Path) -> None:
    """Write a notebook under a temporary name and rename it, so that no half file is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        text = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
        temporary.write_text(text + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def tags(cell: NotebookNode) -> list[str]:
    """Return the tags of a cell."""
    return list(cell.metadata.get("tags", []))
