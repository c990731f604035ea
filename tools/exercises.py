"""The exercises of a chapter, put together from the cells they are spread over."""

from collections.abc import Iterator

from nbformat import NotebookNode

from tools import myst
from tools.myst import Directive


class Exercise:
    """An exercise as it is spread over cells: text, hints, and its solution's text and code cells."""

    def __init__(self, start: Directive) -> None:
        self.title, self.label = start.argument, start.options.get("label", "")
        self.text, self.hints, self.answer = "", "", ""
        self.solution, self.folded = False, False
        self.cells: list[NotebookNode] = []


def parts(notebook: NotebookNode) -> Iterator[Exercise]:
    """Yield the exercises in order; a part that is not closed properly raises ValueError."""
    part: Exercise | None = None
    place = ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if part and place == "solution-start":
                part.cells.append(cell)
            continue
        for block in myst.blocks(cell.source):
            if isinstance(block, str):
                if part and place == "exercise-start":
                    part.text += block
                elif part and place == "solution-start":
                    part.answer += block.strip()
            elif block.name == "exercise-start":
                if part:
                    yield part
                part, place = Exercise(block), block.name
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
