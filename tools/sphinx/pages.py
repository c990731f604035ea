"""Small repairs of the finished pages.

The live-code extension that Jupyter Book always loads is silenced: it writes settings for a server
this book does not use into every page, twice, and the second copy is an error in the console.

The bibliography is sorted by author, family name first, as it is cited. Its list is no ARIA list,
because its entries carry a role of their own that a list may not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sphinx_thebe
from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

_LIVE_CODE = (sphinx_thebe.init_thebe_core, sphinx_thebe.update_thebe_context)


def _silence(app: Sphinx) -> None:
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if one.handler not in _LIVE_CODE]


class ByAuthor(Style):
    """Entries in the order of their authors, family name first."""

    default_name_style = "lastfirst"
    default_sorting_style = "author_year_title"

    def __init__(self) -> None:
        super().__init__(abbreviate_names=True)


def _repair(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None
) -> None:
    if "body" in context:
        context["body"] = context["body"].replace(
            '<div role="list" class="citation-list">', '<div class="citation-list">'
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the repairs."""
    register_plugin("pybtex.style.formatting", "by_author", ByAuthor)
    app.connect("builder-inited", _silence)
    app.connect("html-page-context", _repair)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
