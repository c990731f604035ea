"""The built pages: they stand alone, work in a browser and can be read by everyone."""

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup, Tag
from playwright.sync_api import Browser

from tests.book.building import Build, toc_pages
from tests.book.looking import Visit, listen, look
from tools.chapters import pages, read
from tools.references import Book, of_book

PAGES = toc_pages()
IMAGE_NAME = re.compile(r"\.(png|jpe?g|gif|svg|webp)$", re.I)
BYTES = 1_500_000


@cache
def _soup(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@cache
def _anchors(path: Path) -> frozenset[str]:
    return frozenset(str(tag["id"]) for tag in _soup(path).find_all(id=True))


def broken(path: Path) -> list[str]:
    """Return the links and embedded files of a page that do not exist, or that are elsewhere."""
    wrong = []
    for tag in _soup(path).find_all(["a", "img", "link", "script", "source", "iframe"]):
        target = tag.get("href") or tag.get("src")
        if not target:
            continue
        parts = urlsplit(str(target))
        if parts.scheme or parts.netloc:
            if tag.name != "a" and parts.scheme != "data":
                wrong.append(f"not part of the book: {target}")
            continue
        file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
        if not file.is_file():
            wrong.append(f"no such file: {target}")
        elif parts.fragment and file.suffix == ".html" and tag.name == "a":
            if unquote(parts.fragment) not in _anchors(file):
                wrong.append(f"no such place: {target}")
    return wrong


def unspoken(path: Path) -> list[str]:
    """Return the pictures of a page whose text alternative says nothing."""
    pictures = _article(path).find_all("img")
    texts = [(str(picture.get("src")), str(picture.get("alt", "")).strip()) for picture in pictures]
    return [source for source, alt in texts if len(alt) < 15 or IMAGE_NAME.search(alt)]


def weight(path: Path) -> int:
    """Return the bytes of a page, with what is embedded in it, and of the pictures only it shows."""
    sources = {str(tag["src"]) for tag in _article(path).find_all("img")}
    files = {(path.parent / src).resolve() for src in sources if not src.startswith("data:")}
    return path.stat().st_size + sum(file.stat().st_size for file in files)


def _article(path: Path) -> Tag:
    article = _soup(path).find("article")
    assert isinstance(article, Tag)
    return article


def test_clean_build_succeeds(built: Build) -> None:
    assert built.returncode == 0, built.log[-4000:]
    assert "WARNING" not in built.log.replace("[IPKernelApp] WARNING", "")
    pages = {
        str(path.relative_to(built.html))[:-5] for path in (built.html / "book").rglob("*.html")
    }
    assert pages == set(PAGES)
    assert (built.html / "index.html").is_file()


@pytest.mark.parametrize("page", [*PAGES, "search", "index"])
def test_links_and_files_exist(built: Build, page: str) -> None:
    assert broken(built.html / f"{page}.html") == []


@pytest.mark.parametrize("page", PAGES)
def test_pictures_are_described_and_pages_light(built: Build, page: str) -> None:
    path = built.html / f"{page}.html"
    assert unspoken(path) == []
    assert weight(path) <= BYTES


@pytest.fixture(scope="module")
def visits(built: Build, browser: Browser) -> dict[str, Visit]:
    """Every page, looked at once."""
    return {page: look(browser, built.html / f"{page}.html") for page in PAGES}


@pytest.mark.parametrize("page", PAGES)
def test_page_in_the_browser(visits: dict[str, Visit], page: str) -> None:
    clean = Visit(accessibility={"light": [], "dark": []}, search_boxes=1)
    assert visits[page] == clean


CHAPTERS = {page: path for page, path in pages().items() if path.suffix == ".ipynb"}


@pytest.mark.parametrize("page", CHAPTERS)
def test_a_chapter_is_downloaded_as_a_plain_copy(built: Build, page: str) -> None:
    """The button gives the student's copy, and the menu the solutions; neither holds MyST."""
    places = [built.html / "_sources" / f"{page}{end}.ipynb" for end in ("", "-solutions")]
    links = {str(a["href"]) for a in _soup(built.html / f"{page}.html").find_all("a", href=True)}
    up = "../" * page.count("/")
    for place in places:
        assert f"{up}{place.relative_to(built.html)}" in links
        text = "\n".join(c.source for c in read(place).cells if c.cell_type == "markdown")
        assert not re.search(r"\{[\w:]+\}`|^`{3,}\{", text, re.MULTILINE)
    student, solution = (read(place) for place in places)
    assert any("NotImplementedError" in cell.source for cell in student.cells)
    assert any("#### Solution" in cell.source for cell in solution.cells)


@pytest.mark.parametrize("page", CHAPTERS)
def test_numbers_in_the_copy_are_those_of_the_page(built: Build, page: str) -> None:
    """Figures, exercises, theorems and equations: what the plain copy calls them."""
    soup, shown = _soup(built.html / f"{page}.html"), {}
    for number in soup.select("article .caption-number, article .eqno"):
        holder = number.find_parent(id=True)
        assert isinstance(holder, Tag)
        shown[str(holder["id"])] = number.get_text().replace("#", "").strip()
    stem = Path(page).name
    counted = {
        label: target.text
        for label, target in _book().targets.items()
        if target.page == stem and not target.heading
    }
    assert counted
    for label, text in counted.items():
        found = {shown[one] for one in (label, f"equation-{label}") if one in shown}
        assert {one.strip("#¶ ") for one in found} == {text}, label


@cache
def _book() -> Book:
    return of_book()


def test_terms_citations_and_figures_show_their_text_on_hover(
    built: Build, browser: Browser
) -> None:
    page, visit = browser.new_page(), Visit()
    listen(page, visit)
    page.goto((built.html / f"{next(iter(CHAPTERS))}.html").as_uri())
    page.wait_for_load_state("load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    for link in (
        "[href*='glossary.html#term']",
        "[href*='bibliography.html#']",
        ".internal[href^='#fig-']",
    ):
        page.locator(f"article a{link}").first.hover()
        tip = page.locator(".tippy-box")
        tip.wait_for()
        assert len(tip.inner_text()) > 40, link
        page.mouse.move(1, 1)
        tip.wait_for(state="detached")
    page.close()
    assert visit == Visit()


def test_a_bad_page_is_noticed(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "mathjax.js").write_text("console.error('planted')", encoding="utf-8")
    page = tmp_path / "bad.html"
    page.write_text(
        """<!doctype html><html lang="en"><title>Bad</title><script src="mathjax.js"></script>
        <script src="missing.js"></script><article><h1>Bad</h1><p>Raw \\(x\\) and $y$.</p>
        <div class="math">\\frac</div><p style="color: #bbb; background: #fff">pale</p>
        <div style="width: 700px">wide</div><div class="admonition dropdown">stays open</div>
        <img src="http://localhost:9/a.png" alt="a"><img src="nothing.png" alt="a-long-name.png">
        <a href="#nowhere">link</a><div class="math" style="overflow-x: auto; width: 50px">
        <div style="width: 90px">x</div></div></article></html>""",
        encoding="utf-8",
    )
    visit = look(browser, page)
    assert "planted" in visit.console
    assert any("missing.js" in request for request in visit.requests)
    assert any("left this machine" in request for request in visit.requests)
    assert any("\\(" in text for text in visit.formulas)
    assert any("not rendered: \\frac" in text for text in visit.formulas)
    assert visit.clipped
    assert visit.unfoldable == ["stays open"]
    assert any("700" in text or "DIV wide" in text for text in visit.overflow)
    assert any("color-contrast" in text for text in visit.accessibility["light"])
    assert any("color-contrast" in text for text in visit.accessibility["dark"])
    assert visit.search_boxes == 0
    assert len(unspoken(page)) == 2
    assert {text.split(":")[0] for text in broken(page)} == {
        "not part of the book",
        "no such file",
        "no such place",
    }
