"""CIFAR-10: images from folders, and the study of its networks with a handful of images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attrlib import benchmark, checkpoints, data, models
from attrlib.__main__ import main
from attrlib.attacks import SUITE, standard
from attrlib.benchmark import cells, colour
from attrlib.recipes import CIFAR, RECIPES
from tests.tables import number, rows


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of pictures of 12×12 pixels, 20 and 10 for training, 4 each for testing."""
    root, noise = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    for split, counts in (("train", (20, 10)), ("test", (4, 4))):
        for kind, count in zip(("cat", "ship"), counts, strict=True):
            (root / split / kind).mkdir(parents=True)
            for i in range(count):
                pixels = noise.integers(0, 256, (12, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / kind / f"{i:02d}.png")
    return root


@pytest.fixture(autouse=True)
def _single(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In float32, with short attacks on few images; the command sets its own number of threads."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(colour, "PER_CLASS", 2)
    monkeypatch.setattr(colour, "POOL", 2)
    monkeypatch.setattr(cells, "standard", lambda **w: standard(**w | {"effort": "quick", "k": 20}))
    yield
    torch.set_num_threads(threads)


def test_the_last_tenth_of_each_class_is_held_out(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = data.image_folder(tree / "train")
    train, val, test = (data.cifar10(split, folder=tree) for split in ("train", "val", "test"))
    assert torch.equal(val.x, whole.x[[18, 19, 29]])
    assert torch.equal(train.x, whole.x[[*range(18), *range(20, 29)]])
    assert torch.equal(test.x, data.image_folder(tree / "test").x)
    assert train.y.bincount().tolist() == [18, 9]
    assert val.classes == test.classes == ("cat", "ship")
    (tree.parent / "cifar10").symlink_to(tree)
    monkeypatch.setenv("ATTRLIB_DATA", str(tree.parent))
    assert torch.equal(data.cifar10("val").x, val.x)


def test_the_download_of_torchvision_is_split_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    class Found:
        classes = ("cat", "ship")

        def __init__(self, root: str, *, train: bool, download: bool) -> None:
            self.targets = [0, 1] * 20 if train else [0, 1]
            pixels = np.arange(len(self.targets), dtype=np.uint8)
            self.data = pixels[:, None, None, None] * np.ones((32, 32, 3), dtype=np.uint8)

    monkeypatch.delenv("ATTRLIB_DATA", raising=False)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", Found)
    val = data.cifar10("val")
    assert (val.x[:, 2, 5, 7] * 255).round().tolist() == [36, 37, 38, 39]
    assert val.x.shape == (4, 3, 32, 32)
    assert len(data.cifar10("test")) == 2

    def refuse(root: str, *, train: bool, download: bool) -> None:
        raise RuntimeError("no network")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", refuse)
    with pytest.raises(FileNotFoundError, match=r"Expected CIFAR-10 in .* failed: no network"):
        data.cifar10("test")


@pytest.mark.usefixtures("unchecked_shapes")
def test_cifar10_names_what_is_wrong(tree: Path) -> None:
    with pytest.raises(ValueError, match="Expected split to be one of train, val, test, got 'all'"):
        data.cifar10("all", folder=tree)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Expected full=True for CIFAR-10, of which no part is em"):
        data.cifar10(full=False)
    with pytest.raises(FileNotFoundError, match="Expected path to be a folder, got"):
        data.cifar10(folder=tree / "train")


def test_the_recipes_share_images_and_network() -> None:
    assert all(RECIPES[name] is recipe for name, recipe in CIFAR.items())
    assert all(recipe.data is data.cifar10 for recipe in CIFAR.values())
    assert all(name.endswith("-cifar") for name in CIFAR)
    kinds = {type(recipe.model(size=32, channels=3)) for recipe in CIFAR.values()}
    assert kinds == {models.LeNet}


def test_a_recipe_and_the_study_from_the_command_line(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, table = tmp_path / "natural-cifar-s0.safetensors", tmp_path / "cifar.csv"
    assert main(["train", "natural-cifar", "--data", str(tree), "--out", str(path)]) == 0
    made = checkpoints.load(path)
    assert made.recipe["data"]["train"][0] == 27
    assert made.recipe["data"]["val"][0] == 3
    assert main(["evaluate", str(path), "--data", str(tree), "--split", "val"]) == 0
    assert "3 images" in capsys.readouterr().out
    monkeypatch.setattr(checkpoints, "load", lambda _: made)
    monkeypatch.chdir(tmp_path)
    words = ["bench", "cifar", "--data", str(tree), "--out", str(table), "--only", "natural-cifar"]
    assert main(words) == 0
    found = rows(table)
    content = table.read_text()
    assert main(words) == 0
    assert table.read_text() == content  # nothing is made twice
    net = made.model
    test = data.cifar10("test", folder=tree)
    assert number(table, quantity="accuracy", attack="model") == pytest.approx(
        float((net(test.x).argmax(1) == test.y).double().mean()), abs=1e-4
    )
    attacked = {row["map"] for row in found if row["attack"] == "gradient top-k suite"}
    assert attacked == {"input × gradient", "integrated gradients", "SmoothGrad"}
    assert {row["suite"] for row in found if row["attack"].endswith("suite")} == {SUITE}
    assert {row["images"] for row in found if row["quantity"] == "topk"} == {"4"}
    assert {row["seed"] for row in found} == {"0"}


@pytest.mark.usefixtures("unchecked_shapes")
def test_the_study_names_what_is_wrong(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected only to be one of natural-cifar, .* got 'lga'"):
        benchmark.cifar(tmp_path / "a.csv", folder=tree, only=["lga"])
