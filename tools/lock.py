"""Write requirements.lock and environment.yml: `python -m tools.lock`.

Asks pip which versions it would install for the package with all its extras, and writes them
down. Packages that belong to one platform are left out: PyTorch brings its own.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLATFORM = re.compile(r"(nvidia|cuda|triton)(-|$)|(appnope|colorama|pywin\w*)$")
HEADER = "# Written by `python -m tools.lock`; what `make` installs.\n"


def resolve() -> list[str]:
    """Return `name==version` for every package that pip would install, sorted."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run"]
    command += ["--ignore-installed", "--report", "-", f"{ROOT}[{','.join(extras)}]"]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    found = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"]
        for item in report["install"]
    }
    return [
        f"{name}=={version.partition('+')[0]}"
        for name, version in sorted(found.items())
        if name != "attrlib" and not PLATFORM.match(name)
    ]


def main() -> None:
    """Resolve once and write both files."""
    pins = resolve()
    (ROOT / "requirements.lock").write_text(HEADER + "\n".join(pins) + "\n")
    conda = ["name: robust-attributions", "channels: [conda-forge]", "dependencies:"]
    conda += ["  - python=3.11", "  - pip", "  - pip:", *(f"      - {pin}" for pin in pins)]
    (ROOT / "environment.yml").write_text(HEADER + "\n".join(conda) + "\n")


if __name__ == "__main__":
    main()
