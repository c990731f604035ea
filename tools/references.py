"""What the names used in the book's text stand for: labels, citations, glued values, macros."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from nbformat import NotebookNode
from pybtex.database import Entry, parse_file
from pybtex.richtext import Text

from tools import myst
from tools.chapters import ROOT, chapter_numbers, pages, read
from tools.myst import Directive

_RECORD = "application/papermill.record/text/plain"
_LABELLED = re.compile(
    rf"{myst.LABEL.pattern}\s*#+ +(?P<heading>[^\n]+)|{myst.DISPLAY}", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True, kw_only=True)
class Target:
    """Something a label names: the page it is on, the words for it, and its heading if it has one."""

    page: str
    text: str
    heading: str = ""


@dataclass(frozen=True, kw_only=True)
class Citation:
    """A source as it is named in a text."""

    authors: str
    year: str
    url: str


@dataclass(frozen=True, kw_only=True)
class Book:
    """Everything the text of a chapter refers to by name.

    A chapter is known by its stem, another page by its path below `book/`, without ending.
    """

    titles: dict[str, str] = field(default_factory=dict)
    targets: dict[str, Target] = field(default_factory=dict)
    glued: dict[tuple[str, str], str] = field(default_factory=dict)
    citations: dict[str, Citation] = field(default_factory=dict)
    macros: dict[str, tuple[str, int]] = field(default_factory=dict)

    def add(self, page: str, texts: list[str | NotebookNode], *, number: str = "") -> None:
        """Collect title, labels and glued values of a page: its texts and code cells in order.

        Figures, exercises, theorems and equations are counted as on the built page, after the
        number of the chapter if it has one.
        """
        before = f"{number}." if number else ""
        markdown = "\n\n".join(text for text in texts if isinstance(text, str))
        heading = myst.HEADING.search(markdown)
        self.titles[page] = heading["title"] if heading else page
        numbers: dict[str, int] = {}
        for text in texts:
            found = _code_names(text) if isinstance(text, NotebookNode) else _text_names(text)
            for kind, label, title in found:
                if kind != "heading":
                    numbers[kind] = numbers.get(kind, 0) + 1
                if label:
                    counted = f"{before}{numbers.get(kind, 0)}"
                    words = title if kind == "heading" else f"{kind} {counted}"
                    words = f"({counted})" if kind == "Equation" else words
                    anchor = title if kind == "heading" else ""
                    self.targets[label] = Target(page=page, text=words, heading=anchor)
            if isinstance(text, NotebookNode):
                for output in text.get("outputs", []):
                    name = output.get("metadata", {}).get("scrapbook", {}).get("name")
                    if name is not None:
                        self.glued[page, name] = output.data.get(_RECORD, "")


def of_book(root: Path = ROOT) -> Book:
    """Return the names of the whole book."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    tex = config["sphinx"]["config"]["mathjax3_config"]["tex"]["macros"]
    book = Book(
        macros={name: _macro(value) for name, value in tex.items()},
        citations=dict(_citations(root / "book" / "references.bib")),
    )
    numbers = chapter_numbers(root)
    for page, path in pages(root).items():
        if path.suffix == ".md":
            text = path.read_text(encoding="utf-8")
            book.add(page.removeprefix("book/"), [text], number=numbers.get(page, ""))
        else:
            book.add(path.stem, texts(read(path)), number=numbers.get(page, ""))
    return book


def texts(notebook: NotebookNode) -> list[str | NotebookNode]:
    """Return the Markdown cells as text and the code cells as they are."""
    return [cell.source if cell.cell_type == "markdown" else cell for cell in notebook.cells]


def _macro(value: str | list[str | int]) -> tuple[str, int]:
    if isinstance(value, str):
        return value, 0
    return str(value[0]), int(value[1])


def _code_names(cell: NotebookNode) -> Iterator[tuple[str, str, str]]:
    """Yield kind, label and title of the figure a code cell draws."""
    figure: Mapping[str, str] = cell.metadata.get("mystnb", {}).get("figure", {})
    if figure:
        yield "Fig.", figure.get("name", ""), ""


def _text_names(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield kind, label and title of what a Markdown text names, in order."""
    for block in myst.walk(text):
        if isinstance(block, Directive):
            label = block.options.get("label", block.options.get("name", ""))
            if block.name == "exercise-start":
                yield "Exercise", label, ""
            elif block.name == "figure":
                yield "Fig.", label, ""
            elif block.name == "math" and label:
                yield "Equation", label, ""
            elif block.name.startswith("prf:"):
                yield block.name.removeprefix("prf:").capitalize(), label, ""
            continue
        for match in _LABELLED.finditer(block):
            if match["label"]:
                yield "heading", match["label"], match["heading"].strip()
            elif match["equation"]:
                yield "Equation", match["equation"], ""


def _citations(path: Path) -> Iterator[tuple[str, Citation]]:
    for key, entry in parse_file(str(path)).entries.items():
        names = [_plain(" ".join(person.last_names)) for person in entry.persons["author"]]
        some = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
        year = entry.fields.get("year", "no year")
        yield key, Citation(authors=some, year=year, url=_url(entry))


def _plain(latex: str) -> str:
    return str(Text.from_latex(latex))


def _url(entry: Entry) -> str:
    if "doi" in entry.fields:
        return f"https://doi.org/{entry.fields['doi']}"
    if "eprint" in entry.fields:
        return f"https://arxiv.org/abs/{entry.fields['eprint']}"
    return str(entry.fields.get("url", ""))
