"""The built book, made once for all tests that look at it, and a browser to look with."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(
    filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), ""
)
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
    --disable-component-update --disable-sync""".split()


@dataclass(frozen=True)
class Build:
    """What a build of the book left behind."""

    html: Path
    returncode: int
    log: str


def toc_pages() -> list[str]:
    """Return every page of the table of contents, in order and without suffix."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))

    def walk(entry: object) -> Iterator[str]:
        if isinstance(entry, dict):
            yield from [entry["file"]] if "file" in entry else []
            for value in entry.values():
                yield from walk(value)
        elif isinstance(entry, list):
            for value in entry:
                yield from walk(value)

    return [toc["root"], *walk(toc)]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The whole book, built from nothing the way `make book` builds it."""
    out = tmp_path_factory.mktemp("book")
    command = Path(sys.executable).with_name("jupyter-book")
    arguments = [command, "build", ".", "-n", "-W", "--keep-going", "--path-output", out]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    return Build(out / "_build" / "html", done.returncode, done.stdout + done.stderr)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; without it tests skip, and fail where CI=true."""
    if not CHROMIUM:
        reason = "Expected chromium to be installed, got no such command"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()
