"""The study of densities: each run is what its words say, and its rows are what one would compute."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from attrlib import attributions, checkpoints, data, energy, maps, metrics, training
from attrlib.__main__ import main
from attrlib.benchmark import DensityRun, densities, density, density_recipe, density_runs
from attrlib.recipes import RECIPES, planted_blocks
from attrlib.regularizers import DoubleBackward, FiniteDifference, MarginalDensitySmoothing
from tests import oracles
from tests.tables import number, rows

_BLOCK = DensityRun(images="block", term="centered", strength=0.3)
_TWO = ("gradient", "integrated gradients")
_whole = densities._images.__wrapped__
_MARK = DensityRun(images="spurious 0.5", term="noise", strength=0.1, seed=1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two runs, few images, one pass."""

    @cache
    def few(name: str, split: data.Split) -> data.Images:
        if name == "block":
            return planted_blocks(split)[::10][:300]
        images = data.spurious_fashion(
            split, amplitude=0.5, alignment=0.5, generator=oracles.seeded(0)
        )
        return images[:300] if split == "train" else images

    monkeypatch.setattr(densities, "_images", few)
    monkeypatch.setattr(densities, "FULL_EPOCHS", 1)
    monkeypatch.setattr(densities, "density_runs", lambda: iter([_BLOCK, _MARK]))
    for name in ("EPOCHS", "PER_CLASS"):
        monkeypatch.setattr(densities, name, 1)
    monkeypatch.setattr(densities, "QUERIES", 3)
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_num_threads(threads)


def test_rows_are_what_one_would_compute(tmp_path: Path) -> None:
    path = tmp_path / "density.csv"
    density(path)
    for run in (_BLOCK, _MARK):
        train, val = (densities._images(run.images, split) for split in ("train", "val"))
        recipe = density_recipe(run)
        weights, order = (oracles.seeded(2 * run.seed + i) for i in range(2))
        net = recipe.model(size=train.x.shape[2:], generator=weights)
        training.train(net, train, recipe.loss, config=recipe.config, generator=order)
        hits = training.evaluate(net, val, {"right": training.correct})["right"]
        where = {"images": run.images, "map": "none"}
        assert number(path, quantity="accuracy", **where) == pytest.approx(
            float(hits.mean()), abs=1e-4
        )
        if isinstance(val, data.Shortcuts):
            conflict = float(hits[~val.aligned].mean())
            found = number(path, quantity="conflict_accuracy", **where)
            assert found == pytest.approx(conflict, abs=1e-4)
            continue
        chosen = densities.cells.listed(val, per_class=1)
        assert isinstance(chosen, data.Blocks)
        for name, model in (("gradient", net), ("gradient, gauge fixed", energy.GaugeFixed(net))):
            heat = maps.to_heatmap(attributions.gradient(model, chosen.x, chosen.y))
            leak = metrics.leakage(heat, region=chosen.null).mean().item()
            assert number(path, map=name, quantity="leakage") == pytest.approx(leak, abs=1e-4)
        shares = [float(row["value"]) for row in rows(path, quantity="topk_leakage")]
        assert len(shares) == 2 * len(densities.MAPS)
        assert all(0 <= share <= 1 for share in shares)


def test_a_full_run_is_the_checkpoint_that_ships_or_one_like_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "density.csv"
    runs = [
        DensityRun(images="block", length="full", term="marginal", strength=0.3, seed=seed)
        for seed in (0, 1)
    ]
    monkeypatch.setattr(densities, "density_runs", lambda: iter(runs))
    density(path)
    val = densities._images("block", "val")
    chosen = densities.cells.listed(val, per_class=1)
    assert isinstance(chosen, data.Blocks)
    trained = densities._trained(runs[1], "cpu")
    assert all(torch.equal(w, w.half().float()) for w in trained.state_dict().values())
    nets = {"0": checkpoints.load("density-block-s0").model, "1": trained}
    for seed, net in nets.items():
        heat = maps.to_heatmap(attributions.gradient(net, chosen.x, chosen.y))
        leak = metrics.leakage(heat, region=chosen.null).mean().item()
        found = number(path, map="gradient", quantity="leakage", seed=seed)
        assert found == pytest.approx(leak, abs=1e-4)
    fixed = {f"{name}{end}" for name in _TWO for end in ("", ", gauge fixed")}
    assert {row["map"] for row in rows(path, quantity="leakage")} == fixed


@pytest.mark.parametrize(("term", "strength"), densities._SHIPPED)
def test_the_recipe_of_a_full_run_is_that_of_the_checkpoint(term: str, strength: float) -> None:
    ours = density_recipe(DensityRun(images="block", length="full", term=term, strength=strength))
    theirs = RECIPES[densities._SHIPPED[term, strength]]
    assert ours.config == replace(theirs.config, epochs=ours.config.epochs)
    assert theirs.config.epochs == 2  # FULL_EPOCHS, before the fixture
    assert [*ours.loss.weights.values()] == [*theirs.loss.weights.values()]
    assert ours.loss.ramps == theirs.loss.ramps
    assert [*ours.loss.terms.values()] == [*theirs.loss.terms.values()]
    assert repr(ours.model()) == repr(theirs.model())


def test_the_control_has_every_garment_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        data.planted, "fashion_mnist", lambda split, full: data.fashion_mnist(split)
    )
    before = torch.get_rng_state()
    images = _whole("top", "val")
    assert isinstance(images, data.Blocks)
    assert images.null[:, 28:].all()
    assert not images.null[:, :28].any()
    assert torch.equal(images.x[:, :, :28], data.fashion_mnist("val").x)
    assert torch.equal(torch.get_rng_state(), before)


def test_occlusion_of_a_linear_model_is_weight_times_pixel_summed_over_each_cell() -> None:
    x = oracles.images(2, size=8).float()
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    y = torch.tensor([0, 2])
    parts = (model[1].weight[y].reshape(2, 1, 8, 8) * x).detach()
    cells = torch.nn.functional.avg_pool2d(parts, 4) * 16
    expected = cells.repeat_interleave(4, 2).repeat_interleave(4, 3)
    torch.testing.assert_close(densities.occlusion(model, x, y), expected)


def test_crops_are_pieces_of_the_photographs() -> None:
    whole = data.photographs(size=224).x.mean(1)
    tiles = densities.crops(known_size=(56, 28))
    assert tiles.shape == (5 * 4 * 8, 1, 56, 28)
    assert torch.equal(tiles[0, 0], whole[0, :56, :28])
    assert torch.equal(tiles[-1, 0], whole[-1, -56:, -28:])


def test_a_second_call_makes_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "density.csv"
    density(path, only=["block"], progress=True)
    assert {row["images"] for row in rows(path)} == {"block"}
    first = path.read_bytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", never)
        density(path, only=["block"], progress=True)
        assert path.read_bytes() == first
        with pytest.raises(AssertionError, match="trained again"):
            density(path)
    assert capsys.readouterr().out.count("images block, length short, term centered") == 1


def test_a_set_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected only to be one of block, spurious 0\.5, got"):
        density(tmp_path / "density.csv", only=["blocks"])
    for term in ("both", "joint difference", "relu"):
        with pytest.raises(ValueError, match=rf"Expected term to be one of none, .*, got '{term}'"):
            density_recipe(DensityRun(images="block", term=term))
    with pytest.raises(ValueError, match=r"Expected length to be one of short, full, got 'long'"):
        density_recipe(DensityRun(images="block", length="long"))


def test_the_command_writes_the_table(tmp_path: Path) -> None:
    path = tmp_path / "density.csv"
    main(["bench", "density", "--only", "block", "--out", str(path)])
    assert {row["count"] for row in rows(path, map="occlusion")} == {"10"}


def test_every_run_is_another_and_trains_what_it_says() -> None:
    runs = list(density_runs())
    assert len(set(runs)) == len(runs)
    for run in runs:
        recipe = density_recipe(run)
        whole = run.length == "full" and run.images == "fashion"
        assert (recipe.config == RECIPES["softplus"].config) == whole
        term, *ways = run.term.split()
        unit = RECIPES["natural" if "relu" in ways else "softplus"].model().activation()
        assert repr(recipe.model().activation()) == repr(unit)
        penalty = recipe.loss.terms.get("penalty")
        assert (penalty is not None) == (term in densities.DENSITIES)
        if penalty is not None:
            assert isinstance(penalty, MarginalDensitySmoothing)
            assert recipe.loss.weights["penalty"] == run.strength
            assert penalty.density is densities.DENSITIES[term]
            estimator = FiniteDifference if "difference" in ways else DoubleBackward
            assert isinstance(penalty.estimator, estimator)
        elif term != "none":
            attack = recipe.loss.attack
            eps = attack.eps if run.term == "noise" else attack.ball.eps  # type: ignore[union-attr]
            assert eps == run.strength
    counts = Counter((run.images, len(densities.maps_of(run))) for run in runs)
    assert counts["top", 2] == 3
    assert (counts["block", 1], counts["block", 2], counts["block", 4]) == (9 + 1, 6, 23 + 10)
