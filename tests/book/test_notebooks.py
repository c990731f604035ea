"""Static checks of the notebooks: the rules of tools/rules.py, and that each rule can fail."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output

from attrlib.book import exercises
from tests.book.template_chapter import template
from tools import exercises as exercise_cells
from tools import new_chapter, rules
from tools.chapters import ROOT, chapters, read, tags

CHAPTERS = chapters()


# --- the chapters ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", rules.RULES)
@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_chapter_keeps_the_rule(stem: str, rule: str) -> None:
    told = rules.RULES[rule](read(CHAPTERS[stem]), stem)
    assert not told, f"{stem}: " + "; ".join(told)


def test_no_function_is_defined_in_two_chapters() -> None:
    owner: dict[str, str] = {}
    for stem, path in CHAPTERS.items():
        for name in rules.functions(read(path)):
            assert name not in owner, f"{name} is defined in {owner[name]} and in {stem}"
            owner[name] = stem


# --- the exercises --------------------------------------------------------------------------------


def answers(notebook: NotebookNode) -> dict[str, list[str]]:
    """Return what to run for each check of a notebook: setup, solution and the check itself."""
    setup = [cell.source for cell in notebook.cells if "setup" in tags(cell)]
    found = {}
    for part in exercise_cells.parts(notebook):
        for cell in part.cells:
            if "check" in tags(cell):
                name = cell.source.split('check("')[1].split('"')[0]
                solutions = [c.source for c in part.cells if "solution" in tags(c)]
                found[name] = [*setup, *solutions, cell.source]
    return found


def notebooks() -> dict[str, Callable[[], NotebookNode]]:
    """Return how to get each notebook with exercises: the chapters and the template."""
    return {"template": template} | {
        stem: (lambda path=path: read(path)) for stem, path in CHAPTERS.items()
    }


@pytest.mark.parametrize("stem", notebooks())
def test_every_check_is_used_in_its_chapter(stem: str) -> None:
    known = {name for name in exercises() if name.startswith(f"{stem}/")}
    assert set(answers(notebooks()[stem]())) == known


@pytest.mark.parametrize("stem", notebooks())
def test_the_checks_accept_the_solutions(
    stem: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each solution is right and needs nothing but the setup cells, the imports among them."""
    monkeypatch.chdir(CHAPTERS.get(stem, ROOT).parent)
    monkeypatch.delenv("ATTRLIB_BUDGET", raising=False)
    for name, sources in answers(notebooks()[stem]()).items():
        capsys.readouterr()
        namespace: dict[str, object] = {}
        for source in sources:
            exec(compile(source, name, "exec"), namespace)
        assert capsys.readouterr().out.splitlines()[-1].startswith("Correct. "), name


# --- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", sorted(set(rules.RULES) - {"words"}))
def test_the_template_keeps_every_rule_but_the_length(rule: str) -> None:
    assert rules.RULES[rule](template(), "template") == []


def find(notebook: NotebookNode, text: str) -> NotebookNode:
    return next(cell for cell in notebook.cells if text in cell.source)


def replace(old: str, new: str) -> Callable[[NotebookNode], None]:
    def flaw(notebook: NotebookNode) -> None:
        cell = find(notebook, old)
        cell.source = cell.source.replace(old, new)

    return flaw


def tag(text: str, *names: str) -> Callable[[NotebookNode], None]:
    def flaw(notebook: NotebookNode) -> None:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        next(c for c in cells if c.source.startswith(text)).metadata["tags"] = list(names)

    return flaw


def meta(**fields: object) -> Callable[[NotebookNode], None]:
    def flaw(notebook: NotebookNode) -> None:
        find(notebook, "plt.subplots").metadata["mystnb"].update(fields)

    return flaw


def shown(**fields: object) -> Callable[[NotebookNode], None]:
    def flaw(notebook: NotebookNode) -> None:
        find(notebook, "maps =").outputs.append(new_output(**fields))

    return flaw


def count(notebook: NotebookNode) -> None:
    find(notebook, "maps =").execution_count = 17


def move_box(notebook: NotebookNode) -> None:
    cell = find(notebook, ":class: front")
    opening, box = cell.source.split(":::{admonition} Before", 1)
    box, rest = box.split("\n:::\n", 1)
    cell.source = f"{opening}{rest}\n\n:::{{admonition}} Before{box}\n:::"


def second_image(notebook: NotebookNode) -> None:
    outputs = find(notebook, "plt.subplots").outputs
    outputs += [output for output in outputs if "image/png" in output.get("data", {})]


def record(**fields: object) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.metadata.attrlib.update(fields)


def add(cell: NotebookNode) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells.append(cell)


def rename_check(notebook: NotebookNode) -> None:
    for cell in notebook.cells:
        cell.source = cell.source.replace('check("template/entries"', 'check("other/x"')


def more(cell: NotebookNode, times: int) -> Callable[[NotebookNode], None]:
    return lambda notebook: notebook.cells.extend([cell] * times)


def remove(*texts: str) -> Callable[[NotebookNode], None]:
    """Take out the code cells of a solution."""

    def flaw(notebook: NotebookNode) -> None:
        for text in texts:
            cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
            notebook.cells.remove(next(c for c in cells if text in "\n" + c.source))

    return flaw


def folded(source: str) -> NotebookNode:
    return new_code_cell(source, metadata={"tags": ["hide-input"]})


SHEET = ":::{admonition} Cheat sheet\n:class: cheat-sheet\n:::\n\n(template-idea)="
ALT = "On the left a boot in grey; on the right its map."
FLAWS = [
    ("counts", count, r"execution counts are \[1, 2, 3, 17"),
    ("size", shown(output_type="stream", text="x" * 1_000_000), "more than 1,000,000"),
    ("outputs", shown(output_type="stream", name="stderr", text="50 %"), "wrote to stderr"),
    ("outputs", shown(output_type="error", ename="E", evalue="", traceback=[]), "shows an error"),
    ("outputs", shown(output_type="stream", text="/home/ada/book"), "shows '/home/'"),
    ("outputs", shown(output_type="stream", text="<f at 0x7f8a12cd>"), "shows 'at 0x7f8a12cd'"),
    ("figures", meta(image={}), "alt text ''"),
    ("figures", meta(image={"alt": "Figure"}), "alt text 'Figure'"),
    ("figures", meta(image={"alt": f"{ALT}png"[:-4] + ".png"}), r"alt text 'On.*\.png'"),
    ("figures", meta(figure={"name": "x"}), "no figure caption"),
    ("figures", meta(figure={"caption": "x"}), "no figure name"),
    ("figures", second_image, "shows 2 images"),
    ("figures", add(new_markdown_cell("![](a.png)")), "image a.png has the alt text ''"),
    ("figures", add(new_markdown_cell("```{figure} b.png\nText\n```")), "figure b.png has the alt"),
    ("known_tags", tag("maps =", "nbval-skip"), "unknown tag 'nbval-skip'"),
    ("skeleton", replace("## What we showed", "## Summary"), "the sections are An idea, Common"),
    ("skeleton", replace("## Self-check", "## Quiz"), "the sections are"),
    ("skeleton", replace("## An idea", "### An idea"), "no section before Common mistakes"),
    ("skeleton", replace("# A template", "A template"), "not a title"),
    ("skeleton", replace("would you believe?", "are wrong."), "no question"),
    ("skeleton", lambda nb: find(nb, "plt.subplots").outputs.clear(), "no picture"),
    ("skeleton", replace("- Reading a slope as a share of the score.", ""), "Common mistakes is"),
    ("picture_first", tag("signed ="), "visible and stands before the first picture"),
    ("picture_first", tag("import matplotlib", "setup"), "`import matplotlib.* stands before"),
    ("front", replace(":class: front", ":class: tip"), "0 boxes of class front"),
    ("front", move_box, "not one before the first section"),
    ("front", replace("**Prerequisites.**", "**You need.**"), r"the first box has \['Objectives', 'Ti"),
    ("front", replace("**Time.** About", "**Time.**\n\n**More.** About"), "not .*'Time'"),
    ("front", replace("\n- ", "\n* "), "no list"),
    ("time", replace("took 3 seconds on CPU", "is quick"), "lacks a sentence"),
    ("time", record(seconds=90.0), "says 3 seconds, the last run took 90.0"),
    ("time", record(device="NVIDIA H100"), "says 'CPU', the last run was on NVIDIA H100"),
    ("summary", replace("](#template-idea)", "](../notation.md)"), "names none of"),
    ("summary", replace("](#template-idea)", "](#template-ide)"), "names none of"),
    ("exercises", replace("{exercise-start} Count", "{note} Count"), "Expected a solution after"),
    ("exercises", replace("*Difficulty: ●●○ · about 5 m", "About 5 m"), "'The st.* does not begin"),
    ("exercises", replace("{admonition} Hint", "{admonition} Help"), "'Count.* has no hint"),
    ("exercises", replace("-twice\n:class: dropdown", "-twice"), "not folded"),
    ("exercises", tag("entries =", "check"), "'Count.*no cell tagged solution"),
    ("exercises", tag("entries =", "setup"), "'Count.*tagged neither solution nor check"),
    ("exercises", tag("check(\"template/twice", "solution"), "'Twice.*no cell tagged check"),
    ("exercises", rename_check, 'a check not named "templ'),
    ("exercises", tag("maps =", "solution"), "outside a solution"),
    ("exercises", remove("\ndef steepest", "template/steepest"), "3 exercises with code"),
    ("exercises", remove("entries = x", '\ncheck("template/entries"'), "without text and code"),
    ("exercises", replace("```python\nentries", "```\nentries"), "0 blocks of Python"),
    ("exercises", replace("```python", "```python\nx\n```\n\n```python"), "2 blocks of Python"),
    ("exercises", replace("def predicted_fall(slopes, step)", "def predicted_fall(slopes)"), "asks for"),
    ("exercises", replace('check("template/steepest"', 'chek("template"'), r"the checks \[\] above"),
    ("exercises", replace("entries = None", "entries ="), "Expected a stub in Python"),
    ("places", replace("## Exercises", "### Exercises"), "0 exercises stand at the end, not 2"),
    ("places", replace("## An idea", "## Exercises"), "0 exercises stand inside sections"),
    ("places", tag("check(\"template/steepest", "solution"), "3 exercises have a check, not 4"),
    ("cheat_sheet", replace(":class: cheat-sheet", ":class: tip"), "0 boxes of class cheat-sheet"),
    ("cheat_sheet", replace("(template-idea)=", SHEET), "2 boxes of class cheat-sheet"),
    ("cheat_sheet", replace("| **Cost** | one", "| **Price** | one"), "'Price'.* not"),
    ("cheat_sheet", replace("| one forward and one backward pass |", "| |"), "Cost is empty"),
    ("self_check", replace("correct: true", "correct: yes please"), "to be true or false"),
    ("self_check", replace("```{quiz}", "```{note}"), "the quiz has 0 questions, not 3"),
    ("reading", replace("{cite:t}`sundararajan2017axiomatic`", "A paper"), "cites nothing"),
    ("words", lambda notebook: None, r"there are \d+ words, not 2,000 to 3,500"),
    ("words", add(new_markdown_cell("word " * 4000)), r"there are 4,\d+ words"),
    ("amount_of_code", add(new_code_cell("x = 1\n\ny = 2")), "is visible and has 2 lines, not 3 to 12"),
    ("amount_of_code", add(new_code_cell("x = 1\n" * 13)), "is visible and has 13 lines, not 3 to 12"),
    ("amount_of_code", add(folded("x = 1\n" * 41)), "has 41 lines, more than 40"),
    ("amount_of_code", more(new_code_cell("x = 1\n" * 12), 10), "lines of visible code, more"),
    ("amount_of_code", more(folded("x = 1\n" * 40), 6), "lines of folded code, more"),
    ("plain_code", add(new_code_cell("x = 1; y = 2")), "line 1 has several statements"),
    ("plain_code", add(new_code_cell("if model: x = 1")), "line 1 has several statements"),
    ("plain_code", add(new_code_cell("a, b = max(x), min(x)")), "packs several results"),
    ("plain_code", add(new_code_cell("a, b = (model(p) for p in x)")), "packs several results"),
    ("plain_code", add(new_code_cell("a, b = map(model, x)")), "packs several results"),
    ("plain_code", add(new_code_cell("a = b = model(x)")), "several names to one result"),
    ("plain_code", add(new_code_cell("print(a := model(x))")), "assigns inside an expression"),
    ("plain_code", add(new_code_cell(f"x = {'1' * 76}")), "line 1 has 80 characters"),
    ("plain_code", add(folded("double = lambda x: 2 * x")), "gives a name to a lambda"),
    ("plain_code", add(new_code_cell("assert x")), "asserts something"),
    ("plain_code", add(new_code_cell("glue(x=1)")), "uses glue"),
    ("plain_code", add(new_code_cell("plt.plot(x)")), "uses plt"),
    ("plain_code", replace("entries = x", "n = 1; entries = x"), "several statements"),
    ("claims", tag("share ="), "no cell is tagged claim"),
    ("claims", replace("assert 0 < share < 1", ""), "claims nothing"),
    ("package_code", replace("source(attributions.gradient)", "pass"), "no cell shows code"),
    ("numbers", replace("- Reading a slope", "- In 97 % of cases a slope"), "'97 %' in '- In 97"),
    ("numbers", replace("- Reading a slope", "- With error 0.03 a slope"), "'0.03'"),
    ("numbers", replace("- Reading a slope", "- A slope 3 ± 1"), "'±'"),
    ("folded_proofs", add(new_markdown_cell("```{prf:proof}\n:class: dropdown\nx\n```")), "folded"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "flaw", "told"), FLAWS)
def test_a_planted_flaw_is_found(
    rule: str, flaw: Callable[[NotebookNode], None], told: str
) -> None:
    notebook = template()
    flaw(notebook)
    try:
        found = rules.RULES[rule](notebook, "template")
    except ValueError as error:
        found = [str(error)]
    assert any(re.search(told, text) for text in found), found


def test_every_rule_has_a_planted_flaw() -> None:
    assert {rule for rule, _, _ in FLAWS} == set(rules.RULES)


@pytest.mark.parametrize(
    "text",
    [
        "With $0.03$ and `0.5` and {glue:text}`key:.2f` all is well.",
        "The authors report 97 % {cite:p}`smilkov2017smoothgrad`.",
        "```python\nx = 0.5\n```\n\nVersion 3 of 5.",
    ],
)
def test_numbers_in_formulas_code_and_citations_are_fine(text: str) -> None:
    notebook = template()
    notebook.cells.append(new_markdown_cell("## Elsewhere\n\n" + text))
    assert rules.numbers(notebook, "template") == []


def test_a_number_beside_a_claim_is_fine() -> None:
    notebook = template()
    flaw = new_markdown_cell("## Elsewhere\n\nAbout 97 % of them.")
    notebook.cells += [new_code_cell("1"), flaw]
    assert rules.numbers(notebook, "template")
    notebook.cells.append(new_code_cell("assert 1 == 1", metadata={"tags": ["claim"]}))
    assert rules.numbers(notebook, "template") == []


def test_numbers_in_the_section_of_a_claim_far_above_are_found() -> None:
    notebook = template()
    at = notebook.cells.index(find(notebook, "maps ="))
    notebook.cells.insert(at + 2, new_code_cell("1"))
    notebook.cells.insert(at + 3, new_markdown_cell("## Elsewhere\n\nThat is 97 %."))
    assert any("97 %" in told for told in rules.numbers(notebook, "template"))


# --- converting a text ----------------------------------------------------------------------------


def test_a_text_becomes_a_notebook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "part" / "new.ipynb"
    assert new_chapter.main([str(ROOT / "tools" / "template.md"), str(target)]) == 0
    notebook = read(target)
    assert not any(line.startswith("%") for c in notebook.cells for line in c.source.splitlines())
    assert [cell.id for cell in notebook.cells][:2] == ["c001", "c002"]
    assert tags(find(notebook, "share =")) == ["claim", "hide-input"]
    with pytest.raises(SystemExit):
        new_chapter.main([str(ROOT / "tools" / "template.md"), str(target)])
    assert "Expected notebook to be new" in capsys.readouterr().err


def test_a_missing_text_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        new_chapter.main([str(tmp_path / "no.md"), str(tmp_path / "no.ipynb")])
    assert "Expected text to be a file" in capsys.readouterr().err
