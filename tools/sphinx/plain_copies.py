"""Lets readers download plain copies of the chapters instead of the sources.

The download button of a page serves the file below `_sources`. For a chapter it is replaced by the
student's copy of `tools.export`, and the menu gets a second entry, with the solutions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools.chapters import chapters, write
from tools.export import copies

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

SOLUTIONS = "-solutions.ipynb"


def _offer(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    """Add the solutions to the download menu of a chapter."""
    if not (context.get("sourcename") or "").endswith(".ipynb"):
        return
    for button in context.get("header_buttons", []):
        if button.get("label") == "download-buttons":
            student = button["buttons"][0]
            student |= {"text": "Notebook", "tooltip": "Download a notebook to work in"}
            solution = {
                "text": "Notebook with solutions",
                "tooltip": "Download the notebook with its solutions",
                "url": student["url"].replace(".ipynb", SOLUTIONS),
                "label": "download-solutions-button",
            }
            button["buttons"].insert(1, student | solution)


def _replace(app: Sphinx, exception: Exception | None) -> None:
    """Write the copies over the sources that Sphinx has put beside the pages."""
    if exception is not None or app.builder.format != "html":
        return
    root = Path(app.srcdir)
    pages, places = chapters(root), Path(app.outdir) / "_sources"
    for stem, (student, solution) in copies(root).items():
        path = places / pages[stem].relative_to(root)
        write(student, path)
        write(solution, path.with_name(path.stem + SOLUTIONS))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect after the theme, whose buttons must be there."""
    app.connect("html-page-context", _offer, priority=900)
    app.connect("build-finished", _replace)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
