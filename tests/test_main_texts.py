"""The command line with networks for sentences: trained, evaluated, and refused in one line."""

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
import torch

from attrlib import checkpoints, data, recipes
from attrlib.__main__ import main
from attrlib.models import TextCNN


@pytest.fixture(autouse=True)
def _as_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an empty folder, in float32."""
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float32)


def _few(split: data.Split, *, full: bool = False) -> data.Texts:
    return data.sentiment(split)[:16]


def _error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_a_network_for_sentences_is_trained_and_evaluated(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipes.RECIPES["text-natural"]
    quick = replace(recipe, data=_few, config=replace(recipe.config, epochs=2, batch_size=8))
    monkeypatch.setattr(recipes, "RECIPES", MappingProxyType({"text-natural": quick}))
    assert main(["train", "text-natural", "--out", "a.safetensors", "--log", "a.csv"]) == 0
    found = checkpoints.load("a.safetensors")
    assert isinstance(found.model, TextCNN)
    assert found.recipe["data"]["test"] == [16, data.fingerprint(_few("test"))]
    assert len(Path("a.csv").read_text().splitlines()) == 3
    capsys.readouterr()
    assert main(["evaluate", "a.safetensors"]) == 0
    assert f"accuracy {found.metrics['test_accuracy']:.4f} ± " in capsys.readouterr().out


def test_the_shipped_network_has_its_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    claimed = checkpoints.load("text-natural").metrics["test_accuracy"]
    for name in ("full", "embedded"):  # one set under both names
        assert main(["evaluate", "text-natural", "--data", name]) == 0
        assert f"accuracy {claimed:.4f} ± " in capsys.readouterr().out


def test_images_are_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "test"):
        for kind in ("bright", "dark"):
            path = Path("pictures") / split / kind
            path.mkdir(parents=True)
            _picture(path / "0.png")
    told = _error(capsys, "train", "text-natural", "--data", "pictures")
    assert "Expected data with sentences for recipe text-natural, got images" in told
    told = _error(capsys, "evaluate", "text-natural", "--data", "pictures")
    assert "Expected x of shape (n, 17, 1, words), got" in told


def test_a_seed_that_has_no_first_weights_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    told = _error(capsys, "train", "text-lga", "--seed", "7", "--out", "a.safetensors")
    assert "got 'text-natural-s7'" in told


def test_data_says_what_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data"]) == 0
    out = capsys.readouterr().out
    assert f"636 tweets  {data.fingerprint(data.sentiment('test'))}" in out
    assert "text-natural-s0  test accuracy" in out


def _picture(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (8, 8)).save(path)
