"""What the outputs of a notebook depend on, as one short digest for each part.

The parts are the code cells, the modules of attrlib the notebook imports (and those they import),
and the checkpoints and result tables it names. Comments, docstrings, `__all__` and `__version__` of
a module do not count. `tools.execute` stores the parts in the notebook; `changes` tells which of
them are no longer the same.
"""

import ast
import fnmatch
import functools
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

from nbformat import NotebookNode

from tools.chapters import ROOT

#: The function whose argument names a file, with the folder and the ending of such files.
NAMED_BY = {
    "load": ("attrlib/_assets/checkpoints", "safetensors"),
    "results": ("results", "csv"),
}
MISSING = "missing"


def parts(notebook: NotebookNode, *, root: Path = ROOT) -> dict[str, str]:
    """Return the digest of each part, named "cell ID", "module NAME" or "file PATH"."""
    found = {
        f"cell {cell.id}": _digest(cell.source.strip().encode())
        for cell in notebook.cells
        if cell.cell_type == "code"
    }
    tree = code_tree(notebook)
    for name in sorted(_closure(tree, root)):
        found[f"module {name}"] = module_digest(_path(name, root))
    for name in sorted(_named_files(tree, root)):
        path = root / name
        found[f"file {name}"] = _digest(path.read_bytes()) if path.exists() else MISSING
    return found


def digest(found: dict[str, str]) -> str:
    """Return one digest of all parts and their order."""
    return _digest(json.dumps(list(found.items())).encode())


def changes(notebook: NotebookNode, *, root: Path = ROOT) -> list[str]:
    """Return what differs from the run that made the outputs; nothing if they are up to date."""
    stored = notebook.metadata.get("attrlib", {})
    if "hash" not in stored:
        return ["it was never run"]
    now, before = parts(notebook, root=root), dict(stored.get("parts", {}))
    names = {f"cell {cell.id}": _describe(number, cell) for number, cell in _code_cells(notebook)}
    told = [f"{names.get(part, part)} is new" for part in now if part not in before]
    told += [f"{names.get(part, part)} is gone" for part in before if part not in now]
    told += [
        f"{names.get(part, part)} changed"
        for part in now
        if part in before and now[part] != before[part]
    ]
    if not told and digest(now) != stored["hash"]:
        told.append("the order of its cells changed")
    return told


def module_digest(path: Path) -> str:
    """Return the digest of a module's syntax tree without docstrings, equal on every Python."""
    return _text_digest(path.read_text(encoding="utf-8"))


@functools.cache  # chapters share most modules
def _text_digest(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        documented = ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            del node.body[0]
    tree.body = [node for node in tree.body if not _names_only(node)]
    return _digest(_canonical(tree).encode())


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _names_only(node: ast.stmt) -> bool:
    """Tell whether a statement sets `__all__` or `__version__`, which no output depends on."""
    return isinstance(node, ast.Assign) and any(
        isinstance(target, ast.Name) and target.id in ("__all__", "__version__")
        for target in node.targets
    )


def _canonical(node: object) -> str:
    """Write a syntax tree as text; empty fields are left out, as they differ between Pythons."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        inner = ",".join(f"{name}={_canonical(value)}" for name, value in fields)
        if isinstance(node, ast.Constant) and node.value is None:
            inner = "None"
        return f"{type(node).__name__}({inner})"
    if isinstance(node, list):
        return "[" + ",".join(_canonical(value) for value in node) + "]"
    return repr(node)


def _code_cells(notebook: NotebookNode) -> Iterator[tuple[int, NotebookNode]]:
    """Yield code cells with their number, counted from 1 among the code cells."""
    codes = (cell for cell in notebook.cells if cell.cell_type == "code")
    yield from enumerate(codes, start=1)


def _describe(number: int, cell: NotebookNode) -> str:
    first = next(iter(cell.source.strip().splitlines()), "")
    return f"code cell {number} (`{first}`)"


def code_tree(notebook: NotebookNode) -> ast.Module:
    """Return the syntax tree of all code cells; lines for Jupyter alone (%, !) are left out."""
    lines = [
        "" if line.startswith(("%", "!")) else line
        for _, cell in _code_cells(notebook)
        for line in cell.source.splitlines()
    ]
    return ast.parse("\n".join(lines))


# --- modules --------------------------------------------------------------------------------------


def _path(name: str, root: Path) -> Path:
    """Return the file of a module, which need not exist."""
    path = root / name.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _closure(tree: ast.Module, root: Path) -> set[str]:
    """Return the modules of attrlib that the code imports, and those they import, and so on."""
    found: set[str] = set()
    names = set(_dotted(tree, package=""))
    todo = {module for one in names for module in _modules(one, root)}
    todo |= set(_check_modules(tree, root))
    while todo:
        name = todo.pop()
        found.add(name)
        path = _path(name, root)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        inner = _text_dotted(path.read_text(encoding="utf-8"), package)
        todo |= {module for one in inner for module in _modules(one, root)} - found
    return found


@functools.cache  # chapters share most modules
def _text_dotted(text: str, package: str) -> frozenset[str]:
    return frozenset(_dotted(ast.parse(text), package=package))


def _dotted(tree: ast.Module, *, package: str) -> Iterator[str]:
    """Yield the names in import statements, made absolute, and each `attrlib.module` in code."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*(parent if node.level else []), *filter(None, [node.module])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Attribute) and _of_attrlib(node):
            yield ast.unparse(node)


def _of_attrlib(node: ast.expr) -> bool:
    """Tell whether a chain of attributes begins with `attrlib`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return isinstance(node, ast.Name) and node.id == "attrlib"


def _modules(name: str, root: Path) -> Iterator[str]:
    """Yield the modules a dotted name goes through: attrlib, attrlib.data, but no attribute."""
    words = name.split(".")
    if words[0] != "attrlib":
        return
    for count in range(1, len(words) + 1):
        module = ".".join(words[:count])
        if words[count - 1].isidentifier() and _path(module, root).exists():
            yield module


def _check_modules(tree: ast.Module, root: Path) -> Iterator[str]:
    """Yield the modules that check the exercises named in calls of `check`."""
    for node in ast.walk(tree):
        if _is_call(node, "check"):
            for text in _texts(node):
                stem = text.partition("/")[0].replace("-", "_")
                yield from _modules(f"attrlib.book.checks.{stem}", root)


# --- files ----------------------------------------------------------------------------------------


def _named_files(tree: ast.Module, root: Path) -> set[str]:
    """Return the checkpoints and tables the code names, relative to the root of the repository.

    A name given to `load` or `results` itself must be a file. Any other text in the code that
    equals the name of one counts too (`for name in ("natural", "madry")`), as does an f-string
    that fits names (`f"natural-s{seed}"`). A call of `ledger` names the list of claims and all tables
    of what chapters entered.
    """
    found: set[str] = set()
    for function, (folder, ending) in NAMED_BY.items():
        calls = [node for node in ast.walk(tree) if _is_call(node, function)]
        if not calls:
            continue
        there = [path.stem for path in (root / folder).glob(f"*.{ending}")]
        direct = {text for call in calls for arg in call.args[:1] for text in _texts(arg)}
        for text in {*_texts(tree), *direct}:
            seedless = function == "load" and not re.search(r"-s(\d+|\*)$", text)
            name = f"{text}-s0" if seedless else text
            fits = fnmatch.filter(there, name)
            if not fits and text in direct and "/" not in text and "*" not in text:
                fits = [name]
            found |= {f"{folder}/{fit}.{ending}" for fit in fits}
    if any(_is_call(node, "ledger") for node in ast.walk(tree)):
        tables = (root / "results" / "claims").glob("*.csv")
        found |= {"book/claims.toml", *(f"results/claims/{path.name}" for path in tables)}
    return found


def _is_call(node: ast.AST, function: str) -> TypeGuard[ast.Call]:
    """Tell whether a node calls a function of that name, with or without a module before it."""
    if not isinstance(node, ast.Call):
        return False
    called = node.func
    return (isinstance(called, ast.Name) and called.id == function) or (
        isinstance(called, ast.Attribute) and called.attr == function
    )


def _texts(node: ast.AST) -> Iterator[str]:
    """Yield the texts in a piece of code; what an f-string fills in is written `*`."""
    if isinstance(node, ast.JoinedStr):
        pieces = [part.value if isinstance(part, ast.Constant) else "*" for part in node.values]
        text = "".join(map(str, pieces))
        if any(letter.isalpha() for letter in text):
            yield text
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if not set("*?[") & set(node.value):
            yield node.value
    for child in ast.iter_child_nodes(node):
        yield from _texts(child)
