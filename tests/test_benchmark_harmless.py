"""The study of benign changes, with a handful of images."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from attrlib import attributions, benchmark, checkpoints, data, metrics, models
from attrlib.__main__ import main
from attrlib.benchmark import cells
from attrlib.benchmark import harmless as study
from attrlib.maps import to_heatmap
from attrlib.recipes import planted_blocks
from tests.tables import number, rows

overlap = partial(metrics.topk_intersection, k=100)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In float32, two images of a class, one network for each kind of image."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(study, "PER_CLASS", 2)
    monkeypatch.setattr(checkpoints, "names", lambda: ["natural", "density-block"])
    monkeypatch.setattr(checkpoints, "seeds", lambda name: [0, 1] if name == "natural" else [0])
    yield
    torch.set_num_threads(threads)  # the command sets its own


def _images() -> data.Images:
    return cells.listed(data.fashion_mnist("test"), per_class=2)


def test_rows_are_what_one_would_compute(tmp_path: Path) -> None:
    path = tmp_path / "benign.csv"
    benchmark.benign(path)
    images = _images()
    net = checkpoints.load("natural-s1").model
    a = attributions.gradient(net, images.x, images.y)
    z = data.shift(images.x)
    moved = to_heatmap(attributions.gradient(net, z, images.y))
    where = {"recipe": "natural", "attack": "shift", "seed": "1"}
    expected = overlap(to_heatmap(data.shift(a)), moved).mean().item()
    assert number(path, quantity="topk", **where) == pytest.approx(expected, abs=1e-4)
    unmoved = overlap(to_heatmap(a), moved).mean().item()
    assert abs(unmoved - expected) > 0.02  # maps are moved along
    kept = (net(z).argmax(1) == net(images.x).argmax(1)).double().mean().item()
    assert number(path, quantity="kept", **where) == pytest.approx(kept, abs=1e-4)
    light = attributions.gradient(net, data.brightness(images.x), images.y)
    where["attack"] = "brightness"
    expected = metrics.cosine(a, light).mean().item()
    assert number(path, quantity="cosine", **where) == pytest.approx(expected, abs=1e-4)


def test_random_weights_are_drawn_anew_and_the_network_stays_as_it_was(tmp_path: Path) -> None:
    images, net = _images(), checkpoints.load("natural-s0").model
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = study.changes(net, images, device="cpu")["random weights"]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    other, noise = models.SmallCNN(), torch.Generator().manual_seed(0)
    drawn = []
    a = attributions.gradient(net, images.x, images.y)
    for _ in range(5):
        models.randomize(other, generator=noise)
        drawn.append(metrics.cosine(a, attributions.gradient(other, images.x, images.y)))
    torch.testing.assert_close(found["cosine"], torch.stack(drawn).double().mean(0))
    assert found["topk"].mean() < 0.2
    plain = torch.nn.Sequential(torch.nn.Flatten(), _Fixed())
    assert "random weights" not in study.changes(plain, images, device="cpu")


class _Fixed(torch.nn.Module):
    """Logits without a layer whose weights could be drawn."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, :780] ** 2).unflatten(1, (-1, 10)).sum(1)


def test_leakage_is_measured_on_blocks_and_one_seed_has_no_interval(tmp_path: Path) -> None:
    path = tmp_path / "benign.csv"
    benchmark.benign(path, only=["density-block"])
    blocks = cells.listed(planted_blocks("test"), per_class=2)
    assert isinstance(blocks, data.Blocks)
    net = checkpoints.load("density-block").model
    heat = to_heatmap(attributions.gradient(net, blocks.x, blocks.y))
    expected = metrics.leakage(heat, region=blocks.null).mean().item()
    both = rows(path, quantity="leakage")
    assert [row["seed"] for row in both] == ["0", "all"]
    assert [float(row["value"]) for row in both] == pytest.approx([expected] * 2, abs=1e-4)
    assert [row["low"] != "" for row in both] == [True, False]


def test_a_second_call_adds_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "benign.csv"
    assert main(["bench", "benign", "--only", "natural", "--out", str(path)]) == 0
    first = path.read_text()
    assert main(["bench", "benign", "--out", str(path)]) == 0
    assert path.read_text().startswith(first)
    whole = path.read_text()
    benchmark.benign(path)
    assert path.read_text() == whole
    assert {row["recipe"] for row in rows(path)} == {"natural", "density-block"}
    (spread,) = rows(path, recipe="natural", attack="jpeg", seed="all", quantity="topk")
    assert float(spread["low"]) < float(spread["value"]) < float(spread["high"])
    assert all(spread[name] for name in ("commit", "date", "device", "versions", "seconds"))


def test_an_unknown_recipe(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected only to be one of .*, got 'madri'"):
        benchmark.benign(tmp_path / "a.csv", only=["madri"])
