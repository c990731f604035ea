"""The quiz directive: what it accepts, what it says otherwise, and how the page behaves."""

import subprocess
import sys
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import Browser

from tests.book.building import ROOT

sys.path.append(str(ROOT / "tools" / "sphinx"))
from quiz import Option, Question, parse

GOOD = """\
- question: |
    What is $f_y$?

    Think of scores.
  options:
    - text: A *logit*, not $p_y$.
      correct: true
      why: A score before the softmax, $f_y$.
    - text: A probability.
      why: |
        Scores need not add up to one:

        $$ f_1 + f_2 $$
- question: And 1 + 1?
  options:
    - {text: 2, correct: true, why: Count.}
    - {text: 3, why: Too much.}
"""


def page(tmp_path: Path, body: str) -> tuple[int, str, Path]:
    """Build a page with a quiz; return the exit code, what Sphinx said, and the page."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    tools = ROOT / "tools" / "sphinx"
    (source / "conf.py").write_text(
        f"import sys\nsys.path.append({str(tools)!r})\nextensions = ['myst_parser', 'quiz']\n"
        "myst_enable_extensions = ['dollarmath']\nmathjax_path = 'none.js'\n",
        encoding="utf-8",
    )
    text = f"# Title\n\n## Place\n\n```{{quiz}}\n{body}```\n\nAfter.\n"
    (source / "index.md").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "sphinx", "-q", "-n", "-W", "-b", "html", source, out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr, out / "index.html"


def test_parse_returns_questions() -> None:
    first, second = parse(GOOD)
    assert first.question == "What is $f_y$?\n\nThink of scores."
    assert [option.correct for option in first.options] == [True, False]
    assert second == Question(
        question="And 1 + 1?",
        options=(
            Option(text="2", why="Count.", correct=True),
            Option(text="3", why="Too much."),
        ),
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("- question: [", "Expected quiz body as YAML"),
        ("question: one", "list of questions, got {'question': 'one'}"),
        ("", "list of questions, got None"),
        ("- text", "Expected question 1 to have the keys options, question, got 'text'"),
        ("- question: one", "got \\['question'\\]"),
        (
            GOOD.replace("  options:", "  hint: no\n  options:"),
            "got \\['hint', 'options', 'question'\\]",
        ),
        (
            GOOD.replace("    - {text: 3, why: Too much.}\n", ""),
            "question 2 to have two or more options",
        ),
        (
            GOOD.replace("{text: 2, correct: true", "{text: 2"),
            "question 2 to have a correct option",
        ),
        (GOOD.replace("correct: true", "correct: yes please"), "true or false, got 'yes please'"),
        (GOOD.replace("Too much.", ""), "question 2, option 2, why to be text, got None"),
        (GOOD.replace("why: Count.", "y: Count."), "keys text, why \\(and correct\\)"),
    ],
)
def test_parse_names_what_is_wrong(body: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(body)


def test_page_is_plain_html(tmp_path: Path) -> None:
    code, log, path = page(tmp_path, GOOD)
    assert code == 0, log
    text = path.read_text(encoding="utf-8")
    soup = BeautifulSoup(text, "html.parser")
    groups = soup.select(".quiz > .quiz-question[role=group]")
    assert [group["aria-label"] for group in groups] == ["Question 1", "Question 2"]
    options = soup.select("details.quiz-option")
    assert not any(option.has_attr("open") for option in options)
    words = [" ".join(option.get_text(" ", strip=True).split()) for option in options]
    assert words[0].startswith("A logit , not")
    assert "Right. A score" in words[0]
    assert words[1].startswith("A probability. Not quite. Scores need")
    assert soup.select_one("details summary em")
    assert soup.select_one(".quiz-why div.math")
    assert "script" not in str(soup.select_one(".quiz"))


@pytest.mark.parametrize("text", ["See [this](https://example.org).", "A {term}`word`."])
def test_options_hold_no_links(tmp_path: Path, text: str) -> None:
    code, log, _ = page(tmp_path, GOOD.replace("A probability.", f">-\n        {text}"))
    assert code != 0
    assert "quiz option without links" in log


def test_bad_body_stops_the_build(tmp_path: Path) -> None:
    code, log, _ = page(tmp_path, "- question: one\n")
    assert code != 0
    assert "index.md:5" in log
    assert "Expected question 1" in log


def test_options_open_with_the_keyboard_alone(tmp_path: Path, browser: Browser) -> None:
    _, _, path = page(tmp_path, GOOD)
    view = browser.new_context(java_script_enabled=False).new_page()
    view.goto(path.as_uri())
    options = view.locator("details.quiz-option")
    options.nth(0).locator("summary").focus()
    view.keyboard.press("Tab")
    view.keyboard.press("Enter")
    assert options.nth(1).locator("summary:focus").count() == 1
    assert options.nth(1).get_by_text("Not quite.").is_visible()
    assert not options.nth(0).get_by_text("Right.").is_visible()
    view.context.close()
