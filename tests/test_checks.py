"""How the checks are run: parts of `make test`, and the script for a machine with a GPU."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

from tests.speed import networks
from tools import parts

ROOT = Path(__file__).resolve().parents[1]
CHECK = ROOT / "tools" / "gpu_check.sh"


@pytest.fixture
def make(tmp_path: Path) -> str:
    """A `make` whose part `bad` fails and whose part `busy` takes half a second of processor time."""
    script = tmp_path / "make"
    script.write_text(
        """#!/bin/bash
        echo "made ${*: -1}"
        case ${*: -1} in
            bad) exit 3 ;;
            busy) python3 -c 'import time
while time.process_time() < 0.5: pass' ;;
        esac
        """
    )
    script.chmod(0o755)
    return str(script)


def test_parts_are_run_and_timed(make: str, capfd: pytest.CaptureFixture[str]) -> None:
    busy = parts.run(make, "busy")
    assert 0.4 < busy.cpu < 5
    assert not busy.failed
    assert parts.main(make, "good", "fine") == 0
    assert re.search(
        r"(?s)made good\nmade fine\n.*\ngood .*\nfine .*\nall ", capfd.readouterr().out
    )


@pytest.mark.parametrize(
    ("flags", "ran"), [("", ["bad"]), ("k", ["bad", "good"]), ("s -- A=k", ["bad"])]
)
def test_a_failed_part_is_the_last_unless_make_goes_on(
    make: str,
    flags: str,
    ran: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MAKEFLAGS", flags)
    assert parts.main(make, "bad", "good") == 1
    out = capfd.readouterr().out
    assert re.findall(r"made (\w+)", out) == ran
    assert re.findall(r"(\w+) .*  failed", out) == ["bad"]


def test_packages_of_the_gpu_check_are_in_the_lock() -> None:
    named = re.findall(r'^(?:packages|common)="([^"]*)"', CHECK.read_text(), re.MULTILINE)
    assert len(named) == 2
    lock = {line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert set(" ".join(named).split()) <= lock


def test_a_gpu_check_without_a_device_fails_and_reports(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text("#!/bin/bash\necho no such device >&2\nexit 1\n")
    python.chmod(0o755)
    report = tmp_path / "report.md"
    done = subprocess.run(
        ["bash", CHECK, "--out", report],
        env=os.environ | {"PYTHON": str(python)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    text = report.read_text()
    assert "## Versions\n\nFAILED with exit code 1" in text
    assert "no such device" in text
    assert "1 part failed" in text


def test_networks_of_the_speed_table() -> None:
    state = torch.get_rng_state()
    nets = networks(torch.device("cpu"), small=True)
    assert list(nets) == ["28×28"]
    model, x, y = nets["28×28"]
    assert model(x[:2].to(next(model.parameters()))).shape == (2, 10)
    assert len(x) == len(y)
    assert torch.equal(torch.get_rng_state(), state)
