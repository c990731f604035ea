"""The small extensions: docstrings as pages, the table of exercises, repairs of the theme."""

import base64
import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from attrlib.types import Inputs, Labels
from tests.book.building import ROOT
from tools.chapters import chapters, read

sys.path.append(str(ROOT / "tools" / "sphinx"))
from docstrings import signature, to_rst
from exercise_map import Exercise, exercises, plan
from landing import address, ends, opening, thumbnail
from pages import repair
from workers import gather, leave


def planted(x: Inputs, y: "Labels", *, flag: bool = True) -> Inputs:
    raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Planted:
    x: Inputs
    steps: int = 3


def test_dollars_become_formulas() -> None:
    text = "Take $f_y$ and `$HOME`.\n\n$$a = b,\n  \\quad c$$\n\nCosts 3 $ or 4 $."
    assert to_rst(text) == (
        "Take :math:`f_y` and `$HOME`.\n\n\n.. math::\n\n   a = b,\n   \\quad c\n\n\nCosts 3 $ or 4 $."
    )


def test_signatures_keep_the_names_of_types() -> None:
    arguments = "x: ~attrlib.types.Inputs, y: 'Labels', *, flag: bool=True"
    assert signature(planted) == (f"({arguments})", "~attrlib.types.Inputs")
    assert signature(Planted) == ("(*, x: ~attrlib.types.Inputs, steps: int = 3)", "")
    assert signature(print) is None


def test_exercises_are_read_from_the_notebook(tmp_path: Path) -> None:
    opening = (
        "````{{exercise-start}} {title}\n:label: {label}\n````\n\n"
        "*Difficulty: ●●○ · about {n} minutes*"
    )
    cells = [
        opening.format(title="By hand", label="ex-hand", n=5),
        "Solution.",
        opening.format(title="In code", label="ex-code", n=15),
        "def answer(): ...",
        'check("chapter/code", answer)',
    ]
    path = tmp_path / "chapter.ipynb"
    path.write_text(json.dumps({"cells": [{"source": [cell]} for cell in cells]}), encoding="utf-8")
    assert exercises(path) == [
        Exercise(title="By hand", label="ex-hand", difficulty="●●○", minutes=5, checked=False),
        Exercise(title="In code", label="ex-code", difficulty="●●○", minutes=15, checked=True),
    ]


def test_a_plan_is_read_from_the_notebook(tmp_path: Path) -> None:
    cells = [
        "# A chapter\n\nWhy?",
        ":::{admonition} Before you start\n:class: front\n\n**Objectives.** After it you can\n\n"
        "- read,\n- write.\n\n**Prerequisites.** None.\n\n**Time.** An hour.\n\nMore about it.\n:::"
        "\n\n(sec-one)=\n## One",
    ]
    path = tmp_path / "chapter.ipynb"
    path.write_text(json.dumps({"cells": [{"source": [cell]} for cell in cells]}), encoding="utf-8")
    assert plan(path) == ("After it you can\n\n- read,\n- write.", "An hour.")
    path.write_text(json.dumps({"cells": [{"source": ["# A draft\n"]}]}), encoding="utf-8")
    assert plan(path) == ("", "")
    assert exercises(path) == []


def panels(*widths: int, height: int = 40) -> Image.Image:
    """Return dark panels of these widths on white, ten pixels apart, with a white frame."""
    picture = Image.new("RGB", (10 + sum(widths) + 10 * len(widths), height + 20), "white")
    at = 10
    for width in widths:
        picture.paste("navy", (at, 10, at + width, 10 + height))
        at += width + 10
    return picture


def test_a_thumbnail_holds_whole_panels() -> None:
    picture = panels(40, 40, 40, 40)
    assert ends(picture) == [50, 100, 150, 210]
    small = thumbnail(picture)  # 2.1 times the height of 60 pixels is nearest to the third end
    assert small.size == (480, round(480 * 60 / 150))
    assert thumbnail(panels(60)).size == (480, 360)


def test_the_opening_picture_travels_in_its_address() -> None:
    file = io.BytesIO()
    panels(40).save(file, "PNG")
    data = {"image/png": base64.b64encode(file.getvalue()).decode()}
    cell = new_code_cell(
        outputs=[new_output("display_data", data=data)],
        metadata={"mystnb": {"image": {"alt": "A panel."}}},
    )
    picture, alt = opening(new_notebook(cells=[new_code_cell("1"), cell]))
    assert (picture.size, alt) == ((60, 60), "A panel.")
    kind, sent = address(picture).split(",")
    assert kind == "data:image/webp;base64"
    again = Image.open(io.BytesIO(base64.b64decode(sent))).convert("RGB")
    difference = np.abs(np.asarray(again, int) - np.asarray(picture, int))
    assert difference.mean() < 3
    with pytest.raises(ValueError, match="Expected a notebook with a picture, got none"):
        opening(new_notebook())


def test_a_thumbnail_is_light() -> None:
    for path in chapters().values():
        assert len(address(thumbnail(opening(read(path))[0]))) < 40_000, path.stem


def test_repairs_change_a_page_once() -> None:
    page = (
        '<summary><span class="toctree-toggle"></span></summary><div role="list" class="citation-list">'
        '<dl>\n<dd><em class="sig-param">x</em>,</dd>\n<dd><em class="sig-param">y</em>,</dd>\n</dl>'
    )
    mended = repair(page)
    assert mended == (
        '<summary aria-label="Show or hide its pages"><span class="toctree-toggle"></span></summary>'
        '<div class="citation-list"><span class="sig-lines">\n'
        '<span class="sig-line"><em class="sig-param">x</em>,</span>\n'
        '<span class="sig-line"><em class="sig-param">y</em>,</span>\n</span>'
    )
    assert repair(mended) == mended


def test_hover_texts_of_another_process_are_taken_up(tmp_path: Path) -> None:
    def process(**pages: str) -> Any:
        return SimpleNamespace(
            doctreedir=tmp_path, env=SimpleNamespace(tippy_data={"pages": pages})
        )

    doctree: Any = object()
    for page in ("two", "one"):
        leave(process(**{page: f"of {page}"}), page, "page.html", {}, doctree)
    leave(process(), "search", "search.html", {}, None)  # a page without a source has no texts
    first = process()
    gather(first, None)
    assert list(first.env.tippy_data["pages"].items()) == [("one", "of one"), ("two", "of two")]
