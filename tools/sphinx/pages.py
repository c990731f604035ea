"""Small repairs of the finished pages.

The live-code extension that Jupyter Book always loads is silenced: it writes settings for a server
this book does not use into every page, twice, and the second copy is an error in the console.

MathJax comes from a package of the lock, one file of it: the built book needs no network, and the
repository does not hold its 2.3 MB.

The bibliography is sorted by author, family name first, as it is cited.

The remaining repairs are defects of the theme and of Sphinx that hide things from people who use a
screen reader or speak to their computer; each is one substitution in the written page.
"""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sphinx_thebe
from pybtex.plugin import register_plugin
from pybtex.style.formatting.unsrt import Style

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

_LIVE_CODE = (sphinx_thebe.init_thebe_core, sphinx_thebe.update_thebe_context)

REPAIRS = {
    # A button must be called what it says.
    r'(<button class="btn search-button-field[^>]*?) aria-label="Search"': r"\1",
    r'(<i class="theme-switch[^>]*?) title="[^"]*"': r"\1",
    r'<summary aria-label="Toggle hidden content">': "<summary>",
    # The arrow that opens a part of the table of contents needs a name.
    r"<summary>(?=<span class=\"toctree-toggle\")": '<summary aria-label="Show or hide its pages">',
    # Entries of the bibliography have a role of their own, which a list may not hold.
    r'<div role="list" class="citation-list">': '<div class="citation-list">',
    # A list of definitions without terms: the arguments of a function, one to a line.
    r"<dl>\n(?=<dd><em class=\"sig-param)": '<span class="sig-lines">\n',
    r"<dd>(<em class=\"sig-param.*?),</dd>\n": r'<span class="sig-line">\1,</span>' + "\n",
    r"(<span class=\"sig-line\">.*</span>\n)</dl>": r"\1</span>",
}


def repair(page: str) -> str:
    """Return the text of a page with every defect mended; a mended page stays as it is."""
    for pattern, replacement in REPAIRS.items():
        page = re.sub(pattern, replacement, page)
    return page


class ByAuthor(Style):
    """Entries in the order of their authors, family name first."""

    default_name_style = "lastfirst"
    default_sorting_style = "author_year_title"

    def __init__(self) -> None:
        """Write first names as initials."""
        super().__init__(abbreviate_names=True)


def _silence(app: Sphinx) -> None:
    for listeners in app.events.listeners.values():
        listeners[:] = [one for one in listeners if one.handler not in _LIVE_CODE]


def _bring_mathjax(app: Sphinx, config: Config) -> None:
    folder = files("sphinx-mathjax-offline") / "static" / "mathjax"
    config.html_static_path.append(str(folder / config.mathjax_path))


def _mend(app: Sphinx, exception: Exception | None) -> None:
    if exception is None and app.builder.format == "html":
        for path in Path(app.outdir).rglob("*.html"):
            text = path.read_text(encoding="utf-8")
            if (mended := repair(text)) != text:
                path.write_text(mended, encoding="utf-8")
        for path in Path(app.outdir, "_static", "tippy").rglob("*.js"):
            # Formulas can only be measured, and so be typeset, when the tip is on the page.
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace("onShow(instance)", "onMount(instance)"), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect the repairs."""
    register_plugin("pybtex.style.formatting", "by_author", ByAuthor)
    app.connect("config-inited", _bring_mathjax)
    app.connect("builder-inited", _silence)
    app.connect("build-finished", _mend, priority=900)  # after the hover texts are written
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
