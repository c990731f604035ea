"""The studies of the ImageNet network, with a handful of pictures and a network of patches."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attrlib import benchmark, data, metrics, models
from attrlib.__main__ import main
from attrlib.attacks import AttributionAttack, RandomSign
from attrlib.attributions import gradient
from attrlib.benchmark import imagenet
from attrlib.maps import to_heatmap

PROVENANCE = ("commit", "date", "device", "versions", "seconds")


@pytest.fixture(autouse=True)
def _single() -> Iterator[None]:
    """In float32, as the studies are."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_num_threads(threads)  # the command sets its own


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- the accuracy of the ImageNet network ---------------------------------------------------------


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[Path, Path]:
    """Bright and dark pictures in two folders, named as classes 7 and 2 of a list of 1,000."""
    names = [f"n{i:08d}" for i in range(1000)]
    (tmp_path / "wnids.txt").write_text("\n".join(names))
    for name, value, count in ((names[7], 255, 3), (names[2], 0, 2)):
        folder = tmp_path / "photographs" / name
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((230, 240, 3), value, np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photographs", tmp_path / "wnids.txt"


class Brightness(nn.Module):
    """Says 7 for bright pictures and 3 for others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x.flatten(1).mean(1) > 0.5
        return nn.functional.one_hot(torch.where(bright, 7, 3), 1000).to(x)


def test_accuracy_is_counted_in_the_order_of_the_list(
    tmp_path: Path,
    photographs: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(models, "imagenet", Brightness)
    path = tmp_path / "accuracy.csv"
    path.write_text("of an earlier run\n")
    folder, wnids = map(str, photographs)
    arguments = ["--image-folder", folder, "--wnids", wnids, "--out", str(path)]
    assert main(["bench", "imagenet", *arguments]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    (row,) = rows(path)
    assert (row["images"], row["accuracy"]) == ("5", "0.6000")  # 3 of 3 bright, 0 of 2 dark
    assert float(row["low"]) < 0.6 < float(row["high"])
    assert all(row[name] for name in PROVENANCE)


def test_unsuitable_lists_and_folders(tmp_path: Path, photographs: tuple[Path, Path]) -> None:
    folder, wnids = photographs
    path = tmp_path / "accuracy.csv"
    short = tmp_path / "short.txt"
    short.write_text("n00000001\n")
    with pytest.raises(ValueError, match=r"wnids to list 1000 identifiers, got 1 in .*short\.txt"):
        benchmark.imagenet_accuracy(path, folder, short)
    (folder / "cat").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "cat" / "a.png")
    with pytest.raises(ValueError, match="subfolders listed in wnids, got cat"):
        benchmark.imagenet_accuracy(path, folder, wnids)
    with pytest.raises(FileNotFoundError, match="Expected path to be a folder"):
        benchmark.imagenet_accuracy(path, tmp_path / "none", wnids)
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        benchmark.imagenet_accuracy(path, folder, tmp_path / "none.txt")
    assert not path.exists()


# --- maps of photographs under noise and attack ---------------------------------------------------


class Patches(nn.Sequential):
    """Explanations with kinks; dead on black pictures."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        conv, linear = nn.Conv2d(3, 8, 16, stride=16), nn.Linear(8 * 14 * 14, 1000)
        with torch.no_grad():
            conv.weight.copy_(torch.randn(conv.weight.shape, generator=generator) / 100)
            conv.bias.fill_(-0.05)
            linear.weight.copy_(torch.randn(linear.weight.shape, generator=generator))
            linear.bias.zero_()
        super().__init__(conv, nn.ReLU(), nn.Flatten(), linear)


PARTS = (
    benchmark.LensSetting(attribution="gradient", eps=0.05, images=6),
    benchmark.LensSetting(attribution="gradient", eps=0.05, images=4, steps=3),
)


def _small(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(models, "imagenet", Patches)
    patch.setattr(imagenet, "lens_settings", lambda: iter(PARTS))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five pictures of noise that `Patches` gets right, and a black one that it does not."""
    tmp_path = tmp_path_factory.mktemp("drawn")
    names = [f"n{i:08d}" for i in range(1000)]
    (tmp_path / "wnids.txt").write_text("\n".join(names))
    source = np.random.default_rng(0)
    coarse = [np.kron(source.integers(0, 256, (14, 14, 3)), np.ones((16, 16, 1))) for _ in range(5)]
    noise = [np.clip(c + source.normal(0, 30, c.shape), 0, 255).astype(np.uint8) for c in coarse]
    for i, pixels in enumerate([*noise, np.zeros((224, 224, 3), np.uint8)]):
        image = Image.fromarray(pixels).resize((256, 256), Image.Resampling.NEAREST)
        image.save(tmp_path / "picture.png")
        x = data.image_folder(_alone(tmp_path / "picture.png", tmp_path / str(i)), size=224).x
        label = int(Patches()(x).argmax()) if pixels.any() else 999
        folder = tmp_path / "pictures" / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{i}.png")
    return tmp_path / "pictures", tmp_path / "wnids.txt"


@pytest.fixture
def pictures(drawn: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The pictures, for the small study."""
    _small(monkeypatch)
    return drawn


@pytest.fixture(scope="module")
def lens(drawn: tuple[Path, Path]) -> Path:
    """The table of the small study. No test writes into it."""
    path = drawn[0].parent / "lens.csv"
    with pytest.MonkeyPatch.context() as patch:
        _small(patch)
        benchmark.imagenet_lens(path, *drawn)
    return path


def _alone(path: Path, folder: Path) -> Path:
    """A folder of images with this image only."""
    (folder / "class").mkdir(parents=True)
    path.rename(folder / "class" / path.name)
    return folder


def numbers(table: list[dict[str, str]], **where: str) -> dict[str, float]:
    """The one row with these fields, as far as it holds numbers."""
    (row,) = (row for row in table if where.items() <= row.items())
    fields = ("mean", "low", "high", "chance", "corrected", "corrected_low", "corrected_high")
    return {name: float(row[name]) for name in (*fields, "kept", "unchanged") if row[name]}


def test_photographs_are_compared_by_every_metric(lens: Path) -> None:
    table = rows(lens)
    assert all(row[name] for row in table for name in PROVENANCE)
    scores = {(row["score"], row["window"]) for row in table}
    assert len(scores) == 17
    for images, changes in {
        "6": {"random", "another image"},
        "4": {"random", "attack", "difference", "ratio", "ratio - topk"},
    }.items():
        part = [row for row in table if row["images"] == images]
        assert {row["change"] for row in part} == changes
        for change in changes & {"random", "another image", "attack", "difference"}:
            named = [(r["score"], r["window"]) for r in part if r["change"] == change]
            assert set(named) == scores
            assert len(named) == len(scores)
    for row in table:
        if row["low"]:
            assert float(row["low"]) <= float(row["mean"]) <= float(row["high"])
    undefined = {row["score"]: row["undefined"] for row in table if row["change"] == "random"}
    assert undefined["topk"] == "0"
    every = [row for row in table if row["images"] == "6" and row["change"] == "random"]
    black = {row["score"] for row in every if row["undefined"] == "1"}
    assert black == {"kendall", "spearman", "cosine", "center_shift"}  # a map of zeros


def test_scores_are_those_of_the_maps(lens: Path, pictures: tuple[Path, Path]) -> None:
    images = data.image_folder(pictures[0], size=224)
    order = pictures[1].read_text().split()
    y = torch.tensor([order.index(images.classes[i]) for i in images.y])
    model, attack = Patches(), RandomSign(eps=0.05)
    z = attack(model, images.x, y, generator=torch.Generator().manual_seed(0))
    a, b = to_heatmap(gradient(model, images.x, y)), to_heatmap(gradient(model, z, y))
    found = numbers(rows(lens), images="6", change="random", score="lens_recall", window="3")
    value = metrics.lens_recall(a, b, k=1000, window=3)
    chance = metrics.dilate(metrics.topk_mask(a, k=1000), window=3).double().mean((1, 2))
    assert found["mean"] == pytest.approx(float(value.mean()), abs=6e-5)
    assert found["chance"] == pytest.approx(float(chance.mean()), abs=6e-5)
    corrected = (value - chance) / (1 - chance)
    assert found["corrected"] == pytest.approx(float(corrected.mean()), abs=6e-5)
    kept = (model(z).argmax(1) == model(images.x).argmax(1)).double().mean()
    assert found["kept"] == pytest.approx(float(kept), abs=6e-5)
    assert found["unchanged"] == 0
    other = numbers(rows(lens), images="6", change="another image", score="topk")
    shifted = metrics.topk_intersection(a, a.roll(1, 0), k=1000)
    assert other["mean"] == pytest.approx(float(shifted.mean()), abs=6e-5)
    assert "kept" not in other


def test_noise_beside_the_attack(lens: Path) -> None:
    table = [row for row in rows(lens) if row["images"] == "4"]

    def found(change: str, score: str = "topk", window: str = "0") -> dict[str, float]:
        return numbers(table, change=change, score=score, window=window)

    assert found("attack")["mean"] < found("random")["mean"]
    assert found("attack")["kept"] == 1
    recall = ("lens_recall", "2")
    for score in (("topk", "0"), recall):
        for kind in ("mean", "corrected"):
            random, attack = found("random", *score)[kind], found("attack", *score)[kind]
            assert found("difference", *score)[kind] == pytest.approx(attack - random, abs=2e-4)
            ratio = found("ratio", *score)[kind]
            assert ratio == pytest.approx((1 - random) / (1 - attack), rel=2e-2)
            assert 0 < ratio < 1
    for kind in ("mean", "corrected"):
        gap = found("ratio", *recall)[kind] - found("ratio")[kind]
        assert found("ratio - topk", *recall)[kind] == pytest.approx(gap, abs=2e-4)
    assert "corrected" not in found("difference", "cosine")
    assert not any(row["score"] == "center_shift" for row in table if "ratio" in row["change"])


def test_a_stopped_study_of_photographs_goes_on(
    tmp_path: Path,
    lens: Path,
    pictures: tuple[Path, Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "lens.csv"
    count = sum(row["images"] == "6" for row in rows(lens))  # of the first part
    first = "".join(lens.read_text().splitlines(keepends=True)[: count + 1])
    path.write_text(first)
    folder, wnids = map(str, pictures)
    arguments = ["--image-folder", folder, "--wnids", wnids, "--out", str(path)]
    assert main(["bench", "imagenet-lens", *arguments]) == 0
    done, written = capsys.readouterr().out.splitlines()
    assert done.startswith("attribution gradient, eps 0.05000, images 4, steps 3")
    assert written == str(path)
    assert path.read_text().startswith(first)
    whole = path.read_text()
    benchmark.imagenet_lens(path, *pictures)
    assert path.read_text() == whole


def test_attacks_get_images_that_are_classified_correctly(
    tmp_path: Path, pictures: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = replace(PARTS[1], images=6)  # the black one is not
    monkeypatch.setattr(imagenet, "lens_settings", lambda: iter([part]))
    with pytest.raises(ValueError, match="Expected folder with 6 images, got 5"):
        benchmark.imagenet_lens(tmp_path / "lens.csv", *pictures)


def test_the_parts_of_the_study_of_photographs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    parts = list(benchmark.lens_settings())
    assert len({tuple(part.row().items()) for part in parts}) == len(parts)
    attacked = [part for part in parts if part.steps]
    assert {part.images for part in attacked} == {64}
    for part in attacked:
        attack = part.attack()
        assert isinstance(attack, AttributionAttack)
        assert (attack.steps, attack.step_size) == (part.steps, pytest.approx(part.eps / 10))
        unattacked = {p.eps for p in parts if p.attribution == part.attribution and not p.steps}
        assert part.eps in unattacked  # the same noise on all images
