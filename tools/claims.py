"""What chapters enter into the ledger of published claims, kept as tables and held together.

`keep` writes what one run entered to `results/claims/<stem>.csv`; `flaws` tells where the list of
claims (`book/claims.toml`), the calls of `claim` in the chapters and the tables do not fit.
"""

import ast
import json
import math
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from nbformat import NotebookNode

from attrlib._files import whole
from attrlib.book._claims import COLUMNS, LIST, TABLES
from tools.chapters import ROOT, chapters, read, tags
from tools.code_rules import code_cells, name_of

TESTED = {"test", "unit", "threshold", "chapter", "link"}
ALWAYS = {"claim", "source", "where"}
OPTIONAL = {"weaker", "untested"}
_RECORD = "application/papermill.record/text/plain"


def entered(notebook: NotebookNode) -> pd.DataFrame:
    """Return what the run of a notebook entered, from its outputs, with the columns of a table."""
    record = notebook.metadata.get("attrlib", {})
    about = [record.get(name, "") for name in COLUMNS[-3:]]
    rows = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            name = output.get("metadata", {}).get("scrapbook", {}).get("name", "")
            if name.startswith("claim "):
                found = json.loads(ast.literal_eval(output.data[_RECORD]))
                rows += [[name.removeprefix("claim "), *row, *about] for row in found]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def keep(notebook: NotebookNode, stem: str, *, root: Path = ROOT) -> None:
    """Write what a run entered to the chapter's table; without an entry there is no table."""
    path, table = root / TABLES / f"{stem}.csv", entered(notebook)
    if table.empty:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as partial:
        table.to_csv(partial, index=False)


def flaws(root: Path = ROOT) -> list[str]:
    """Return what does not fit, one sentence each: nothing if the ledger is whole."""
    text = (root / LIST).read_text(encoding="utf-8")
    listed, books = tomllib.loads(text), {k: read(path) for k, path in chapters(root).items()}
    known = (root / "book" / "references.bib").read_text(encoding="utf-8")
    told = [flaw for key, row in listed.items() for flaw in _of_row(key, row, books, known)]
    there: set[tuple[str, str]] = set()
    for stem, notebook in books.items():
        for key, weaker, cell in _calls(notebook):
            row = listed.get(key, {})
            if row.get("chapter") != stem:
                told.append(f"{stem}: {name_of(cell)} enters {key}, which the list has not there")
            elif weaker != ("weaker" in row):
                told.append(
                    f"{stem}: {key} has a weaker attack in the list or in the cell, not both"
                )
            if "claim" not in tags(cell):
                told.append(f"{stem}: {name_of(cell)} enters a claim and is not tagged claim")
            if (stem, key) in there:
                told.append(f"{stem}: {key} is entered twice")
            there.add((stem, key))
    for key, row in listed.items():
        if "chapter" in row and (row["chapter"], key) not in there:
            told.append(f"{key} is in the list, and {row['chapter']} does not enter it")
    return (
        told
        + [flaw for k, notebook in books.items() for flaw in _of_table(k, notebook, root)]
        + [
            f"{path.name}: there is no such chapter"
            for path in sorted((root / TABLES).glob("*.csv"))
            if path.stem not in books
        ]
    )


def _of_row(
    key: str, row: dict[str, object], books: dict[str, NotebookNode], bib: str
) -> list[str]:
    """Return what is wrong with one row of the list."""
    wanted = ALWAYS | ({"untested"} if "untested" in row else TESTED)
    told = [f"{key} lacks {name}" for name in sorted(wanted - set(row))]
    told += [f"{key} has the unknown field {k}" for k in sorted(set(row) - wanted - OPTIONAL)]
    told += [
        f"{key}: {name} is empty"
        for name, value in row.items()
        if name != "threshold" and not (isinstance(value, str) and value.strip())
    ]
    threshold = row.get("threshold", 0.0)
    if not (isinstance(threshold, int | float) and math.isfinite(threshold)):
        told.append(f"{key}: Expected threshold to be a number, got {threshold!r}")
    if f"{{{row.get('source')}," not in bib:
        told.append(f"{key}: the bibliography has no {row.get('source')}")
    chapter, link = str(row.get("chapter", "")), str(row.get("link", ""))
    if chapter and chapter not in books:
        told.append(f"{key}: there is no chapter {chapter}")
    elif chapter and not any(f"({link})=" in cell.source for cell in books[chapter].cells):
        told.append(f"{key}: {chapter} has no label {link}")
    return told


def _calls(notebook: NotebookNode) -> Iterator[tuple[str, bool, NotebookNode]]:
    """Yield each call of `claim`: its key, whether it has a weaker attack, and its cell."""
    for cell in code_cells(notebook):
        source = re.sub(r"^[%!].*", "", cell.source, flags=re.MULTILINE)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "claim":
                key = ast.literal_eval(node.args[0])
                yield key, any(word.arg == "weaker" for word in node.keywords), cell


def _of_table(stem: str, notebook: NotebookNode, root: Path) -> list[str]:
    """Return what is wrong with the table of one chapter."""
    path, keys = root / TABLES / f"{stem}.csv", {key for key, _, _ in _calls(notebook)}
    if not path.exists():
        return [f"{stem} enters claims and has no table; run: make run CHAPTER={stem}"] * bool(keys)
    table = pd.read_csv(path, keep_default_na=False)
    if list(table) != list(COLUMNS):
        return [f"{path.name} has the columns {list(table)}, not {list(COLUMNS)}"]
    told = [f"{path.name}: no cell enters {key}" for key in sorted(set(table["key"]) - keys)]
    told += [f"{path.name} has no row of {key}" for key in sorted(keys - set(table["key"]))]
    record = notebook.metadata.get("attrlib", {})
    same = entered(notebook).to_csv(index=False) == path.read_text(encoding="utf-8")
    if set(table["hash"]) != {record.get("hash")} or (record.get("budget") == "full" and not same):
        told.append(f"{path.name} is stale: another run made it; run: make run CHAPTER={stem}")
    return told
