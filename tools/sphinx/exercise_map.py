r"""The directives `lesson-plan` and `exercise-map`: what each chapter teaches, and its exercises.

Both are read from the notebooks. Syntax, without body or options::

    ```{lesson-plan}
    ```

    ```{exercise-map}
    ```

The plan repeats a chapter's objectives and the first paragraph about its time.

An exercise is found by its opening fence, its label and the line that follows them::

    ```{exercise-start} Right end points
    :label: ex-right
    ```

    *Difficulty: ●●○ · about 10 minutes*

and the objectives and the time stand in the box with which the chapter begins.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util.docutils import SphinxDirective

from tools import myst

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

_EXERCISE = re.compile(
    r"\{exercise-start\} *(?P<title>[^\n]+)\n:label: *(?P<label>\S+)\n`{3,}\n\s*"
    r"\*Difficulty: (?P<difficulty>[●○]+) · about (?P<minutes>\d+) minutes\*"
)
_PAGE = re.compile(r"- file: *(\S+)")
_CHECK = re.compile(r"^\s*check\(", re.M)


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """What the table says about an exercise."""

    title: str
    label: str
    difficulty: str
    minutes: int
    checked: bool


def exercises(notebook: Path) -> list[Exercise]:
    """Return the exercises of a notebook in order.

    An exercise counts as checked when a cell between it and the next one calls `check`.
    """
    text = _text(notebook)
    found = list(_EXERCISE.finditer(text))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [
        Exercise(
            title=match["title"].strip(),
            label=match["label"],
            difficulty=match["difficulty"],
            minutes=int(match["minutes"]),
            checked=bool(_CHECK.search(text, match.end(), end)),
        )
        for match, end in zip(found, ends, strict=False)  # without an exercise there is one end
    ]


def plan(notebook: Path) -> tuple[str, str]:
    """Return a chapter's list of objectives and the first paragraph about its time; empty if absent."""
    front = myst.front(_text(notebook))
    goals, time = front.get("Objectives", ""), front.get("Time", "")
    return goals, time.split("\n\n")[0]


def _text(notebook: Path) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells)


class _Chapters(SphinxDirective):
    """Write something about each notebook of the book, in the order of the contents."""

    def run(self) -> list[nodes.Node]:
        """Return what is written about all of them."""
        lines: list[str] = []
        for page in self._ordered():
            path = Path(self.env.doc2path(page))
            if path.suffix == ".ipynb":
                self.env.note_dependency(str(path))
                lines += self._about(page, path)
        return self.parse_text_to_nodes("\n".join(lines))

    def _ordered(self) -> list[str]:
        contents = (Path(self.env.srcdir) / "_toc.yml").read_text(encoding="utf-8")
        return [page for page in _PAGE.findall(contents) if page in self.env.found_docs]

    def _about(self, page: str, path: Path) -> list[str]:
        raise NotImplementedError


class LessonPlan(_Chapters):
    """Write each chapter's objectives and time."""

    def _about(self, page: str, path: Path) -> list[str]:
        goals, time = plan(path)
        return [f"{{doc}}`/{page}`", "", time, "", goals, ""]


class ExerciseMap(_Chapters):
    """Write one table for each chapter that has exercises."""

    def _about(self, page: str, path: Path) -> list[str]:
        found = exercises(path)
        return self._table(page, found) if found else []

    def _table(self, page: str, found: list[Exercise]) -> list[str]:
        rows = [
            f"| {{ref}}`{one.title} <{one.label}>` | {one.difficulty} | {one.minutes} "
            f"| {'a cell' if one.checked else 'the solution'} |"
            for one in found
        ]
        minutes = sum(one.minutes for one in found)
        head = f"{{doc}}`/{page}`: {len(found)} exercises, about {minutes} minutes."
        return [
            head,
            "",
            "| Exercise | Difficulty | Minutes | Checked by |",
            "|:--|:--|--:|:--|",
            *rows,
            "",
        ]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("lesson-plan", LessonPlan)
    app.add_directive("exercise-map", ExerciseMap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
