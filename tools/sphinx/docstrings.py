"""Shows the package as its source reads: mathematics in dollar signs, types by their short names.

Sphinx reads docstrings as reStructuredText, where `$x$` means nothing. Before it does, `$$ … $$`
becomes a displayed formula and `$ … $` a formula in the line. Literals in backticks stay as they are.

Signatures are taken from the source, because at run time `Inputs` is no longer a name but a long
description of a shape. Names from `attrlib.types` link to their explanation.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

if TYPE_CHECKING:
    from types import ModuleType

    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

_TYPES = "attrlib.types"
_DISPLAY = re.compile(r"^(?P<indent>[ ]*)\$\$(?P<tex>.+?)\$\$(?P<tail>[.,;]?)[ ]*$", re.M | re.S)
_INLINE = re.compile(r"(?P<code>``.+?``|`[^`]+`)|\$(?P<tex>[^$\s](?:[^$]*[^$\s])?)\$", re.S)


def to_rst(text: str) -> str:
    """Return a docstring with its mathematics written as reStructuredText.

    >>> to_rst("The logit $f_y$, not `$HOME`.")
    'The logit :math:`f_y`, not `$HOME`.'
    """

    def display(match: re.Match[str]) -> str:
        indent = match["indent"]
        lines = (match["tex"] + match["tail"]).strip().splitlines()
        body = "\n".join(f"{indent}   {line.strip()}" for line in lines)
        return f"\n{indent}.. math::\n\n{body}\n"

    def inline(match: re.Match[str]) -> str:
        if match["code"]:
            return match["code"]
        return f":math:`{' '.join(match['tex'].split())}`"

    return _INLINE.sub(inline, _DISPLAY.sub(display, text))


def signature(obj: Any) -> tuple[str, str] | None:
    """Return arguments and result of a function or class as its source states them.

    Args:
        obj: A function, a method, or a class with an `__init__` or dataclass fields of its own.

    Returns:
        Text such as `("(x: ~attrlib.types.Inputs)", "None")`, or None if there is no such source.
    """
    try:
        source = textwrap.dedent(inspect.getsource(obj))
    except (OSError, TypeError):
        return None
    node = ast.parse(source).body[0]
    module = sys.modules[obj.__module__]
    if isinstance(node, ast.FunctionDef):
        return _function(node, module, drop_self="." in obj.__qualname__)
    if not isinstance(node, ast.ClassDef):
        return None
    for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == "__init__":
            return _function(child, module, drop_self=True)[0], ""
    if isinstance(obj, type) and dataclasses.is_dataclass(obj):
        return _fields(obj, node, module), ""
    return None


def _function(node: ast.FunctionDef, module: ModuleType, *, drop_self: bool) -> tuple[str, str]:
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    for arg in every:
        if arg.annotation is not None:
            arg.annotation = _link(arg.annotation, module)
    if drop_self:
        (node.args.posonlyargs or node.args.args).pop(0)
    result = "" if node.returns is None else ast.unparse(_link(node.returns, module))
    return f"({ast.unparse(node.args)})", result


def _fields(cls: type, node: ast.ClassDef, module: ModuleType) -> str:
    declared = {
        child.target.id: _link(child.annotation, module)
        for child in node.body
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name)
    }
    parts = []
    star = False
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        text = f"{name}: {ast.unparse(declared[name])}" if name in declared else name
        if parameter.default is not inspect.Parameter.empty:
            text += f" = {parameter.default!r}" if _plain(parameter.default) else " = ..."
        parts.append(text)
    return f"({', '.join(parts)})"


def _plain(value: object) -> bool:
    return value is None or isinstance(value, bool | int | float | str | tuple)


def _link(annotation: ast.expr, module: ModuleType) -> ast.expr:
    linked = _Linker(module).visit(annotation)
    assert isinstance(linked, ast.expr)
    return linked


class _Linker(ast.NodeTransformer):
    """Links the names of `attrlib.types` and spells out a module's own choices of words."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if node.id in _vocabulary():
            return ast.parse(f"~{_TYPES}.{node.id}", mode="eval").body
        value = getattr(self.module, node.id, None)
        if get_origin(value) is Literal:
            return ast.parse(f"Literal{list(get_args(value))}", mode="eval").body
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        # A shape, Float[Tensor, "n h w"], reads well as it is; its parts are no references.
        shaped = isinstance(node.value, ast.Name) and node.value.id in {"Float", "Int", "Bool"}
        return node if shaped else self.generic_visit(node)


@cache
def _vocabulary() -> frozenset[str]:
    body = ast.parse(inspect.getsource(importlib.import_module(_TYPES))).body
    classes = {node.name for node in body if isinstance(node, ast.ClassDef)}
    aliases = {
        node.target.id
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return frozenset(classes | aliases)


def _process(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    lines[:] = to_rst("\n".join(lines)).split("\n")


def _sign(
    app: Sphinx, what: str, name: str, obj: Any, options: object, args: str, result: str
) -> tuple[str, str] | None:
    if what not in {"function", "method", "class"} or not name.startswith("attrlib"):
        return None
    return signature(obj)


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, text: nodes.TextElement
) -> nodes.Element | None:
    target, page = node.get("reftarget", ""), node.get("refdoc", "")
    if node.get("refdomain") != "py" or node.get("reftype") != "class":
        return None
    if target.startswith(f"{_TYPES}."):
        # Types in signatures are looked up as classes; most of ours are aliases, that is, data.
        return env.get_domain("py").resolve_xref(env, page, app.builder, "data", target, node, text)
    # Names of other packages and local aliases: the book is built without a network, so no link.
    return text if page.startswith("book/api/") and not target.startswith("attrlib.") else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Convert before napoleon reads the sections."""
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-process-signature", _sign)
    app.connect("missing-reference", _resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
