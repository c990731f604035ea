"""The table of recipes: what it says is what a reader would compute."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import safetensors.torch
import torch

from attrlib import attributions, benchmark, checkpoints, data, metrics
from attrlib.__main__ import main
from attrlib.attacks import PGD, SUITE, LinfBall, RandomSign, WorstOf, standard
from attrlib.benchmark import Block, calibration_error, cells, recipes, trained
from attrlib.maps import to_heatmap
from attrlib.recipes import RECIPES
from attrlib.regularizers import loss_hessian_eigenvalue
from tests.tables import number, rows

EPS = 0.05
ONE = {"eps": (EPS,), "seeds": (0,), "per_class": 1}
BLOCKS = (
    Block(attack="model", maps=("none",)),
    Block(attack="clean"),
    Block(attack="top-k suite", eps=(EPS,)),
    Block(
        attack="gradient top-k suite", maps=("input × gradient",), eps=(EPS,), controls=("random",)
    ),
    Block(
        attack="quick top-k suite",
        maps=("SmoothGrad",),
        controls=("random", "gradient top-k suite"),
        **ONE,
    ),
    *(Block(attack=f"{goal} suite", **ONE) for goal in cells.GOALS[1:]),
    Block(attack="random", eps=(EPS,)),
    Block(attack="best random", **ONE),
    Block(attack="mass", **ONE),
)


def _seeds(name: str, folder: Path | None = None) -> list[int]:
    return [0, 1] if name == "natural" else []


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    """Two networks, few images, one budget and short attacks."""
    few = data.fashion_mnist("test")[:120]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "fashion_mnist", lambda split: few)
        small = {n: replace(RECIPES[n], data=data.fashion_mnist) for n in ("natural", "softplus")}
        patch.setattr(trained, "RECIPES", small)
        patch.setattr(checkpoints, "names", lambda folder=None: ["natural", "softplus"])
        patch.setattr(checkpoints, "seeds", _seeds)
        patch.setattr(trained, "PER_CLASS", 2)
        patch.setattr(trained, "POOL", 3)
        patch.setattr(cells, "_PGD", PGD(ball=LinfBall(eps=EPS), steps=2, step_size=EPS))
        patch.setattr(trained, "_DRAWS", 50)
        patch.setattr(cells, "standard", lambda **words: standard(**words | {"effort": "quick"}))
        patch.setitem(benchmark.GRIDS, "full", BLOCKS)
        patch.setattr(cells, "_DRAWS", 9)
        yield


@pytest.fixture(scope="module")
def table(_small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole table, in float32."""
    path = tmp_path_factory.mktemp("trained") / "recipes.csv"
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    recipes(path, blocks=BLOCKS, points=path.parent / "points")
    torch.set_default_dtype(before)
    return path


@pytest.fixture(autouse=True)
def _single() -> Iterator[None]:
    """In float32; the command sets its own number of threads."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_num_threads(threads)


def _nets() -> list[torch.nn.Module]:
    return [checkpoints.load(f"natural-s{seed}").model for seed in (0, 1)]


def test_rows_are_what_one_would_compute(table: Path) -> None:
    test = data.fashion_mnist("test")
    for seed, net in enumerate(_nets()):
        where = {"seed": str(seed), "attack": "model"}
        hits = (net(test.x).argmax(1) == test.y).double()
        lam = loss_hessian_eigenvalue(net, test.x)
        error = calibration_error(net(test.x).softmax(1).amax(1).detach(), hits)
        for quantity, value, tolerance in (
            ("accuracy", hits.mean(), 1e-4),
            ("lambda_max", lam.mean(), 1e-3),
            ("lambda_max_median", lam.median(), 1e-3),
            ("calibration_error", torch.tensor(error), 1e-4),
        ):
            found = number(table, quantity=quantity, **where)
            assert found == pytest.approx(value.item(), abs=tolerance)
        assert number(table, quantity="pgd20_accuracy", **where) <= hits.mean()
    # One random draw on the list, whatever the network predicts there.
    chosen, pool = cells.listed(test, per_class=2), cells.listed(test, per_class=3, start=2)
    net, (x, y) = _nets()[0], (chosen.x, chosen.y)
    z = RandomSign(eps=EPS)(net, x, y, generator=torch.Generator().manual_seed(0))
    a, b = (to_heatmap(attributions.gradient(net, p, y)) for p in (x, z))
    where = {"seed": "0", "attack": "random", "map": "gradient"}
    (row,) = rows(table, quantity="topk", **where)
    overlap = partial(metrics.topk_intersection, k=100)
    assert float(row["value"]) == pytest.approx(overlap(a, b).mean().item(), abs=1e-4)
    assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    assert (row["images"], row["eps"], row["suite"]) == ("20", "0.05000", "")
    assert number(table, quantity="topk_chance", **where) == pytest.approx(100 / 784, abs=1e-4)
    rest = to_heatmap(attributions.gradient(net, pool.x, pool.y))
    known = metrics.identification(a, b, y, score=overlap, pool=rest, pool_y=pool.y)
    found = number(table, quantity="identification_topk", **where)
    assert found == pytest.approx(known.mean().item(), abs=1e-4)
    estimate = metrics.specific(a, b, y, score=overlap, generator=torch.Generator().manual_seed(0))
    (row,) = rows(table, quantity="specific_topk", **where)
    ends = [float(row[name]) for name in ("value", "low", "high")]
    assert ends == pytest.approx(list(estimate), abs=1e-4)
    right = (net(x).argmax(1) == y).double().mean().item()
    assert number(table, quantity="right", **where) == pytest.approx(right, abs=1e-4)


def test_maps_of_another_origin_are_what_they_say(table: Path) -> None:
    chosen = cells.listed(data.fashion_mnist("test"), per_class=2)
    net, (x, y) = _nets()[1], (chosen.x, chosen.y)
    a = to_heatmap(attributions.gradient(net, x, y))
    mate = [next(j for j in range(20) if j != i and y[j] == y[i]) for i in range(20)]
    grey = to_heatmap(attributions.gradient(net, torch.full_like(x, 0.5), y))
    for origin, b in (("other image", a[mate]), ("blank image", grey)):
        expected = metrics.topk_intersection(a, b, k=100).mean().item()
        where = {"seed": "1", "attack": origin, "eps": "0.00000"}
        assert number(table, quantity="topk", **where) == pytest.approx(expected, abs=1e-4)
    y = torch.tensor([4, 1, 4, 0, 1])
    assert cells.following(y, same=False).tolist() == [1, 2, 3, 4, 0]
    assert cells.following(y).tolist() == [2, 4, 0, 3, 1]


def test_the_table_is_consistent(table: Path) -> None:
    for row in rows(table, seed="all"):
        if row["quantity"] in ("step_ratio", "images"):
            continue
        where = {k: row[k] for k in ("recipe", "map", "attack", "eps", "quantity")}
        seeds = [float(one["value"]) for one in rows(table, **where) if one["seed"] != "all"]
        mean = sum(seeds) / len(seeds)  # NaN where the few images of this test leave nothing
        assert float(row["value"]) == pytest.approx(mean, abs=2e-4, nan_ok=True)
        if row["low"]:
            assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
    drawn = {
        attack: number(table, seed="0", attack=attack, quantity="topk", map="gradient")
        for attack in ("random", "mass", "top-k suite")
    }
    assert drawn["top-k suite"] < drawn["random"]
    assert drawn["mass"] < drawn["random"]
    suites = {row["attack"] for row in rows(table, suite=SUITE, map="gradient")}
    assert suites == {f"{goal} suite" for goal in cells.GOALS}
    for attack in suites:
        assert number(table, seed="0", attack=attack, quantity="kept") == 1
    assert number(table, quantity="step_ratio") > 0
    assert {row["recipe"] for row in rows(table)} == {"natural"}  # nothing is shipped of the other


def _changed(table: Path, attack: str, seed: int) -> torch.Tensor:
    test = data.fashion_mnist("test")
    images, pool = cells.listed(test, per_class=2), cells.listed(test, per_class=3, start=2)
    folder = table.parent / "points"
    way = cells.named(attack)
    return cells.points(_nets()[seed], images, way, EPS, folder=folder, device="cpu", pool=pool)


def test_other_maps_are_scored_at_the_points_found_on_the_gradient(table: Path) -> None:
    images = cells.listed(data.fashion_mnist("test"), per_class=2)
    for attack, points in (("gradient top-k suite", "top-k suite"), ("random", "random")):
        z, net = _changed(table, points, 1), _nets()[1]
        a, b = (attributions.input_x_gradient(net, v, images.y) for v in (images.x, z))
        expected = metrics.topk_intersection(to_heatmap(a), to_heatmap(b), k=100).mean().item()
        where = {"map": "input × gradient", "attack": attack, "seed": "1", "quantity": "topk"}
        assert number(table, **where) == pytest.approx(expected, abs=1e-4)
        assert {row["images"] for row in rows(table, **where)} == {"20"}
    assert {row["suite"] for row in rows(table, attack="gradient top-k suite")} == {SUITE}


def test_averaged_maps_are_attacked_beside_controls_on_the_same_images(table: Path) -> None:
    made = rows(table, map="SmoothGrad", quantity="topk", seed="0")
    values = {row["attack"]: float(row["value"]) for row in made}
    direct, noise, transferred = values.values()
    assert [*values] == [
        "quick top-k suite", "random (10 images)", "gradient top-k suite (10 images)"
    ]  # fmt: skip
    assert direct < min(noise, transferred)
    assert {row["images"] for row in made} == {"10"}
    test, net = data.fashion_mnist("test"), _nets()[0]
    images, pool = cells.listed(test, per_class=1), cells.listed(test, per_class=3, start=2)
    smooth = trained.attribution("SmoothGrad")
    same = cells.scores_at(net, images, images.x, pool, device="cpu", attribution=smooth)
    assert (*same,) == cells.QUANTITIES
    assert bool((same["topk"] == 1).all())  # both maps have the same noise
    few = ("kept", "specific_topk")
    some = cells.scores_at(net, images, images.x, pool, device="cpu", quantities=few)
    assert (*some,) == few
    with pytest.raises(ValueError, match=r"Expected quantities to be one of topk, .* got 'top-k'"):
        cells.scores_at(net, images, images.x, pool, device="cpu", quantities=("top-k",))


def test_what_is_exported_is_what_was_scored(table: Path, tmp_path: Path) -> None:
    words = [
        "bench",
        "--grid",
        "full",
        "--only",
        "natural",
        "--maps",
        "gradient",
        "input × gradient",
    ]
    words += ["--points", str(table.parent / "points"), "--out", str(table)]
    before = table.read_bytes()
    assert main([*words, "--export", str(tmp_path)]) == 0
    assert table.read_bytes() == before
    written = sorted(path.stem for path in tmp_path.glob("*.safetensors"))
    assert written == sorted(path.stem for path in tmp_path.glob("*.json"))
    stem = "natural-s0-input-x-gradient-gradient-top-k-suite-0.0500"
    assert {*written} == {
        stem, *(f"natural-s0-gradient-{goal}-suite-0.0500" for goal in cells.GOALS)
    }  # fmt: skip
    about = json.loads((tmp_path / f"{stem}.json").read_text())
    tensors = safetensors.torch.load_file(tmp_path / f"{stem}.safetensors")
    assert (*about["tensors"],) == ("x", "y", "z", "map_x", "map_z")
    assert {*tensors} == {*about["tensors"]}
    test = data.fashion_mnist("test")
    assert torch.equal(tensors["x"], test.x[about["rows"]])
    assert torch.equal(tensors["z"], _changed(table, "top-k suite", 0))
    assert float((tensors["z"] - tensors["x"]).abs().max()) <= EPS
    heats = (to_heatmap(tensors[name]) for name in ("map_x", "map_z"))
    overlap = metrics.topk_intersection(*heats, k=100).mean().item()
    where = {"map": about["map"], "attack": about["attack"], "seed": "0", "quantity": "topk"}
    assert number(table, **where) == pytest.approx(overlap, abs=1e-4)


def test_a_second_call_adds_nothing_and_reads_the_points(
    table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content, points = table.read_bytes(), table.parent / "points"
    words = ["bench", "--grid", "full", "--points", str(points)]
    assert main([*words, "--out", str(table)]) == 0
    assert table.read_bytes() == content
    monkeypatch.setattr(cells, "attack_of", None)  # not called again: the points are there
    recipes(tmp_path / "again.csv", blocks=BLOCKS[2:3], points=points)
    shown = ("seed", "quantity", "value", "low", "high")
    again = [[row[name] for name in shown] for row in rows(tmp_path / "again.csv")]
    first = [[row[name] for name in shown] for row in rows(table, attack="top-k suite")]
    assert again == first


def test_other_checkpoints_lists_and_names_are_refused(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = table.read_text()
    copy = tmp_path / "copy.csv"
    digest = rows(table)[0]["checkpoints"]
    copy.write_text(content.replace(digest, "0" * 8))
    assert main(["bench", "--grid", "full", "--out", str(copy)]) == 2
    said = capsys.readouterr().err
    assert "with rows of recipe natural, map none, attack model" in said
    assert f"checkpoints {digest}, got some with other checkpoints" in said
    copy.write_text(content.replace(rows(table)[0]["list"], "f" * 8))
    assert main(["bench", "--grid", "full", "--out", str(copy)]) == 2
    assert "in every row, got" in capsys.readouterr().err
    copy.write_text(content.replace(f"suite,{SUITE},", "suite,1,"))
    assert main(["bench", "--grid", "full", "--out", str(copy)]) == 2
    assert f"with suite {SUITE} in every row, got ['1']" in capsys.readouterr().err
    assert main(["bench", "--grid", "full", "--only", "madry", "--out", str(copy)]) == 2
    assert "Expected only to be one of natural, softplus, got 'madry'" in capsys.readouterr().err
    assert main(["bench", "--grid", "full", "--maps", "LIME", "--out", str(copy)]) == 2
    assert "Expected maps to be one of none, gradient, input × gr" in capsys.readouterr().err
    words = ["bench", "--grid", "full"]
    found = (table.parent / "points").glob("random-*")
    damaged = max(found, key=lambda path: path.stat().st_size)
    words += ["--maps", "input × gradient"]
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    assert main([*words, "--points", str(damaged.parent), "--out", str(tmp_path / "n.csv")]) == 2
    assert f"Expected {damaged} to hold points" in capsys.readouterr().err
    damaged.write_bytes(whole)


def test_attacks_of_cells() -> None:
    others = torch.rand(2, 3, 1, 28, 28)
    for goal in cells.GOALS:
        rivals = others if goal == "identification" else None
        assert isinstance(cells.attack_of(goal, EPS, rivals), WorstOf)
    assert cells.attack_of("best random", EPS).draws == 9
    with pytest.raises(ValueError, match=r"Expected name to be one of top-k, .*, got 'best'"):
        cells.attack_of("best", EPS)


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


def test_intervals_resample_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trained, "_DRAWS", 2000)
    flat = torch.full((40,), 0.7, dtype=torch.float64)
    assert trained._bootstrap(flat) == pytest.approx((0.7, 0.7))
    images = torch.arange(401, dtype=torch.float64) / 400
    low, high = trained._bootstrap(images)
    assert low < 0.5 < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.2)  # 1 / (2 f √n), density 1
