r"""The `exercise-map` directive: a table of every exercise of the book, read from the notebooks.

Syntax, without body or options::

    ```{exercise-map}
    ```

An exercise is found by its opening fence, its label and the line that follows them::

    ```{exercise-start} Right end points
    :label: ex-right
    ```

    *Difficulty: ●●○ · about 10 minutes*
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

_EXERCISE = re.compile(
    r"\{exercise-start\} *(?P<title>[^\n]+)\n:label: *(?P<label>\S+)\n`{3,}\n\s*"
    r"\*Difficulty: (?P<difficulty>[●○]+) · about (?P<minutes>\d+) minutes\*"
)
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
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text = "\n\n".join("".join(cell["source"]) for cell in cells)
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
        for match, end in zip(found, ends, strict=True)
    ]


class ExerciseMap(SphinxDirective):
    """Write one table for each notebook of the book that has exercises."""

    def run(self) -> list[nodes.Node]:
        """Return the tables."""
        lines: list[str] = []
        for page in sorted(self.env.found_docs):
            path = Path(self.env.doc2path(page))
            if path.suffix == ".ipynb" and (found := exercises(path)):
                self.env.note_dependency(str(path))
                lines += self._table(page, found)
        return self.parse_text_to_nodes("\n".join(lines))

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
    app.add_directive("exercise-map", ExerciseMap)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
