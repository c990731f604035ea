"""`python -m attrlib attack`, as a user calls it."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attrlib import checkpoints, data
from attrlib.__main__ import main
from attrlib.attributions import gradient
from attrlib.commands import outcome
from attrlib.maps import to_heatmap
from attrlib.metrics import topk_intersection

FAST = ("--steps", "3", "--restarts", "1", "--batch-size", "2")


@pytest.fixture(autouse=True)
def _single_precision() -> None:
    """A user's default."""
    torch.set_default_dtype(torch.float32)


def small_net() -> nn.Module:
    """A user's own model, for images of 8×8 in colour."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 3)
        )


not_a_model: Callable[[], str] = lambda: "no"  # noqa: E731


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with two images each."""
    noise = np.random.default_rng(0)
    for name in ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "attack.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def own(folder: Path, out: Path, *more: str) -> list[str]:
    model = "tests.test_main_attack:small_net"
    return [
        *("attack", "--image-folder", str(folder), "--model", model, "--out", str(out)),
        *FAST,
        *more,
    ]


def test_fashion_images_are_attacked_scored_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["attack", "--out", str(out), "--count", "3", "--eps", "0.05", *FAST]) == 0
    table = rows(out)
    assert [row["name"] for row in table] == ["test-00000", "test-00001", "test-00002"]
    images = data.fashion_mnist("test")[:3]
    model = checkpoints.load("natural").model
    assert [row["label"] for row in table] == [images.classes[i] for i in images.y.tolist()]
    assert [int(row["prediction"]) for row in table] == model(images.x).argmax(1).tolist()
    for row in table:
        assert row["prediction_kept"] == "True"
        assert 0 < float(row["topk_intersection"]) < 1
        assert float(row["kendall"]) < 1
        assert float(row["largest_change"]) <= 0.05
        assert float(row["eps"]) == 0.05
    drawn = sorted((out / "figures").iterdir())
    assert [path.name for path in drawn] == [f"{i:04d}-test-{i:05d}.png" for i in range(3)]
    with Image.open(drawn[0]) as figure:
        width, height = figure.size
    assert width > 3 * height > 600
    said = capsys.readouterr()
    assert "3 images; prediction kept on 3" in said.out
    assert "16/16" in said.err  # the progress bar: 2 batches of 2 · (1 + 3 steps) maps
    assert not list(out.rglob("*.partial"))


def test_scores_are_those_of_the_map_on_the_model_itself(tmp_path: Path) -> None:
    """A budget too small to matter: the score of the random noise that is left is all but 1."""
    out = tmp_path / "out"
    assert main(["attack", "--out", str(out), "--count", "2", "--eps", "0", *FAST[:4]]) == 2
    settings = ["--step-size", "0.01", "--eps", "0", "--beta", "30"]
    assert main(["attack", "--out", str(out), "--count", "2", *settings, *FAST]) == 0
    images, model = data.fashion_mnist("test")[:2], checkpoints.load("natural").model
    heat = to_heatmap(gradient(model, images.x, model(images.x).argmax(1)))
    assert (topk_intersection(heat, heat, k=100) == 1).all()
    for row in rows(out):
        assert (row["changed"], row["topk_intersection"]) == ("False", "1.000000")


@pytest.mark.parametrize(
    "more",
    [
        ("--attribution", "integrated_gradients", "--samples", "3"),
        ("--attribution", "smooth_grad", "--samples", "2", "--objective", "mass-center"),
        ("--attribution", "uni_grad", "--samples", "2", "--norm", "l2", "--eps", "0.5"),
        ("--attribution", "input_x_gradient", "--objective", "cosine"),
        ("--objective", "top-k", "--k", "10", "--window", "1", "--explain", "label"),
        ("--objective", "target-map", "--target", "cat/a.png"),
        ("--objective", "rank", "--k", "10", "--momentum", "0.5"),
        ("--objective", "rank", "--k", "5", "--window", "1"),
    ],
    ids=lambda more: " ".join(more[:4]),
)
def test_own_images_and_model(folder: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    more = tuple(str(folder / word) if word == "cat/a.png" else word for word in more)
    out = tmp_path / "out"
    assert main(own(folder, out, *more)) == 0
    table = rows(out)
    assert [row["name"] for row in table] == ["cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png"]
    assert [row["label"] for row in table] == ["cat", "cat", "dog", "dog"]
    assert any(row["changed"] == "True" for row in table)
    assert all(row["prediction_kept"] == "True" for row in table)


def suite(folder: Path, out: Path, *more: str) -> list[str]:
    model = "tests.test_main_attack:small_net"
    start = ("attack", "--image-folder", str(folder), "--model", model, "--out", str(out))
    return [*start, "--suite", "quick", "--eps", "0.05", *more]


@pytest.mark.parametrize(
    "more",
    [
        ("--k", "10"),
        ("--k", "5", "--window", "1", "--norm", "l2", "--eps", "1"),
        ("--objective", "cosine", "--attribution", "smooth_grad", "--samples", "2"),
    ],
    ids=lambda more: " ".join(more[:4]),
)
def test_a_suite_takes_the_place_of_one_attack(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    assert main(suite(folder, out, *more)) == 0
    last = capsys.readouterr().err.rstrip().rpartition("\r")[2]
    (done, total) = last.rpartition("| ")[2].partition(" ")[0].split("/")
    assert done == total  # of the progress bar
    table = rows(out)
    assert len(table) == 4
    assert all(row["prediction_kept"] == row["changed"] == "True" for row in table)
    assert main(suite(folder, out, *more)) == 0  # what is done is not done again
    assert rows(out) == table
    other = [word if word != "quick" else "standard" for word in suite(folder, out, *more)]
    assert main(other) == 2
    assert "got another attack" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--steps", "9"), "Expected --suite without the settings of a single attack, got --steps"),
        (("--step-size", "1", "--beta"), "single attack, got --step-size, --beta"),
        (("--restarts", "2", "--momentum", "0.5"), "single attack, got --restarts, --momentum"),
        (("--objective", "rank"), "Expected --objective top-k or cosine with --suite, got rank"),
        (("--objective", "mass-center"), "top-k or cosine with --suite, got mass-center"),
        (("--objective", "target-map"), "top-k or cosine with --suite, got target-map"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_settings_that_a_suite_has_itself_are_refused(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    assert main(suite(folder, tmp_path / "out", *more)) == 2
    (line,) = [row for row in capsys.readouterr().err.splitlines() if row.startswith("attrlib")]
    assert message in line


@pytest.mark.parametrize("together", [True, False])
def test_a_black_image_is_named_beside_others_and_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], together: bool
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "dog" / "d.png")
    maps = ("--attribution", "input_x_gradient", "--objective", "cosine")
    size = "4" if together else "3"
    single = [*own(folder, tmp_path / "one", *maps), "--batch-size", size]
    for call in (single, [*suite(folder, tmp_path / "all", *maps), "--batch-size", size]):
        assert main(call) == 0
        said = capsys.readouterr().err
        (line,) = [row for row in said.splitlines() if row.startswith("attrlib")]
        assert line.startswith("attrlib attack: dog/d.png: left unchanged: their map is zero")
    for out in (tmp_path / "one", tmp_path / "all"):
        assert [row["changed"] for row in rows(out)] == ["True", "True", "True", "False"]


def test_a_second_call_goes_on_where_the_first_stopped(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(own(folder, whole)) == 0
    calls = []
    draw = outcome.draw

    def stopped(*arguments: object, **options: object) -> None:
        calls.append(arguments[0])
        if len(calls) == 3:
            raise KeyboardInterrupt
        draw(*arguments, **options)

    monkeypatch.setattr(outcome, "draw", stopped)
    assert main(own(folder, parts)) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "attrlib attack: stopped; the same command goes on after the last whole batch"
    assert len(rows(parts)) == 2  # the first batch is safe
    assert main(own(folder, parts)) == 0
    assert len(calls) == 3 + 2
    unlike = ("seconds",)
    assert [{k: v for k, v in row.items() if k not in unlike} for row in rows(parts)] == [
        {k: v for k, v in row.items() if k not in unlike} for row in rows(whole)
    ]
    assert main(own(folder, parts)) == 0
    assert len(calls) == 5  # nothing is done twice


def test_another_run_does_not_mix_into_the_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(own(folder, out)) == 0
    before = rows(out)
    assert main(own(folder, out, "--eps", "0.2")) == 2
    error = capsys.readouterr().err
    assert "to be new or of the same run, got another attack" in error
    assert main(own(folder, out, "--seed", "1")) == 2
    assert rows(out) == before


def test_a_bad_image_is_reported_and_skipped_only_when_told(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "cat" / "b.png").write_bytes(b"not an image")
    out = tmp_path / "out"
    assert main(own(folder, out)) == 2
    error = capsys.readouterr().err
    assert "b.png to be an image" in error
    assert "--skip-bad" in error
    assert not out.exists()
    assert main(own(folder, out, "--skip-bad")) == 0
    assert "left out: Expected" in capsys.readouterr().err
    assert [row["name"] for row in rows(out)] == ["cat/a.png", "dog/c.png", "dog/d.png"]
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    assert main(own(folder, tmp_path / "none", "--skip-bad")) == 2
    assert "Expected an image that can be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--count", "0"), "Expected count to be an integer >= 1, got 0"),
        (("--batch-size", "0"), "Expected batch_size to be an integer >= 1, got 0"),
        (("--seed", "-1"), "Expected seed to be an integer from 0 to "),
        (("--seed", str(2**63)), "Expected seed to be an integer from 0 to 4611686018427387904"),
        (("--amplify", "0"), "Expected amplify > 0, got 0.0"),
        (("--eps", "-0.1"), "Expected eps >= 0, got -0.1"),
        (("--eps", "nan"), "Expected eps >= 0, got nan"),
        (("--step-size", "0"), "Expected step_size > 0, got 0.0"),
        (("--steps", "0"), "Expected steps to be an integer >= 1, got 0"),
        (("--steps", "2"), "Expected steps >= 3, one for each surrogate, got 2"),
        (("--restarts", "0"), "Expected restarts to be an integer >= 1, got 0"),
        (("--beta", "-1"), "Expected beta > 0, got -1"),
        (("--beta",), "Expected an objective with a gradient, got zero"),
        (("--k", "0"), "Expected k to be an integer from 1 to 64, got 0"),
        (("--k", "65"), "Expected k to be an integer from 1 to 64, got 65"),
        (("--window", "-1"), "Expected window to be an integer >= 0, got -1"),
        (("--size", "0"), "Expected size to be an integer >= 1, got 0"),
        (("--attribution", "smooth_grad", "--sigma", "-1"), "Expected sigma >= 0, got -1"),
        (("--attribution", "uni_grad", "--radius", "-1"), "Expected radius >= 0, got -1"),
        (("--attribution", "uni_grad", "--samples", "0"), "Expected samples to be an integer"),
        (("--momentum", "1"), "Expected momentum < 1, got 1.0"),
        (("--momentum", "-1"), "Expected momentum >= 0, got -1.0"),
        (("--suite", "quick"), "single attack, got --steps, --restarts"),
        (("--objective", "target-map"), "Expected --target with a picture"),
        (("--target", "cat/a.png"), "Expected --objective target-map with --target, got top-k"),
        (("--objective", "target-map", "--target", "no.png"), "Expected --target to be a file"),
        (("--objective", "target-map", "--target", __file__), "Expected --target to be an image"),
        (("--model", "nonsense"), "Expected --model as module:function, got 'nonsense'"),
        (("--model", "no_such_module:f"), "No module named 'no_such_module'"),
        (("--model", "tests.test_main_attack:absent"), "torch.nn.Module, got no such function"),
        (("--model", "tests.test_main_attack:not_a_model"), "torch.nn.Module, got str"),
        (("--device", "warp"), "Expected --device of this machine, got 'warp'"),
        (("--device", "meta"), "Expected --device of this machine, got 'meta'"),
        (("--threads", "0"), "Expected --threads >= 1, got 0"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_options_end_in_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    assert main(own(folder, tmp_path / "out", *more)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("attrlib")]
    assert len(lines) == 1
    assert message in lines[0]
    assert not list(tmp_path.rglob("*.partial"))


def test_a_missing_folder_or_checkpoint_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["attack", "--image-folder", str(tmp_path / "no")]) == 2
    assert "Expected path to be a folder, got" in capsys.readouterr().err
    assert main(["attack", "--checkpoint", "no-such"]) == 2
    assert "shipped checkpoints" in capsys.readouterr().err
    for bad in (["--attribution", "lime"], ["--data", "mnist"], ["--eps", "much"]):
        with pytest.raises(SystemExit, match="2"):
            main(["attack", *bad])
        assert bad[1] in capsys.readouterr().err
