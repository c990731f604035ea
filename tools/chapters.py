"""Which notebooks the book has, and how they are read and written."""

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode, v4

ROOT = Path(__file__).resolve().parents[1]
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def pages(root: Path = ROOT) -> dict[str, Path]:
    """Return the files of the pages in `_toc.yml` that exist, by the name they have there."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found = {}
    for name in (toc["root"], *_files(toc)):
        for path in (root / f"{name}.ipynb", root / f"{name}.md"):
            if path.exists():
                found[name] = path
    return found


def chapters(root: Path = ROOT) -> dict[str, Path]:
    """Return the notebooks of the book, by stem, in the order of the book."""
    return {path.stem: path for path in pages(root).values() if path.suffix == ".ipynb"}


def chapter_numbers(root: Path = ROOT) -> dict[str, str]:
    """Return the number of each page in a numbered part, counted on from part to part."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    numbered = [
        chapter["file"]
        for part in toc.get("parts", [])
        for chapter in part["chapters"] * bool(part.get("numbered"))
    ]
    return {page: str(number) for number, page in enumerate(numbered, start=1)}


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


def code_cell(source: str, *, name: str, tags: list[str]) -> NotebookNode:
    """Return a code cell that was not run."""
    cell: NotebookNode = v4.new_code_cell(source, id=name, metadata={"tags": tags})  # type: ignore[no-untyped-call]
    return cell


def markdown_cell(source: str, *, name: str) -> NotebookNode:
    """Return a Markdown cell."""
    cell: NotebookNode = v4.new_markdown_cell(source, id=name)  # type: ignore[no-untyped-call]
    return cell


def notebook_of(cells: list[NotebookNode]) -> NotebookNode:
    """Return a notebook for the kernel every chapter uses."""
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook: NotebookNode = v4.new_notebook(cells=cells, metadata=metadata)  # type: ignore[no-untyped-call]
    notebook.nbformat_minor = 5
    return notebook
