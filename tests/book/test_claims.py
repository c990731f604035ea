"""The ledger of published claims: list, cells, tables and runs fit, and each flaw is found."""

from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from tests.test_claims import LIST
from tools import claims, execute, fingerprint
from tools.chapters import read, write

TOML, TABLE, BOOK = "book/claims.toml", "results/claims/toy.csv", "book/toy.ipynb"
ENTRY = 'import json\nfrom attrlib.book import claim\nclaim("noise", {"IG": [1.0, 2.0]}, weaker=3)'


def test_the_ledger_of_the_book_is_whole() -> None:
    told = claims.flaws()
    assert not told, "; ".join(told)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose only chapter enters a claim; it was run in the full budget."""
    root = tmp_path_factory.mktemp("ledger")
    (root / "book").mkdir()
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/toy\n"
    )
    (root / "book" / "claims.toml").write_text(LIST)
    (root / "book" / "references.bib").write_text("@inproceedings{kamath2024rethinking,\n}\n")
    cell = new_code_cell(ENTRY, metadata={"tags": ["claim", "hide-input"]})
    text = new_markdown_cell("# Toy\n\n(sec-toy)=\n## Part")
    write(new_notebook(cells=[text, cell]), root / "book" / "toy.ipynb")
    assert execute.main([], root=root) == 0
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may break."""
    for path in made.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(made)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    return tmp_path


def test_a_full_run_keeps_what_was_entered(root: Path) -> None:
    table = claims.pd.read_csv(root / TABLE, keep_default_na=False)
    assert list(table) == list(claims.COLUMNS)
    assert table[["key", "attack", "case", "effect", "units"]].to_numpy().tolist() == [
        ["noise", "suite", "IG", 1.5, 2],
        ["noise", "weaker", "", 3.0, 1],
    ]
    record = read(root / "book" / "toy.ipynb").metadata.attrlib
    assert set(table["hash"]) == {record.hash}
    assert claims.flaws(root) == []


def run(root: Path, monkeypatch: pytest.MonkeyPatch, budget: str) -> int:
    """Run the chapter again, as it lies there: its outputs are taken for those of the run."""
    monkeypatch.setattr(execute, "execute", lambda path, budget, root: read(path))
    return execute.main(["--budget", budget], root=root)


def test_a_quick_run_writes_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / TABLE).unlink()
    assert run(root, monkeypatch, "quick") == 0
    assert not (root / TABLE).exists()
    assert run(root, monkeypatch, "full") == 0
    assert (root / TABLE).exists()


def test_a_failed_run_leaves_the_table_alone(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (root / TABLE).read_bytes()

    def fail(path: Path, budget: str, root: Path) -> None:
        raise RuntimeError("cell 2 raised")

    monkeypatch.setattr(execute, "execute", fail)
    assert execute.main([], root=root) == 1
    assert (root / TABLE).read_bytes() == before


def test_without_entries_the_table_goes(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit(BOOK, "claim noise", "noise")(root)
    assert run(root, monkeypatch, "full") == 0
    assert not (root / TABLE).exists()


def test_the_ledger_depends_on_list_and_tables(root: Path) -> None:
    notebook = new_notebook(cells=[new_code_cell("rows = ledger()")])
    (root / "attrlib").mkdir()
    parts = fingerprint.parts(notebook, root=root)
    assert {"file book/claims.toml", "file results/claims/toy.csv"} <= set(parts)
    edit("book/claims.toml", "threshold = 0.5", "threshold = 0.4")(root)
    now = fingerprint.parts(notebook, root=root)
    assert {name for name in now if now[name] != parts[name]} == {"file book/claims.toml"}


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edit(TOML, "[noise]", "[sound]"), "toy: cell .* enters noise, which the list has not there"),
        (edit(TOML, "[noise]", "[sound]"), "sound is in the list, and toy does not enter it"),
        (edit(TOML, 'weaker = "another attack"', ""), "noise has a weaker attack in the list or in"),
        (edit(TOML, "threshold = 0.5", ""), "noise lacks threshold"),
        (edit(TOML, "threshold = 0.5", "threshold = nan"), "noise: Expected threshold to be a number"),
        (edit(TOML, "threshold = 0.5", "threshhold = 0.5"), "noise has the unknown field threshhold"),
        (edit(TOML, '"a ratio"', '" "'), "noise: test is empty"),
        (edit(TOML, 'untested = "We asked nobody."', ""), "people lacks chapter"),
        (edit(TOML, "kamath2024rethinking", "nobody2024"), "the bibliography has no nobody2024"),
        (edit(TOML, "sec-toy", "sec-no"), "noise: toy has no label sec-no"),
        (edit(TOML, 'chapter = "toy"', 'chapter = "boy"'), "noise: there is no chapter boy"),
        (edit(TABLE, "noise,weaker", "people,weaker"), "toy.csv: no cell enters people"),
        (edit(TABLE, "noise,", "sound,"), "toy.csv has no row of noise"),
        (edit(TABLE, "1.5", "1.6"), "toy.csv is stale"),
        (edit(TABLE, "effect", "size"), "toy.csv has the columns"),
        (edit(BOOK, '"hash": "', '"hash": "0'), "toy.csv is stale"),
        (edit(BOOK, '"claim",', ""), "enters a claim and is not tagged claim"),
        (edit(BOOK, "import json", "claim(\\\"noise\\\", 1, weaker=2)"), "noise is entered twice"),
        (lambda root: (root / TABLE).unlink(), "toy enters claims and has no table"),
        (lambda root: (root / TABLE).rename(root / "results/claims/boy.csv"), "boy.csv: there is no"),
    ],
)  # fmt: skip
def test_a_flaw_is_found(root: Path, change: Callable[[Path], None], told: str) -> None:
    change(root)
    found = claims.flaws(root)
    assert any(claims.re.search(told, flaw) for flaw in found), found
