"""The project's own rules: versions, set-up, wheel, sizes, and what may be called where."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import jaxtyping
import pytest
import torch
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from attrlib import attributions
from tools.chapters import chapters
from tools.lock import PLATFORM

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = PROJECT["dependencies"]
OPTIONAL = [text for extra in PROJECT["optional-dependencies"].values() for text in extra]


def _run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=False, **options
    )


def _tracked() -> list[Path]:
    listed = _run("git", "ls-files", "-z", cwd=ROOT)
    if listed.returncode:
        pytest.skip(f"not a git checkout: {listed.stderr.strip()}")
    paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


def _pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def _closure(requirements: Iterable[str]) -> set[str]:
    """Names of all installed packages that the requirements lead to, here and now."""
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(text) for text in requirements]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in importlib.metadata.requires(name) or []:
                child = Requirement(text)
                if child.marker is None or child.marker.evaluate({"extra": extra}):
                    todo.append(child)
    return {name for name, _ in seen}


# ---- versions --------------------------------------------------------------------------------


def test_every_requirement_admits_its_locked_version() -> None:
    pins = _pins()
    for text in [*OWN, *OPTIONAL]:
        requirement = Requirement(text)
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{text} does not admit {version}"


def test_lock_is_complete_and_holds_nothing_else() -> None:
    everything = _closure([*OWN, *OPTIONAL])
    needed = {name for name in everything if not PLATFORM.match(name)}
    assert set(_pins()) == needed


def test_lock_holds_exact_versions_only() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    for pin in lines[1:]:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9][\w.]*", pin), pin


def test_conda_environment_states_the_locked_versions() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, packages = environment["dependencies"]
    assert Requirement(python.replace("=", "==")).specifier.contains("3.11")
    assert pip == "pip"
    assert dict(pin.split("==") for pin in packages["pip"]) == _pins()


def test_environment_is_consistent() -> None:
    checked = _run(sys.executable, "-m", "pip", "check")
    assert checked.returncode == 0, checked.stdout


def test_one_version_everywhere() -> None:
    version = PROJECT["version"]
    imported = _run(sys.executable, "-c", "import attrlib; print(attrlib.__version__)", cwd=ROOT)
    assert imported.stdout.strip() == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    latest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert latest is not None
    assert latest[1] == version


# ---- set-up and commands ---------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of commands that stands for a machine without any Python."""
    for name in "awk bash cat cmp dirname grep head mktemp rm tail".split():
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    _command(tmp_path / "df", "printf 'Head\\nd 1 1 99999999 1%% /\\n'")
    return tmp_path


def _command(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def _set_up(machine: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {"PATH": str(machine), "VENV": str(machine / "venv"), "HOME": str(machine)}
    return _run("bash", ROOT / "tools" / "setup.sh", env=settings | environment)


def test_set_up_without_python_says_so(machine: Path) -> None:
    result = _set_up(machine)
    assert result.returncode == 1
    assert "Expected Python >= 3.11 with its venv module, got none of: python3.11" in result.stderr
    assert "make PYTHON=" in result.stderr


def test_set_up_with_an_old_python_says_so(machine: Path) -> None:
    _command(machine / "python3", "exit 1")
    result = _set_up(machine, PYTHON="python3")
    assert result.returncode == 1
    assert "got none of: python3." in result.stderr


def test_set_up_without_disk_says_so_and_passes_over_an_old_python(machine: Path) -> None:
    _command(machine / "python3.11", "exit 1")
    _command(machine / "python3", f'exec {sys.executable} "$@"')
    _command(machine / "df", "printf 'Head\\nd 1 1 2999999 1%% /\\n'")
    result = _set_up(machine)
    assert result.returncode == 1
    assert "Expected 9 GB of free disk here, got 2 GB" in result.stderr


def test_set_up_without_network_says_so(machine: Path) -> None:
    _command(machine / "venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    nowhere = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
    result = _set_up(machine, PYTHON=sys.executable, **nowhere)
    assert result.returncode == 1
    assert "Expected a network from which pip can download, got: ERROR" in result.stderr
    assert not (machine / "venv" / ".made-for").exists()


def test_set_up_that_is_done_does_nothing(machine: Path) -> None:
    _command(machine / "venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    stamp = machine / "venv" / ".made-for"
    lock = (ROOT / "requirements.lock").read_text()
    stamp.write_text(f"{ROOT}\n{lock}")
    result = _set_up(machine)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    stamp.write_text(f"/elsewhere\n{lock}")
    result = _set_up(machine)
    assert "was made for another folder" in result.stdout
    assert not stamp.exists()


def test_ci_needs_a_browser_where_it_counts(machine: Path) -> None:
    _command(machine / "make", 'echo "made $*"')
    (machine / "id").symlink_to(str(shutil.which("id")))
    here = _run("bash", ROOT / ".ci" / "run", env={"PATH": str(machine)})
    assert (here.returncode, here.stdout.splitlines()[-1]) == (0, "made --keep-going test")
    on_ci = _run("bash", ROOT / ".ci" / "run", env={"PATH": str(machine), "CI": "true"})
    assert on_ci.returncode == 1
    assert on_ci.stdout.startswith("Chromium is missing")


def test_make_help_lists_every_command() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    listed = set(re.findall(r"^  make (\w+) +\S", _run("make", cwd=ROOT).stdout, re.MULTILINE))
    assert listed == targets == set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert {"book", "test", "run", "serve", "lab", "speed"} <= listed


def test_texts_name_only_commands_that_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ["README.md", "CONTRIBUTING.md"]:
        for target in re.findall(r"`make ([a-z]+)", (ROOT / name).read_text()):
            assert f"\n{target}:" in makefile, f"{name}: make {target}"


def test_readme_lists_the_chapters() -> None:
    ready = re.findall(r"^\| `([\w-]+)` .*\| ready \|$", (ROOT / "README.md").read_text(), re.M)
    assert ready == list(chapters(ROOT))


# ---- the package -----------------------------------------------------------------------------


def test_import_loads_no_submodule() -> None:
    script = "import json, sys; import attrlib; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(_run(sys.executable, "-c", script, cwd=ROOT).stdout)
    assert [name for name in modules if name.startswith("attrlib")] == ["attrlib"]
    assert "torch" not in modules


IMPORT_ALL = """
import importlib, pkgutil, sys

blocked = set(sys.argv[1:])

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{name} is not among the package's own requirements")

sys.meta_path.insert(0, Missing())
import attrlib
for module in pkgutil.iter_modules(attrlib.__path__, "attrlib."):
    if module.name != "attrlib.book":
        importlib.import_module(module.name)
"""


def test_package_imports_without_the_extras() -> None:
    own = _closure(OWN)
    extra = _closure(OPTIONAL) - own
    modules = [
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if {canonicalize_name(owner) for owner in owners} <= extra
    ]
    assert {"captum", "jupyter_book", "skimage", "sphinx"} <= set(modules)
    imported = _run(sys.executable, "-c", IMPORT_ALL, *modules, cwd=ROOT)
    assert imported.returncode == 0, imported.stderr


USE_WHEEL = """
import sys
sys.path.insert(0, sys.argv[1])
import attrlib
from attrlib import attributions, checkpoints, data
assert attrlib.__file__.startswith(sys.argv[1]), attrlib.__file__
images = data.fashion_mnist("test")
model = checkpoints.load("natural").model
a = attributions.gradient(model, images.x[:1], images.y[:1])
assert a.shape == (1, 1, 28, 28) and a.abs().sum() > 0
print(len(images.x))
"""


def test_wheel_works_in_an_empty_folder(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    built = _run(*pip, "wheel", *offline, "--wheel-dir", tmp_path, ROOT)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("attrlib-*.whl")
    site, empty = tmp_path / "site", tmp_path / "empty"
    installed = _run(*pip, "install", *offline, "--target", site, wheel)
    assert installed.returncode == 0, installed.stderr
    assert {path.name for path in site.iterdir()} == {
        "attrlib",
        wheel.name[:-4].rsplit("-", 3)[0] + ".dist-info",
    }
    empty.mkdir()
    used = _run(sys.executable, "-I", "-c", USE_WHEEL, site, cwd=empty)
    assert used.returncode == 0, used.stderr
    assert used.stdout.strip() == "2000"


def test_example_of_the_readme_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(example.splitlines()) <= 12
    ran = _run(sys.executable, "-W", "error", "-c", example, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


def test_shapes_in_annotations_are_checked_while_tests_run() -> None:
    model, x = torch.nn.Linear(3, 2), torch.zeros(4, 3)
    attributions.gradient(model, x, torch.zeros(4, dtype=torch.int64))
    with pytest.raises(jaxtyping.TypeCheckError, match="gradient"):
        attributions.gradient(model, x, torch.zeros(4, 1, dtype=torch.int64))


# ---- rules for files -------------------------------------------------------------------------


def test_files_keep_to_their_sizes() -> None:
    paths = _tracked()
    sizes = {str(path.relative_to(ROOT)): path.stat().st_size for path in paths}
    assert sum(sizes.values()) < 60e6
    assert {name: size for name, size in sizes.items() if size > 5e6} == {}
    notebooks = {name: size for name, size in sizes.items() if name.endswith(".ipynb")}
    assert {name: size for name, size in notebooks.items() if size > 1e6} == {}
    lines = {p.name: len(p.read_text().splitlines()) for p in paths if p.suffix == ".py"}
    assert {name: count for name, count in lines.items() if count > 450} == {}


def _mode_changes(source: str) -> list[str]:
    """Calls that change gradients or the mode of a model; `training.train` is a function."""
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in {"backward", "train", "eval"}
        and ast.unparse(node.func) != "training.train"
    ]


def test_only_training_changes_a_models_state() -> None:
    planted = "loss.backward()\nmodel.train(False)\nmodel.eval()\ntraining.train(m, d, l)"
    assert len(_mode_changes(planted)) == 3
    for path in sorted((ROOT / "attrlib").rglob("*.py")):
        if "training" not in path.parts:
            assert _mode_changes(path.read_text()) == [], path.name


def test_no_file_names_a_registry_or_a_machine() -> None:
    hosts = ["pypi.org", "pythonhosted.org", "npmjs.org", "npmjs.com", "anaconda.org", "debian.org"]
    hosts += ["download.pytorch.org", "/work/", "/root/"]
    here = Path(__file__)
    for path in _tracked():
        if path == here or b"\0" in (content := path.read_bytes()):
            continue
        found = [host for host in hosts if host.encode() in content]
        assert found == [], f"{path.relative_to(ROOT)} names {found}"
