"""Write each chapter as a plain notebook for Colab or local use: one for students, one solved.

    python -m tools.export --out DIR      # DIR/student/<stem>.ipynb and DIR/solution/<stem>.ipynb

The copies hold plain Markdown, no outputs, and a first cell that installs what is missing. In the
student's copy the solutions are stubs and their texts are left out; the checks stay.
"""

import argparse
import ast
import base64
import mimetypes
import re
import sys
import tomllib
from pathlib import Path

from nbformat import NotebookNode

from tools import myst
from tools.chapters import (
    ROOT,
    chapters,
    code_cell,
    markdown_cell,
    notebook_of,
    read,
    tags,
    write,
)
from tools.myst import Directive
from tools.plain import Plain
from tools.references import Book, of_book

#: What opens and closes exercises and solutions.
GATES = ("exercise-start", "exercise-end", "solution-start", "solution-end")
BOOTSTRAP = """\
# Run this cell first. It installs what is missing (on Colab: everything), else it does nothing.
import importlib.util
import subprocess
import sys

needed = {needed}
missing = {{needed[name] for name in needed if importlib.util.find_spec(name) is None}}
if missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *sorted(missing)], check=True)
    importlib.invalidate_caches()"""


def export(
    notebook: NotebookNode, stem: str, *, book: Book, solved: bool, folder: Path, address: str
) -> NotebookNode:
    """Return a plain copy of a chapter.

    Args:
        notebook: The chapter, with its outputs: glued values are read from them.
        stem: Its name in the book.
        book: What its text refers to.
        solved: Whether solutions are kept; else code cells of solutions become stubs.
        folder: Folder of the chapter, from which its image files are read.
        address: Where the repository is, for installing attrlib.

    Raises:
        ValueError: If a text or cell uses something that has no plain form.
    """
    cells = [_bootstrap(notebook, address)]
    exercise, in_solution = "", False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            plain, pieces = Plain(book, stem), []
            for block in myst.blocks(cell.source):
                if isinstance(block, Directive) and block.name in GATES:
                    in_solution = block.name == "solution-start"
                    if block.name == "exercise-start":
                        exercise = block.argument
                        pieces.append(_exercise_heading(block, plain))
                    elif in_solution and solved:
                        pieces.append("#### Solution")
                elif solved or not in_solution:
                    pieces.append(plain.block(block))
            text = "\n\n".join(pieces)
            if text:
                cells.append(_with_images(markdown_cell(text, name=cell.id), plain, folder))
        elif cell.cell_type == "code":
            source = _without_glue(cell.source)
            if "solution" in tags(cell) and not solved:
                source = stub(source, exercise)
            if source:
                kept = [tag for tag in tags(cell) if tag in ("solution", "check")]
                cells.append(code_cell(source, name=cell.id, tags=kept))
            if cell.metadata.get("mystnb", {}).get("figure"):
                cells.append(_caption(cell, Plain(book, stem)))
    return notebook_of(cells)


def _exercise_heading(block: Directive, plain: Plain) -> str:
    target = plain.book.targets.get(block.options.get("label", ""))
    number = target.text if target else "Exercise"
    return f"### {number}: {plain.inline(block.argument)}"


def stub(source: str, title: str) -> str:
    """Return code with its solution taken out: signatures and docstrings of functions, and imports.

    Code without a function becomes a comment that names what is to be set, and an error.
    """
    tree = ast.parse(source)
    fail = ast.parse(f"raise NotImplementedError({f'Exercise: {title}'!r})").body
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for function in functions:
        documented = ast.get_docstring(function, clean=False) is not None
        function.body = [*function.body[: int(documented)], *fail]
    lines = [ast.unparse(node) for node in imports]
    if functions:
        return "\n\n\n".join(filter(None, ["\n".join(lines), *map(ast.unparse, functions)]))
    names = [
        f"`{target.id}`"
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    wanted = f"set {names[-1]}" if names else "write your answer"
    return "\n".join([*lines, f"# Your turn: {wanted}.", *map(ast.unparse, fail)])


def _without_glue(source: str) -> str:
    """Return code without the lines whose only purpose is to store values for the book's text."""
    lines = source.splitlines()
    tree = ast.parse("\n".join("" if line.startswith(("%", "!")) else line for line in lines))
    dropped: set[int] = set()
    for node in tree.body:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "glue":
            dropped |= set(range(node.lineno - 1, node.end_lineno or node.lineno))
    return "\n".join(line for number, line in enumerate(lines) if number not in dropped).strip()


def _caption(cell: NotebookNode, plain: Plain) -> NotebookNode:
    """Return a cell with the caption of a figure and what is to be seen in it."""
    meta = cell.metadata["mystnb"]
    text = plain.caption(meta["figure"].get("name", ""), meta["figure"].get("caption", ""))
    alt = meta.get("image", {}).get("alt", "")
    if alt:
        text += f" *In words:* {alt}"
    return markdown_cell(text, name=f"{cell.id}-caption")


def _with_images(cell: NotebookNode, plain: Plain, folder: Path) -> NotebookNode:
    """Return a cell that carries the image files it shows."""
    for name in sorted(plain.images):
        if "://" in name:
            continue
        kind = mimetypes.guess_type(name)[0] or "image/png"
        data = base64.b64encode((folder / name).read_bytes()).decode()
        short = Path(name).name
        cell.setdefault("attachments", {})[short] = {kind: data}
        cell.source = cell.source.replace(f"]({name})", f"](attachment:{short})")
    return cell


def _bootstrap(notebook: NotebookNode, address: str) -> NotebookNode:
    """Return the cell that installs what the chapter imports."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    requirement = f"attrlib @ git+{address}"
    needed = {"attrlib": requirement, "pandas": "pandas"}
    if "imagenet(" in code:
        needed["attrlib"] = requirement.replace("attrlib", "attrlib[imagenet]", 1)
        needed["efficientnet_lite_pytorch"] = needed["attrlib"]
    imported = {module for module in PACKAGES if re.search(rf"(import|from) {module}\b", code)}
    needed |= {module: PACKAGES[module] for module in sorted(imported)}
    lines = "".join(f'    "{name}": "{package}",\n' for name, package in needed.items())
    return code_cell(BOOTSTRAP.format(needed=f"{{\n{lines}}}"), name="bootstrap", tags=[])


#: Packages chapters may import that come neither with attrlib nor with Colab.
PACKAGES = {"captum": "captum", "torchattacks": "torchattacks", "skimage": "scikit-image"}


def repository(root: Path = ROOT) -> str:
    """Return the address of the repository, as pyproject.toml states it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address: str = project.get("urls", {}).get("Repository", "")
    if not address:
        raise ValueError("Expected pyproject.toml to name project.urls.Repository, got none")
    return address


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Export all chapters."""
    parser = argparse.ArgumentParser(prog="python -m tools.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=root / "_build" / "export", metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        address, book = repository(root), of_book(root)
        copies = {
            options.out / kind / path.name: export(
                read(path),
                stem,
                book=book,
                solved=kind == "solution",
                folder=path.parent,
                address=address,
            )
            for stem, path in chapters(root).items()
            for kind in ("student", "solution")
        }
    except ValueError as error:
        print(f"Nothing was written: {error}", file=sys.stderr)
        return 1
    for path, copy in copies.items():
        write(copy, path)
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
