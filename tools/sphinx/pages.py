"""Small repairs of the finished pages.

The live-code extension that Jupyter Book always loads is silenced: it writes settings for a server
this book does not use into every page, twice, and the second copy is an error in the console.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sphinx_thebe

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

_LIVE_CODE = (sphinx_thebe.init_thebe_core, sphinx_thebe.update_thebe_context)


def _silence(app: Sphinx) -> None:
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if one.handler not in _LIVE_CODE]


def setup(app: Sphinx) -> dict[str, Any]:
    """Repair each page just before it is written."""
    app.connect("builder-inited", _silence)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
