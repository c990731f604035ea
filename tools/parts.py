"""Run parts of `make test` one after the other and say what each took.

    python -m tools.parts make lint unit

Stops at the first part that fails, unless make was told to go on (`make --keep-going test`). Exits
with 1 if a part failed.
"""

import os
import resource
import subprocess
import sys
import time
from typing import NamedTuple


class Part(NamedTuple):
    """What a part took."""

    name: str
    failed: bool
    cpu: float  # seconds of all processes it started
    wall: float


def run(make: str, name: str) -> Part:
    """Run one part."""
    start, before = time.monotonic(), _children()
    done = subprocess.run([make, "--no-print-directory", name], check=False)
    return Part(name, done.returncode != 0, _children() - before, time.monotonic() - start)


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main(make: str, *names: str) -> int:
    """Run the named parts, print the table, and return 1 if one of them failed."""
    go_on = "k" in os.environ.get("MAKEFLAGS", "").split(" ")[0]
    parts: list[Part] = []
    for name in names:
        parts.append(run(make, name))
        if parts[-1].failed and not go_on:
            break
    print(f"{'part':10s} {'CPU-minutes':>11s} {'minutes':>8s}")
    for part in parts:
        failed = "  failed" * part.failed
        print(f"{part.name:10s} {part.cpu / 60:11.1f} {part.wall / 60:8.1f}{failed}")
    cpu, wall = (sum(values) / 60 for values in zip(*(part[2:] for part in parts), strict=True))
    print(f"{'all':10s} {cpu:11.1f} {wall:8.1f}", flush=True)
    return 1 if any(part.failed for part in parts) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
