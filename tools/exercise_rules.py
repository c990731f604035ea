"""What the exercises of a chapter must keep to."""

import ast
import re
from collections.abc import Iterator

from nbformat import NotebookNode

from tools.chapters import tags
from tools.code_rules import code_cells, name_of
from tools.exercises import Exercise, parts, split
from tools.fingerprint import code_tree

EXERCISES, AT_THE_END = 4, 2
DIFFICULTY = re.compile(r"\s*\*Difficulty: (●○○|●●○|●●●) · about \d+ minutes\*\n")


def exercises(notebook: NotebookNode, stem: str) -> list[str]:
    """There are 4 exercises or more with an executed solution; each has all its parts."""
    found = list(parts(notebook))
    run = sum(any(cell.execution_count for cell in part.cells) for part in found)
    told = [] if run >= EXERCISES else [f"there are {run} exercises with code, not {EXERCISES}"]
    inside = {cell.id for part in found for cell in part.cells}
    for part in found:
        name = f"exercise {part.title!r}"
        solutions = [cell for cell in part.cells if "solution" in tags(cell)]
        checks = [cell for cell in part.cells if "check" in tags(cell)]
        flaws = {
            "has no title or label": not part.title or not part.label,
            "does not begin with *Difficulty: ●●○ · about 10 minutes*": not DIFFICULTY.match(
                part.text
            ),
            "has no hint": "Hint" not in part.hints,
            "has no solution": not part.solution,
            "has a solution that is not folded (:class: dropdown)": part.solution
            and not part.folded,
            "has a solution without text and code": not part.cells and not part.answer,
            "has no cell tagged solution": part.cells and not solutions,
            "has a code cell tagged neither solution nor check": len(part.cells)
            != len(solutions) + len(checks),
            "defines a function and has no cell tagged check": signatures(solutions) and not checks,
            f'has a check not named "{stem}/..."': any(f'"{stem}/' not in c.source for c in checks),
        }
        told += [f"{name} {flaw}" for flaw in _stub_flaws(part, solutions, checks)]
        told += [f"{name} {flaw}" for flaw, there in flaws.items() if there]
    for cell in code_cells(notebook):
        if {"solution", "check"} & set(tags(cell)) and cell.id not in inside:
            told.append(f"{name_of(cell)} is tagged {tags(cell)} outside a solution")
    return told


def _stub_flaws(
    part: Exercise, solutions: list[NotebookNode], checks: list[NotebookNode]
) -> Iterator[str]:
    """Yield what is wrong with the code above a solution: it asks for what the solution gives."""
    if len(part.blocks) != bool(part.cells):
        yield f"has {len(part.blocks)} blocks of Python above its solution, not {bool(part.cells):d}"
        return
    stub, called = split("".join(part.blocks))
    asked, given = _of(ast.parse(stub)), signatures(solutions)
    if asked != given:
        yield f"asks for {asked or 'no function'}, and its solution defines {given or 'none'}"
    below = [line for cell in checks for line in cell.source.strip().splitlines()]
    if called.splitlines() != below:
        yield f"has the checks {called.splitlines()} above its solution and {below} below"


def places(notebook: NotebookNode, stem: str) -> list[str]:
    """Two exercises stand at the end, two or more inside sections; four or more have a check."""
    found = list(parts(notebook))
    last = sum(part.section == "Exercises" for part in found)
    checked = sum(any("check" in tags(cell) for cell in part.cells) for part in found)
    told = [] if last == AT_THE_END else [f"{last} exercises stand at the end, not {AT_THE_END}"]
    told += [f"{checked} exercises have a check, not {EXERCISES}"] * (checked < EXERCISES)
    inside = len(found) - last
    return told + [f"{inside} exercises stand inside sections, not 2"] * (inside < 2)


def signatures(cells: list[NotebookNode]) -> dict[str, str]:
    """Return the arguments of each function that code cells define; of a class, nothing."""
    return _of(code_tree(NotebookNode(cells=cells)))  # type: ignore[no-untyped-call]


def _of(tree: ast.Module) -> dict[str, str]:
    kinds = ast.FunctionDef | ast.ClassDef
    found = [node for node in tree.body if isinstance(node, kinds)]
    return {n.name: ast.unparse(n.args) if isinstance(n, ast.FunctionDef) else "" for n in found}
