"""The study of transfer, with a handful of images."""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from attrlib import attributions, benchmark, checkpoints, data, models
from attrlib.__main__ import main
from attrlib.attacks import SUITE
from attrlib.benchmark import transferred as study
from attrlib.benchmark.attack_strength import SIGMA

DRAWN = ("SmoothGrad", "UniGrad")


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In float32, with one attack, and with the embedded images for the full set."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    embedded = data.fashion_mnist("val")[:60]
    monkeypatch.setattr(study, "SOURCES", ("gradient",))
    monkeypatch.setattr(study, "TRANSFER_NETS", ("natural-s0",))
    monkeypatch.setattr(data, "fashion_mnist", lambda split, full: embedded)
    yield
    torch.set_num_threads(threads)  # the command sets its own


def _rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["source"], row["target"]): row for row in csv.DictReader(file)}


def test_each_target_is_scored_at_the_points_of_each_source(tmp_path: Path) -> None:
    path = tmp_path / "transfer.csv"
    benchmark.transfer(path, images=4, others=20, nets=("natural-s0",))
    rows = _rows(path)
    names = list(benchmark.transfer_targets())
    assert list(rows) == [(s, t) for s in (*study.CONTROLS, "gradient") for t in names]
    topk = {place: float(row["topk"]) for place, row in rows.items()}
    for name in names:  # noise alone changes the maps that are drawn, and no others
        assert (topk["nothing", name] < 1) == (name in DRAWN)
        assert topk["another image", name] < 0.9
    assert topk["gradient", "gradient"] == min(topk["gradient", name] for name in names)
    assert topk["gradient", "gradient"] < topk["random", "gradient"] - 0.1
    for place, row in rows.items():
        assert float(row["topk_low"]) <= topk[place] <= float(row["topk_high"])
        assert row["suite"] == (SUITE if place[0] == "gradient" else "")
        assert 0 <= float(row["identified"]) <= 1
        assert all(row[name] for name in ("commit", "date", "device", "versions", "seconds"))
    assert float(rows["gradient", "LRP"]["kept"]) == 1
    assert float(rows["another image", "LRP"]["unchanged"]) < 1


def test_a_second_call_adds_the_targets_that_are_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "transfer", partial(benchmark.transfer, images=4, others=20))
    path = tmp_path / "transfer.csv"
    main(["bench", "transfer", "--out", str(path), "--device", "cpu"])
    whole = path.read_text()
    assert len(_rows(path)) == 36
    path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    capsys.readouterr()
    main(["bench", "transfer", "--out", str(path), "--device", "cpu"])
    said = capsys.readouterr().out.splitlines()
    (line,) = said[:-1]
    assert line.startswith("net natural-s0, source gradient, eps 0.03137, ")
    assert "target DeepLIFT" in line
    assert len(_rows(path)) == 36


def test_the_smooth_copy_explains_the_copy_and_a_smooth_network_itself() -> None:
    images = data.fashion_mnist("val", full=True)[:3]
    net = checkpoints.load("natural-s0").model
    copy = models.smoothed(net, beta=study.BETA)
    expected = attributions.gradient(copy, images.x, images.y)
    assert torch.equal(study.smooth_copy(net, images.x, images.y), expected)
    smooth = checkpoints.load("hessian-s0").model
    own = attributions.gradient(smooth, images.x, images.y)
    assert torch.equal(study.smooth_copy(smooth, images.x, images.y), own)
    with pytest.raises(TypeError, match="got function"):
        study.smooth_copy(lambda x: x, images.x, images.y)


def test_noise_has_one_energy() -> None:
    ball = benchmark.transfer_targets(dim=5)["UniGrad"]
    assert isinstance(ball, partial)
    radius = ball.keywords["radius"]
    square = radius**2 / (5 + 2)  # variance of each entry of the ball
    assert square == pytest.approx(SIGMA**2)


def test_bad_numbers_are_named(tmp_path: Path) -> None:
    for wrong in ({"images": 1}, {"others": 1}, {"eps": -0.1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            benchmark.transfer(tmp_path / "t.csv", **wrong)  # type: ignore[arg-type]
