"""The exercises of a chapter, put together from the cells they are spread over.

What the reader fills in stands in the text, as one block of Python: the page shows it above the
folded solution and does not run it, and a plain copy has it as cells. The calls of `check` below it
are those that follow the solution::

    ```python
    def double(x):
        \"\"\"Return twice x.\"\"\"
        raise NotImplementedError("your turn")

    check("chapter/double", double)
    ```
"""

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from tools import myst
from tools.myst import Directive

#: What opens and closes exercises and solutions.
GATES = ("exercise-start", "exercise-end", "solution-start", "solution-end")
STUB = re.compile(r"^```python\n(?P<code>.*?)^```[ ]*$\n?", re.MULTILINE | re.DOTALL)


class Exercise:
    """An exercise as it is spread over cells: text, hints, and its solution's text and code cells.

    `section` is the section it stands in, `blocks` are the blocks of Python in its text.
    """

    def __init__(self, start: Directive, section: str) -> None:
        self.title, self.label = start.argument, start.options.get("label", "")
        self.section = section
        self.text, self.hints, self.answer = "", "", ""
        self.solution, self.folded = False, False
        self.cells: list[NotebookNode] = []

    @property
    def blocks(self) -> list[str]:
        """The blocks of Python in the text, the first of which is to be filled in."""
        return [match["code"].strip() for match in STUB.finditer(self.text + "\n")]


def split(code: str) -> tuple[str, str]:
    """Return what the reader fills in, and the calls of `check` below it; each may be empty.

    Raises:
        ValueError: If the code is not Python.
    """
    try:
        body = ast.parse(code).body
    except SyntaxError as error:
        raise ValueError(f"Expected a stub in Python, got {code!r}: {error}") from None
    at = len(body)
    while at and ast.unparse(body[at - 1]).startswith("check("):
        at -= 1
    lines = code.splitlines()
    first = body[at].lineno - 1 if at < len(body) else len(lines)
    return "\n".join(lines[:first]).strip(), "\n".join(lines[first:]).strip()


def parts(notebook: NotebookNode) -> Iterator[Exercise]:
    """Yield the exercises in order; a part that is not closed properly raises ValueError."""
    part: Exercise | None = None
    place, section = "", ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if part and place == "solution-start":
                part.cells.append(cell)
            continue
        for block in myst.blocks(cell.source):
            if isinstance(block, str):
                if part and place == "exercise-start":
                    part.text += block + "\n"
                elif part and place == "solution-start":
                    part.answer += block.strip()
                else:
                    section = list(myst.sections(block))[-1] or section
            elif block.name == "exercise-start":
                if part:
                    yield part
                part, place = Exercise(block, section), block.name
            elif block.name == "solution-start":
                if not part or block.argument != part.label:
                    raise ValueError(
                        f"Expected a solution after its exercise, got {block.argument!r}"
                    )
                part.solution, place = True, block.name
                part.folded = "dropdown" in block.options.get("class", "")
            elif block.name in ("exercise-end", "solution-end"):
                place = ""
            elif part and place == "exercise-start":
                part.hints += block.argument if block.folded else ""
    if part:
        yield part
