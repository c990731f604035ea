"""The template of a chapter as a notebook that was run, for the tests of the notebook tools."""

import copy
import functools
import tempfile
from pathlib import Path

from nbformat import NotebookNode

from tools.chapters import ROOT, write
from tools.execute import execute
from tools.new_chapter import convert


def template() -> NotebookNode:
    """Return a fresh copy of the executed template."""
    return copy.deepcopy(_executed())


@functools.cache
def _executed() -> NotebookNode:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.ipynb"
        write(convert((ROOT / "tools" / "template.md").read_text(encoding="utf-8")), path)
        notebook = execute(path, budget="quick")
    # The template's sentence about time is an example; make the record fit it on any machine.
    notebook.metadata.attrlib.update(seconds=3.0, device="CPU")
    return notebook
