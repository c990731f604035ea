"""Opens one page in the browser and writes down everything that is wrong with it."""

from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page

AXE = (Path(__file__).parent / "axe" / "axe.min.js").read_text(encoding="utf-8")

UNFOLD = """async () => {
    document.querySelectorAll('details:not([open]) > summary').forEach(e => e.click());
    document.querySelectorAll('.toggle-hidden .toggle-button').forEach(e => e.click());
    if (document.querySelector('article details, article .toggle-button'))
        await new Promise(done => setTimeout(done, 600));
}"""

FORMULAS = r"""() => {
    const article = document.querySelector('article') ?? document.body;
    const wrong = [...article.querySelectorAll(
        '[data-mjx-error], [data-mml-node="merror"], [data-mml-node="mtext"][fill="red"]')]
        .map(e => 'MathJax refused ' + (e.getAttribute('data-mjx-error') ?? e.outerHTML.slice(0, 99)));
    for (const e of article.querySelectorAll('.math'))
        if (!e.querySelector('mjx-container')) wrong.push('not rendered: ' + e.textContent.slice(0, 99));
    const copy = article.cloneNode(true);
    copy.querySelectorAll('pre, code, script, style, mjx-container').forEach(e => e.remove());
    const raw = copy.textContent.match(/.{0,20}(\$\$|\\[a-zA-Z([]|\$[^$\n]+\$).{0,20}/g) ?? [];
    return wrong.concat(raw.map(text => 'raw: ' + text));
}"""

CLIPPED = """() => [...document.querySelectorAll('article div.math, article mjx-container')]
    .filter(e => e.offsetParent && e.scrollWidth > e.clientWidth + 2 && e.clientWidth > 0
        && getComputedStyle(e).overflowX !== 'visible')
    .map(e => e.closest('[id]')?.id + ' is wider than its column: ' + e.scrollWidth)"""

OVERFLOW = """() => {
    const width = document.documentElement.clientWidth;
    const scrolls = e => e && e !== document.body
        && (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
    const wide = [...(document.querySelector('article') ?? document.body).querySelectorAll('*')]
        .filter(e => !e.closest('svg') && !e.closest('mjx-assistive-mml'))
        .filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement))
        .map(e => e.tagName + ' ' + e.textContent.trim().slice(0, 60));
    const page = document.scrollingElement.scrollWidth;
    return page > width ? wide.concat('the page is ' + page + ' wide') : wide;
}"""

SEARCH = """() => [...document.querySelectorAll('.search-button-field, input[type=search]')]
    .filter(e => e.checkVisibility()).length"""

FOLDED = """() => [...document.querySelectorAll('.admonition.dropdown, .toggle')]
    .filter(e => !e.querySelector('.toggle-button')).map(e => e.textContent.trim().slice(0, 60))"""

RUN_AXE = """async only => (await axe.run(document, {preload: false, resultTypes: ['violations'],
        ...(only.length ? {runOnly: only} : {})})).violations
    .filter(v => ['serious', 'critical'].includes(v.impact))
    .flatMap(v => v.nodes.map(n => v.id + ': ' + n.html.slice(0, 200)))"""


@dataclass
class Visit:
    """Complaints about one page, by kind; search boxes are counted."""

    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    formulas: list[str] = field(default_factory=list)
    clipped: list[str] = field(default_factory=list)
    unfoldable: list[str] = field(default_factory=list)
    overflow: list[str] = field(default_factory=list)
    accessibility: dict[str, list[str]] = field(default_factory=dict)
    search_boxes: int = 0


def look(browser: Browser, path: Path) -> Visit:
    """Open a page at 1280 pixels in both colour schemes, then at 390, and return what is wrong."""
    visit = Visit()
    context = browser.new_context(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page = context.new_page()
    listen(page, visit)
    page.goto(path.as_uri())
    page.wait_for_load_state("load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    visit.search_boxes = page.evaluate(SEARCH)
    visit.unfoldable = page.evaluate(FOLDED)
    page.add_style_tag(content="* { transition: none !important }")
    page.evaluate(UNFOLD)
    visit.formulas = page.evaluate(FORMULAS)
    visit.clipped = page.evaluate(CLIPPED)
    page.evaluate(AXE)
    visit.accessibility["light"] = page.evaluate(RUN_AXE, [])
    page.emulate_media(color_scheme="dark")
    if page.evaluate("() => 'theme' in document.documentElement.dataset"):
        page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    visit.accessibility["dark"] = page.evaluate(RUN_AXE, ["color-contrast"])
    page.set_viewport_size({"width": 390, "height": 844})
    visit.overflow = page.evaluate(OVERFLOW)
    context.close()
    return visit


def listen(page: Page, visit: Visit) -> None:
    """Note what the page complains about and what it asks for."""
    page.on("pageerror", lambda error: visit.console.append(str(error)))
    page.on(
        "console",
        lambda m: visit.console.append(m.text) if m.type in {"error", "warning"} else None,
    )
    page.on("requestfailed", lambda request: visit.requests.append(f"failed: {request.url}"))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith(("file:", "data:", "blob:"))
            else visit.requests.append(f"left this machine: {request.url}")
        ),
    )
