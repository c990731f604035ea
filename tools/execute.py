"""Run notebooks from top to bottom and store their outputs with what they depend on.

    python -m tools.execute                      # all chapters of _toc.yml
    python -m tools.execute what-is-an-attribution --budget quick

A notebook is run on a fresh kernel, in its own folder, with ATTRLIB_BUDGET set. It is written back
only if every cell ran without an error and without writing to stderr (progress bars, warnings);
else the file stays as it was and the exit code is 1. What it entered into the ledger of claims goes
to `results/claims/` if the budget was full. Its metadata then hold `attrlib`: `hash` and
`parts` (see `tools.fingerprint`), `budget`, `date`, `device`, `seconds` and `versions`.
"""

import argparse
import ast
import base64
import datetime
import importlib.metadata
import io
import os
import platform
import sys
import time
from pathlib import Path

import torch
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError
from nbformat import NotebookNode, from_dict
from PIL import Image
from tqdm import tqdm

from tools import claims, fingerprint
from tools.chapters import KERNEL, ROOT, chapters, read, write

CELL_METADATA = ("tags", "mystnb")
CELL_SECONDS = 1200


def main(arguments: list[str] | None = None, *, root: Path = ROOT) -> int:
    """Run the named chapters, or all; return 1 if one of them failed."""
    known = chapters(root)
    parser = argparse.ArgumentParser(prog="python -m tools.execute", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("stem", nargs="*", help=f"chapters to run; default all: {', '.join(known)}")
    parser.add_argument("--budget", choices=("quick", "full"), default="full")
    options = parser.parse_args(arguments)
    unknown = [stem for stem in options.stem if stem not in known]
    if unknown:
        parser.error(f"Expected stem to be one of {', '.join(known)}, got {', '.join(unknown)}")
    failed = [
        stem
        for stem in options.stem or known
        if not _run(known[stem], budget=options.budget, root=root)
    ]
    return 1 if failed else 0


def _run(path: Path, *, budget: str, root: Path) -> bool:
    """Run one chapter, write it back, and say how that went; return whether it ran clean."""
    print(f"{path.stem}: running ({budget} budget)", flush=True)
    try:
        notebook = execute(path, budget=budget, root=root)
    except RuntimeError as error:
        print(f"{path.stem}: not written, as {error}", file=sys.stderr)
        return False
    write(notebook, path)
    if budget == "full":
        claims.keep(notebook, path.stem, root=root)
    record = notebook.metadata.attrlib
    print(f"{path.stem}: {record.seconds:.1f} s on {record.device}")
    return True


def execute(path: Path, *, budget: str, root: Path = ROOT) -> NotebookNode:
    """Return the notebook with fresh outputs and metadata; the file is left as it is.

    Args:
        path: The notebook; it runs in the folder it lies in.
        budget: Value of ATTRLIB_BUDGET for the run, "quick" or "full".
        root: Root of the repository, from which parts are looked up.

    Raises:
        RuntimeError: If a cell raises or writes to stderr; the message names the cell.
    """
    notebook = _bare(read(path))
    cells = sum(cell.cell_type == "code" for cell in notebook.cells)
    bar = tqdm(total=cells, desc=path.stem, unit="cell", disable=None)  # None: only on a terminal
    client = NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name=KERNEL["name"],
        resources={"metadata": {"path": str(path.parent)}},
        record_timing=False,
        coalesce_streams=True,
        on_cell_executed=lambda **_: bar.update(),
    )
    start = time.perf_counter()
    try:
        with bar:
            client.execute(env={**os.environ, "ATTRLIB_BUDGET": budget})
    except (CellExecutionError, CellTimeoutError) as error:
        raise RuntimeError(f"{_failed_cell(notebook)} raised\n{error}") from None
    seconds = time.perf_counter() - start
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                raise RuntimeError(f"{_name(number, cell)} wrote to stderr:\n{output.text}")
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = packed(output.data["image/png"])
    found = fingerprint.parts(notebook, root=root)
    notebook.metadata["attrlib"] = {
        "hash": fingerprint.digest(found),
        "parts": found,
        "budget": budget,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device": device_name(),
        "seconds": round(seconds, 1),
        "versions": versions(notebook),
    }
    return notebook


def packed(picture: str) -> str:
    """Return a PNG in base64 with the same pixels and size in print, in fewer bytes if it can be."""
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, dpi=image.info.get("dpi", (72, 72)))
    return min(picture, base64.b64encode(file.getvalue()).decode(), key=len)


def _bare(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook without outputs and without what editors leave in its metadata."""
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    notebook.metadata = from_dict(metadata)  # type: ignore[no-untyped-call]
    notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
    for number, cell in enumerate(notebook.cells):
        kept = {key: cell.metadata[key] for key in CELL_METADATA if key in cell.metadata}
        cell.metadata = from_dict(kept)  # type: ignore[no-untyped-call]
        cell.setdefault("id", f"cell-{number}")
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells = [cell for cell in notebook.cells if cell.source.strip()]
    return notebook


def _failed_cell(notebook: NotebookNode) -> str:
    """Return the name of the cell whose outputs hold the error."""
    for number, cell in enumerate(notebook.cells):
        if any(output.output_type == "error" for output in cell.get("outputs", [])):
            return _name(number, cell)
    return "a cell"


def _name(number: int, cell: NotebookNode) -> str:
    first = cell.source.strip().splitlines()[0]
    return f"cell {number + 1} (id {cell.id}, `{first}`)"


def device_name() -> str:
    """Return the name of the best device of this machine, as chapters and tables report it."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    if torch.backends.mps.is_available():
        return f"{platform.processor()} GPU (mps)"
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    threads = torch.get_num_threads()
    return f"CPU ({model}), {threads} thread{'s' * (threads > 1)}"


def versions(notebook: NotebookNode) -> dict[str, str]:
    """Return the versions of Python, torch and whatever else the code cells import."""
    names = {"torch", "numpy", "matplotlib"}
    for node in ast.walk(fingerprint.code_tree(notebook)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    owners = importlib.metadata.packages_distributions()
    packages = {owners[name][0] for name in names if name in owners}
    return {"python": platform.python_version()} | {
        package: importlib.metadata.version(package) for package in sorted(packages)
    }


if __name__ == "__main__":
    sys.exit(main())
