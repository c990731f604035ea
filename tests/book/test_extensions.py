"""The small extensions: docstrings as pages, the table of exercises, repairs of the theme."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from attrlib.types import Inputs, Labels
from tests.book.building import ROOT

sys.path.append(str(ROOT / "tools" / "sphinx"))
from docstrings import signature, to_rst
from exercise_map import Exercise, exercises, plan
from pages import repair


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
