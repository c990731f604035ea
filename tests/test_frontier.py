"""The study of strengths: each run is what its words say, and its rows are what one would compute."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from attrlib import certificates, checkpoints, data, training
from attrlib.__main__ import main
from attrlib.attacks import standard
from attrlib.attributions import gradient, integrated_gradients
from attrlib.benchmark import cells, frontier, methods, proved, variants
from attrlib.benchmark.ablation import MapAttack, MapDistance, pearson_distance
from attrlib.maps import to_heatmap
from attrlib.metrics import topk_intersection
from attrlib.recipes import RECIPES
from attrlib.regularizers import AdversarialCrossEntropy, CrossEntropy, IntervalBounds
from attrlib.training import TrainConfig
from tests.tables import number, rows

_ALL = tuple(variants())
_TINY = TrainConfig(epochs=1, batch_size=32)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three runs, few images, one pass."""
    few = {split: data.fashion_mnist(split)[:120] for split in ("train", "val")}
    chosen = {(run.family, run.setting): run for run in _ALL}
    plain = chosen["natural", "as shipped"]
    tuned = chosen["igr", "weight 3"]
    bound = chosen["interval", "eps 8/255, κ 0, γ 0.5"]
    runs = [replace(run, recipe=replace(run.recipe, config=_TINY)) for run in (plain, tuned, bound)]
    monkeypatch.setattr(data, "fashion_mnist", lambda split, full: few[split])
    monkeypatch.setattr(methods, "variants", lambda: iter(runs))
    monkeypatch.setattr(methods, "EPOCHS", 1)
    monkeypatch.setattr(methods, "PER_CLASS", 2)
    monkeypatch.setattr(methods, "POOL", 2)
    monkeypatch.setattr(methods, "BUDGETS", (0.1,))
    monkeypatch.setattr(methods, "_PATHS", ("igr",))
    maps = {"gradient": gradient, "integrated gradients": partial(integrated_gradients, steps=2)}
    monkeypatch.setattr(methods, "MAPS", maps)
    monkeypatch.setattr(methods, "step_ratios", lambda *_: [2.0, 4.0, 3.0])
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_num_threads(threads)


def test_rows_are_what_one_would_compute(tmp_path: Path) -> None:
    path = tmp_path / "frontier.csv"
    frontier(path, only=["natural", "igr"])
    train, val = (data.fashion_mnist(split, full=True) for split in ("train", "val"))
    images = cells.listed(val, per_class=2)
    for family, start in (("natural", None), ("igr", "madry-s0")):
        (run,) = (run for run in methods.variants() if run.family == family)
        net = run.recipe.model(generator=torch.Generator().manual_seed(0))
        if start:
            net.load_state_dict(checkpoints.load(start).model.state_dict())
        order = torch.Generator().manual_seed(1)
        training.train(net, train, run.recipe.loss, config=_TINY, generator=order)
        right = training.evaluate(net, val, {"right": training.correct})["right"].mean().item()
        (row,) = rows(path, family=family, quantity="accuracy")
        assert float(row["value"]) == pytest.approx(right, abs=1e-4)
        attack = standard(eps=0.1, attribution=gradient, k=100, effort="quick")
        z = attack(net, images.x, images.y, generator=torch.Generator().manual_seed(0))
        a, b = (to_heatmap(gradient(net, p, images.y)) for p in (images.x, z))
        where = {"family": family, "map": "gradient", "eps": "0.10000", "quantity": "topk"}
        (row,) = rows(path, **where)
        assert float(row["value"]) == pytest.approx(
            topk_intersection(a, b, k=100).mean().item(), abs=1e-4
        )
        assert float(row["low"]) <= float(row["value"]) <= float(row["high"])
        (row,) = rows(path, family=family, quantity="step_ratio")
        assert float(row["value"]) == 3.0


def test_a_second_call_makes_nothing_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "frontier.csv"
    frontier(path, only=["natural"], progress=True)
    assert {row["family"] for row in rows(path)} == {"natural"}
    first = path.read_bytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(training, "train", never)
        frontier(path, only=["natural"], progress=True)
        assert path.read_bytes() == first
        with pytest.raises(AssertionError, match="trained again"):
            frontier(path, only=["natural", "igr"])
    assert capsys.readouterr().out.count("family natural, setting as shipped") == 1


def test_what_is_proved_stands_beside_what_an_attack_leaves(tmp_path: Path) -> None:
    path = tmp_path / "frontier.csv"
    frontier(path, only=["interval"])
    (run,) = (run for run in methods.variants() if run.family == "interval")
    net = run.recipe.model(generator=torch.Generator().manual_seed(0))
    train, val = (data.fashion_mnist(split, full=True) for split in ("train", "val"))
    order = torch.Generator().manual_seed(1)
    training.train(net, train, run.recipe.loss, config=_TINY, generator=order)
    images = cells.listed(val, per_class=2)
    a = gradient(net, images.x, images.y)
    lower, upper = certificates.gradient_bounds(net, images.x, images.y, eps=0.1)
    where = {"eps": "0.10000", "map": "gradient"}
    for quantity, values in {
        "topk": certificates.certified_topk(lower, upper, a, k=100),
        "cosine": certificates.cosine_in_box(lower, upper, a),
        "kendall": certificates.kendall_in_box(lower, upper, a),
    }.items():
        floor = number(path, quantity=f"certified_{quantity}", **where)
        assert floor == pytest.approx(values.mean().item(), abs=1e-4)
        assert floor <= number(path, quantity=quantity, **where) + 1e-4
    assert {row["map"] for row in rows(path, quantity="certified_topk")} == {*proved.MAPS}
    down, up = certificates.logit_bounds(net, val.x, eps=0.1)
    sure = certificates.accuracy_in_box(down, up, val.y).mean().item()
    assert number(path, quantity="certified_accuracy") == pytest.approx(sure, abs=1e-4)
    assert sure <= number(path, quantity="accuracy")
    bright = to_heatmap(a).flatten(1).topk(100).indices
    black = (images.x.flatten(1).gather(1, bright) < 0.05).float().mean().item()
    assert number(path, quantity="bright_on_black") == pytest.approx(black, abs=1e-4)
    pair = (images.y == images.y[0]).nonzero()[:2, 0]  # of two images each is like the other
    like = topk_intersection(*to_heatmap(a)[pair][:, None], k=100).item()
    assert proved.shown(net, images.x, images.y)["likeness"][pair].tolist() == [like, like]


def test_each_map_goes_with_bounds_of_its_own() -> None:
    """At a budget of 0 they are the map."""
    net = checkpoints.load("natural-s0").model.double()
    images = data.fashion_mnist("val", full=True)[:2]
    x = images.x.double()
    for attribution, bounds in proved.MAPS.values():
        a = attribution(net, x, images.y)
        for end in bounds(net, x, images.y, eps=0.0):
            torch.testing.assert_close(end, a, rtol=1e-6, atol=1e-6)


def test_a_family_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="Expected only to be one of natural, igr, interval, got 'lgaa'"
    ):
        frontier(tmp_path / "frontier.csv", only=["lgaa"])


def test_the_command_writes_the_table(tmp_path: Path) -> None:
    path = tmp_path / "frontier.csv"
    main(["bench", "frontier", "--only", "natural", "--out", str(path)])
    images = cells.listed(data.fashion_mnist("val", full=True), per_class=2)
    assert {row["images"] for row in rows(path, quantity="topk")} == {str(len(images))}


def test_every_run_has_a_name_of_its_own_and_trains_what_it_says() -> None:
    runs = list(_ALL)
    assert len({(run.family, run.setting) for run in runs}) == len(runs)
    loss = {f"{run.family} {run.setting}": run.recipe.loss for run in runs}
    term = loss["lga l2 0.01, cosine 10"].terms["penalty"]
    assert (term.l2, term.cosine, term.neighbour) == (0.01, 10.0, "uniform")  # type: ignore[attr-defined]
    assert loss["hessian weight 0.001"].weights["penalty"] == 0.001
    assert loss["igr weight 0"].weights["penalty"] == 0
    both = loss["aligned gradient 10, IG 10, β 3"]
    assert both.weights == {"cross_entropy": 1.0, "penalty": 1.0, "ig": 10.0}
    assert both.terms["penalty"].neighbour == "adversarial"  # type: ignore[attr-defined]
    drawn = loss["aligned gradient 3, drawn, bounds 0.1, β 3"]
    found = loss["aligned gradient 3, bounds 0.1, β 3"]
    assert drawn.terms["bounds"] == found.terms["bounds"]
    assert replace(drawn.terms["penalty"], neighbour="adversarial") == found.terms["penalty"]  # type: ignore[type-var]
    assert (drawn.attack, drawn.weights) == (None, found.weights)
    bound = loss["interval eps 8/255, κ 0, γ 0.5, input × gradient"].terms["bounds"]
    assert bound == IntervalBounds(eps=8 / 255, prediction=0, maps=0.5, of="input_x_gradient")
    same = loss["interval eps 8/255, κ 1, γ 0, ReLU"]
    assert same.terms["bounds"] == RECIPES["interval"].loss.terms["bounds"]
    assert loss["interval eps 0.1, κ 0, γ 0.2"].terms["bounds"].eps == 0.1  # type: ignore[attr-defined]


def test_aat_is_searched_for_maps_and_its_adversarial_form_for_answers_too() -> None:
    recipes = {run.setting: run.recipe for run in _ALL if run.family == "aat"}
    copied, plain, both = recipes.values()
    for recipe in recipes.values():
        assert recipe.loss.weights == {"cross_entropy": 1.0, "penalty": 10.0}
        assert recipe.loss.terms["penalty"] == MapDistance(
            attribution=gradient, distance=pearson_distance
        )
        attack = recipe.loss.attack
        assert isinstance(attack, MapAttack)
        assert (attack.distance, attack.weight, attack.steps) == (pearson_distance, 10.0, 3)
    assert isinstance(plain.loss.terms["cross_entropy"], CrossEntropy)
    assert isinstance(both.loss.terms["cross_entropy"], AdversarialCrossEntropy)
    kinds = [(r.loss.attack.prediction, r.loss.attack.beta) for r in (copied, plain, both)]  # type: ignore[union-attr]
    assert kinds == [(False, 10.0), (False, None), (True, None)]
    relus = [any(isinstance(m, nn.ReLU) for m in r.model().modules()) for r in recipes.values()]
    assert relus == [True, False, False]


@pytest.mark.parametrize(
    "run",
    [run for run in _ALL if run.family == "aat" or "drawn" in run.setting],
    ids=lambda run: run.setting,
)
def test_a_step_of_training_changes_the_weights(run: methods.Variant) -> None:
    net = run.recipe.model(generator=torch.Generator().manual_seed(0))
    before = nn.utils.parameters_to_vector(net.parameters()).clone()
    few = data.fashion_mnist("train", full=True)[:8]
    config = replace(run.recipe.config, epochs=1, batch_size=8)
    order = torch.Generator().manual_seed(1)
    history = training.train(net, few, run.recipe.loss, config=config, generator=order)
    after = nn.utils.parameters_to_vector(net.parameters())
    assert bool(torch.isfinite(after).all())
    assert not torch.equal(after, before)
    assert history.seconds > 0
