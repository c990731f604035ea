"""Running notebooks, telling stale outputs, and nbval's verdict on a false claim."""

import ast
import base64
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from tools import execute, fingerprint
from tools.chapters import chapters, read, tags, write

USED = 'SCALE = 2\n\n\ndef double(x):\n    """Return twice x."""\n    return SCALE * x  # twice\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small repository: one chapter, a package with two modules, a checkpoint and two tables."""
    files = {
        "_toc.yml": "format: jb-book\nroot: book/index\nchapters:\n- file: book/toy\n",
        "book/index.md": "# Index\n",
        "attrlib/__init__.py": '"""Package."""\n\n__version__ = "1"\n__all__ = ["data"]\n',
        "attrlib/data.py": f'"""Data."""\n\nfrom . import maps\n\n\n{USED}',
        "attrlib/maps.py": USED,
        "attrlib/metrics.py": USED,
        "attrlib/book/__init__.py": "from attrlib.book._budget import budget\n",
        "attrlib/book/_budget.py": USED,
        "attrlib/book/checks/__init__.py": "",
        "attrlib/book/checks/toy.py": USED,
        "attrlib/_assets/checkpoints/natural-s0.safetensors": "weights",
        "attrlib/_assets/checkpoints/natural-s1.safetensors": "weights",
        "attrlib/_assets/checkpoints/madry-s0.safetensors": "weights",
        "results/grid.csv": "a,b\n",
        "results/speed.csv": "a,b\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def chapter(root: Path, *sources: str) -> Path:
    cells = [new_markdown_cell("# Toy"), *(new_code_cell(source) for source in sources)]
    kernel = {"name": "my-env", "display_name": "Mine"}
    metadata = {"jupytext": {"formats": "ipynb,md"}, "kernelspec": kernel}
    path = root / "book" / "toy.ipynb"
    write(new_notebook(cells=cells, metadata=metadata), path)
    return path


# --- execution ------------------------------------------------------------------------------------


def test_pictures_are_packed_without_loss() -> None:
    rows = np.arange(256, dtype=np.uint8).repeat(64).reshape(128, 128)
    file = io.BytesIO()
    Image.fromarray(rows).save(file, "PNG", compress_level=0, dpi=(110, 110))
    before = base64.b64encode(file.getvalue()).decode()
    after = execute.packed(before)
    assert len(after) < len(before) / 10
    image = Image.open(io.BytesIO(base64.b64decode(after)))
    assert np.array_equal(np.asarray(image), rows)
    assert round(image.info["dpi"][0]) == 110
    assert execute.packed(after) == after


def test_a_run_stores_outputs_and_what_they_depend_on(root: Path) -> None:
    path = chapter(
        root,
        "import os, pathlib, torch",
        "print(os.environ['ATTRLIB_BUDGET'], pathlib.Path.cwd().name)",
        "'results'.upper()",
    )
    cell_ids = [cell.id for cell in read(path).cells]
    assert execute.main(["toy", "--budget", "quick"], root=root) == 0
    notebook = read(path)
    nbformat.validate(notebook)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in codes] == [1, 2, 3]
    assert codes[1].outputs[0].text == "quick book\n"
    assert codes[2].outputs[0].data["text/plain"] == "'RESULTS'"
    assert [cell.id for cell in notebook.cells] == cell_ids
    assert set(notebook.metadata) == {"attrlib", "kernelspec", "language_info"}
    record = notebook.metadata.attrlib
    assert record.budget == "quick"
    assert record.seconds > 0
    assert record.device == execute.device_name()
    assert {"python", "torch"} <= set(record.versions)
    assert not fingerprint.changes(notebook, root=root)
    assert not list(path.parent.glob(".*"))
    assert execute.main([], root=root) == 0  # again, in the full budget: nothing else differs
    again = read(path)
    assert again.metadata.attrlib.budget == "full"
    assert again.cells[2].outputs[0].text == "full book\n"
    assert again.metadata.attrlib.hash == record.hash
    again.cells[2].outputs = notebook.cells[2].outputs
    assert again.cells == notebook.cells


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("raise KeyError('no such map')", r"cell 3 \(id \w+, `raise KeyError.*no such map"),
        ("import sys\nprint('50 %', file=sys.stderr)", r"cell 3 .* wrote to stderr:\n50 %"),
    ],
)
def test_a_failed_run_leaves_the_file_alone(
    root: Path, capsys: pytest.CaptureFixture[str], source: str, message: str
) -> None:
    path = chapter(root, "1 + 1", source, "2 + 2")
    before = path.read_bytes()
    assert execute.main([], root=root) == 1
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*"))
    assert re.search(f"(?s)toy: not written, as {message}", capsys.readouterr().err)


def test_an_unknown_chapter_lists_the_known_ones(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chapter(root, "1")
    with pytest.raises(SystemExit):
        execute.main(["tory"], root=root)
    assert "Expected stem to be one of toy, got tory" in capsys.readouterr().err


def test_writing_is_all_or_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = chapter(root, "1")
    before = path.read_bytes()

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write(new_notebook(), path)
    assert path.read_bytes() == before
    assert not list(path.parent.glob(".*"))


# --- stale outputs --------------------------------------------------------------------------------


CODE = (
    "from attrlib import data\nfrom attrlib.book import budget",
    "net = checkpoints.load('natural')\nother = load(f'natural-s{seed}')\ntable = results('grid')",
    "check('toy/doubling', data.double)",
)


@pytest.fixture
def executed(root: Path) -> tuple[Path, NotebookNode]:
    """The small repository, and a notebook that claims to have been run in it."""
    notebook = read(chapter(root, *CODE))
    found = fingerprint.parts(notebook, root=root)
    notebook.metadata["attrlib"] = {"hash": fingerprint.digest(found), "parts": found}
    return root, notebook


def test_the_parts_are_what_the_code_reaches(executed: tuple[Path, NotebookNode]) -> None:
    _, notebook = executed
    names = [name for name in notebook.metadata.attrlib.parts if not name.startswith("cell ")]
    assert names == [
        "module attrlib",
        "module attrlib.book",
        "module attrlib.book._budget",
        "module attrlib.book.checks",
        "module attrlib.book.checks.toy",
        "module attrlib.data",
        "module attrlib.maps",
        "file attrlib/_assets/checkpoints/natural-s0.safetensors",
        "file attrlib/_assets/checkpoints/natural-s1.safetensors",
        "file results/grid.csv",
    ]


@pytest.mark.parametrize(
    "code",
    [
        "from attrlib import metrics",
        "import attrlib.metrics",
        "import attrlib\nattrlib.metrics.double(1)",
        "from attrlib.metrics import double",
        "def late():\n    from attrlib import metrics",
    ],
)
def test_each_way_to_import_is_understood(root: Path, code: str) -> None:
    notebook = new_notebook(cells=[new_code_cell(f"%matplotlib inline\n{code}")])
    assert "module attrlib.metrics" in fingerprint.parts(notebook, root=root)


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new))

    return change


NATURAL = "attrlib/_assets/checkpoints/natural-s0.safetensors"
CHECKS = "attrlib/book/checks/toy.py"
GONE = "module attrlib.maps is gone"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (edit("attrlib/maps.py", "SCALE = 2", "SCALE = 3"), ["module attrlib.maps changed"]),
        (edit(CHECKS, "* x", "+ x"), ["module attrlib.book.checks.toy changed"]),
        (edit("attrlib/data.py", "from . import maps", ""), [GONE, "module attrlib.data changed"]),
        (edit(NATURAL, "weights", "others"), [f"file {NATURAL} changed"]),
        (edit("results/grid.csv", "a,b", "a,c"), ["file results/grid.csv changed"]),
        (lambda root: (root / "results/grid.csv").unlink(), ["file results/grid.csv changed"]),
        (edit("attrlib/maps.py", "# twice", "# two times"), []),
        (edit("attrlib/maps.py", "Return twice x.", "Twice x."), []),
        (edit("attrlib/maps.py", "(x)", "( x )"), []),
        (edit("attrlib/__init__.py", '"1"', '"2"'), []),
        (edit("attrlib/__init__.py", '["data"]', '["data", "maps"]'), []),
        (edit("attrlib/metrics.py", "SCALE = 2", "SCALE = 3"), []),
        (edit("results/speed.csv", "a,b", "a,c"), []),
    ],
)
def test_a_change_is_named_and_words_do_not_count(
    executed: tuple[Path, NotebookNode], change: Callable[[Path], None], told: list[str]
) -> None:
    root, notebook = executed
    change(root)
    assert fingerprint.changes(notebook, root=root) == told


def test_changed_cells_are_named(executed: tuple[Path, NotebookNode]) -> None:
    root, notebook = executed
    notebook.cells[0].source = "# Toys"
    assert fingerprint.changes(notebook, root=root) == []
    notebook.cells[3].source += "  # once more"
    told = ["code cell 3 (`check('toy/doubling', data.double)  # once more`) changed"]
    assert fingerprint.changes(notebook, root=root) == told


def test_reordered_and_unrun_notebooks_are_stale(executed: tuple[Path, NotebookNode]) -> None:
    root, notebook = executed
    notebook.cells[1], notebook.cells[2] = notebook.cells[2], notebook.cells[1]
    assert fingerprint.changes(notebook, root=root) == ["the order of its cells changed"]
    del notebook.metadata["attrlib"]
    assert fingerprint.changes(notebook, root=root) == ["it was never run"]


@pytest.mark.parametrize("stem", chapters())
def test_outputs_are_up_to_date(stem: str) -> None:
    """Every chapter was run with the code, checkpoints and tables of this commit."""
    told = fingerprint.changes(read(chapters()[stem]))
    assert not told, (
        f"{stem}: outputs are stale, as {'; '.join(told)}. Run: make run CHAPTER={stem}"
    )


# --- nbval ----------------------------------------------------------------------------------------


def nbval(*paths: Path) -> subprocess.CompletedProcess[str]:
    """Run notebooks as `make test` runs all of them."""
    environment = {key: value for key, value in os.environ.items() if key != "ATTRLIB_BUDGET"}
    options = ["--nbval-lax", "--nbval-current-env", "-p", "no:cacheprovider", "-q", "-rA"]
    command = [sys.executable, "-m", "pytest", *options, "-c", os.devnull, *map(str, paths)]
    folder = paths[0].parent
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=folder, check=False
    )


def claim(root: Path) -> Path:
    """A notebook, run, with one claim that asserts and one that is compared."""
    path = chapter(root, "share = 0.75", "assert share > 0.5", "print(share > 0.7)")
    notebook = read(path)
    for count, cell in enumerate(notebook.cells[1:], start=1):
        cell.execution_count = count
    notebook.cells[2].metadata["tags"] = ["claim"]
    notebook.cells[3].metadata["tags"] = ["claim", "nbval-check-output"]
    notebook.cells[3].outputs = [new_output("stream", text="True\n")]
    write(notebook, path)
    return path


class Negate(ast.NodeTransformer):
    """Turns every assertion round."""

    def visit_Assert(self, node: ast.Assert) -> ast.Assert:
        return ast.Assert(test=ast.UnaryOp(op=ast.Not(), operand=node.test), msg=node.msg)


def turned_round(folder: Path) -> Path:
    """A copy of the first chapter up to its first claim, which says the opposite."""
    source = next(iter(chapters().values()))
    notebook = read(source)
    first = next(i for i, cell in enumerate(notebook.cells) if "claim" in tags(cell))
    notebook.cells = notebook.cells[: first + 1]
    cell = notebook.cells[first]
    tree = ast.parse(cell.source)
    assert any(isinstance(node, ast.Assert) for node in ast.walk(tree)), cell.source
    cell.source = ast.unparse(ast.fix_missing_locations(Negate().visit(tree)))
    write(notebook, folder / source.name)
    return folder / source.name


def test_true_claims_pass_and_false_ones_fail(root: Path) -> None:
    """One run of three notebooks: in what precedes a false claim, nothing fails."""
    true = claim(root)
    text = true.read_text()
    assert text.count("share = 0.75") == 1
    false = true.with_name("false.ipynb")
    false.write_text(text.replace("share = 0.75", "share = 0.25"))
    book = turned_round(true.parent)
    result = nbval(true, false, book)
    assert result.returncode == 1
    told = re.findall(
        r"^(PASSED|FAILED|ERROR) \S*?(\w[\w-]*)\.ipynb::", result.stdout, re.MULTILINE
    )
    count = {stem: [v for v, s in told if s == stem] for stem in (true.stem, false.stem, book.stem)}
    assert count[true.stem] == ["PASSED"] * 3, result.stdout
    assert sorted(count[false.stem]) == ["FAILED"] * 2 + ["PASSED"], result.stdout
    codes = sum(cell.cell_type == "code" for cell in read(book).cells)
    assert sorted(count[book.stem]) == ["FAILED"] + ["PASSED"] * (codes - 1), result.stdout
    assert "AssertionError" in result.stdout
