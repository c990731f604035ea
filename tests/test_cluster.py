"""Cells on a cluster of two processes, one of which is killed."""

import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import distributed
import pytest
import torch

from attrlib.benchmark import Block, _table, cluster, on_cluster, recipes
from tests.tables import rows

PROVENANCE = {"commit", "date", "device", "versions", "seconds"}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    local = {"processes": True, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(n_workers=2, silence_logs=50, **local) as cluster:
        yield cluster.scheduler_address


def _cells(work: object, *names: str) -> list[_table.Cell]:
    return [_table.Cell({"cell": name}, partial(work, name)) for name in names]


def _made(folder: Path, name: str) -> list[dict[str, str]]:
    """A row; `second` is killed the first time, as soon as the first row is in the table."""
    tries = folder / name
    with tries.open("a") as file:
        file.write("x")
    while name == "second" and tries.read_text() == "x":
        if (folder / "t.csv").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
    if name == "bad":
        raise ValueError("Expected a good cell, got a bad one")
    return [{"cell": name, "value": "1"}]


def test_a_killed_worker_loses_no_finished_cell(address: str, tmp_path: Path) -> None:
    path, work = tmp_path / "t.csv", partial(_made, tmp_path)
    with on_cluster(address) as runner:
        _table.fill(path, _cells(work, "second", "first"), device="cpu", runner=runner)
        assert [row["cell"] for row in rows(path)] == ["first", "second"]
        assert [(tmp_path / name).read_text() for name in ("first", "second")] == ["x", "xx"]
        whole = path.read_text()
        _table.fill(path, _cells(work, "second", "first"), device="cpu", runner=runner)
        assert path.read_text() == whole
        with pytest.raises(ValueError, match="Expected a good cell, got a bad one"):
            _table.fill(path, _cells(work, "bad", "third"), device="cpu", runner=runner)
    assert [row["cell"] for row in rows(path)] == ["first", "second", "third"]


def test_a_cluster_makes_the_same_rows(address: str, tmp_path: Path) -> None:
    block = Block(attack="random", eps=(0.05,), seeds=(0,), per_class=1)
    options = {"blocks": [block], "points": tmp_path / "points", "only": ["natural", "softplus"]}
    torch.set_default_dtype(torch.float32)
    recipes(tmp_path / "here.csv", **options)
    with on_cluster(address) as runner:
        recipes(tmp_path / "there.csv", runner=runner, **options)
    here, there = (
        [{name: row[name] for name in row.keys() - PROVENANCE} for row in rows(tmp_path / name)]
        for name in ("here.csv", "there.csv")
    )
    assert sorted(here, key=str) == sorted(there, key=str)
    assert len(here) > 20


def test_a_scheduler_without_workers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "TIMEOUT", 0.5)
    local = {"processes": False, "dashboard_address": "127.0.0.1:0", "silence_logs": 50}
    with (
        distributed.LocalCluster(n_workers=0, **local) as empty,
        pytest.raises(ValueError, match=r"Expected workers of the scheduler at .*, got none"),
        on_cluster(empty.scheduler_address),
    ):
        pass
