"""`attrlib.book`: what the notebooks use. That checks accept the solutions is tested in tests/book."""

import math
import runpy
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from attrlib import attributions, book
from attrlib.book import WrongAnswer, _exercises, _glue

WRONG_ANSWERS = Path(__file__).parent / "book" / "wrong_answers"
COLUMNS = "model,score,commit,date,device,versions,seconds\n"
ROW = "natural,0.5,abc1234,2026-11-21,cpu,python 3.11 torch 2.14,1.5\n"


# --- budget ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "amount"), [(None, 8), ("quick", 8), ("full", 500)])
def test_budget_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str | None, amount: int
) -> None:
    monkeypatch.delenv("ATTRLIB_BUDGET", raising=False)
    if value is not None:
        monkeypatch.setenv("ATTRLIB_BUDGET", value)
    assert book.budget(quick=8, full=500) == amount


@pytest.mark.parametrize("value", ["", "fast", "FULL"])
def test_an_unknown_budget_is_an_error(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ATTRLIB_BUDGET", value)
    with pytest.raises(ValueError, match=f"Expected ATTRLIB_BUDGET .* got '{value}'"):
        book.budget(quick=8, full=500)


# --- glue -----------------------------------------------------------------------------------------


def test_glue_stores_plain_values(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[object, object]] = []
    monkeypatch.setattr(
        _glue, "display", lambda data, *, metadata, raw: shown.append((data, metadata))
    )
    book.glue(name="boot", count=3, share=np.float64(0.5), gap=torch.tensor(0.25))
    assert [data["application/papermill.record/text/plain"] for data, _ in shown] == [
        "'boot'",
        "3",
        "0.5",
        "0.25",
    ]
    assert [metadata["scrapbook"]["name"] for _, metadata in shown] == [
        "name",
        "count",
        "share",
        "gap",
    ]
    with pytest.raises(TypeError, match="None"):
        book.glue(x=None)


# --- results --------------------------------------------------------------------------------------


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `results`, and a working directory two levels below it."""
    (tmp_path / "results").mkdir()
    (tmp_path / "part" / "deeper").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "part" / "deeper")
    return tmp_path / "results"


def test_results_are_found_from_a_folder_below(tables: Path) -> None:
    (tables / "grid.csv").write_text(COLUMNS + ROW)
    frame = book.results("grid")
    assert frame["score"].tolist() == [0.5]
    assert set(book.PROVENANCE) <= set(frame.columns)


def test_the_nearest_folder_wins(tables: Path) -> None:
    (tables / "grid.csv").write_text(COLUMNS + ROW)
    (tables.parent / "part" / "results").mkdir()
    (tables.parent / "part" / "results" / "grid.csv").write_text(COLUMNS + ROW.replace("0.5", "9"))
    assert book.results("grid")["score"].tolist() == [9]


def test_an_unknown_table_names_the_known_ones(tables: Path) -> None:
    (tables / "grid.csv").write_text(COLUMNS + ROW)
    with pytest.raises(FileNotFoundError, match=r"there: .*grid.*, got 'grit'"):
        book.results("grit")


def test_a_table_without_provenance_is_an_error(tables: Path) -> None:
    (tables / "grid.csv").write_text("model,score,commit,date,versions\nnatural,0.5,a,b,c\n")
    with pytest.raises(ValueError, match=r"grid.csv .* got no column device, seconds"):
        book.results("grid")


def test_a_table_without_rows_is_an_error(tables: Path) -> None:
    (tables / "grid.csv").write_text(COLUMNS)
    with pytest.raises(ValueError, match=r"grid.csv .* got no rows"):
        book.results("grid")


def test_rows_are_chosen_by_column(tables: Path) -> None:
    other = ROW.replace("natural", "madry").replace("0.5", "0.25004")
    (tables / "grid.csv").write_text(COLUMNS + ROW + other)
    assert book.results("grid", model="madry")["score"].tolist() == [0.25004]
    assert book.results("grid", score=0.25)["model"].tolist() == ["madry"]  # rounded in the table
    with pytest.raises(ValueError, match=r"Expected a column of grid.csv, got 'modell'"):
        book.results("grid", modell="madry")
    with pytest.raises(ValueError, match=r"Expected score of a row in grid.csv, got 0.4"):
        book.results("grid", score=0.4)


def test_the_board_has_a_row_for_each_network() -> None:
    columns = ["recipe", "seed", "attack", "eps", "quantity", "value", "low", "high"]
    other = pd.DataFrame([("madry", "0", "random", 0.1, "topk", 0.9, 0.9, 0.9)], columns=columns)
    rows = [
        ("madry", "0", "model", 0.0, "accuracy", 0.75, 0.7, 0.8),
        ("madry", "0", "top-k suite", 0.1, "topk", 0.5, 0.4, 0.6),
        ("madry", "0", "top-k suite", 0.1, "lens_recall", 0.7, 0.6, 0.8),
        ("madry", "0", "top-k suite", 0.1, "lens_recall_chance", 0.4, 0.4, 0.4),
        ("madry", "0", "random", 0.1, "topk", 0.6, 0.5, 0.7),
        ("madry", "0", "other image", 0.0, "topk", 0.3, 0.2, 0.4),
        ("madry", "0", "mass", 0.1, "topk", 0.9, 0.9, 0.9),  # another attack, left out
    ]
    table = pd.DataFrame(rows, columns=columns).assign(map="gradient")
    table = pd.concat([table, other.assign(map="LRP")])  # another map, left out
    got = book.board(table).loc[("madry", "0")]
    assert got["topk", 0.1] == 0.5
    assert (got["topk low", 0.1], got["topk high", 0.1]) == (0.4, 0.6)
    assert got["LENS", 0.1] == pytest.approx(0.5)  # (0.7 - 0.4) / (1 - 0.4)
    assert (got["random topk", 0.1], got["other topk", 0.0], got["accuracy", 0.0]) == (
        0.6,
        0.3,
        0.75,
    )
    with pytest.raises(ValueError, match=r"rows of the top-k suite, got \['model'\]"):
        book.board(pd.DataFrame(rows[:1], columns=columns))


# --- source ---------------------------------------------------------------------------------------


def test_source_shows_the_code_without_its_docstring() -> None:
    text = book.source(attributions.gradient).data
    assert text.startswith("```python\n# attrlib/attributions.py\n")
    assert text.endswith("\n```")
    assert "def gradient(" in text
    assert '"""' not in text
    compile(text.removeprefix("```python\n").removesuffix("```"), "shown", "exec")


def test_source_can_keep_the_docstring() -> None:
    assert '"""' in book.source(attributions.gradient, docstring=True).data


def test_source_names_a_file_once() -> None:
    text = book.source(attributions.gradient, attributions.input_x_gradient, book.budget).data
    assert text.count("# attrlib/attributions.py") == 1
    assert text.index("def gradient(") < text.index("def input_x_gradient(")
    assert text.index("# attrlib/book/_budget.py") < text.index("def budget(")


def test_comments_and_strings_survive_when_docstrings_go() -> None:
    code = textwrap.dedent('''\
        class Rule:
            """What it is.

            More.
            """

            size: int = 3  # kept

            def empty(self):
                """Nothing but a docstring."""

            def full(self):
                r"""Raw."""
                # also kept
                return """not a docstring"""

            def short(self): "On one line."
        ''')
    expected = textwrap.dedent('''\
        class Rule:
            size: int = 3  # kept

            def empty(self):
                ...

            def full(self):
                # also kept
                return """not a docstring"""

            def short(self): "On one line."''')
    assert book._source._without_docstrings(code) == expected


@pytest.mark.parametrize("thing", [torch.zeros, 3, book.PROVENANCE, Path, attributions])
def test_source_refuses_what_is_not_ours(thing: object) -> None:
    with pytest.raises(ValueError, match="Expected objects to be functions or classes of attrlib"):
        book.source(thing)
    with pytest.raises(ValueError, match="Expected objects to name at least one"):
        book.source()


# --- check ----------------------------------------------------------------------------------------


@pytest.fixture
def toy_chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chapter `toy-chapter` with one exercise about a function and one about a number."""
    (tmp_path / "toy_chapter.py").write_text(
        textwrap.dedent("""\
        import torch

        from attrlib.book._exercises import expect, expect_close, run

        HINT = "Multiply."


        def times_two(answer: object) -> str:
            x = torch.tensor([1.0, -2.0])
            got = run(answer, x, tried="x = (1, -2)", hint=HINT)
            expect_close(got, 2 * x, tried="x = (1, -2)", hint=HINT)
            return "Your function doubles its input."


        def how_many(answer: object) -> str:
            expect(answer == 3, tried="your number", expected="3", got=answer, hint="Count.")
            return "There are three."


        def _not_an_exercise(answer: object) -> str:
            return ""
        """)
    )
    monkeypatch.setattr(_exercises.checks, "__path__", [str(tmp_path)])


@pytest.mark.usefixtures("toy_chapter")
def test_a_right_answer_prints_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    book.check("toy-chapter/times-two", lambda x: x + x)
    book.check("toy-chapter/how-many", 3)
    assert capsys.readouterr().out == (
        "Correct. Your function doubles its input.\nCorrect. There are three.\n"
    )


def stub(x: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError("Exercise: Twice")


def crash(x: torch.Tensor) -> torch.Tensor:
    raise KeyError("weight")


@pytest.mark.usefixtures("toy_chapter")
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda x: 3 * x, r"Expected: -4 at flat index 1.*Got: +-6\n.*Hint: +Multiply"),
        (lambda x: x * torch.nan, r"Got: +nan"),
        (lambda x: x.sum(), r"Expected: shape \(2,\)\n.*Got: +shape \(\)"),
        (lambda x: 2.0, r"Expected: shape \(2,\)\n.*Got: +shape \(\)"),
        (lambda x: None, r"Expected: a tensor\n.*Got: +NoneType"),
        (lambda: None, r"Tried: +x = \(1, -2\).*Got: +TypeError: .*argument"),
        (crash, r"Got: +KeyError: 'weight'"),
        (stub, r"not written yet. Exercise: Twice"),
        (5, r"Expected: a function\n.*Got: +5 \(int\)"),
    ],
)
def test_a_wrong_answer_says_what_was_tried(answer: object, message: str) -> None:
    with pytest.raises(WrongAnswer, match=f"(?s){message}"):
        book.check("toy-chapter/times-two", answer)


@pytest.mark.usefixtures("toy_chapter")
def test_a_number_counts_as_a_tensor_without_axes() -> None:
    _exercises.expect_close(0.25, torch.tensor(0.25), tried="", hint="")
    with pytest.raises(WrongAnswer, match=r"Expected: +0.25\n"):
        _exercises.expect_close(0.26, torch.tensor(0.25), tried="", hint="")


def test_a_number_may_be_a_tensor_with_one_entry() -> None:
    pairs = [(0.25, 0.25), (np.float64(0.25), 0.25), (torch.tensor([3]), 3), (1e9 + 1, 1e9)]
    pairs += [(math.nan, math.nan)]
    for got, right in pairs:
        _exercises.expect_number(got, right, tried="", hint="")
    for wrong in (0.26, None, "0.25", math.nan, torch.zeros(2)):
        with pytest.raises(WrongAnswer, match=r"Expected: +0.25\n"):
            _exercises.expect_number(wrong, 0.25, tried="", hint="")
    with pytest.raises(WrongAnswer, match=r"Expected: +nan\n *Got: +0.5"):
        _exercises.expect_number(0.5, math.nan, tried="", hint="")


@pytest.mark.usefixtures("toy_chapter")
def test_jupyter_shows_the_message_and_no_stack() -> None:
    with pytest.raises(WrongAnswer) as caught:
        book.check("toy-chapter/how-many", 4)
    assert caught.value._render_traceback_()[0].startswith("WrongAnswer: not yet.\n  Tried:")


@pytest.mark.usefixtures("toy_chapter")
@pytest.mark.parametrize("name", ["toy-chapter/times-three", "toy-chapter", "no-chapter/times-two"])
def test_an_unknown_exercise_lists_the_known_ones(name: str) -> None:
    known = "toy-chapter/how-many, toy-chapter/times-two"
    with pytest.raises(ValueError, match=f"one of: {known}; got '{name}'"):
        book.check(name, 3)


# --- the checks of the chapters -------------------------------------------------------------------


@pytest.mark.parametrize("name", book.exercises())
def test_the_checks_reject_wrong_answers(name: str) -> None:
    stem, _, exercise = name.partition("/")
    planted = runpy.run_path(str(WRONG_ANSWERS / f"{stem.replace('-', '_')}.py"))["WRONG"][exercise]
    assert len(planted) >= 3
    for answer in planted:
        with pytest.raises(WrongAnswer, match=r"(?s)Tried: .*Expected: .*Got: .*Hint: "):
            book.exercises()[name](answer)
