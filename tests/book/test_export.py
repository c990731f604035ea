"""Plain copies of the chapters: no MyST is left, the solved one runs, the other stops where it must."""

import ast
import copy
import functools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.book.template_chapter import template
from tools import export
from tools.chapters import ROOT, chapter_numbers, chapters, read, tags, write
from tools.exercises import parts, split
from tools.plain import Plain, folded
from tools.references import Book, of_book, texts

ADDRESS = "https://example.org/book.git"
CHAPTERS = chapters()
STEMS = ["template", *CHAPTERS]
RUN_WHOLE = ("template", "the-shoot-out")
MYST = {
    "directive": re.compile(r"^ *(`{3,}|:{3,})\{", re.MULTILINE),
    "role": re.compile(r"\{[\w:+-]+\}`"),
    "label": re.compile(r"^\([\w:.-]+\)=", re.MULTILINE),
    "comment": re.compile(r"^%|^\+\+\+", re.MULTILINE),
    "attributes": re.compile(r"[\])`]\{[.#]"),
    "link to a page": re.compile(r"\]\([^)]*\.(md|ipynb)[)#]"),
    "link to a label": re.compile(r"\]\(#[a-z0-9]+(-[a-z0-9]+)*\)"),
}


@functools.cache
def book() -> Book:
    found = of_book()
    found.add("template", texts(template()))
    return found


def original(stem: str) -> NotebookNode:
    return template() if stem == "template" else read(CHAPTERS[stem])


@functools.cache
def _exported(stem: str, solved: bool) -> NotebookNode:
    notebook = original(stem)
    folder = CHAPTERS.get(stem, ROOT / "book" / "preface.md").parent
    return export.export(notebook, stem, book=book(), solved=solved, folder=folder, address=ADDRESS)


def exported(stem: str, *, solved: bool) -> NotebookNode:
    """Return a copy of the export, which the test may change."""
    return copy.deepcopy(_exported(stem, solved))


def without_code(text: str) -> str:
    """Return a Markdown text without code, which may show anything."""
    return re.sub(
        r"^ *```\w*\n.*?^ *```$|`[^`{}]*`(?!\{)", "", text, flags=re.DOTALL | re.MULTILINE
    )


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("solved", [False, True])
@pytest.mark.parametrize("stem", STEMS)
def test_no_myst_is_left(stem: str, solved: bool) -> None:
    for cell in exported(stem, solved=solved).cells:
        for name, pattern in MYST.items() if cell.cell_type == "markdown" else ():
            found = pattern.search(without_code(cell.source))
            assert not found, f"{name} {found and found[0]!r} in {cell.source}"
        assert not cell.source.startswith("glue(")
        assert "\nglue(" not in cell.source
        assert cell.get("outputs", []) == []


@pytest.mark.parametrize("stem", STEMS)
def test_formulas_use_no_macro_of_the_book(stem: str) -> None:
    text = "\n\n".join(c.source for c in exported(stem, solved=True).cells if c.cell_type != "code")
    formulas = "".join(re.findall(r"\$\$.+?\$\$|\$[^$]+\$", text, re.DOTALL))
    own = rf"\\({'|'.join(book().macros)})(?![A-Za-z])"
    assert not re.findall(own, formulas)


@pytest.mark.parametrize("stem", STEMS)
def test_student_copy_has_the_exercises_and_not_the_solutions(stem: str) -> None:
    student, solution = exported(stem, solved=False), exported(stem, solved=True)
    solved = {cell.id: cell.source for cell in solution.cells if cell.cell_type == "code"}
    mine = {cell.id: cell.source for cell in student.cells if cell.cell_type == "code"}
    inside = {cell.id for cell in solution.cells if {"solution", "check"} & set(tags(cell))}
    assert {key: mine[key] for key in mine if key in solved} == {
        key: solved[key] for key in solved if key not in inside
    }
    original = template() if stem == "template" else read(CHAPTERS[stem])
    place = 0
    for part in parts(original):
        cell = next(at for at, c in enumerate(student.cells) if c.id == f"{part.label}-answer")
        assert cell > place
        place = cell
        checks = [c.source for c in part.cells if "check" in tags(c)]
        if part.cells:
            assert [c.source for c in student.cells[cell + 1 : cell + 1 + bool(checks)]] == checks
            assert tags(student.cells[cell]) == ["exercise"]
            assert student.cells[cell].source not in solved.values()
        else:
            assert student.cells[cell].source == export.ANSWER
    texts = [cell.source for cell in student.cells]
    assert not any("#### Solution" in text or "#### Model answer" in text for text in texts)
    told = sum(len(re.findall("#### (Solution|Model answer)", c.source)) for c in solution.cells)
    assert told == len(list(parts(original)))


@pytest.mark.parametrize("stem", STEMS)
def test_what_is_folded_in_the_book_is_folded_in_the_copy(stem: str) -> None:
    original = template() if stem == "template" else read(CHAPTERS[stem])
    folded = {c.id for c in original.cells if "hide-input" in tags(c)}
    copy = exported(stem, solved=True)
    got = {c.id for c in copy.cells if c.metadata.get("jupyter", {}).get("source_hidden")}
    assert folded
    assert got == {"bootstrap"} | ({c.id for c in copy.cells} & folded)


def test_the_template_becomes_plain_text() -> None:
    cells = exported("template", solved=True).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    share = book().glued["template", "template_share"]
    expected = [
        "**Fig. 1.** An image and its gradient. *In words:* On the left a boot in grey",
        "the page *Notation*",
        "The gradient holds the slope",
        "([Baehrens et al., 2010](https://arxiv.org/abs/0912.1128))",
        "[Sundararajan et al. (2017)](https://",
        "Take ${f_{{y}}}({\\mathbf{x}}) = 3 x_1 - x_2$.",
        f"a share of {float(share):.2f} of all slopes",
        "Fig. 1 shows one of them",
        "> **Before you start**\n>\n> **Objectives.** After this chapter you can\n>\n> - name",
        "> **Cheat sheet**\n>\n> | | Gradient |",
        "[An idea](#An-idea)",
        "### Exercise 3: Twice the gradient",
        "#### Solution\n\nThe gradient is linear",
        "<details>\n<summary>Hint</summary>\n\nThe function `attributions.gradient`",
        "**1.** What does ${\\nabla\\!",
        "<summary>From memory.</summary>\n\n**Not quite.** Then they would go stale.",
    ]
    for piece in expected:
        assert piece in text


# --- single elements ------------------------------------------------------------------------------


@pytest.fixture
def plain() -> Plain:
    cell = new_code_cell(
        outputs=[
            new_output(
                "display_data",
                metadata={"scrapbook": {"name": "share"}},
                data={"application/papermill.record/text/plain": "0.756"},
            )
        ]
    )
    found = Book(
        macros={"vec": ("{\\mathbf{#1}}", 1), "inp": ("\\vec{x}", 0), "in": ("i", 0)},
        citations=dict(book().citations),
    )
    found.add("one", ["# One\n\n(here)=\n## A *good* part\n\n$$a = b$$ (balance)", cell])
    found.add("two", ["# Two\n\n(there)=\n## Elsewhere"])
    return Plain(found, "one")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$\\inp + \\in \\infty$", "${{\\mathbf{x}}} + {i} \\infty$"),
        ("$\\vec{a_{\\inp}}$", "${\\mathbf{a_{{{\\mathbf{x}}}}}}$"),
        ("`$\\inp$`", "`$\\inp$`"),
        ("```python\n$\\inp$ {ref}`x`\n```", "```python\n$\\inp$ {ref}`x`\n```"),
        ("```{math}\n:label: balance\na\n```", "$$\na \\tag{1}\n$$"),
        ("$$a$$ (balance)", "$$\na \\tag{1}\n$$"),
        ("By {eq}`balance`.", "By (1)."),
        ("{ref}`here`", "[A *good* part](#A-good-part)"),
        ("{ref}`words <here>` and [more](#here)", "[words](#A-good-part) and [more](#A-good-part)"),
        ("{ref}`there`", "Elsewhere in *Two*"),
        ("[](two.ipynb), {doc}`x <../two>`", "*Two*, *x*"),
        ("[site](https://example.org/a.md)", "[site](https://example.org/a.md)"),
        ("{term}`heatmaps <heatmap>` {py:func}`~a.b`", "heatmaps `a.b`"),
        ("{glue:text}`share` {glue}`share:.1f`", "0.756 0.8"),
        ("{glue:text}`part/one.ipynb::share:.2f`", "0.76"),
        ("{cite:t}`smilkov2017smoothgrad`", "[Smilkov et al. (2017)](https://arxiv.org/abs/1706.03825)"),
        (":::{note}\nOne\n\n- two\n:::", "> **Note**\n>\n> One\n>\n> - two"),
        ("```{seealso} One\n```", "> **See also**\n>\n> One"),
        (":::{dropdown} Open *me*\nText\n:::", folded("Open *me*", "Text")),
        ("::::{note}\n:::{tip}\nIn\n:::\n::::", "> **Note**\n>\n> > **Tip**\n> >\n> > In"),
        ("```{prf:theorem} Bound\nText\n```", "> **Theorem (Bound)**\n>\n> Text"),
        ("```{code-block} console\n$ make {book}`x`\n```", "```console\n$ make {book}`x`\n```"),
        ("(label)=\n# Title\n% comment\n+++\nEnd", "# Title\nEnd"),
        ("![A boot](boot.png){.small}", "![A boot](boot.png)"),
        ("costs \\$3 and \\$4", "costs \\$3 and \\$4"),
    ],
)  # fmt: skip
def test_each_element_has_a_plain_form(plain: Plain, text: str, expected: str) -> None:
    assert plain.convert(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{unknown}`x`", "Expected role .* got {unknown}"),
        ("```{mermaid}\n```", "Expected directive .* got {mermaid}"),
        ("{ref}`nowhere`", "Expected label .* got 'nowhere'"),
        ("[](nowhere.md)", "Expected link .* got 'nowhere.md'"),
        ("{cite:p}`nobody1900`", "Expected citation .* got 'nobody1900'"),
        ("{glue:text}`nothing:.2f`", "Expected glued key .* one, got 'nothing'"),
        ("```{note}\nnever closed", "Expected a fence ``` that closes '```{note}'"),
    ],
)
def test_what_has_no_plain_form_is_an_error(plain: Plain, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain.convert(text)


def test_figure_files_travel_with_the_cell(tmp_path: Path, plain: Plain) -> None:
    (tmp_path / "boot.png").write_bytes(b"picture")
    text = "![A boot](boot.png)\n\n```{figure} boot.png\n:alt: The boot\nIts caption.\n```"
    notebook = new_notebook(cells=[new_markdown_cell(text)])
    cell = export.export(
        notebook, "one", book=plain.book, solved=True, folder=tmp_path, address=ADDRESS
    ).cells[-1]
    assert cell.attachments == {"boot.png": {"image/png": "cGljdHVyZQ=="}}
    assert cell.source == (
        "![A boot](attachment:boot.png)\n\n![The boot](attachment:boot.png)\n\nIts caption."
    )


def test_stored_values_are_left_out_of_the_code() -> None:
    source = "x = 1\nglue(\n    x=x,\n    y=2,\n)\n\nif x:\n    glue(z=3)"
    assert export._without_glue(source) == "x = 1\n\nif x:\n    glue(z=3)"
    assert export._without_glue('glue(x=1)\nclaim("holds", 1)') == ""


def test_a_stub_is_parted_from_its_check() -> None:
    assert split("def f():\n    pass\n\ncheck('a', f)\ncheck('b', f)") == (
        "def f():\n    pass",
        "check('a', f)\ncheck('b', f)",
    )
    assert split("check = 1  # mine") == ("check = 1  # mine", "")


def test_numbers_count_on_from_part_to_part(tmp_path: Path) -> None:
    (tmp_path / "_toc.yml").write_text(
        "root: index\nparts:\n- chapters: [{file: a}]\n- {numbered: true, chapters: [{file: b}]}\n"
        "- {numbered: true, chapters: [{file: c}, {file: d}]}\n"
    )
    assert chapter_numbers(tmp_path) == {"b": "1", "c": "2", "d": "3"}
    found = Book()
    figure = new_code_cell(metadata={"mystnb": {"figure": {"name": "boot"}}})
    found.add("d", ["# D\n\n$$a$$ (balance)", figure], number="3")
    assert {label: target.text for label, target in found.targets.items()} == {
        "balance": "(3.1)",
        "boot": "Fig. 3.1",
    }


def test_the_copy_says_which_run_its_numbers_are_from() -> None:
    about = exported("breaking-attributions", solved=False).cells[1].source
    record = read(CHAPTERS["breaking-attributions"]).metadata.attrlib
    assert f"the run of {record.date} in the {record.budget} budget, on {record.device}" in about
    assert "the run of" not in export._about(new_notebook())


# --- the command -----------------------------------------------------------------------------------


def test_the_command_writes_two_copies_of_each_chapter(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export.main(["--out", str(tmp_path)]) == 0
    names = sorted(f"{stem}.ipynb" for stem in CHAPTERS)
    for kind in ("student", "solution"):
        assert sorted(os.listdir(tmp_path / kind)) == names
    assert len(capsys.readouterr().out.splitlines()) == 2 * len(names)


def test_a_copy_in_use_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    two = {s: tuple(exported(s, solved=kind) for kind in (False, True)) for s in [*CHAPTERS][:2]}
    monkeypatch.setattr(export, "copies", lambda root: copy.deepcopy(two))
    assert export.main(["--out", str(tmp_path)]) == 0
    edited, run, broken, stale = (
        tmp_path / kind / f"{list(CHAPTERS)[at]}.ipynb"
        for kind, at in (("student", 0), ("student", 1), ("solution", 0), ("solution", 1))
    )
    fresh = stale.read_text()
    notebook = read(edited)
    notebook.cells[-1].source += "\nMy own words."
    write(notebook, edited)
    notebook = read(run)
    notebook.cells[0].outputs = [new_output("stream", text="1\n")]
    write(notebook, run)
    broken.write_text("{")
    notebook = read(stale)
    notebook.cells[-1].source += "\nAs an older book had it."
    notebook.metadata.attrlib["copy"] = export._digest(notebook)
    write(notebook, stale)
    before = {path: path.read_text() for path in (edited, run, broken)}
    capsys.readouterr()
    assert export.main(["--out", str(tmp_path)]) == 0
    assert before == {path: path.read_text() for path in before}
    assert stale.read_text() == fresh
    assert capsys.readouterr().out.count("is kept: it was changed or run") == 3


# --- running them ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kernel() -> Iterator[KernelManager]:
    """A kernel for all chapters: starting one and importing PyTorch takes longer than most exercises."""
    environment = {key: value for key, value in os.environ.items() if key != "ATTRLIB_BUDGET"}
    manager = KernelManager(kernel_name="python3")
    manager.start_kernel(env=environment)
    yield manager
    manager.shutdown_kernel(now=True)


@pytest.fixture
def run(kernel: KernelManager) -> Callable[[list[NotebookNode], Path], None]:
    """Return a function that runs cells in an empty namespace, one by one, whatever they raise."""

    def execute(cells: list[NotebookNode], folder: Path) -> None:
        empty = new_code_cell(f"%reset -f\n%cd -q {folder}")
        notebook = new_notebook(cells=[empty, *cells])
        client = NotebookClient(notebook, km=kernel, timeout=300, allow_errors=True)
        try:
            client.execute()
        finally:
            client.kc.stop_channels()
        assert not raised([empty])

    return execute


def raised(cells: list[NotebookNode]) -> dict[str, str]:
    """Return the error of each cell that raised, by id."""
    return {
        cell.id: f"{output.ename}: {output.evalue}"
        for cell in cells
        for output in cell.get("outputs", [])
        if output.output_type == "error"
    }


@pytest.mark.parametrize("stem", STEMS)
def test_the_solved_copy_runs_and_the_other_fails_only_at_exercises(
    stem: str, tmp_path: Path, run: Callable[[list[NotebookNode], Path], None]
) -> None:
    """Both copies run on one kernel: up to the first solution their code is the same.

    The first cell, which installs what is missing, runs twice. Of most chapters only the cells of the
    setup and the exercises run here; the others run in their chapter, `make notebooks`, and the test
    below compares them.
    """
    student = [c for c in exported(stem, solved=False).cells if c.cell_type == "code"]
    solution = [c for c in exported(stem, solved=True).cells if c.cell_type == "code"]
    first = next(at for at, cell in enumerate(student) if "exercise" in tags(cell))
    assert [c.source for c in student[:first]] == [c.source for c in solution[:first]]
    again = copy.deepcopy(solution[0])
    again.id = "again"
    for cell in student:
        cell.id = f"student-{cell.id}"
    setup = {cell.id for cell in original(stem).cells if "setup" in tags(cell)}
    exercised = {"exercise", "solution", "check"}
    cells = [
        cell
        for cell in (*solution[:first], again, *student[first:], *solution[first:])
        if stem in RUN_WHOLE
        or cell.id in {again.id, solution[0].id, *setup}
        or exercised & set(tags(cell))
    ]
    run(cells, tmp_path)
    assert raised([again, *solution]) == {}
    failed = raised(student[first:])
    exercises = {c.id for c in student if {"exercise", "check"} & set(tags(c))}
    checks = {c.id for c in student if "check" in tags(c)}
    assert set(failed) <= exercises
    assert checks <= set(failed)
    assert all(re.match("NotImplementedError|WrongAnswer|NameError", e) for e in failed.values())


def stored(source: str) -> set[str]:
    """Return the names that code gives a value, but for those within a comprehension."""
    tree = ast.parse(source)
    within = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.comprehension)
        for inner in ast.walk(node.target)
    }
    return {
        node.id if isinstance(node, ast.Name) else node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node not in within)
    }


@pytest.mark.parametrize("stem", STEMS)
def test_code_beside_the_exercises_is_that_of_the_chapter(stem: str) -> None:
    """But for what stores numbers of the text."""
    here = {cell.id: cell.source for cell in original(stem).cells if cell.cell_type == "code"}
    compared = 0
    for cell in exported(stem, solved=True).cells[1:]:
        if cell.cell_type == "code" and cell.id in here:
            assert set(cell.source.splitlines()) <= set(here[cell.id].splitlines())
            assert stored(cell.source) == stored(here[cell.id])
            compared += 1
    assert compared >= 5
