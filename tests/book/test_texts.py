"""The texts behind the pages: every source, symbol, word and module is where it belongs."""

import json
import re
from pathlib import Path

import pytest
import yaml
from pybtex.database import parse_file

import attrlib
from tests.book.building import ROOT, toc_pages

MACROS = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"][
    "mathjax3_config"
]["tex"]["macros"]
ARXIV, DOI = re.compile(r"\d{4}\.\d{4,5}"), re.compile(r"10\.\d{4,}/\S+")
FORUM = re.compile(r"https://openreview\.net/forum\?id=\w+")  # of papers with neither
ROLE = r"\{%s\}`([^`]+)`"


def text_of(page: str) -> str:
    """Return what an author wrote on a page: Markdown, without code cells and their outputs."""
    path = ROOT / f"{page}.md"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    notebook = json.loads(path.with_suffix(".ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    captions = [
        json.dumps(cell["metadata"].get("mystnb", {}), ensure_ascii=False).replace("\\\\", "\\")
        for cell in notebook["cells"]
    ]
    return "\n\n".join(["".join(cell["source"]) for cell in cells] + captions)


def cited(text: str) -> set[str]:
    """Return the keys that a text cites."""
    return {
        key.strip()
        for keys in re.findall(ROLE % "cite(?::[a-z]+)?", text)
        for key in keys.split(",")
    }


def terms_used(text: str) -> set[str]:
    """Return the glossary entries that a text links to, in lower case."""
    names = [re.sub(r".*<(.+)>$", r"\1", name) for name in re.findall(ROLE % "term", text)]
    return {name.lower() for name in names}


TEXTS = {page: text_of(page) for page in toc_pages()}


def test_every_source_can_be_found_and_is_cited() -> None:
    entries = parse_file(str(ROOT / "book" / "references.bib")).entries
    for key, entry in entries.items():
        arxiv = entry.fields.get("archiveprefix") == "arXiv" and entry.fields.get("eprint", "")
        known = ARXIV.fullmatch(arxiv or "") or DOI.fullmatch(entry.fields.get("doi", ""))
        assert known or FORUM.fullmatch(entry.fields.get("url", "")), key
    assert set().union(*map(cited, TEXTS.values())) == set(entries)


def test_every_macro_is_listed_and_every_listed_one_defined() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| `([^`]+?)` \|", TEXTS["book/notation"], flags=re.M)
    listed = [re.match(r"\\([a-zA-Z]+)", macro) for _, macro in rows]
    assert all(symbol == f"${macro}$" for symbol, macro in rows)
    assert {name[1] for name in listed if name} == set(MACROS)


def test_every_term_is_used() -> None:
    glossary = TEXTS["book/glossary"]
    defined = {name.lower() for name in re.findall(r"^(\S.*)\n  \S", glossary, flags=re.M)}
    assert len(defined) > 10
    others = [text for page, text in TEXTS.items() if page != "book/glossary"]
    assert defined == set().union(*map(terms_used, others))


@pytest.mark.parametrize("module", attrlib.__all__)
def test_every_module_has_a_page(module: str) -> None:
    assert f".. automodule:: attrlib.{module}\n" in TEXTS[f"book/api/{module}"]


def test_every_text_is_in_the_contents() -> None:
    folder = ROOT / "book"
    files = [*folder.rglob("*.md"), *folder.rglob("*.ipynb")]
    texts = [path for path in files if not _apart(path.relative_to(folder))]
    assert {str(path.relative_to(ROOT).with_suffix("")) for path in texts} == set(TEXTS)


def _apart(path: Path) -> bool:
    return any(part.startswith((".", "_", "template")) for part in path.parts)


def test_what_counts_as_used() -> None:
    text = "See {term}`maps <heatmap>`, {cite:p}`a2020,b2021`."
    assert terms_used(text) == {"heatmap"}
    assert cited(text) == {"a2020", "b2021"}
