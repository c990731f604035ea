r"""The directives of the first page: `opening-picture` and `chapter-cards`.

Both show the picture with which a chapter opens, as its notebook has stored it. The first shows it with
the body as caption; the second a card for each chapter of a part, with its question::

    ```{opening-picture} breaking-attributions
    The caption.
    ```

    ```{chapter-cards} Part 1
    what-is-an-attribution: What does a heatmap claim?
    ```

The body of `chapter-cards` is YAML, chapter to question; the argument is how the caption of the part
begins, and all its chapters must be there.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from docutils import nodes
from PIL import Image
from sphinx.util.docutils import SphinxDirective

from tools import myst
from tools.chapters import chapter_numbers, chapters, read

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from sphinx.application import Sphinx

WIDTH, RATIO = 480, 2.1


def opening(notebook: NotebookNode) -> tuple[Image.Image, str]:
    """Return the first picture of a notebook and its text alternative.

    Raises:
        ValueError: If the notebook has no picture.
    """
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                data = base64.b64decode(output.data["image/png"])
                alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
                return Image.open(io.BytesIO(data)).convert("RGB"), alt
    raise ValueError("Expected a notebook with a picture, got none")


def ends(picture: Image.Image) -> list[int]:
    """Return where each panel of a picture ends: left edges of the white gaps, and the right edge."""
    dark = np.flatnonzero(np.min(np.asarray(picture), axis=(0, 2)) <= 250)
    gaps = np.flatnonzero(np.diff(dark) > 1)
    return [*(int(dark[gap]) + 1 for gap in gaps), picture.width]


def thumbnail(picture: Image.Image) -> Image.Image:
    """Return the panels on the left that make a picture about twice as wide as high.

    Of panels in rows that are together higher than wide, only the upper ones.
    """
    wanted = RATIO * picture.height
    end = min(ends(picture), key=lambda place: abs(place - wanted))
    part = picture.crop((0, 0, end, picture.height))
    if part.height > part.width:
        rows = ends(part.transpose(Image.Transpose.TRANSPOSE))
        low = min(rows, key=lambda place: abs(place - end / RATIO))
        part = part.crop((0, 0, end, low))
    return part.resize((WIDTH, round(WIDTH * part.height / part.width)), Image.Resampling.LANCZOS)


def address(picture: Image.Image) -> str:
    """Return a picture as an address that holds it."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=78, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


class _OfChapters(SphinxDirective):
    """A directive that reads notebooks."""

    has_content = True
    required_arguments = 1
    final_argument_whitespace = True

    def _read(self, stem: str) -> NotebookNode:
        known = chapters(Path(self.env.srcdir))
        if stem not in known:
            raise self.error(f"Expected a chapter, one of {', '.join(known)}, got {stem!r}")
        self.env.note_dependency(str(known[stem]))
        return read(known[stem])


class OpeningPicture(_OfChapters):
    """Show the first picture of a chapter."""

    def run(self) -> list[nodes.Node]:
        """Return a figure."""
        picture, alt = opening(self._read(self.arguments[0]))
        image = nodes.image(uri=address(picture), alt=alt)
        caption = nodes.caption()
        (paragraph,) = self.parse_text_to_nodes("\n".join(self.content))
        caption += paragraph.children
        figure = nodes.figure("", image, caption, classes=["opening-picture"])
        self.set_source_info(figure)
        return [figure]


class ChapterCards(_OfChapters):
    """Show a card for each chapter of a part."""

    def run(self) -> list[nodes.Node]:
        """Return a grid of cards."""
        root = Path(self.env.srcdir)
        questions = yaml.safe_load("\n".join(self.content))
        toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
        parts = [p for p in toc["parts"] if p["caption"].startswith(self.arguments[0])]
        pages = [chapter["file"] for part in parts for chapter in part["chapters"]]
        if [Path(page).name for page in pages] != list(questions):
            raise self.error(f"Expected a question for each of {pages}, got {questions}")
        numbers = chapter_numbers(root)
        lines = ["::::{grid} 1 2 3 3", ":gutter: 3", ":class-container: chapter-cards", ""]
        for page, question in zip(pages, questions.values(), strict=True):
            notebook = self._read(Path(page).name)
            picture, alt = opening(notebook)
            title = myst.HEADING.search(notebook.cells[0].source)
            lines += [
                f":::{{grid-item-card}} {numbers[page]} · {title['title'] if title else page}",
                f":img-top: {address(thumbnail(picture))}",
                f":img-alt: {alt}",
                f":link: /{page}",
                ":link-type: doc",
                question,
                ":::",
            ]
        return self.parse_text_to_nodes("\n".join([*lines, "::::"]))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("opening-picture", OpeningPicture)
    app.add_directive("chapter-cards", ChapterCards)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
