"""The suite by which the book measures."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import attacks, checkpoints, data, metrics
from attrlib.attacks import (
    AttributionAttack,
    L2Ball,
    LinfBall,
    Rank,
    TopK,
    UnattackedWarning,
    WorstOf,
)
from attrlib.attributions import gradient, input_x_gradient, smooth_grad
from attrlib.models import smoothed
from tests import oracles
from tests.attack_oracles import Bowl, attack, zeros
from tests.oracles import seeded
from tests.suite_oracles import TOP5, Counting, relu_net, scores, setting

GOALS = ("top-k", "lens", "kendall", "cosine", "identification")


def suite(goal: str = "top-k", **changes: Any) -> Any:
    usual: dict[str, Any] = {
        "eps": 0.05,
        "attribution": gradient,
        "k": 5,
        "effort": "quick",
        "goal": goal,
    }
    if goal == "identification":
        usual["others"] = oracles.images(4, seed=5)[None] - 0.5
    return attacks.standard(**usual | changes)


def test_the_suite_has_a_version() -> None:
    assert isinstance(attacks.SUITE, str)
    assert attacks.SUITE


@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize(("norm", "eps"), [("linf", 8 / 255), ("l2", 0.5)])
def test_each_goal_keeps_the_budget_and_the_class(
    goal: str, norm: str, eps: float, dtype: torch.dtype
) -> None:
    x, y = oracles.images(5).to(dtype), oracles.labels(5)
    model = relu_net(dtype) if norm == "linf" else oracles.softplus_net().to(dtype)
    z = suite(goal, norm=norm, eps=eps)(model, x, y, generator=seeded(0))
    size = (z - x).abs().flatten(1).amax(1) if norm == "linf" else (z - x).flatten(1).norm(dim=1)
    assert (size <= eps).all()
    assert ((z >= 0) & (z <= 1)).all()
    assert torch.equal(model(z).argmax(1), model(x).argmax(1))
    assert (z != x).any()
    if goal == "identification":
        goal_of = attacks.Identification(others=oracles.images(4, seed=5)[None] - 0.5)
        a, b = (gradient(model, q, y) for q in (x, z))
        assert (goal_of(a, b) >= goal_of(a, a)).all()
        assert (goal_of(a, b) > goal_of(a, a)).any()
        return
    metric: dict[str, Any] = {
        "top-k": TOP5,
        "lens": partial(metrics.lens_recall, k=5, window=1),
        "kendall": metrics.kendall,
        "cosine": metrics.cosine,
    }
    left = scores(model, x, y, z, metric[goal])
    assert (left <= 1).all()
    assert left.min() < 0.999  # the smooth network is nearly linear


def test_the_docstring_counts_the_steps(dtype: torch.dtype) -> None:
    text = attacks.standard.__doc__ or ""
    numbers = re.findall(r"([\d,]+)\s+and\s+([\d,]+) \((quick|standard|strong)\)", text)
    told = {effort: int(steps.replace(",", "")) for steps, _, effort in numbers}
    exchanges = {effort: int(tries) for _, tries, effort in numbers}
    assert told["quick"] <= 60
    assert told["strong"] <= 1500
    for goal in GOALS:
        for effort, steps in told.items():
            found = suite(goal, effort=effort)
            counts = [part.steps * part.restarts for part in found.attacks]
            assert sum(counts) == steps, (goal, effort)
            tries = found.crossing.tries if found.crossing else 0
            assert tries == exchanges[effort], (goal, effort)
    x, spy = 0.2 + 0.5 * oracles.images(1, size=3).to(dtype), Counting()
    suite(attribution=spy, eps=1e-4)(Bowl(), x, zeros(x), generator=seeded(0))
    assert len(spy.climbed) == told["quick"]


def test_more_effort_is_not_weaker() -> None:
    torch.set_default_dtype(torch.float32)
    model = checkpoints.load("natural").model
    images = data.fashion_mnist("val")[:6]
    score = partial(metrics.topk_intersection, k=100)
    means = {}
    for effort in ("quick", "standard"):
        found = suite(k=100, eps=8 / 255, effort=effort)
        z = found(model, images.x, images.y, generator=seeded(0))
        means[effort] = float(scores(model, images.x, images.y, z, score).mean())
    usual = attack(
        objective=TopK(k=100),
        ball=LinfBall(eps=8 / 255),
        steps=60,
        step_size=8 / 2550,
        score=score,
        surrogates=tuple(partial(smoothed, beta=b) for b in (10.0, 30.0, 100.0)),
    )
    z = usual(model, images.x, images.y, generator=seeded(0))
    old = float(scores(model, images.x, images.y, z, score).mean())
    assert means["standard"] <= means["quick"] + 0.005
    assert means["quick"] < old  # with as many steps


class Functional(nn.Module):
    """Kinks that no module shows."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(64, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x.flatten(1))))


@pytest.mark.parametrize("kind", ["smooth", "relu", "function", "functional"])
def test_networks_of_all_kinds(kind: str, dtype: torch.dtype) -> None:
    x, y = oracles.images(4).to(dtype), oracles.labels(4)
    smooth = oracles.softplus_net().to(dtype)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models: dict[str, Callable[[Tensor], Tensor]] = {
            "smooth": smooth,
            "relu": relu_net(dtype),
            "function": lambda z: smooth(z),
            "functional": Functional().to(dtype),
        }
    spy = Counting()
    z = suite(attribution=spy)(models[kind], x, y, generator=seeded(0))
    assert (scores(models[kind], x, y, z) < 1).any()
    assert not any(model is models[kind] for model in spy.models)
    if kind == "function":
        same = suite()(smooth, x, y, generator=seeded(0))
        torch.testing.assert_close(z, same)


def test_no_budget_gives_the_images_back(dtype: torch.dtype) -> None:
    model, x, y = setting(dtype, n=3)
    for norm in ("linf", "l2"):
        z = suite(eps=0.0, norm=norm)(model, x, y, generator=seeded(0))
        assert torch.equal(z, x)


@pytest.mark.parametrize("goal", ["top-k", "cosine"])
def test_a_row_depends_on_no_other(goal: str, dtype: torch.dtype) -> None:
    model, x, y = setting(dtype, n=4)
    found = suite(goal, attribution=input_x_gradient)
    z = found(model, x, y, generator=seeded(0))
    assert torch.equal(found(model, x, y, generator=seeded(0)), z)
    other = x.roll(1, -1)
    other[2] = x[2]
    changed = found(model, other, y, generator=seeded(0))
    assert torch.equal(changed[2], z[2])
    assert not torch.equal(changed[1], z[1])


def test_a_row_that_is_left_out_changes_roundings_only(dtype: torch.dtype) -> None:
    # Not so for the cosine: its slope at x is all rounding, and the first step follows its signs.
    model, x, y = setting(dtype, n=4)
    found = suite(attribution=input_x_gradient)
    z = found(model, x, y, generator=seeded(0))
    other = x.clone()
    other[0] = 0  # has no map
    with pytest.warns(UnattackedWarning, match=r"\(0\)"):
        changed = found(model, other, y, generator=seeded(0))
    torch.testing.assert_close(changed[1:], z[1:], rtol=0, atol=1e-6)
    assert (z[1:] != x[1:]).any()


def test_the_generator_decides(dtype: torch.dtype) -> None:
    model, x, y = relu_net(dtype), oracles.images(2).to(dtype), oracles.labels(2)
    found = suite("cosine", attribution=partial(smooth_grad, sigma=0.1, samples=2))
    z = [found(model, x, y, generator=seeded(seed)) for seed in (0, 0, 1)]
    assert torch.equal(z[0], z[1])
    assert not torch.equal(z[0], z[2])


@pytest.mark.parametrize("effort", ["quick", "standard", "strong"])
def test_the_suite_moves_ranks_and_mass(effort: str) -> None:
    found = suite(effort=effort, norm="l2", eps=0.5)
    assert isinstance(found, WorstOf)
    assert found.floor == 0.0
    assert found.cold == sum(part.step_size == 0.25 * 0.5 for part in found.attacks)
    assert (found.crossing is None) == (effort == "quick")
    for part in found.attacks:
        assert isinstance(part, AttributionAttack)
        assert part.ball == L2Ball(eps=0.5)
        assert part.step_decay < 1
    mass = set() if effort == "quick" else {TopK}
    assert {type(part.objective) for part in found.attacks} == {Rank} | mass


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eps": -0.1}, "eps >= 0, got -0.1"),
        ({"eps": float("nan")}, "eps >= 0, got nan"),
        ({"k": 0}, "k to be an integer >= 1, got 0"),
        ({"norm": "l1"}, "norm"),
        ({"effort": "huge"}, "effort"),
        ({"goal": "pearson"}, "goal"),
        ({"goal": "lens", "window": -1}, "window to be an integer >= 0, got -1"),
        ({"goal": "identification"}, "others exactly for identification, got no others"),
        ({"others": torch.ones(1, 2, 1, 8, 8)}, "others exactly .*, got others for top-k"),
        ({"goal": "identification", "others": torch.ones(2, 8, 8)}, "others of shape"),
    ],
)
def test_bad_settings_of_the_suite_are_named(change: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"eps": 0.05, "attribution": gradient, "k": 5}
    with pytest.raises(ValueError, match=f"Expected {message}"):
        attacks.standard(**usual | change)


def test_more_pixels_than_there_are_is_named(dtype: torch.dtype) -> None:
    model, x, y = setting(dtype, n=2)
    with pytest.raises(ValueError, match="k to be an integer from 1 to 64, got 65"):
        suite(k=65)(model, x, y, generator=seeded(0))
