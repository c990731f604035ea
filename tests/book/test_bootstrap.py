"""The first cell of a plain copy: it finds attrlib, gets it, or says how to get it."""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from tools import export
from tools.chapters import ROOT

ADDRESS = "https://example.org/book.git"


def bootstrap(code: str = "", *, address: str = ADDRESS) -> str:
    notebook = new_notebook(cells=[new_code_cell(code)])
    return export._bootstrap(notebook, address).source


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that are called instead of being run; `git clone` makes a package."""
    called: list[list[str]] = []

    def run(command: list[str], *, check: bool) -> None:
        assert check
        called.append(command)
        if command[0] == "git":
            make_clone(Path(command[-1]))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return called


def make_clone(folder: Path) -> None:
    (folder / "attrlib").mkdir(parents=True)
    (folder / "attrlib" / "__init__.py").touch()


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let modules be missing; attrlib only while no folder of `sys.path` was added by the cell."""
    before, real = set(sys.path), importlib.util.find_spec

    def find(name: str) -> object:
        gone = name in names and (name != "attrlib" or set(sys.path) <= before)
        return None if gone else real(name)

    monkeypatch.setattr(importlib.util, "find_spec", find)


def test_the_first_cell_does_nothing_where_all_is_there(commands: list[list[str]]) -> None:
    before = list(sys.path)
    for _ in range(2):
        exec(bootstrap("import captum"), {})
    assert commands == []
    assert sys.path == before


def test_the_first_cell_finds_a_clone_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    make_clone(tmp_path)
    (tmp_path / "lab" / "student").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "lab" / "student")
    hide(monkeypatch, "attrlib")
    for _ in range(2):
        exec(bootstrap(), {})
    assert commands == []
    assert sys.path.count(str(tmp_path)) == 1


def test_the_first_cell_clones_and_installs_what_is_missing_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: list[list[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, "attrlib", "captum", "skimage")
    exec(bootstrap("import captum.attr\nmodels.imagenet()"), {})
    clone, install = commands
    assert clone == ["git", "clone", "--depth", "1", ADDRESS, str(tmp_path / "robust-attributions")]
    assert sys.path[0] == str(tmp_path / "robust-attributions")
    assert install[1:] == ["-m", "pip", "install", "--quiet", "captum", "scikit-image"]
    sys.path.pop(0)  # another kernel, the same folder
    exec(bootstrap(), {})
    assert len(commands) == 2
    assert sys.path[0] == str(tmp_path / "robust-attributions")


def test_the_first_cell_says_how_to_get_what_is_nowhere(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    commands: list[list[str]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    hide(monkeypatch, "attrlib", "captum")
    exec(bootstrap("import captum", address=""), {})
    assert commands == []
    assert "%pip install -e /path/to/the/clone" in capsys.readouterr().out


def test_the_first_cell_knows_what_attrlib_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[<>=\[]", requirement)[0] for requirement in project["dependencies"]}
    assert names | {"pandas"} == set(export.DEPENDENCIES)


def test_the_project_says_where_the_repository_is(tmp_path: Path) -> None:
    def stated(text: str) -> str:
        (tmp_path / "pyproject.toml").write_text(f'[project]\nname = "x"\n{text}')
        return export.repository(tmp_path)

    assert stated("") == ""
    assert stated('[project.urls]\nRepository = "https://git.example/x"') == ""
    assert stated(f'[project.urls]\nRepository = "{ADDRESS}"') == ADDRESS
