"""The table of recipes: what it says is what a reader would compute."""

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attrlib import attributions, checkpoints, data, metrics
from attrlib.__main__ import main
from attrlib.attacks import PGD, LinfBall
from attrlib.benchmark import calibration_error, recipes, trained
from attrlib.maps import to_heatmap
from attrlib.models import SmallCNN
from attrlib.regularizers import loss_hessian_eigenvalue


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In float32, with two networks, few images, one budget and short attacks."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    few = data.fashion_mnist("test")[:64]
    monkeypatch.setattr(data, "fashion_mnist", lambda split: few)
    monkeypatch.setattr(checkpoints, "names", lambda: ["natural", "softplus"])
    monkeypatch.setattr(checkpoints, "seeds", lambda name: [0, 1] if name == "natural" else [])
    monkeypatch.setattr(trained, "BUDGETS", (0.05,))
    monkeypatch.setattr(trained, "STEPS", 4)
    monkeypatch.setattr(trained, "RESTARTS", 2)
    monkeypatch.setattr(trained, "_PGD", PGD(ball=LinfBall(eps=0.05), steps=2, step_size=0.05))
    monkeypatch.setattr(trained, "_DRAWS", 50)
    yield
    torch.set_num_threads(threads)  # the command sets its own


def _rows(path: Path, **where: str) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if where.items() <= row.items()]


def _value(path: Path, **where: str) -> float:
    (row,) = _rows(path, **where)
    return float(row["value"])


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trained") / "recipes.csv"


def test_rows_are_what_one_would_compute(table: Path) -> None:
    recipes(table, images=12)
    x, y = (test := data.fashion_mnist("test")).x, test.y
    nets = [checkpoints.load(f"natural-s{seed}").model for seed in (0, 1)]
    right = torch.stack([net(x).argmax(1) == y for net in nets])
    for seed, net in enumerate(nets):
        where = {"seed": str(seed), "part": "model"}
        hits = right[seed].double()
        assert _value(table, quantity="accuracy", **where) == pytest.approx(
            hits.mean().item(), abs=1e-4
        )
        lam = loss_hessian_eigenvalue(net, x)
        assert _value(table, quantity="lambda_max", **where) == pytest.approx(
            lam.mean().item(), abs=1e-3
        )
        assert _value(table, quantity="lambda_median", **where) == pytest.approx(
            lam.median().item(), abs=1e-3
        )
        error = calibration_error(net(x).softmax(1).amax(1).detach(), hits)
        assert _value(table, quantity="calibration_error", **where) == pytest.approx(
            error, abs=1e-4
        )
        assert _value(table, quantity="pgd20_accuracy", **where) <= hits.mean()
    # One random draw on the first images that both get right.
    rows = right.all(0).nonzero()[:12, 0]
    x, y = x[rows], y[rows]
    attack = trained._attacks(nets[0], 0.05)["random"]
    z = attack(nets[0], x, y, generator=torch.Generator().manual_seed(0))
    a, b = (to_heatmap(attributions.gradient(nets[0], p, y)) for p in (x, z))
    (row,) = _rows(table, seed="0", change="random", quantity="topk", eps="0.05000")
    values = metrics.topk_intersection(a, b, k=100)
    assert float(row["value"]) == pytest.approx(values.mean().item(), abs=1e-4)
    assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    assert float(row["chance"]) == pytest.approx(100 / 784, abs=1e-4)
    assert row["images"] == "12"
    # Another image of the same class, for those that have one.
    a = to_heatmap(attributions.gradient(nets[1], x, y))
    shared = [
        metrics.topk_intersection(a[i : i + 1], a[j : j + 1], k=100).item()
        for i, j in enumerate(trained._others(y).tolist())
        if i != j
    ]
    (row,) = _rows(table, seed="1", change="other image", quantity="topk")
    assert float(row["value"]) == pytest.approx(sum(shared) / len(shared), abs=1e-4)
    assert row["images"] == str(len(shared))
    assert row["eps"] == "0.00000"


def test_each_image_is_compared_with_the_next_of_its_class() -> None:
    y = torch.tensor([4, 1, 4, 0, 1, 4])
    assert trained._others(y).tolist() == [2, 4, 5, 3, 1, 0]


def test_the_table_is_consistent(table: Path) -> None:
    for row in _rows(table, seed="all"):
        if row["quantity"] in ("step_ratio", "lambda_median"):
            continue
        where = {k: row[k] for k in ("recipe", "part", "eps", "change", "quantity")}
        seeds = [_value(table, seed=seed, **where) for seed in "01"]
        assert float(row["value"]) == pytest.approx(sum(seeds) / 2, abs=2e-4)
    for seed in "01":
        drawn = {
            change: _value(table, seed=seed, change=change, quantity="topk")
            for change in ("attack", "random", "best random")
        }
        assert drawn["attack"] < drawn["best random"] <= drawn["random"]
        for change in drawn:
            kept = _value(table, seed=seed, change=change, quantity="kept")
            assert kept == 1 or change == "random"
    assert _value(table, quantity="step_ratio") > 0
    assert {row["recipe"] for row in _rows(table)} == {"natural"}  # nothing is shipped of the other


def test_a_second_call_adds_nothing_and_other_images_are_refused(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = table.read_bytes()
    assert main(["bench", "recipes", "--images", "12", "--out", str(table)]) == 0
    assert table.read_bytes() == content
    assert main(["bench", "recipes", "--images", "11", "--out", str(table)]) == 2
    assert "in every row, got" in capsys.readouterr().err
    assert main(["bench", "recipes", "--images", "99", "--out", str(table)]) == 2
    assert "that all networks classify correctly, got 99" in capsys.readouterr().err
    assert main(["bench", "recipes", "--images", "1", "--out", str(table)]) == 2
    assert table.read_bytes() == content


def test_a_smooth_network_is_attacked_as_it_is() -> None:
    smooth = SmallCNN(activation=torch.nn.Softplus, generator=torch.Generator().manual_seed(0))
    assert trained._attacks(smooth, 0.1)["attack"].surrogates == ()
    flat = SmallCNN(generator=torch.Generator().manual_seed(0))
    assert len(trained._attacks(flat, 0.1)["attack"].surrogates) == 3


def test_calibration_error_is_the_gap_in_each_bin() -> None:
    confidence = torch.tensor([0.95, 0.95, 0.55, 0.55, 1.0])
    hits = torch.tensor([1.0, 0.0, 1.0, 1.0, 1.0])
    expected = (abs(2 - 2.9) + abs(2 - 1.1)) / 5  # 0.95 and 1.0 share the last of ten bins
    assert calibration_error(confidence, hits, bins=10) == pytest.approx(expected, abs=1e-6)
    assert calibration_error(confidence, hits, bins=1) == pytest.approx(abs(4 - 4.0) / 5, abs=1e-6)
    with pytest.raises(ValueError, match="Expected bins to be an integer >= 1, got 0"):
        calibration_error(confidence, hits, bins=0)
    with pytest.raises(ValueError, match=r"Expected confidence in \[0, 1\], got a value outside"):
        calibration_error(confidence + 0.5, hits)


def test_intervals_resample_seeds_and_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "_DRAWS", 2000)
    same = torch.full((3, 40), 0.7, dtype=torch.float64)
    assert trained._bootstrap(same) == pytest.approx((0.7, 0.7))
    apart = same + torch.tensor([[-0.2], [0.0], [0.2]], dtype=torch.float64)
    low, high = trained._bootstrap(apart)
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.9)
    images = torch.arange(400, dtype=torch.float64)[None] / 400
    low, high = trained._bootstrap(images)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * images.std().item() / 20, rel=0.5)
