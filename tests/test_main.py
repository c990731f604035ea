"""The command line, called as a function: what it prints, writes, and answers to mistakes."""

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType, SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from attrlib import checkpoints, data, models, recipes
from attrlib.__main__ import main
from attrlib.training import state
from tests.commands_oracles import pictures


@pytest.fixture(autouse=True)
def _as_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In an empty folder, in float32, with quick recipes; threads are put back."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    quick = {
        name: replace(r, config=replace(r.config, epochs=2, batch_size=8))
        for name, r in recipes.RECIPES.items()
    }
    monkeypatch.setattr(recipes, "RECIPES", MappingProxyType(quick))
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Bright and dark pictures in 8×8, for training and testing."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for kind, low in (("bright", 128), ("dark", 0)):
            (tmp_path / "pictures" / split / kind).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(low, low + 127, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pictures" / split / kind / f"{i}.png")
    return tmp_path / "pictures"


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The single line on stderr of a call that must fail."""
    assert main(list(arguments)) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    lines = caught.err.strip().splitlines()
    assert len(lines) == 1, caught.err
    assert lines[0].startswith(f"attrlib {arguments[0]}: ")
    return lines[0]


# --- data -----------------------------------------------------------------------------------------


def test_data_says_what_is_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"train +9,000 images +[0-9a-f]{16}", text)
    assert re.search(r"test +2,000 images", text)
    assert re.search(r"natural-s0 +test accuracy 0\.9", text)


def test_data_says_how_to_get_what_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "find_full", lambda: None)
    assert main(["data"]) == 0
    assert "not found: set ATTRLIB_DATA" in capsys.readouterr().out


# --- train ----------------------------------------------------------------------------------------


def test_train_and_evaluate_on_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "natural", "--data", str(folder), "--seed", "3"]) == 0
    caught = capsys.readouterr()
    path = Path("runs/natural-s3.safetensors")
    assert f"{path}: train_loss" in caught.out
    assert "test_accuracy" in caught.out
    assert "val_accuracy" not in caught.out  # the folder has none
    assert "epoch 2/2" in caught.err
    assert [p.name for p in Path("runs").iterdir()] == [path.name]
    found = checkpoints.load(path)
    assert (found.recipe["seed"], found.recipe["threads"]) == (3, 1)
    assert found.model.settings == {"size": 8, "channels": 3, "classes": 2}
    assert main(["evaluate", str(path), "--data", str(folder), "--split", "test"]) == 0
    text = capsys.readouterr().out
    assert f"accuracy {found.metrics['test_accuracy']:.4f} ± " in text
    assert text.endswith("8 images\n")


def test_train_on_the_embedded_data(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _few_images(monkeypatch)
    assert main(["train", "natural", "--data", "embedded", "--out", "a.safetensors"]) == 0
    assert "val_accuracy" in capsys.readouterr().out
    assert main(["train", "natural", "--data", "full", "--out", "b.safetensors"]) == 0
    assert "Differs from the shipped checkpoint by at most" in capsys.readouterr().out
    one, other = (checkpoints.load(f"{n}.safetensors").model.parameters() for n in "ab")
    assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))
    again = checkpoints.load("a.safetensors")
    monkeypatch.setattr(checkpoints, "load", lambda _: again)
    assert main(["train", "natural", "--data", "full", "--out", "c.safetensors"]) == 0
    assert "Identical to the shipped checkpoint, bit for bit." in capsys.readouterr().out


def test_a_recipe_and_its_checkpoint_bring_their_own_images(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _few_images(monkeypatch)
    assert main(["train", "natural-block", "--data", "embedded", "--out", "a.safetensors"]) == 0
    found = checkpoints.load("a.safetensors")
    assert found.model.settings["size"] == (56, 28)
    test = recipes.planted_blocks("test")[:16]
    assert found.recipe["data"]["test"] == [16, data.fingerprint(test)]
    capsys.readouterr()
    assert main(["evaluate", "a.safetensors", "--data", "embedded"]) == 0
    assert f"accuracy {found.metrics['test_accuracy']:.4f} ± " in capsys.readouterr().out


def _few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every recipe gets the first 16 of its images, the embedded ones where it asks for all."""

    def few(
        source: Callable[[data.Split], data.Images],
    ) -> Callable[[data.Split, bool], data.Images]:
        return lambda split, full=False: source(split)[:16]  # type: ignore[misc]

    changed = {name: replace(r, data=few(r.data)) for name, r in recipes.RECIPES.items()}
    monkeypatch.setattr(recipes, "RECIPES", MappingProxyType(changed))


def test_training_starts_from_a_checkpoint_and_keeps_a_log(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "natural", "--data", str(folder), "--out"]
    assert main([*arguments, "a.safetensors", "--log", "a.csv"]) == 0
    assert main([*arguments, "b.safetensors", "--log", "b.csv", "--start", "a.safetensors"]) == 0
    first, second = (Path(f"{name}.csv").read_text().splitlines() for name in "ab")
    assert first[0] == second[0] == "epoch,loss,cross_entropy,seconds"
    assert len(first) == len(second) == 3
    assert float(second[1].split(",")[1]) < float(first[1].split(",")[1])  # it began further on
    assert checkpoints.load("a.safetensors").recipe["start"] is None
    assert checkpoints.load("b.safetensors").recipe["start"] == "a.safetensors"
    capsys.readouterr()
    assert "Expected start to be a network with" in _error(
        capsys, *arguments, "c.safetensors", "--start", "natural"
    )
    assert not Path("c.safetensors").exists()


def test_two_processes_write_one_checkpoint(folder: Path) -> None:
    command = [sys.executable, "-m", "attrlib", "train", "natural", "--data", str(folder)]
    root = str(Path(__file__).parents[1])
    for devices in ("1", "2"):
        done = subprocess.run(
            [*command, "--out", f"{devices}.safetensors", "--devices", devices],
            env={**os.environ, "PYTHONPATH": root},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("train_loss") == 1
    assert not list(Path().glob("*.resume"))
    alone, shared = (checkpoints.load(f"{n}.safetensors") for n in "12")
    assert (alone.recipe["processes"], shared.recipe["processes"]) == (1, 2)
    pairs = zip(alone.model.parameters(), shared.model.parameters(), strict=True)
    assert all(torch.allclose(p, q, atol=2e-3) for p, q in pairs)  # rounded to float16


def test_an_interrupted_run_goes_on(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["train", "natural", "--data", str(folder), "--out"]
    assert main([*arguments, "whole.safetensors"]) == 0
    store = state.store

    def stored_and_stopped(*parts: object) -> None:
        store(*parts)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(state, "store", stored_and_stopped)
        assert main([*arguments, "a.safetensors"]) == 130
    assert Path("a.resume").exists()
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        "attrlib train: stopped; the same command goes on from its last state (one a minute)"
    )
    assert main([*arguments, "a.safetensors"]) == 0
    assert "epoch 1/2" not in capsys.readouterr().err
    assert not Path("a.resume").exists()
    one, other = (checkpoints.load(f"{n}.safetensors").model.parameters() for n in ("whole", "a"))
    assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))


# --- mistakes -------------------------------------------------------------------------------------


def test_a_checkpoint_of_no_recipe_is_evaluated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, path = models.SmallCNN(size=28).float(), tmp_path / "own.safetensors"
    checkpoints.save(path, net, recipe={}, metrics={})
    assert main(["evaluate", str(path), "--data", "embedded"]) == 0
    assert "accuracy 0." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "unnatural"], r"Expected recipe to be one of natural.*, got 'unnatural'"),
        (["train", "natural", "--seed", "-1"], r"Expected seed to be an integer .* got -1"),
        (["train", "natural", "--threads", "0"], r"Expected --threads >= 1, got 0"),
        (["train", "natural", "--device", "abacus"], r"Expected --device .* got 'abacus'"),
        (
            ["train", "natural", "--out", "a.bin"],
            r"Expected path to end in \.safetensors, got a\.bin",
        ),
        (["train", "natural", "--out", "/dev/null/a.safetensors"], r"/dev/null"),
        (["evaluate", "unnatural"], r"Expected a path or one of the shipped .* got 'unnatural'"),
        (["evaluate", "no.safetensors"], r"Expected a checkpoint file, got no\.safetensors"),
        (["evaluate", "natural", "--threads", "-2"], r"Expected --threads >= 1, got -2"),
        (["evaluate", "natural", "--data", "nowhere"], r"Expected --data to be full.* got nowhere"),
    ],
)
def test_mistakes_end_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    if arguments[0] == "train" and "--data" not in arguments:
        arguments = [*arguments, "--data", str(folder)]
    assert re.search(message, _error(capsys, *arguments))
    assert not list(Path().rglob("*.safetensors"))
    assert not list(Path().rglob("*.resume"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: command"),
        (["fly"], "invalid choice: 'fly'"),
        (["train"], "required: recipe"),
        (["train", "natural", "--seed", "one"], "argument --seed: invalid int value: 'one'"),
        (["evaluate", "natural", "--split", "dev"], "argument --split: invalid choice: 'dev'"),
        (["data", "--verbose"], "unrecognized arguments: --verbose"),
    ],
)
def test_malformed_commands(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "command",
    [
        [],
        *map(
            str.split,
            ("data", "train", "evaluate", "attack", "certify", "bench", "bench soundness"),
        ),
    ],
)
def test_every_command_has_help(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command, "--help"])
    assert stopped.value.code == 0
    assert "usage: attrlib" in capsys.readouterr().out


def test_bad_folders_and_files_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = ["train", "natural", "--data", str(folder)]
    broken = folder / "train" / "dark" / "z.png"
    broken.write_bytes(b"")
    assert "z.png to be an image" in _error(capsys, *train)
    broken.unlink()
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(broken)
    assert "Expected images of one size" in _error(capsys, *train)
    broken.unlink()
    (folder / "test" / "extra").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "test" / "extra" / "a.png")
    assert "Expected split test to have the classes of train" in _error(capsys, *train)
    assert not list(Path().rglob("*.resume"))
    natural = ["evaluate", "natural", "--data", str(folder)]
    assert "Expected --data with the 10 classes of the checkpoint, got 3" in _error(
        capsys, *natural
    )
    Path("a.safetensors").write_bytes(b"not a checkpoint")
    assert "intact attrlib checkpoint" in _error(capsys, "evaluate", "a.safetensors")


def test_running_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["attrlib", "evaluate", "unnatural"])
    with pytest.raises(SystemExit) as stopped, pytest.warns(RuntimeWarning, match="sys.modules"):
        runpy.run_module("attrlib", run_name="__main__", alter_sys=False)
    assert stopped.value.code == 2


def test_development_mode_shows_the_whole_error_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pictures(tmp_path / "images", ("cat/a.png", "cat/b.png"))
    flags = {name: getattr(sys.flags, name) for name in dir(sys.flags) if name[0] != "_"}
    monkeypatch.setattr(sys, "flags", SimpleNamespace(**flags | {"dev_mode": True}))
    model = ("--model", "tests.test_main_attack_again:Picky")  # takes one or three images
    with pytest.raises(KeyError, match="2"):
        main(["attack", "--image-folder", str(folder), *model, "--out", str(tmp_path / "out")])
