"""The code of the package, shown on the page from the package itself."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

from IPython.display import Markdown

import attrlib

Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def source(*objects: object, docstring: bool = False) -> Markdown:
    """Show the code of functions or classes of this package as a highlighted block.

    Args:
        *objects: Functions, methods or classes defined in attrlib.
        docstring: Whether docstrings are shown too. Comments always are.

    Returns:
        An object that Jupyter and the book render as Markdown.

    Raises:
        ValueError: If there is no object, or one is not a function or class of attrlib.
    """
    if not objects:
        raise ValueError("Expected objects to name at least one function or class, got none")
    lines: list[str] = []
    file = ""
    for thing in objects:
        code, where = _code(thing)
        if where != file:
            lines.append(f"# {where}")
            file = where
        lines += [code if docstring else _without_docstrings(code), ""]
    text = "```python\n" + "\n".join(lines).rstrip() + "\n```"
    return Markdown(text)  # type: ignore[no-untyped-call]


def _code(thing: object) -> tuple[str, str]:
    """Return the dedented code of an object, and its file as written in the repository."""
    inner = inspect.unwrap(thing) if callable(thing) else thing
    ours = getattr(inner, "__module__", "").split(".")[0] == "attrlib"
    if not ours or not (inspect.isroutine(inner) or inspect.isclass(inner)):
        raise ValueError(f"Expected objects to be functions or classes of attrlib, got {thing!r}")
    file = Path(inspect.getfile(inner)).relative_to(Path(attrlib.__file__).parents[1])
    return textwrap.dedent(inspect.getsource(inner)).rstrip(), file.as_posix()


def _without_docstrings(code: str) -> str:
    """Return code with its docstrings cut out; everything else stays as it is, comments too."""
    lines = code.splitlines()
    for node, doc in reversed(list(_docstrings(ast.parse(code)))):
        start, end = doc.lineno - 1, doc.end_lineno or doc.lineno
        indent = lines[start][: doc.col_offset]
        if indent.strip():  # on one line with its def: nothing to gain by cutting
            continue
        alone = len(node.body) == 1
        while not alone and end < len(lines) and not lines[end].strip():
            end += 1
        lines[start:end] = [f"{indent}..."] if alone else []
    return "\n".join(lines).rstrip()


def _docstrings(tree: ast.Module) -> Iterator[tuple[Documented, ast.Expr]]:
    """Yield each documented definition with its docstring, in the order of lines."""
    found = [
        (node, node.body[0])
        for node in ast.walk(tree)
        if isinstance(node, Documented) and ast.get_docstring(node, clean=False) is not None
    ]
    for node, doc in sorted(found, key=lambda pair: pair[1].lineno):
        if isinstance(doc, ast.Expr):
            yield node, doc
