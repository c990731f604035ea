"""The MyST syntax of a Markdown cell, as far as checks and plain copies need it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_OPEN = re.compile(r"^(?P<fence>`{3,}|:{3,})\{(?P<name>[\w:-]+)\}[ \t]*(?P<argument>.*)$")
_CODE = re.compile(r"^ *(?P<fence>`{3,}|~{3,})")
_OPTION = re.compile(r"^:(?P<key>[\w-]+):[ \t]*(?P<value>.*)$")
_COMMENT = re.compile(r"^%.*\n?", re.MULTILINE)

LABEL = re.compile(r"^\((?P<label>[\w:.-]+)\)=[ \t]*\n?", re.MULTILINE)
HEADING = re.compile(r"^(?P<level>#{1,6}) +(?P<title>.+?)[ \t]*$", re.MULTILINE)
ROLE = r"\{(?P<role>[\w:+.-]+)\}(?P<tick>`+)(?P<text>.+?)(?P=tick)"
CODE = r"(?P<code_tick>`+)(?P<code>.+?)(?P=code_tick)"
DISPLAY = r"(?<!\\)\$\$(?P<display>.+?)\$\$(?:[ \t]*\((?P<equation>[\w:.-]+)\))?"
MATH = r"(?<!\\)\$(?P<math>[^$\n]+(?:\n[^$\n]+)*?)(?<!\\)\$"


@dataclass(frozen=True, kw_only=True)
class Directive:
    """A fenced block such as an admonition: its name, argument, options and inner text."""

    name: str
    argument: str = ""
    options: dict[str, str] = field(default_factory=dict)
    body: str = ""

    @property
    def folded(self) -> bool:
        """Whether the reader has to open the block."""
        return self.name == "dropdown" or "dropdown" in self.options.get("class", "")


def blocks(text: str) -> Iterator[str | Directive]:
    """Yield the pieces of a Markdown text in order: directives, and the text between them.

    Comment lines (`%`) are left out. Ordinary code blocks stay in the text. A directive inside a
    directive is part of the outer one's body.
    """
    lines = _COMMENT.sub("", text + "\n").splitlines()
    plain: list[str] = []
    at = 0
    while at < len(lines):
        opened, code = _OPEN.match(lines[at]), _CODE.match(lines[at])
        if not opened and not code:
            plain.append(lines[at])
            at += 1
            continue
        fence = (opened or code)["fence"]  # type: ignore[index]
        end = _closing(lines, at, fence)
        if opened:
            if "\n".join(plain).strip():
                yield "\n".join(plain)
            plain = []
            yield _directive(opened["name"], opened["argument"], lines[at + 1 : end])
        else:
            plain += lines[at : end + 1]
        at = end + 1
    if "\n".join(plain).strip():
        yield "\n".join(plain)


def _closing(lines: list[str], start: int, fence: str) -> int:
    """Return the number of the line that closes the fence opened at `start`."""
    closed = re.compile(rf"^ *{re.escape(fence[0])}{{{len(fence)},}} *$")
    for at in range(start + 1, len(lines)):
        if closed.match(lines[at]):
            return at
    raise ValueError(f"Expected a fence {fence} that closes {lines[start]!r}, got none")


def _directive(name: str, argument: str, lines: list[str]) -> Directive:
    options = {}
    while lines and (match := _OPTION.match(lines[0])):
        options[match["key"]] = match["value"].strip()
        lines = lines[1:]
    body = "\n".join(lines).strip("\n")
    return Directive(name=name, argument=argument.strip(), options=options, body=body)


def walk(text: str) -> Iterator[str | Directive]:
    """Yield texts and directives as `blocks` does, then go into the directives that hold text."""
    for block in blocks(text):
        yield block
        if isinstance(block, Directive) and block.name != "quiz":
            yield from walk(block.body)


def boxes(text: str, kind: str) -> list[Directive]:
    """Return the admonitions of a text that have the class `kind`, in order."""
    return [
        block
        for block in blocks(text)
        if isinstance(block, Directive)
        and block.name == "admonition"
        and kind in block.options.get("class", "").split()
    ]


def front(text: str) -> dict[str, str]:
    """Return the parts of a chapter's first box by name, Objectives, Prerequisites and Time."""
    body = "".join(box.body for box in boxes(text, "front")[:1])
    pieces = re.split(r"^\*\*(\w+)\.\*\*[ \n]", body, flags=re.MULTILINE)[1:]
    return {name: part.strip() for name, part in zip(pieces[::2], pieces[1::2], strict=True)}


def sections(text: str) -> dict[str, str]:
    """Return the text under each heading of level 2, by title; what precedes them under ""."""
    found = {"": ""}
    title, fence = "", ""
    for line in text.splitlines():
        code = _CODE.match(line)
        if code and not fence:
            fence = code["fence"]
        elif code and line.strip().startswith(fence) and line.strip() == code["fence"]:
            fence = ""
        elif not fence and line.startswith("## "):
            title = line.removeprefix("## ").strip()
            found[title] = ""
            continue
        found[title] += line + "\n"
    return found
