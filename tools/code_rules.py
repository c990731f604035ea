"""What the code of a chapter must keep to, so that it can be read by someone who learns from it.

Code is visible, folded (its cell has a tag such as `hide-input`), or the solution of an exercise.
"""

import ast
from collections.abc import Iterator

from nbformat import NotebookNode

from tools.chapters import tags

FOLDS = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
SOLUTION = {"solution", "check"}
COLUMNS = 79
VISIBLE_CELL, FOLDED_CELL = range(3, 13), 40
VISIBLE, FOLDED = 120, 250


def amount_of_code(notebook: NotebookNode, stem: str) -> list[str]:
    """At most 120 visible lines and 250 folded ones; 3 to 12 in a visible cell, 40 in any other.

    Blank lines do not count, and neither do solutions, cells that only show the package's code and
    calls that enter a claim into the ledger.
    """
    told = []
    for cell in code_cells(notebook):
        count = len(_lines(cell))
        if not visible(cell):
            told += (
                [f"{name_of(cell)} has {count} lines, more than {FOLDED_CELL}"]
                if count > FOLDED_CELL
                else []
            )
        elif count not in VISIBLE_CELL and not _only_shows_source(cell):
            told.append(f"{name_of(cell)} is visible and has {count} lines, not 3 to 12")
    counted = [cell for cell in code_cells(notebook) if not SOLUTION & set(tags(cell))]
    told += _too_many([cell for cell in counted if visible(cell)], VISIBLE, "visible code")
    return told + _too_many([cell for cell in counted if not visible(cell)], FOLDED, "folded code")


def plain_code(notebook: NotebookNode, stem: str) -> list[str]:
    """Visible code and solutions do one thing a line; claims, glue and plots are folded.

    A line has at most 79 characters and one statement, and gives one name to one result. No lambda
    gets a name, folded or not: it is a function.
    """
    told = []
    for cell in code_cells(notebook):
        tree = ast.parse(_python(cell.source))
        shown = visible(cell) or "solution" in tags(cell)
        found = [*_lambdas(tree), *(_packed(tree) if shown else ())]
        if visible(cell):
            found += _work_to_fold(tree)
        if shown:
            found += [
                f"line {number} has {len(line)} characters, more than {COLUMNS}"
                for number, line in enumerate(cell.source.splitlines(), start=1)
                if len(line) > COLUMNS
            ]
        told += [f"{name_of(cell)}: {flaw}" for flaw in found]
    return told


def _lambdas(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Lambda):
            yield f"line {node.lineno} gives a name to a lambda; write a function"


def _packed(tree: ast.Module) -> Iterator[str]:
    """Yield the lines that do several things at once."""
    for node in ast.walk(tree):
        if isinstance(node, ast.NamedExpr):
            yield f"line {node.lineno} assigns inside an expression"
        if isinstance(node, ast.Assign):
            if len(node.targets) > 1:
                yield f"line {node.lineno} gives several names to one result"
            if isinstance(node.targets[0], ast.Tuple) and _several(node.value):
                yield f"line {node.lineno} packs several results into one line"
    starts = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    for number in sorted(set(starts)):
        if starts.count(number) > 1:
            yield f"line {number} has several statements"


def _several(value: ast.expr) -> bool:
    """Tell whether an expression makes several results, one after the other."""
    if isinstance(value, ast.Call):
        return ast.unparse(value.func) == "map"
    return isinstance(value, ast.Tuple | ast.List | ast.GeneratorExp | ast.ListComp)


def _work_to_fold(tree: ast.Module) -> Iterator[str]:
    """Yield what belongs into a folded cell: assertions, glue, and drawing with Matplotlib."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert):
            yield f"line {node.lineno} asserts something; fold it"
        if isinstance(node, ast.Name) and node.id in ("glue", "plt"):
            yield f"line {node.lineno} uses {node.id}; fold it"


# --- reading cells --------------------------------------------------------------------------------


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the code cells in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def name_of(cell: NotebookNode) -> str:
    """Return how a complaint names a cell: its id and its first line."""
    first = next(iter(cell.source.strip().splitlines()), "")
    return f"cell {cell.id} (`{first}`)"


def visible(cell: NotebookNode) -> bool:
    """Tell whether a code cell is neither folded nor the solution of an exercise."""
    return not (FOLDS | SOLUTION) & set(tags(cell))


def _lines(cell: NotebookNode) -> list[str]:
    lines, left_out = cell.source.splitlines(), set()
    for node in ast.parse(_python(cell.source)).body:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "claim":
            left_out |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
    return [line for k, line in enumerate(lines) if line.strip() and k not in left_out]


def _too_many(cells: list[NotebookNode], limit: int, kind: str) -> list[str]:
    total = sum(len(_lines(cell)) for cell in cells)
    return [f"there are {total} lines of {kind}, more than {limit}"] if total > limit else []


def _python(source: str) -> str:
    """Return code without the lines that are for Jupyter alone."""
    return "\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines())


def _only_shows_source(cell: NotebookNode) -> bool:
    body = ast.parse(_python(cell.source)).body
    return bool(body) and all(ast.unparse(node).startswith("source(") for node in body)
