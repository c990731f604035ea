"""A row for a network of one's own: the example of the page, what is refused, and the same numbers."""

import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from attrlib import attributions, benchmark, checkpoints, data, metrics
from attrlib.__main__ import main
from attrlib.attacks import SUITE, standard
from attrlib.benchmark import board, cells, own
from attrlib.commands import row as command
from attrlib.maps import to_heatmap
from tests.tables import number

PAGE = Path(__file__).resolve().parents[1] / "book" / "leaderboard.md"
RESULTS = PAGE.parents[1] / "results"
EPS = 8 / 255


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """In float32, 150 test images, and a folder of one's own."""
    threads, few = torch.get_num_threads(), data.fashion_mnist("test")[:150]
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(data, "fashion_mnist", lambda split: few)
    monkeypatch.setattr(command, "POOL", 5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    torch.set_num_threads(threads)  # the command sets its own


def _blocks(kind: str) -> list[str]:
    return re.findall(rf"```{kind}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_example_of_the_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,), (call,) = _blocks("python"), _blocks("bash")
    (tmp_path / "my_network.py").write_text(code)
    arguments = shlex.split(call.replace("\\\n", " "))
    assert arguments[:3] == ["python", "-m", "attrlib"]
    assert main(arguments[3:]) == 0
    found = benchmark.load_row("row.json")
    assert (found["name"], found["effort"], found["suite"]) == ("vote", "quick", SUITE)
    assert (found["images"], len(found["weights"])) == (20, 1)
    entry = _entry(found)
    scores = {column.title: cell for column in benchmark.COLUMNS if (cell := entry.get(column))}
    assert 0 <= scores["Top 100, ε = 8/255"].value < scores["Top 100, noise of 8/255"].value <= 1
    assert scores["Accuracy"].value > 0.8
    assert {"JPEG", "One pixel aside", "Random weights, cosine", "Grey image, top 100"} <= {*scores}
    said = capsys.readouterr().out.splitlines()
    assert said[-1] == "row.json"
    before = Path("row.json").read_text()
    assert main(arguments[3:]) == 0  # there is nothing left to do
    assert capsys.readouterr().out == "row.json\n"
    assert Path("row.json").read_text() == before
    assert main([*arguments[3:], "--images", "3"]) == 2
    assert "the same row, got another list" in capsys.readouterr().err
    assert main([*arguments[3:], "--eps", "0.05"]) == 2
    assert "the same row, got another eps; choose" in capsys.readouterr().err
    more = data.fashion_mnist("test")
    monkeypatch.setattr(data, "fashion_mnist", lambda split: more[:149])
    assert main(arguments[3:]) == 2
    assert "the same row, got another number of images; choose" in capsys.readouterr().err


def _entry(found: dict[str, Any]) -> board.Entry:
    (one,) = benchmark.boards(benchmark.as_rows(found), effort=found["effort"])
    return one.entries[0]


def test_numbers_are_those_of_the_suite_and_of_all_seeds() -> None:
    test = data.fashion_mnist("test")
    test = test[test.y < 3]
    images = cells.listed(test, per_class=2)
    pool = cells.listed(test, per_class=5, start=10)
    nets = [checkpoints.load(f"natural-s{seed}").model for seed in (0, 1)]
    found = benchmark.own_row(
        nets, images, pool, name="n", models=["a", "b"], source="s", eps=[EPS], effort="quick"
    )
    benchmark.check_row(found)
    entry = _entry(found)
    column = next(one for one in benchmark.COLUMNS if one.title == "Top 100, ε = 8/255")
    attack = standard(eps=EPS, attribution=attributions.gradient, effort="quick")
    values = []
    for seed, net in enumerate(nets):
        z = attack(net, images.x, images.y, generator=torch.Generator().manual_seed(0))
        a, b = (to_heatmap(attributions.gradient(net, v, images.y)) for v in (images.x, z))
        values.append(metrics.topk_intersection(a, b, k=100))
        one = entry.get(column, str(seed))
        assert one.value == pytest.approx(values[-1].mean().item(), abs=1e-4)
        assert one.low <= one.value <= one.high
    mean = entry.get(column)
    ends = metrics.seed_interval(torch.stack(values))
    assert (mean.low, mean.high) == pytest.approx(ends, abs=1e-4)
    assert mean.images == len(images)
    assert not any(parameter.grad is not None for net in nets for parameter in net.parameters())


def test_a_shipped_network_gives_the_numbers_of_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but those of the suite and of PGD, which take long."""
    monkeypatch.undo()
    torch.set_default_dtype(torch.float32)
    test = data.fashion_mnist("test")
    net = checkpoints.load("madry-s0").model
    images, pool = cells.listed(test, per_class=10), cells.listed(test, per_class=50, start=10)
    monkeypatch.setattr(own, "standard", lambda **_: lambda model, x, y, generator: x)
    monkeypatch.setattr(cells, "_PGD", lambda model, x, y, generator: x)
    found = benchmark.own_row(
        [net], images, pool, name="n", models=["a"], source="s", test=test, eps=[EPS]
    )
    compared = 0
    for cell in found["cells"]:
        if cell["quantity"] == "pgd20_accuracy" or cell["attack"] == "top-k suite":
            continue
        where = {"recipe": "madry", "seed": "0", "list": found["list"]}
        where |= {name: cell[name] for name in ("attack", "quantity")}
        where["map"] = "none" if cell["attack"] == "model" else "gradient"
        table = "benign" if cell["attack"] in (*data.BENIGN, "random weights") else "recipes"
        if cell["seed"] == "0":
            if table == "recipes":
                where["eps"] = f"{cell['eps']:.5f}"
            value = number(RESULTS / f"{table}.csv", **where)
            assert cell["value"] == pytest.approx(value, abs=2e-4), where
            compared += 1
    assert compared > 20


def test_a_folder_of_images_has_a_list_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = torch.Generator().manual_seed(0)
    for name, level in (("dark", 60), ("light", 160)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(4):
            pixels = torch.randint(level, level + 90, (16, 16, 3), generator=noise).byte().numpy()
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{i}.png")
    code = """
import torch
from attrlib.models import SmallCNN

def build():
    noise = torch.Generator().manual_seed(0)
    return SmallCNN(size=16, channels=3, classes=2, generator=noise)
"""
    (tmp_path / "two_classes.py").write_text(code)
    call = ["bench", "--model", "two_classes:build", "--data", "mine", "--effort", "quick"]
    call += ["--eps", "0.05", "--out", "row.json"]
    assert main([*call, "--images", "4"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "Expected more than 4 images in each class of --data" in line
    assert main([*call, "--images", "2"]) == 0
    found = benchmark.load_row("row.json")
    assert (found["data"], found["images"], found["name"]) == ("mine", 4, "two_classes:build")
    fashion = cells.listed(data.fashion_mnist("test"), per_class=10)
    assert found["list"] != data.fingerprint(fashion)[:8]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Expected a study, --grid or --model, got none; --help lists the studies"),
        (("--model", "my:net"), "Expected --out FILE for the row, got none"),
        (("--model", "net", "--out", "r.json"), "Expected --model as module:function, got 'net'"),
        (("--model", "no_such:net", "--out", "r.json"), "No module named 'no_such'"),
        (("--checkpoint", "madri", "--out", "r.json"), "one of the shipped checkpoints"),
        (
            ("--checkpoint", "natural", "--data", "nowhere", "--out", "r.json"),
            "Expected --data to be embedded or a folder with CLASS/IMAGE, got nowhere",
        ),
        (
            ("--checkpoint", "natural", "--images", "1", "--out", "r.json"),
            "Expected images to be an integer >= 2, got 1",
        ),
        (
            ("--checkpoint", "natural", "--eps", "-1", "--out", "r.json"),
            "Expected eps >= 0, got -1.0",
        ),
        (("--checkpoint", "natural", "--nets", "mine"), "Expected --grid with --nets, got none"),
        (("--only", "natural", "--out", "r.json"), "Expected --grid with --only, got none"),
        (
            ("--checkpoint", "natural", "--out", "r.json", "benign"),
            "Expected a study or --model, got both, benign and natural",
        ),
    ],
)
def test_bad_options_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert main(["bench", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("attrlib bench: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("budget", ["8/0", "1e999", "nan", "a lot"])
def test_what_is_no_budget_is_named(budget: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["bench", "--checkpoint", "natural", "--out", "r.json", "--eps", budget])
    assert caught.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].endswith(f"argument --eps: Expected a number or a fraction, got {budget!r}")


# --- the schema -----------------------------------------------------------------------------------


def _good() -> dict[str, Any]:
    cell = {"attack": "top-k suite", "eps": EPS, "quantity": "topk", "images": 20}
    cell |= {"value": 0.5, "low": 0.4, "high": 0.6}
    source = dict.fromkeys(("commit", "date", "device", "versions", "seconds"), "x")
    return {
        "format": 1,
        "name": "mine",
        "models": ["my:net"],
        "weights": ["0123456789abcdef"],
        "data": "Fashion-MNIST",
        "list": "71cfbfc4",
        "images": 20,
        "suite": SUITE,
        "effort": "standard",
        "cells": [cell | {"seed": "0"}, cell | {"seed": "all"}],
        "provenance": source,
    }


def _set(*place: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(row: dict[str, Any]) -> None:
        inner: Any = row
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = to

    return change


def _without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda row: row.__delitem__(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("suite"), "Expected the row with 'suite', got none"),
        (_set("extra", to=1), "Expected the row with format, name, .* only, got 'extra', too"),
        (_set("format", to=2), "Expected 'format' of the row to be 1, got 2"),
        (
            _set("name", to=" "),
            "Expected 'name' of the row to be a text that is not empty, got ' '",
        ),
        (_set("models", to=[]), "Expected 'models' of the row to be a list of texts"),
        (_set("weights", to=["xyz"]), "'weights' of the row to be a list of texts of 16 hex"),
        (_set("list", to="71CFBFC4"), "Expected 'list' of the row to be a text of 8 hex digits"),
        (_set("images", to=2.5), "Expected 'images' of the row to be a whole number >= 0, got 2.5"),
        (_set("effort", to="huge"), "'effort' of the row to be one of quick, standard, strong"),
        (_set("cells", to=[1]), "Expected 'cells' of the row to be a list of objects"),
        (
            _set("provenance", to={}),
            "Expected 'provenance' of the row to be an object with the texts",
        ),
        (_set("suite", to="0"), f"Expected a row of version {SUITE} of the suite, got version 0"),
        (_set("models", to=["a", "b"]), "Expected weights of 2 models, got 1"),
        (
            _set("cells", 0, "value", to="0.5"),
            "'value' of cell 0 to be a number or null, got '0.5'",
        ),
        (_set("cells", 0, "value", to=True), "'value' of cell 0 to be a number or null, got True"),
        (_set("cells", 1, "eps", to=-1), "Expected 'eps' of cell 1 to be a number >= 0, got -1"),
        (_set("cells", 1, "high", to=0.45), "Expected cell 1 with low <= value <= high"),
        (_set("cells", 1, "seed", to="0"), "Expected each number once, got two cells of one place"),
        (_set("cells", 1, "seed", to="1"), "Expected a cell of the top-k suite and all seeds"),
    ],
)
def test_a_row_that_breaks_the_schema(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    row = _good()
    benchmark.check_row(row)
    change(row)
    with pytest.raises(ValueError, match=message):
        benchmark.check_row(row)
    path = tmp_path / "row.json"
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match=f"row.json: .*{message}"):
        benchmark.load_row(path)


def test_files_that_hold_no_row(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected a row of the leaderboard, got no file"):
        benchmark.load_row(tmp_path / "no.json")
    for text, message in (("[]", "to be an object, got list"), ("{", "Expecting property name")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ValueError, match=rf"bad\.json: .*{message}"):
            benchmark.load_row(tmp_path / "bad.json")


def test_a_row_of_another_version_can_be_shown_but_not_taken_for_this_one() -> None:
    row = _good() | {"suite": "0"}
    benchmark.check_row(row, suite=None)
    assert {line["suite"] for line in benchmark.as_rows(row)} == {"0"}


def test_what_has_no_value_is_left_out() -> None:
    row = _good()
    row["cells"].append(
        {**row["cells"][0], "quantity": "kept", "value": None, "low": None, "high": None}
    )
    benchmark.check_row(row)
    lines = benchmark.as_rows(row)
    assert [line["quantity"] for line in lines] == ["topk", "topk"]
    assert lines[0]["eps"] == "0.03137"
    assert {*own.CELL, "recipe", "list", "checkpoints", "suite"} == set(lines[0])
