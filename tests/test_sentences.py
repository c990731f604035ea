"""The study of sentences: every row once, and numbers that can be had another way."""

import shutil
import sys
from pathlib import Path

import pytest
import torch

from attrlib import checkpoints, data, recipes
from attrlib.__main__ import main
from attrlib.benchmark import sentences
from attrlib.benchmark.sentences import WORD_MAPS
from tests.tables import number, rows


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the natural network only, and a study of one map."""
    torch.set_default_dtype(torch.float32)
    one = {"text-natural": recipes.TEXTS["text-natural"]}
    monkeypatch.setattr(recipes, "TEXTS", one)
    maps = {"input × gradient": WORD_MAPS["input × gradient"]}
    monkeypatch.setattr(sys.modules["attrlib.benchmark.sentences"], "WORD_MAPS", maps)
    shutil.copy(checkpoints._SHIPPED / "text-natural-s0.safetensors", tmp_path)
    return tmp_path


def test_the_study_is_made_once_row_by_row(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = small / "table.csv"
    sentences(path, nets=small, count=4, seeds=(0,), progress=True)
    assert len(capsys.readouterr().out.splitlines()) == 5
    before = path.read_bytes()
    sentences(path, nets=small, count=4, seeds=(0,), progress=True)
    assert path.read_bytes() == before
    assert capsys.readouterr().out == ""
    found = rows(path)
    keys = [tuple(row[k] for k in ("recipe", "seed", "map", "swaps", "measure")) for row in found]
    assert len(set(keys)) == len(keys)


def test_values_that_can_be_had_another_way(small: Path) -> None:
    path = small / "table.csv"
    sentences(path, nets=small, count=4, seeds=(0,))
    test, model = data.sentiment("test"), checkpoints.load("text-natural").model
    right = model(model.embed(test.ids).detach()).argmax(1) == test.y
    net = {"recipe": "text-natural", "seed": "0"}
    accuracy = number(path, **net, measure="accuracy")
    assert accuracy == pytest.approx(float(right.double().mean()), abs=1e-4)
    assert number(path, **net, measure="attacked accuracy") < accuracy
    assert number(path, **net, measure="sentences") == 4
    assert number(path, recipe="tf-idf", measure="accuracy") == pytest.approx(0.868, abs=0.02)
    assert number(path, recipe="tf-idf", measure="majority") == pytest.approx(
        float(test.y.double().mean()), abs=1e-4
    )
    for swaps in ("1", "3"):
        where = net | {"map": "input × gradient", "swaps": swaps}
        attacked, drawn = (
            number(path, **where, measure=f"top-3, {way}") for way in ("attack", "random")
        )
        assert attacked <= drawn <= 1
        assert number(path, **where, measure="replaced, attack") <= float(swaps)
        places = number(path, **where, measure="LENS, places, attack")
        assert number(path, **where, measure="LENS, places and synonyms, attack") >= places
        assert places >= attacked


def test_another_number_of_sentences_is_another_table(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "sentences", "--nets", str(small), "--out", str(small / "table.csv")]
    with pytest.MonkeyPatch.context() as patch:
        study = sys.modules["attrlib.benchmark.sentences"]
        patch.setattr(study, "_cells", lambda *_: iter([study._cell(_one, recipe="a", seed="0")]))
        for _ in range(2):
            assert main([*words, "--count", "4"]) == 0
        capsys.readouterr()
        assert main([*words, "--count", "5"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "to be made of the same count, got other contents; write a new table" in line


def _one() -> dict[str, float]:
    return {"accuracy": 1.0}


def test_networks_that_are_missing_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def fit(recipe: recipes.Recipe, path: Path, **options: object) -> None:
        asked.append((recipe.name, path.name, options["seed"], options["start"]))
        shutil.copy(checkpoints._SHIPPED / "natural-s0.safetensors", path)

    monkeypatch.setattr(recipes, "fit", fit)
    with pytest.raises(
        ValueError,
        match=r"s2\.safetensors to be of recipe text-natural and seed 2, .*got natural and",
    ):
        sentences(tmp_path / "t.csv", nets=tmp_path / "nets", seeds=(2,), count=1)
    assert asked == [("text-natural", "text-natural-s2.safetensors", 2, None)]
    with pytest.raises(ValueError, match="Expected count to be an integer >= 1, got 0"):
        sentences(tmp_path / "t.csv", nets=tmp_path, count=0)
