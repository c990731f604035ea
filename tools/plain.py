"""MyST text turned into Markdown that every notebook viewer shows."""

import re
from dataclasses import dataclass, field

from tools import myst
from tools.myst import Directive
from tools.references import Book, Citation
from tools.sphinx import quiz

_TOKEN = re.compile(
    "|".join(
        (
            r"(?P<fenced>^ *(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^ *(?P=fence) *$)",
            rf"(?P<any_role>{myst.ROLE})(?P<attributes>\{{[#.][^}}\n]*\}})?",
            rf"(?P<any_code>{myst.CODE})",
            myst.DISPLAY,
            myst.MATH,
            r"(?P<image>!?)\[(?P<words>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<link>[^)\s]+)\)"
            r"(?:\{[#.][^}\n]*\})?",
        )
    ),
    re.MULTILINE | re.DOTALL,
)
_BOXES = {
    *("admonition", "note", "tip", "hint", "important", "warning", "caution", "attention"),
    *("danger", "error", "seealso", "margin", "sidebar", "topic", "epigraph"),
}
_SAME_IN_TEXT = {"term", "sub", "sup", "abbr", "kbd", "guilabel"}
_CODE_ROLES = re.compile(r"(py:)?(func|class|meth|mod|obj|attr|data|exc)|code|file|command")
_LABEL_ROLES = {"ref", "numref", "eq", "prf:ref", "doc"}


@dataclass
class Plain:
    """Converts the texts of one page; `images` collects the files that its pictures need."""

    book: Book
    page: str
    images: set[str] = field(default_factory=set)

    def convert(self, text: str) -> str:
        """Return the text without directives, roles, labels and comments.

        Raises:
            ValueError: If the text uses something that is not known here, or an unknown name.
        """
        pieces = map(self.block, myst.blocks(text))
        return "\n\n".join(piece for piece in pieces if piece)

    # --- blocks -----------------------------------------------------------------------------------

    def block(self, block: str | Directive) -> str:
        """Return one block as plain Markdown, without blank lines around it."""
        text = self.directive(block) if isinstance(block, Directive) else self.inline(block)
        return re.sub(r"\n{3,}", "\n\n", text).strip()

    def directive(self, block: Directive) -> str:
        """Return a directive as plain Markdown; exercises are the exporter's own matter."""
        name, title = block.name, self.inline(block.argument)
        if name == "quiz":
            return self.quiz(block.body)
        if name == "math":
            return self.display(block.body, block.options.get("label", ""))
        if name in ("code-block", "code", "sourcecode"):
            return f"```{block.argument}\n{block.body}\n```"
        if name in ("figure", "image"):
            self.images.add(block.argument)
            picture = f"![{block.options.get('alt', '')}]({block.argument})"
            return f"{picture}\n\n{self.caption(block.options.get('name', ''), block.body)}".strip()
        if name == "table":
            return f"**{title}**\n\n{self.convert(block.body)}"
        if name.startswith("prf:"):
            kind = name.removeprefix("prf:").capitalize()
            label = self.book.targets.get(block.options.get("label", ""))
            kind = label.text if label else kind
            return _box(f"{kind} ({title})" if title else kind, self.convert(block.body))
        if block.folded:
            return folded(title or name.capitalize(), self.convert(block.body))
        if name in _BOXES:
            if name in ("admonition", "topic", "sidebar"):
                return _box(title, self.convert(block.body))
            heading = "" if name in ("margin", "epigraph") else name.capitalize()
            return _box(
                heading.replace("Seealso", "See also"),
                self.convert(f"{block.argument}\n{block.body}"),
            )
        raise ValueError(f"Expected directive to be one that has a plain form, got {{{name}}}")

    def caption(self, label: str, text: str) -> str:
        """Return the caption of a figure with its number."""
        target = self.book.targets.get(label)
        number = f"**{target.text}.** " if target else ""
        return f"{number}{self.convert(text)}".strip()

    def quiz(self, body: str) -> str:
        """Return the questions with one folded block for each option."""
        told = []
        for number, question in enumerate(quiz.parse(body), start=1):
            told.append(f"**{number}.** {self.convert(question.question)}")
            for option in question.options:
                verdict = quiz.RIGHT if option.correct else quiz.WRONG
                answer = f"**{verdict}** {self.convert(option.why)}"
                told.append(folded(self.inline(option.text), answer))
        return "\n\n".join(told)

    # --- inside a line ----------------------------------------------------------------------------

    def inline(self, text: str) -> str:
        """Return a text between directives as plain Markdown."""
        text = myst.LABEL.sub("", re.sub(r"^\+\+\+.*\n?", "", text, flags=re.MULTILINE))
        return _TOKEN.sub(self._token, text)

    def _token(self, match: re.Match[str]) -> str:
        if match["fenced"] or match["any_code"]:
            return match[0]
        if match["any_role"]:
            return self.role(match["role"], match["text"])
        if match["display"]:
            return self.display(match["display"].strip("\n"), match["equation"] or "")
        if match["math"]:
            return f"${self.expand(match['math'])}$"
        if match["image"]:
            self.images.add(match["link"])
            return f"![{match['words']}]({match['link']})"
        return self.link(self.inline(match["words"]), match["link"])

    def display(self, formula: str, label: str) -> str:
        """Return a displayed formula, with the number of its label."""
        target = self.book.targets.get(label)
        tag = rf" \tag{{{target.text.strip('()')}}}" if target else ""
        return f"$$\n{self.expand(formula).strip()}{tag}\n$$"

    def link(self, words: str, target: str) -> str:
        """Return a link; one to another page of the book becomes its title, as there is no page."""
        if re.match(r"https?:|mailto:", target):
            return f"[{words}]({target})"
        if target.startswith("#"):
            return self.label(target.removeprefix("#"), words)
        page = re.sub(r"^(\.{1,2}/)+|(\.md|\.ipynb)?(#.*)?$", "", target)
        page = page if page in self.book.titles else page.rsplit("/", 1)[-1]
        if page not in self.book.titles:
            raise ValueError(f"Expected link to be a page of the book, got {target!r}")
        return f"*{words or self.book.titles[page]}*"

    def label(self, label: str, words: str) -> str:
        """Return a reference to a label in words, and as a link if it is a heading of this page."""
        if label not in self.book.targets:
            raise ValueError(f"Expected label to be one of the book, got {label!r}")
        target = self.book.targets[label]
        shown = words or self.inline(target.text)
        if target.page != self.page:
            return f"{shown} in *{self.book.titles[target.page]}*"
        anchor = re.sub(r"\s+", "-", re.sub(r"[*`]", "", target.heading))
        return f"[{shown}](#{anchor})" if anchor else shown

    def role(self, role: str, text: str) -> str:
        """Return the plain form of one role."""
        words, name = text, text
        if found := re.fullmatch(r"(.*?)\s*<(.+)>", text, re.DOTALL):
            words, name = found[1], found[2]
        if role.startswith("cite"):
            return self.cite(role.partition(":")[2] or "p", text)
        if role in ("glue", "glue:text"):
            return self.glue(text)
        if role == "math":
            return f"${self.expand(text)}$"
        if role == "doc":
            return self.link("" if words == name else words, f"{name}.md")
        if role in _LABEL_ROLES:
            return self.label(name, "" if words == name else words)
        if role in _SAME_IN_TEXT:
            return self.inline(words)
        if _CODE_ROLES.fullmatch(role):
            return f"`{words.removeprefix('~')}`"
        raise ValueError(f"Expected role to be one that has a plain form, got {{{role}}}")

    def cite(self, form: str, keys: str) -> str:
        """Return citations with author and year, linked to the source."""
        sources = []
        for key in re.split(r"\s*,\s*", keys.strip()):
            if key not in self.book.citations:
                raise ValueError(f"Expected citation to be in references.bib, got {key!r}")
            sources.append(self.book.citations[key])
        if form == "t":
            return ", ".join(_linked(s, f"{s.authors} ({s.year})") for s in sources)
        return "(" + "; ".join(_linked(s, f"{s.authors}, {s.year}") for s in sources) + ")"

    def glue(self, text: str) -> str:
        """Return a value that a cell stored, in the format asked for."""
        page, _, rest = text.rpartition("::")
        key, _, form = rest.partition(":")
        page = re.sub(r"\.ipynb$", "", page).rsplit("/", 1)[-1] or self.page
        if (page, key) not in self.book.glued:
            raise ValueError(f"Expected glued key to be stored by a cell of {page}, got {key!r}")
        value = self.book.glued[page, key].strip("'\"")
        return f"{float(value):{form}}" if form else value

    def expand(self, formula: str) -> str:
        """Return a formula with the book's macros written out."""
        for _ in range(10):  # macros use macros, not deeper than this
            before = formula
            for name, (meaning, count) in self.book.macros.items():
                formula = _expand(formula, name, meaning, count)
            if formula == before:
                return formula
        raise ValueError(f"Expected macros that end, got {formula!r}")


def folded(title: str, text: str) -> str:
    """Return a block that the reader opens."""
    return f"<details>\n<summary>{title}</summary>\n\n{text}\n\n</details>"


def _box(title: str, text: str) -> str:
    lines = ([f"**{title}**", ""] if title else []) + text.splitlines()
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _linked(source: Citation, words: str) -> str:
    return f"[{words}]({source.url})" if source.url else words


def _expand(formula: str, name: str, meaning: str, count: int) -> str:
    r"""Replace `\name`, followed by `count` groups in braces, by its meaning in braces."""
    group = r"\s*\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}"
    called = re.compile(rf"\\{name}(?![A-Za-z])" + group * count)

    def fill(match: re.Match[str]) -> str:
        filled = meaning
        for number, argument in enumerate(match.groups(), start=1):
            filled = filled.replace(f"#{number}", argument)
        return filled if filled.startswith("{") else f"{{{filled}}}"

    return called.sub(fill, formula)
