"""Recipes: a seed gives one file, to the last bit, however often the run is stopped."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest
import torch

from attrlib import checkpoints, recipes
from attrlib.data import Images, fashion_mnist
from attrlib.models import SmallCNN
from attrlib.recipes import RECIPES, Recipe, fit, planted_blocks
from attrlib.regularizers import CrossEntropy
from attrlib.training import Loss, TrainConfig, correct, evaluate

TINY = Recipe(
    name="tiny",
    model=SmallCNN,
    loss=Loss(terms={"ce": CrossEntropy()}, weights={"ce": 1.0}),
    config=TrainConfig(epochs=2, batch_size=32),
    source="This test.",
)


@pytest.fixture(autouse=True)
def _float32() -> None:
    """As users run it; conftest's fixture puts the default back."""
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="module")
def splits() -> dict[str, Images]:
    few = {"train": 128, "val": 40, "test": 40}
    return {split: fashion_mnist(split)[:count] for split, count in few.items()}


def test_a_tiny_recipe_repeats_bit_for_bit(tmp_path: Path, splits: dict[str, Images]) -> None:
    one, other = (tmp_path / f"{i}.safetensors" for i in range(2))
    made = fit(TINY, one, data=splits, seed=5)
    fit(TINY, other, data=splits, seed=5)
    first, second = checkpoints.load(one), checkpoints.load(other)
    for p, q in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(p, q)
    assert first.metrics == second.metrics == made.metrics
    assert {k: v for k, v in first.recipe.items() if k != "seconds"} == {
        k: v for k, v in second.recipe.items() if k != "seconds"
    }
    fit(TINY, other, data=splits, seed=6)
    changed = checkpoints.load(other).model.parameters()
    assert not any(
        torch.equal(p, q) for p, q in zip(first.model.parameters(), changed, strict=True)
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0.safetensors", "1.safetensors"]


def test_what_is_measured_is_what_is_stored(tmp_path: Path, splits: dict[str, Images]) -> None:
    fit(TINY, tmp_path / "a.safetensors", data=splits, seed=0)
    found = checkpoints.load(tmp_path / "a.safetensors")
    for split in ("val", "test"):
        hits = evaluate(found.model, splits[split], {"correct": correct})["correct"]
        assert found.metrics[f"{split}_accuracy"] == pytest.approx(float(hits.mean()), abs=1e-6)
    assert found.recipe["name"] == "tiny"
    assert found.recipe["data"]["train"][0] == 128
    assert (tmp_path / "a.safetensors").stat().st_size < 0.35e6  # half precision


def test_a_stopped_run_goes_on(
    tmp_path: Path, splits: dict[str, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = tmp_path / "whole.safetensors", tmp_path / "a.safetensors"
    fit(TINY, whole, data=splits, seed=0)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recipes.recipe, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            fit(TINY, path, data=splits, seed=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.resume", "whole.safetensors"]
    with pytest.raises(ValueError, match="got another start; delete the file"):
        fit(TINY, path, data=splits, seed=1)  # must not be passed off as seed 1
    fit(TINY, path, data=splits, seed=0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "whole.safetensors"]
    one, other = (checkpoints.load(p).model.parameters() for p in (whole, path))
    assert all(torch.equal(p, q) for p, q in zip(one, other, strict=True))


@pytest.mark.usefixtures("unchecked_shapes")
def test_fit_names_what_is_wrong_before_it_trains(
    tmp_path: Path, splits: dict[str, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        recipes.recipe, "train", lambda *_, **__: pytest.fail("trained all the same")
    )
    good = tmp_path / "a.safetensors"
    for seed in (-1, 1.5, 2**63):
        with pytest.raises(ValueError, match=r"Expected seed to be an integer from 0 to .*, got"):
            fit(TINY, good, data=splits, seed=seed)
    with pytest.raises(ValueError, match=r"Expected path to end in \.safetensors, got .*a\.bin"):
        fit(TINY, tmp_path / "a.bin", data=splits, seed=0)
    with pytest.raises(FileNotFoundError, match="Expected path in an existing folder, got"):
        fit(TINY, tmp_path / "no" / "a.safetensors", data=splits, seed=0)
    with pytest.raises(
        ValueError, match=r"Expected data to have a split named train, got \['val'\]"
    ):
        fit(TINY, good, data={"val": splits["val"]}, seed=0)
    for log in (good, tmp_path / "a.resume"):
        with pytest.raises(ValueError, match="Expected log to be another file than path and its"):
            fit(TINY, good, data=splits, seed=0, log=log)
    fewer = Images(splits["val"].x, splits["val"].y, splits["val"].classes[:9])
    with pytest.raises(
        ValueError, match=r"Expected split val to have the classes of train, .* got"
    ):
        fit(TINY, good, data=splits | {"val": fewer}, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_every_recipe_is_named_frozen_and_can_be_described() -> None:
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert recipe.source.endswith(".")
        assert checkpoints.describe(recipe.loss)
    with pytest.raises(TypeError):
        RECIPES["mine"] = TINY


@pytest.mark.usefixtures("unchecked_shapes")
def test_blocks_are_tossed_once_and_differently_in_each_split() -> None:
    once, again, other = (planted_blocks(split) for split in ("train", "train", "test"))
    assert torch.equal(once.x, again.x)
    count = len(other)
    assert not torch.equal(once.null[:count], other.null)
    assert torch.equal(other.y, fashion_mnist("test").y)
    assert RECIPES["natural-block"].data is RECIPES["density-block"].data is planted_blocks
    assert RECIPES["density"].data is fashion_mnist
    with pytest.raises(ValueError, match="Expected split to be one of train, val, test, got 'all'"):
        planted_blocks("all")  # type: ignore[arg-type]


def _defaults(term: Any) -> dict[str, Any]:
    """Settings that a description need not name: a younger one was off when a file was made."""
    chosen = {field.name: field.default for field in fields(term)}
    return {key: value for key, value in chosen.items() if value is not MISSING}


def test_every_shipped_checkpoint_has_its_recipe() -> None:
    for name in checkpoints.names():
        for seed in checkpoints.seeds(name):
            stored = checkpoints.load(f"{name}-s{seed}").recipe
            loss = RECIPES[name].loss
            for part, term in stored["loss"]["terms"].items():
                stored["loss"]["terms"][part] = _defaults(loss.terms[part]) | term
            assert stored["loss"] == checkpoints.describe(loss)
            config = vars(RECIPES[name].config)
            newer = {k: config[k] for k in config.keys() - stored["config"].keys()}
            assert stored["config"] | newer == config
            # A setting that is younger than the file was off when the file was made.
            default = vars(TrainConfig(epochs=1))
            assert newer == {k: default[k] for k in newer}


def test_a_device_is_named() -> None:
    assert recipes.recipe._device_name("cpu").startswith("cpu (")
