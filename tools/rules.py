"""What every chapter must keep to, checked on the notebook as it lies on disk.

`RULES` maps the name of a rule to a function that takes a notebook and its stem and returns what is
wrong, one sentence each. `tests/book/test_notebooks.py` runs them over all chapters.
"""

import ast
import re
from collections.abc import Callable, Iterator

import nbformat
from nbformat import NotebookNode

from tools import myst
from tools.chapters import tags
from tools.code_rules import amount_of_code, code_cells, name_of, plain_code, visible
from tools.exercise_rules import exercises, places, signatures
from tools.exercises import GATES
from tools.fingerprint import code_tree
from tools.myst import Directive
from tools.sphinx import quiz

FRONT = ["Objectives", "Prerequisites", "Time"]
CHEAT_SHEET = [
    "What it is",
    "Formula",
    "Call",
    "Cost",
    "Use it when",
    "Do not use it when",
]
HEADINGS_LAST = [
    "Common mistakes",
    "What we showed",
    "Exercises",
    "Self-check",
    "Further reading",
]
TAGS = {
    *("setup", "claim", "solution", "check"),
    *("hide-input", "hide-output", "hide-cell", "remove-input", "remove-output", "remove-cell"),
    *("nbval-check-output", "nbval-ignore-output", "raises-exception"),
}
BYTES = 1_000_000
WORDS = range(2_000, 3_501)
ALT_LETTERS = 40
QUESTIONS = 3
IMAGE_FILE = re.compile(r"\.(png|jpe?g|svg|gif|webp)$", re.IGNORECASE)
IMAGE = re.compile(r"!\[|\{(figure|image)\}")
LOCAL_PATH = re.compile(r"(?<![\w/:.])/(?:home|root|Users|tmp|work|mnt|content|usr)/|[A-Z]:\\\\")
ADDRESS = re.compile(r"\bat 0x[0-9a-f]{6,}")
RESULT = re.compile(r"±|\d+(?:\.\d+)?\s?(?:%|percent\b)|(?<![\w.-])\d*\.\d+")
LINK = re.compile(
    r"\[[^\]]*\]\(#(?P<link>[\w:.-]+)\)|\{(?:ref|numref|eq)\}`(?:[^`<]*<)?(?P<role>[\w:.-]+)>?`"
)


def counts(notebook: NotebookNode, stem: str) -> list[str]:
    """The code cells were run once each, from top to bottom."""
    got = [cell.execution_count for cell in code_cells(notebook)]
    return [] if got == list(range(1, len(got) + 1)) else [f"execution counts are {got}"]


def size(notebook: NotebookNode, stem: str) -> list[str]:
    """The file has at most 1 MB."""
    got = len(nbformat.writes(notebook).encode())  # type: ignore[no-untyped-call]
    return [] if got <= BYTES else [f"the notebook has {got:,} bytes, more than {BYTES:,}"]


def outputs(notebook: NotebookNode, stem: str) -> list[str]:
    """No output is an error or went to stderr, or shows a local path or a memory address."""
    told = []
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                told.append(f"{name_of(cell)} shows an error")
            if output.get("name") == "stderr":
                told.append(f"{name_of(cell)} wrote to stderr")
            for text in _texts(output):
                told += [
                    f"{name_of(cell)} shows {found[0]!r}"
                    for pattern in (LOCAL_PATH, ADDRESS)
                    if (found := pattern.search(text))
                ]
    return told


def figures(notebook: NotebookNode, stem: str) -> list[str]:
    """Each image has an alt text of 40 characters or more, and a caption and a name if drawn."""
    told = []
    for cell in code_cells(notebook):
        shown = [output for output in cell.outputs if _shows_image(output)]
        if not shown:
            continue
        meta = cell.metadata.get("mystnb", {})
        figure = meta.get("figure", {})
        told += [f"{name_of(cell)} shows {len(shown)} images"] if len(shown) > 1 else []
        told += [
            f"{name_of(cell)} has no figure {k}" for k in ("caption", "name") if not figure.get(k)
        ]
        told += _alt_flaws(meta.get("image", {}).get("alt", ""), name_of(cell))
    for block in _walk(notebook):
        if isinstance(block, Directive) and block.name in ("figure", "image"):
            told += _alt_flaws(block.options.get("alt", ""), f"{block.name} {block.argument}")
        elif isinstance(block, str):
            for alt, file in re.findall(r"!\[([^\]]*)\]\(([^)\s]+)", block):
                told += _alt_flaws(alt, f"image {file}")
    return told


def _alt_flaws(alt: str, where: str) -> list[str]:
    if len(alt) < ALT_LETTERS or IMAGE_FILE.search(alt):
        return [f"{where} has the alt text {alt!r}; say what is to be seen"]
    return []


def known_tags(notebook: NotebookNode, stem: str) -> list[str]:
    """Cells have no tag that nothing reads."""
    return [
        f"{name_of(cell)} has the unknown tag {tag!r}"
        for cell in notebook.cells
        for tag in tags(cell)
        if tag not in TAGS
    ]


def skeleton(notebook: NotebookNode, stem: str) -> list[str]:
    """Title, picture, question and the first box; own sections; then the fixed headings."""
    found = myst.sections(_markdown(notebook))
    titles = [title for title in found if title]
    told = []
    if titles[-5:] != HEADINGS_LAST:
        told.append(f"the sections are {', '.join(titles)}; the last are not {HEADINGS_LAST}")
    elif len(titles) == len(HEADINGS_LAST):
        told.append("there is no section before Common mistakes")
    if not found[""].lstrip().startswith("# "):
        told.append("the first line is not a title of level 1")
    opening = re.split(r"^.*\{admonition\}", found[""], maxsplit=1, flags=re.MULTILINE)[0]
    if "?" not in opening:
        told.append("no question is asked before the first box")
    first = notebook.cells[: _first_section(notebook)]
    drawn = any(_shows_image(o) for cell in first for o in cell.get("outputs", []))
    if not (drawn or IMAGE.search(opening)):
        told.append("there is no picture before the first section")
    empty = [title for title in titles if all(map(_fixed_box, myst.blocks(found[title])))]
    return told + [f"section {title} is empty" for title in empty]


def picture_first(notebook: NotebookNode, stem: str) -> list[str]:
    """No visible code stands before the first picture: what that needs is folded above it."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and visible(cell):
            return [f"{name_of(cell)} is visible and stands before the first picture"]
        drawn = any(_shows_image(output) for output in cell.get("outputs", []))
        if drawn or (cell.cell_type == "markdown" and IMAGE.search(cell.source)):
            return []
    return []


def front(notebook: NotebookNode, stem: str) -> list[str]:
    """One box before the first section holds objectives (a list), prerequisites and time."""
    text = _markdown(notebook)
    boxes = myst.boxes(text, "front")
    if len(boxes) != 1 or not myst.boxes(myst.sections(text)[""], "front"):
        return [f"there are {len(boxes)} boxes of class front, not one before the first section"]
    parts = myst.front(text)
    told = [] if list(parts) == FRONT else [f"the first box has {list(parts)}, not {FRONT}"]
    if not re.search(r"^- ", parts.get("Objectives", ""), re.MULTILINE):
        told.append("the objectives are no list")
    return told + [f"{name} is empty" for name, part in parts.items() if not part]


def cheat_sheet(notebook: NotebookNode, stem: str) -> list[str]:
    """A box right before the summary says what, formula, call, cost, when, and when not."""
    text = _markdown(notebook)
    boxes = myst.boxes(text, "cheat-sheet")
    before = list(myst.blocks(myst.sections(text).get("Common mistakes", "")))
    last = [b for b in before if isinstance(b, Directive) or myst.LABEL.sub("", b).strip()][-1:]
    if len(boxes) != 1 or last != boxes:
        return [f"there are {len(boxes)} boxes of class cheat-sheet, not one before the summary"]
    rows = re.findall(r"^\| *\*\*(.+?)\*\* *\|(.*)\|[ ]*$", boxes[0].body, re.MULTILINE)
    names = [name for name, _ in rows]
    told = [] if names == CHEAT_SHEET else [f"the cheat sheet has {names}, not {CHEAT_SHEET}"]
    empty = [name for name, cells in rows if not all(c.strip() for c in cells.split("|"))]
    return told + [f"{name} is empty in the cheat sheet" for name in empty]


def time(notebook: NotebookNode, stem: str) -> list[str]:
    """The first box states the seconds and the device of the last run, within a factor of 2."""
    text = myst.front(_markdown(notebook)).get("Time", "")
    record = notebook.metadata.get("attrlib", {})
    said = re.search(r"took (?:about )?(\d+) (second|minute)s? on (?:an? |one )?([^.,;(\n]+)", text)
    if not said:
        return ["Time lacks a sentence like: Running all cells took 40 seconds on CPU."]
    seconds = int(said[1]) * (60 if said[2] == "minute" else 1)
    told = []
    if not record.get("seconds", 0) / 2 <= seconds <= max(2 * record.get("seconds", 0), 5):
        told.append(f"Time says {seconds} seconds, the last run took {record.get('seconds')}")
    if said[3].strip() not in record.get("device", ""):
        told.append(f"Time says {said[3]!r}, the last run was on {record.get('device')}")
    return told


def summary(notebook: NotebookNode, stem: str) -> list[str]:
    """Each line of "What we showed" links to a section or figure of this chapter."""
    text = myst.sections(_markdown(notebook)).get("What we showed", "")
    lines = re.findall(r"^(?:[-*]|\d+\.) .+(?:\n[ \t]+.+)*", text, re.MULTILINE)
    there = _labels(notebook)
    told = [] if lines else ["What we showed has no list"]
    for line in lines:
        targets = [match["link"] or match["role"] for match in LINK.finditer(line)]
        if not there & set(targets):
            told.append(f"What we showed names none of {sorted(there)} in {line!r}")
    return told


def self_check(notebook: NotebookNode, stem: str) -> list[str]:
    """The quiz has 3 questions or more."""
    text = myst.sections(_markdown(notebook)).get("Self-check", "")
    bodies = [b.body for b in myst.blocks(text) if isinstance(b, Directive) and b.name == "quiz"]
    try:
        count = sum(len(quiz.parse(body)) for body in bodies)
    except ValueError as error:
        return [str(error)]
    return [] if count >= QUESTIONS else [f"the quiz has {count} questions, not {QUESTIONS}"]


def reading(notebook: NotebookNode, stem: str) -> list[str]:
    """Further reading cites something."""
    text = myst.sections(_markdown(notebook)).get("Further reading", "")
    return [] if "{cite" in text else ["Further reading cites nothing"]


def words(notebook: NotebookNode, stem: str) -> list[str]:
    """There are 2,000 to 3,500 words, not counting code, formulas, boxes, quiz and solutions."""
    text = " ".join(_prose(block) for cell in _shown(notebook) for block in myst.walk(cell))
    got = len(re.findall(r"[^\W\d_][\w'’-]*", text))
    return [] if got in WORDS else [f"there are {got:,} words, not {WORDS[0]:,} to {WORDS[-1]:,}"]


def claims(notebook: NotebookNode, stem: str) -> list[str]:
    """A cell is tagged claim, and each that is asserts something or has its output compared."""
    found = [cell for cell in code_cells(notebook) if "claim" in tags(cell)]
    told = [] if found else ["no cell is tagged claim"]
    return told + [
        f"{name_of(cell)} claims nothing: no assert, no tag nbval-check-output"
        for cell in found
        if not _asserts(cell)
    ]


def package_code(notebook: NotebookNode, stem: str) -> list[str]:
    """The chapter shows code from the package with `source`."""
    calls = [node for node in ast.walk(code_tree(notebook)) if isinstance(node, ast.Call)]
    shown = any(isinstance(node.func, ast.Name) and node.func.id == "source" for node in calls)
    return [] if shown else ["no cell shows code of the package with source(...)"]


def numbers(notebook: NotebookNode, stem: str) -> list[str]:
    """A result in the text comes by glue, stands next to a claim cell, or beside a citation.

    Results are percentages, decimal fractions outside formulas and code, and anything with ±. Next
    to means: in the Markdown cell right above or below, up to the next heading of level 2. The
    first box, exercises and the quiz are left out: `time` and the checks look after them.
    """
    told: list[str] = []
    section, inside = "", False
    for at, cell in enumerate(notebook.cells):
        if cell.cell_type != "markdown":
            continue
        above, below = (
            any("claim" in tags(near) and _asserts(near) for near in beside)
            for beside in (notebook.cells[at - 1 : at], notebook.cells[at + 1 : at + 2])
        )
        pieces = list(myst.sections(cell.source).items())
        for number, (title, text) in enumerate(pieces):
            section = title or section
            claimed = (above and number == 0) or (below and number == len(pieces) - 1)
            for block in myst.blocks(text):
                if isinstance(block, Directive) and block.name in GATES:
                    inside = block.name.endswith("-start")
                elif not (claimed or inside or section in ("Exercises", "Self-check")):
                    told += _loose(block)
    return told


def _loose(block: str | Directive) -> Iterator[str]:
    """Yield the results that stand in a block without a source."""
    if _fixed_box(block):
        return
    texts = [block] if isinstance(block, str) else myst.walk(block.body)
    for text in texts:
        for paragraph in (text if isinstance(text, str) else "").split("\n\n"):
            if "{cite" not in paragraph and (found := RESULT.search(_prose(paragraph))):
                yield f"{found[0]!r} in {paragraph.strip()[:60]!r} comes from no cell"


def folded_proofs(notebook: NotebookNode, stem: str) -> list[str]:
    """No proof is folded by itself: that breaks every folded block after it on the page."""
    return [
        "a prf:proof is folded; put it into a folded admonition"
        for block in _walk(notebook)
        if isinstance(block, Directive) and block.name == "prf:proof" and block.folded
    ]


RULES: dict[str, Callable[[NotebookNode, str], list[str]]] = {
    rule.__name__: rule
    for rule in (
        *(counts, size, outputs, figures, known_tags, skeleton, picture_first, front, cheat_sheet),
        *(time, summary),
        *(exercises, places, self_check, reading, words, claims, package_code, numbers),
        *(folded_proofs, amount_of_code, plain_code),
    )
}


def functions(notebook: NotebookNode) -> set[str]:
    """Return the names of the functions and classes a notebook defines."""
    return set(signatures(code_cells(notebook)))


# --- reading a notebook ---------------------------------------------------------------------------


def _markdown(notebook: NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def _walk(notebook: NotebookNode) -> Iterator[str | Directive]:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield from myst.walk(cell.source)


def _texts(output: NotebookNode) -> Iterator[str]:
    yield output.get("text", "")
    for kind, data in output.get("data", {}).items():
        if isinstance(data, str) and not kind.startswith("image/"):
            yield data


def _shows_image(output: NotebookNode) -> bool:
    return any(kind.startswith("image/") for kind in output.get("data", {}))


def _asserts(cell: NotebookNode) -> bool:
    if cell.cell_type != "code":
        return False
    tree = code_tree(NotebookNode(cells=[cell]))  # type: ignore[no-untyped-call]
    asserted = any(isinstance(node, ast.Assert) for node in ast.walk(tree))
    return asserted or "nbval-check-output" in tags(cell)


def _first_section(notebook: NotebookNode) -> int:
    for at, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown" and len(myst.sections(cell.source)) > 1:
            return at
    return len(notebook.cells)


def _labels(notebook: NotebookNode) -> set[str]:
    """Return what a link can point at: labels in the text, and names of figures."""
    text = _markdown(notebook)
    named = {
        cell.metadata.get("mystnb", {}).get("figure", {}).get("name")
        for cell in code_cells(notebook)
    }
    return {match["label"] for match in myst.LABEL.finditer(text)} | (named - {None})


def _shown(notebook: NotebookNode) -> Iterator[str]:
    """Yield the Markdown texts outside solutions, quizzes and the two boxes of every chapter."""
    solution = False
    for cell in notebook.cells:
        for block in myst.blocks(cell.source) if cell.cell_type == "markdown" else ():
            if isinstance(block, str):
                yield block * (not solution)
            elif block.name in ("solution-start", "solution-end"):
                solution = block.name == "solution-start"
            elif not (solution or block.name == "quiz" or _fixed_box(block)):
                yield f"{block.argument}\n\n{block.body}"


def _fixed_box(block: str | Directive) -> bool:
    """Tell whether a block is one of the boxes that every chapter has."""
    if isinstance(block, str):
        return False
    return bool({"front", "cheat-sheet"} & set(block.options.get("class", "").split()))


def _prose(block: str | Directive) -> str:
    """Return a text without code, formulas, labels and what roles and links point at."""
    if isinstance(block, Directive):
        return block.argument if block.name != "math" else ""
    text = re.sub(r"^ *(`{3,}|~{3,}).*?^ *\1 *$", "", block, flags=re.MULTILINE | re.DOTALL)
    text = myst.LABEL.sub("", text)
    text = re.sub(r"\{(?:glue|cite)[\w:]*\}`[^`]*`", "", text)
    text = re.sub(myst.ROLE, lambda match: match["text"].partition("<")[0], text)
    text = re.sub(f"{myst.DISPLAY}|{myst.MATH}", "", text, flags=re.DOTALL)
    text = re.sub(myst.CODE, "", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)", "]", text)
