"""Reads and writes the pages in several processes, which Sphinx can do and Jupyter Book does not offer.

Five extensions need help with it:

- `sphinx_multitoc_numbering` and `sphinx_jupyterbook_latex` do not say whether reading in several
  processes is safe, and Sphinx then warns. The first only numbers sections once all pages are read, in
  the process that has gathered them; the second only changes books in LaTeX.
- `sphinx_proof` says it is safe, but Sphinx asks its domain to take up what another process has read.
  The domain holds nothing: its theorems lie in the environment, where the extension gathers them.
- `sphinx.ext.viewcode` looks at modules that no page shows, and drops them when it begins with the next
  page, which in a process of its own may be none.
- `teachbooks_sphinx_tippy` keeps the hover texts of a page in the memory of the process that writes it.
  Each process leaves them in a file as well, and the first one takes them all up before it writes them.

Pages are trees of many small objects that refer to each other, and most of them stay: Python looks
for garbage less often, and no process walks over what was there before it began.

Only on Linux: elsewhere a process that has loaded PyTorch cannot safely be doubled. And with one thread
of PyTorch: a process that was doubled has none of the others, and would wait for them.
"""

from __future__ import annotations

import gc
import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from sphinx.ext import viewcode
from sphinx_proof.domain import ProofDomain

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

MOST = 4  # each process holds PyTorch and a part of the book
_UNDECLARED = ("sphinx_multitoc_numbering", "sphinx_jupyterbook_latex")


class Theorems(ProofDomain):
    """The domain of `sphinx_proof`, which has nothing of its own to take up."""

    def merge_domaindata(self, docnames: Iterable[str], otherdata: dict[str, Any]) -> None:
        """Do nothing."""


def _begin(app: Sphinx, env: BuildEnvironment, pages: list[str]) -> None:
    """Say what extensions leave unsaid, before Sphinx asks."""
    for name in _UNDECLARED:
        if name in app.extensions:
            app.extensions[name].parallel_read_safe = True
    gc.freeze()


def _drop(app: Sphinx, env: BuildEnvironment) -> None:
    """Drop modules that no page shows, as before a page without a name."""
    viewcode.env_purge_doc(app, env, "")


def leave(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Leave the hover texts of a page for the process that writes them."""
    if doctree is not None and hasattr(app.env, "tippy_data"):
        path = _place(app) / f"{page.replace('/', '.')}.pickle"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(pickle.dumps((page, app.env.tippy_data["pages"][page])))


def gather(app: Sphinx, exception: Exception | None) -> None:
    """Take up the hover texts of all pages, in the order of their names."""
    if exception is None and hasattr(app.env, "tippy_data"):
        left = [pickle.loads(path.read_bytes()) for path in _place(app).glob("*.pickle")]
        app.env.tippy_data["pages"].update(sorted(left, key=lambda one: one[0]))


def _place(app: Sphinx) -> Path:
    return Path(app.doctreedir) / "hover"


def setup(app: Sphinx) -> dict[str, Any]:
    """Ask for several processes, and connect the help."""
    gc.set_threshold(100_000, 20, 50)
    if sys.platform == "linux":
        torch.set_num_threads(1)
        # One more than cores: pages are not equally long, and the chapters are the first to be read.
        app.parallel = min(MOST, (os.cpu_count() or 1) + 1)
    app.setup_extension("sphinx_proof")
    app.add_domain(Theorems, override=True)
    app.connect("env-before-read-docs", _begin)
    app.connect("env-updated", _drop)
    app.connect("html-page-context", leave, priority=460)  # after the hover texts are collected
    app.connect("build-finished", gather, priority=400)  # before they are written
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
