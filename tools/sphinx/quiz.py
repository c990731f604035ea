r"""The `quiz` directive: a self-check quiz that is plain HTML and needs neither script nor kernel.

Syntax, in a Markdown cell or page::

    ```{quiz}
    - question: What does $\grad \logit$ hold for one pixel?
      options:
        - text: The slope of the explained logit in that pixel.
          correct: true
          why: It is the partial derivative, to first order.
        - text: The share of the class score owed to that pixel.
          why: Shares would have to add up to the score; slopes do not.
    ```

The body is YAML: a list of questions. Each question has exactly the keys

    question    Markdown blocks (text, mathematics, roles, even an image)
    options     a list of two or more options, each with
        text        Markdown in one line of text; no links, {term} or {cite}, which would be
                    controls inside a control
        why         Markdown blocks: the explanation shown when the option is opened
        correct     true on every right option, left out (or false) on the others; at least one true

A directive option `:start: 4` numbers the questions from 4; the default is 1.

Write values plainly, as above, or as `>-` / `|` blocks. A plain value must not contain `: ` or ` #`
and must not begin with one of the characters `` ` { [ * & ! % @ " ' > | ``; use a `>-` block then.
Never put mathematics in double quotes: YAML reads backslashes there.

In HTML each option is a `<details>` element whose summary is the option: it can be reached with
Tab, opened with Enter or Space, and says "Right." or "Not quite." and why. `parse` below returns
the checked questions and is all that other tools need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from collections.abc import Callable

    from sphinx.application import Sphinx
    from sphinx.writers.html5 import HTML5Translator

_LINKS = (nodes.reference, addnodes.pending_xref)
RIGHT, WRONG = "Right.", "Not quite."


@dataclass(frozen=True, kw_only=True)
class Option:
    """One answer a reader may choose."""

    text: str
    why: str
    correct: bool = False


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with its options."""

    question: str
    options: tuple[Option, ...]


def parse(body: str) -> tuple[Question, ...]:
    """Return the questions of a quiz body.

    Args:
        body: The YAML text between the fences, without directive options.

    Returns:
        The questions in order, every text stripped of outer blank space.

    Raises:
        ValueError: If the body is not YAML or does not have the form described above.
    """
    try:
        data = yaml.safe_load(body)
    except yaml.YAMLError as error:
        raise ValueError(f"Expected quiz body as YAML, got: {error}") from error
    if not isinstance(data, list) or not data:
        raise ValueError(f"Expected quiz body to be a list of questions, got {data!r}")
    return tuple(_question(number, entry) for number, entry in enumerate(data, start=1))


def _question(number: int, entry: Any) -> Question:
    name = f"question {number}"
    _keys(name, entry, required={"question", "options"}, optional=set())
    options = entry["options"]
    if not isinstance(options, list) or len(options) < 2:
        raise ValueError(f"Expected {name} to have two or more options, got {options!r}")
    parsed = tuple(_option(f"{name}, option {i}", o) for i, o in enumerate(options, start=1))
    if not any(option.correct for option in parsed):
        raise ValueError(f"Expected {name} to have a correct option, got none")
    return Question(question=_text(f"{name}, question", entry["question"]), options=parsed)


def _option(name: str, entry: Any) -> Option:
    _keys(name, entry, required={"text", "why"}, optional={"correct"})
    correct = entry.get("correct", False)
    if not isinstance(correct, bool):
        raise ValueError(f"Expected {name}, correct to be true or false, got {correct!r}")
    text = " ".join(_text(f"{name}, text", entry["text"]).split())
    return Option(text=text, why=_text(f"{name}, why", entry["why"]), correct=correct)


def _keys(name: str, entry: Any, *, required: set[str], optional: set[str]) -> None:
    keys = set(entry) if isinstance(entry, dict) else entry
    if not isinstance(keys, set) or not required <= keys <= required | optional:
        expected = ", ".join(sorted(required)) + "".join(f" (and {k})" for k in sorted(optional))
        got = sorted(map(str, keys)) if isinstance(keys, set) else entry
        raise ValueError(f"Expected {name} to have the keys {expected}, got {got!r}")


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool) or not str(value):
        raise ValueError(f"Expected {name} to be text, got {value!r}")
    return str(value).strip()


class quiz(nodes.General, nodes.Element):
    """A whole quiz."""


class quiz_question(nodes.General, nodes.Element):
    """A question and its options."""


class quiz_option(nodes.General, nodes.Element):
    """An option: a `quiz_choice` followed by its explanation."""


class quiz_choice(nodes.General, nodes.TextElement):
    """The text of an option."""


class QuizDirective(SphinxDirective):
    """Turn the YAML body into nodes; a wrong body is an error at its place in the source."""

    has_content = True
    option_spec: ClassVar[dict[str, Callable[[str], Any]] | None] = {
        "start": directives.positive_int
    }

    def run(self) -> list[nodes.Node]:
        """Return one `quiz` node."""
        try:
            questions = parse("\n".join(self.content))
        except ValueError as error:
            raise self.error(str(error)) from error
        start = self.options.get("start", 1)
        node = quiz("", *(self._ask(n, q) for n, q in enumerate(questions, start=start)))
        self.set_source_info(node)
        return [node]

    def _ask(self, number: int, question: Question) -> quiz_question:
        label = nodes.paragraph("", f"Question {number}", classes=["quiz-number"])
        node = quiz_question("", label)
        self._blocks(question.question, node)
        node.extend(self._offer(option) for option in question.options)
        return node

    def _offer(self, option: Option) -> quiz_option:
        inline, messages = self.state.inline_text(option.text, self.lineno)
        if any(isinstance(part, _LINKS) for top in inline for part in top.findall()):
            raise self.error(f"Expected quiz option without links, got {option.text!r}")
        node = quiz_option("", quiz_choice("", "", *inline), *messages, correct=option.correct)
        verdict = nodes.strong("", RIGHT if option.correct else WRONG)
        before = len(node)
        self._blocks(option.why, node)
        if isinstance(node[before], nodes.paragraph):
            node[before].insert(0, [verdict, nodes.Text(" ")])
        else:
            node.insert(before, nodes.paragraph("", "", verdict))
        return node

    def _blocks(self, text: str, node: nodes.Element) -> None:
        source = self.get_source_info()[0]
        self.state.nested_parse(StringList(text.splitlines(), source), self.content_offset, node)


def _open_quiz(self: HTML5Translator, node: quiz) -> None:
    self.body.append(self.starttag(node, "div", CLASS="quiz"))


def _open_question(self: HTML5Translator, node: quiz_question) -> None:
    label = node[0].astext()
    self.body.append(
        self.starttag(node, "div", CLASS="quiz-question", role="group", **{"aria-label": label})
    )


def _close_div(self: HTML5Translator, node: nodes.Element) -> None:
    self.body.append("</div>\n")


def _open_option(self: HTML5Translator, node: quiz_option) -> None:
    kind = "quiz-right" if node["correct"] else "quiz-wrong"
    self.body.append(self.starttag(node, "details", CLASS=f"quiz-option {kind}"))


def _close_option(self: HTML5Translator, node: quiz_option) -> None:
    self.body.append("</div></details>\n")


def _open_choice(self: HTML5Translator, node: quiz_choice) -> None:
    self.body.append("<summary><span>")


def _close_choice(self: HTML5Translator, node: quiz_choice) -> None:
    self.body.append('</span></summary>\n<div class="quiz-why">')


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and its HTML."""
    app.add_node(quiz, html=(_open_quiz, _close_div))
    app.add_node(quiz_question, html=(_open_question, _close_div))
    app.add_node(quiz_option, html=(_open_option, _close_option))
    app.add_node(quiz_choice, html=(_open_choice, _close_choice))
    app.add_directive("quiz", QuizDirective)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
