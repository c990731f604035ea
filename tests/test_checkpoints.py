"""Checkpoints: what is stored comes back bit for bit, or an error says why not."""

import functools
import json
import math
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from attrlib import attributions, checkpoints
from attrlib.models import LeNet, SmallCNN, with_softplus
from attrlib.recipes import RECIPES
from attrlib.regularizers import CrossEntropy
from attrlib.training import correct, evaluate
from tests import oracles


def _net(**options: object) -> SmallCNN:
    return SmallCNN(size=8, classes=3, generator=oracles.seeded(0), **options).float()


def _same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in pairs)


@pytest.mark.parametrize("activation", [nn.ReLU, functools.partial(nn.Softplus, beta=3)])
@pytest.mark.parametrize("half", [True, False])
def test_round_trip(tmp_path: Path, activation: type[nn.Module], half: bool) -> None:
    model = _net(activation=activation)
    if half:
        checkpoints.round_to_half(model)
    path = tmp_path / "one.safetensors"
    recipe, metrics = {"name": "one", "seed": 3, "deep": {"a": [1, None]}}, {"accuracy": 0.5}
    assert checkpoints.save(path, model, recipe=recipe, metrics=metrics) == path
    before = torch.get_rng_state()
    found = checkpoints.load(path)
    assert torch.equal(torch.get_rng_state(), before)
    assert _same_weights(found.model, model)
    assert repr(found.model) == repr(model)
    assert (found.recipe, found.metrics) == (recipe, metrics)
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}
    x = oracles.images().float()
    assert torch.equal(found.model(x), model(x))
    with safe_open(str(path), framework="pt") as file:
        stored = {file.get_tensor(name).dtype for name in file.keys()}
    assert stored == {torch.float16 if half else torch.float32}
    assert checkpoints.load(str(path)).recipe == recipe


def test_round_trip_of_a_network_for_images_that_are_no_square(tmp_path: Path) -> None:
    model = SmallCNN(size=(16, 8), classes=3, generator=oracles.seeded(0)).float()
    found = checkpoints.load(
        checkpoints.save(tmp_path / "a.safetensors", model, recipe={}, metrics={})
    )
    assert _same_weights(found.model, model)
    assert found.model.settings == model.settings


def test_round_trip_of_lenet(tmp_path: Path) -> None:
    smooth = functools.partial(nn.Softplus, beta=7)
    model = LeNet(size=(16, 12), channels=3, activation=smooth).float()
    path = checkpoints.save(tmp_path / "a.safetensors", model, recipe={}, metrics={})
    found = checkpoints.load(path).model
    assert type(found) is LeNet
    assert repr(found) == repr(model)
    x = torch.ones(1, 3, 16, 12).float()
    assert torch.equal(found(x), model(x))


def test_round_to_half_is_the_nearest_half() -> None:
    model = _net()
    weights = [p.detach().clone() for p in model.parameters()]
    checkpoints.round_to_half(model)
    for p, w in zip(model.parameters(), weights, strict=True):
        assert p.dtype == torch.float32
        assert torch.equal(p, w.half().float())
        assert (p - w).abs().max() > 0
    again = [p.detach().clone() for p in model.parameters()]
    checkpoints.round_to_half(model)
    assert all(torch.equal(p, w) for p, w in zip(model.parameters(), again, strict=True))


def test_large_weights_are_not_stored_as_infinity(tmp_path: Path) -> None:
    model = _net()
    with torch.no_grad():
        model.layers[0].weight[0, 0, 0, 0] = 1e6
    checkpoints.save(tmp_path / "a.safetensors", model, recipe={}, metrics={})
    assert _same_weights(checkpoints.load(tmp_path / "a.safetensors").model, model)


def test_a_failed_write_leaves_no_file_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", oracles.full_disk(Path.write_bytes))
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(path, _net(), recipe={}, metrics={})
    assert list(tmp_path.iterdir()) == []
    checkpoints.save(path, _net(), recipe={}, metrics={})
    content = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", oracles.full_disk(Path.write_bytes))
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(path, _net(), recipe={}, metrics={})
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("unchecked_shapes")
def test_save_names_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match=r"Expected path to end in .safetensors, got .*a.pt"):
        checkpoints.save(tmp_path / "a.pt", _net(), recipe={}, metrics={})
    with pytest.raises(
        ValueError, match="Expected model to be one of SmallCNN, LeNet, TextCNN, got Linear"
    ):
        checkpoints.save(path, nn.Linear(2, 2), recipe={}, metrics={})
    with pytest.raises(ValueError, match="Expected activation to be one of ReLU, Softplus, got"):
        checkpoints.save(path, _net(activation=nn.ReLU6), recipe={}, metrics={})
    with pytest.raises(ValueError, match="Expected model with the layers SmallCNN gave it"):
        checkpoints.save(path, with_softplus(_net(), 10), recipe={}, metrics={})
    with pytest.raises(TypeError, match="JSON serializable"):
        checkpoints.save(path, _net(), recipe={"loss": CrossEntropy()}, metrics={})
    model = _net()
    with torch.no_grad():
        model.layers[7].bias[0] = math.nan
    with pytest.raises(ValueError, match=r"Expected finite weights, got NaN .* layers.7.bias"):
        checkpoints.save(path, model, recipe={}, metrics={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage", ["empty", "text", "cut", "no header", "other model", "missing weight", "bad json"]
)
def test_damaged_files_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.safetensors"
    checkpoints.save(path, _net(), recipe={}, metrics={})
    raw, weights = path.read_bytes(), _net().state_dict()
    header = {"model": {"name": "SmallCNN"}, "recipe": {}, "metrics": {}}
    if damage in ("empty", "text", "cut"):
        path.write_bytes({"empty": b"", "text": b"hello" * 9, "cut": raw[:-9]}[damage])
    elif damage == "no header":
        save_file(weights, str(path))
    elif damage == "bad json":
        save_file(weights, str(path), metadata={"attrlib": "{"})
    elif damage == "other model":
        header["model"]["name"] = "Transformer"
        save_file(weights, str(path), metadata={"attrlib": json.dumps(header)})
    else:
        header["model"] = checkpoints._describe_model(_net())
        del weights["layers.0.weight"]
        save_file(weights, str(path), metadata={"attrlib": json.dumps(header)})
    with pytest.raises(
        ValueError, match=r"Expected .*a.safetensors to be an intact attrlib checkp"
    ):
        checkpoints.load(path)


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    for name in ("unnatural", "natural-s99", "natural-s0.pt"):
        with pytest.raises(ValueError, match=rf"shipped checkpoints \(.*natural.*\), got '{name}'"):
            checkpoints.load(name)
    for path in (tmp_path / "a.safetensors", str(tmp_path / "b.safetensors"), tmp_path / "c"):
        with pytest.raises(FileNotFoundError, match="Expected a checkpoint file, got"):
            checkpoints.load(path)
    with pytest.raises(ValueError, match=r"Expected name to be one of .*natural.*, got 'x'"):
        checkpoints.seeds("x")


def test_a_folder_of_ones_own_is_read_by_its_names(tmp_path: Path) -> None:
    for name in ("mine-s10", "mine-s2", "my-net-s0", "mine-s02", "mine-s-1", "mine", "-s1"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "mine-s3.pt").touch()
    assert checkpoints.names(tmp_path) == ["mine", "my-net"]
    assert checkpoints.seeds("mine", tmp_path) == [2, 10]
    with pytest.raises(ValueError, match="Expected name to be one of mine, my-net, got 'natural'"):
        checkpoints.seeds("natural", tmp_path)
    (tmp_path / "empty").mkdir()
    assert checkpoints.names(tmp_path / "empty") == []
    with pytest.raises(ValueError, match=r"to be one of a checkpoint in .*empty, got 'mine'"):
        checkpoints.seeds("mine", tmp_path / "empty")
    for place in (tmp_path / "nowhere", tmp_path / "mine.safetensors"):
        with pytest.raises(FileNotFoundError, match="Expected a folder of checkpoints, got "):
            checkpoints.names(place)


# --- the shipped files ----------------------------------------------------------------------------

SHIPPED = [f"{name}-s{seed}" for name in checkpoints.names() for seed in checkpoints.seeds(name)]


def test_natural_is_shipped_with_three_seeds() -> None:
    assert "natural" in checkpoints.names()
    assert checkpoints.seeds("natural") == [0, 1, 2]
    assert checkpoints.load("natural").recipe["seed"] == 0


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_loads_and_says_where_it_comes_from(name: str) -> None:
    found = checkpoints.load(name)
    stem, _, seed = name.rpartition("-s")
    assert (found.recipe["name"], found.recipe["seed"]) == (stem, int(seed))
    for key in ("loss", "config", "data", "seconds", "device", "threads", "versions"):
        assert key in found.recipe
    file = checkpoints._SHIPPED / f"{name}.safetensors"
    assert file.stat().st_size < 0.7e6
    assert all(torch.equal(p, p.half().float()) for p in found.model.parameters())


@pytest.mark.parametrize("name", [name for name in SHIPPED if "-cifar-" not in name])
def test_shipped_accuracy_is_what_the_file_says(name: str) -> None:
    """On the embedded test images of its recipe, a fifth of the full test set; CIFAR-10 has none."""
    found = checkpoints.load(name)
    images = RECIPES[found.recipe["name"]].data("test")
    hits = evaluate(found.model, images, {"correct": correct})["correct"]
    claimed = found.metrics["test_accuracy"]
    assert abs(float(hits.mean()) - claimed) < 5 * math.sqrt(claimed * (1 - claimed) / len(images))


def test_natural_is_as_accurate_as_promised() -> None:
    assert checkpoints.load("natural").metrics["test_accuracy"] >= 0.91


# --- describe -------------------------------------------------------------------------------------


def test_describe() -> None:
    part = functools.partial(attributions.integrated_gradients, steps=4)
    assert checkpoints.describe(part) == {"name": "integrated_gradients", "steps": 4}
    assert checkpoints.describe(nn.ReLU) == {"name": "ReLU"}
    assert checkpoints.describe(CrossEntropy()) == {"name": "CrossEntropy"}
    assert checkpoints.describe({"a": (1, 2.5, None, True, "x"), 3: [CrossEntropy]}) == {
        "a": [1, 2.5, None, True, "x"],
        "3": [{"name": "CrossEntropy"}],
    }
    json.dumps(checkpoints.describe(part))


def test_describe_refuses_what_it_would_lose() -> None:
    for part in (object(), torch.zeros(2), functools.partial(round, 3)):
        with pytest.raises(
            TypeError, match="Expected a function, partial, class, dataclass or plain"
        ):
            checkpoints.describe(part)
