"""The worst of several attacks, and the suite by which the book measures."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import attacks, checkpoints, data, metrics
from attrlib.attacks import (
    AttributionAttack,
    Cosine,
    L2Ball,
    LinfBall,
    RandomSign,
    Rank,
    TargetMap,
    TopK,
    UnattackedWarning,
    WorstOf,
)
from attrlib.attributions import gradient, input_x_gradient, smooth_grad
from attrlib.maps import to_heatmap
from attrlib.models import SmallCNN, smoothed
from tests import oracles
from tests.attack_oracles import Bowl, Fixed, attack, zeros
from tests.oracles import seeded

GOALS = ("top-k", "lens", "kendall", "cosine", "identification")
TOP5 = partial(metrics.topk_intersection, k=5)


def scores(model: Any, x: Tensor, y: Tensor, z: Tensor, score: Any = TOP5) -> Tensor:
    a, b = (gradient(model, q, y) for q in (x, z))
    return score(a, b) if score is metrics.cosine else score(to_heatmap(a), to_heatmap(b))


class Counting:
    """An attribution that counts its derivatives, and the rows of each."""

    def __init__(self, attribution: Any = gradient) -> None:
        self.attribution = attribution
        self.climbed: list[int] = []
        self.starts: list[Tensor] = []
        self.models: list[object] = []

    def __call__(
        self, model: Any, x: Tensor, y: Tensor, /, *, generator: torch.Generator | None = None
    ) -> Tensor:
        if x.requires_grad:
            self.climbed.append(len(x))
            self.starts.append(x.detach().clone())
            self.models.append(model)
        return self.attribution(model, x, y, generator=generator)


def relu_net(dtype: torch.dtype) -> SmallCNN:
    return SmallCNN(size=8, classes=3, generator=seeded(0)).to(dtype)


def setting(dtype: torch.dtype, n: int = 6) -> tuple[nn.Module, Tensor, Tensor]:
    return oracles.softplus_net().to(dtype), oracles.images(n).to(dtype), oracles.labels(n)


# --- WorstOf --------------------------------------------------------------------------------------


def test_each_image_keeps_the_worst_point(dtype: torch.dtype) -> None:
    model, x, y = setting(dtype)
    members = (
        attack(),
        attack(objective=Cosine()),
        RandomSign(eps=0.1, draws=2, score=TOP5, attribution=gradient),
    )
    single = [scores(model, x, y, one(model, x, y, generator=seeded(0))) for one in members[:2]]
    cold = WorstOf(attacks=members, score=TOP5, cold=3)
    found = scores(model, x, y, cold(model, x, y, generator=seeded(0)))
    for one in single:
        assert (found <= one + 1e-9).all()
    assert any((found < one).any() for one in single)
    warm = replace(cold, cold=1)
    one_less = replace(warm, attacks=members[:1])
    pair = [scores(model, x, y, w(model, x, y, generator=seeded(0))) for w in (one_less, warm)]
    assert (pair[1] <= pair[0]).all()


def test_points_are_compared_by_the_score_and_by_their_class(dtype: torch.dtype) -> None:
    x = torch.tensor([0.9, 0.2, 0.3, 0.1], dtype=dtype).view(1, 1, 2, 2).repeat(2, 1, 1, 1)
    better, worse = x.flip(3), x * 0.9
    model = lambda z: torch.stack([z.square().flatten(1).sum(1) / 2, 10 * z[:, 0, 1, 1] - 1], 1)  # noqa: E731
    first, second = Fixed(worse), Fixed(better)
    suite = WorstOf(
        attacks=(first, second, Fixed(worse)), score=metrics.cosine, attribution=gradient
    )
    z = suite(model, x, zeros(x), generator=seeded(0))
    torch.testing.assert_close(model(better).argmax(1), torch.tensor([1, 1]))
    assert (metrics.cosine(x, z) > 0.999).all()  # better is of another class
    free = replace(suite, keep_label=False)(model, x, zeros(x), generator=seeded(0))
    assert torch.equal(free, better)
    assert free.data_ptr() != better.data_ptr()


def test_later_attacks_start_at_the_best_point(dtype: torch.dtype) -> None:
    model, x, y = setting(dtype)
    first, second, third = Counting(), Counting(), Counting()
    members = tuple(attack(attribution=spy, steps=3) for spy in (first, second, third))
    z = attack(steps=3)(model, x, y, generator=seeded(0))
    suite = WorstOf(attacks=members[:2], score=TOP5)
    suite(model, x, y, generator=seeded(0))
    assert torch.equal(first.starts[0], x)
    moved = scores(model, x, y, z) < 1
    assert moved.any()
    assert torch.equal(second.starts[0][moved], z[moved])
    assert torch.equal(second.starts[0][~moved], x[~moved])
    start = oracles.images(6, seed=9).to(dtype)
    near = LinfBall(eps=0.1).project(start, x)
    random = RandomSign(eps=0.1, draws=1)
    for cold in (1, 2):
        third.starts.clear()
        late = WorstOf(attacks=(random, members[2]), score=TOP5, cold=cold)
        late(model, x, y, start=start, generator=seeded(0))
        assert torch.equal(third.starts[0], near)  # the first that can take a start does
        third.starts.clear()
        nested = WorstOf(attacks=(WorstOf(attacks=(members[2],), score=TOP5),), score=TOP5)
        nested(model, x, y, start=start, generator=seeded(0))
        assert torch.equal(third.starts[0], near)


def test_cold_attacks_start_at_the_image_and_later_ones_at_the_best(dtype: torch.dtype) -> None:
    model, x, y = setting(dtype)
    spies = [Counting() for _ in range(3)]
    members = tuple(attack(attribution=spy, steps=3) for spy in spies)
    z = attack(steps=3)(model, x, y, generator=seeded(0))
    moved = scores(model, x, y, z) < 1
    assert moved.any()
    for cold in (1, 2, 3):
        for spy in spies:
            spy.starts.clear()
        WorstOf(attacks=members, score=TOP5, cold=cold)(model, x, y, generator=seeded(0))
        for number, spy in enumerate(spies):
            assert torch.equal(spy.starts[0][moved], x[moved]) == (number < cold)


def test_images_at_the_floor_are_left_out_of_further_work(dtype: torch.dtype) -> None:
    x = torch.arange(1, 13, dtype=dtype).view(3, 1, 2, 2) / 13
    half = x.clone()
    half[1] = half[1].flip(1, 2)  # the largest becomes the smallest: nothing left of the top 1
    later = [Fixed(x), Fixed(x.flip(2, 3)), Fixed(x)]
    top = partial(metrics.topk_intersection, k=1)
    suite = WorstOf(attacks=(Fixed(half), *later), score=top, attribution=gradient, floor=0.0)
    z = suite(Bowl(), x, zeros(x), generator=seeded(0))
    assert [one.sizes for one in later] == [[2], [2], []]
    assert torch.equal(z[1], half[1])
    assert torch.equal(z[[0, 2]], x.flip(2, 3)[[0, 2]])
    for one in later:
        one.sizes.clear()
    replace(suite, floor=None)(Bowl(), x, zeros(x), generator=seeded(0))
    assert [one.sizes for one in later] == [[3]] * 3


def test_noise_does_not_tell_who_is_done(dtype: torch.dtype) -> None:
    """Row 0 gets the same point whether or not row 1 is at the floor."""
    model, x, y = setting(dtype, n=3)
    noisy = partial(smooth_grad, sigma=0.1, samples=3)
    found = attack(attribution=noisy, objective=Cosine(), restarts=2, steps=4)
    far = x.clone()
    results = []
    for row in (x[1], oracles.images(1, seed=6)[0].to(dtype)):
        far[1] = row  # what the first attack finds for row 1 alone
        suite = WorstOf(attacks=(Fixed(far), found), score=metrics.cosine, floor=0.999)
        sizes: list[int] = []

        def spied(*parts: Any, sizes: list[int] = sizes, **options: Any) -> Tensor:
            sizes.append(len(parts[1]))
            return noisy(*parts, **options)

        spy = replace(suite, attacks=(Fixed(far), replace(found, attribution=spied)))
        spy = replace(spy, attribution=noisy, keep_label=False)
        results.append((spy(model, x, y, generator=seeded(4)), set(sizes)))
    (both, of_both), (one, of_one) = results
    assert (of_both, of_one) == ({3}, {2})
    torch.testing.assert_close(one[[0, 2]], both[[0, 2]], rtol=1e-6, atol=1e-6)
    assert (both[[0, 2]] != x[[0, 2]]).any()


def test_what_is_known_of_single_images_is_cut_along(dtype: torch.dtype) -> None:
    x = oracles.images(4).to(dtype)
    goal = TargetMap(target=oracles.images(4, seed=5).to(dtype)[:, 0])
    at_floor = x.clone()
    at_floor[1] = x[1].flip(1, 2)
    suite = WorstOf(
        attacks=(Fixed(at_floor), attack(objective=goal)), score=TOP5, floor=0.8, cold=2
    )
    z = suite(Bowl(), x, zeros(x), generator=seeded(0))
    alone = attack(objective=goal)(Bowl(), x, zeros(x), generator=seeded(0))
    assert torch.equal(z[1], at_floor[1])
    moved = scores(Bowl(), x, zeros(x), alone) < 1
    moved[1] = False
    assert moved.any()
    torch.testing.assert_close(z[moved], alone[moved])
    rows = torch.tensor([3, 1])
    part = replace(suite, floor=None).rows(rows)(Bowl(), x[rows], zeros(x)[rows])
    whole = replace(suite, floor=None)(Bowl(), x, zeros(x))
    torch.testing.assert_close(part, whole[rows])


def test_black_images_are_named_once(dtype: torch.dtype) -> None:
    x = oracles.images(3).to(dtype)
    x[2] = 0
    suite = WorstOf(attacks=(attack(), attack(objective=Cosine())), score=TOP5)
    with pytest.warns(UnattackedWarning, match=r"1 of 3 rows .* \(2\): their map") as caught:
        z = suite(Bowl(), x, zeros(x), generator=seeded(0))
    assert len(caught) == 1
    assert torch.equal(z[2], x[2])
    assert (z[:2] != x[:2]).flatten(1).any(1).all()


def test_an_attack_without_a_slope_raises_first_and_adds_nothing_later(dtype: torch.dtype) -> None:
    model, x, y = relu_net(dtype), oracles.images(3).to(dtype), oracles.labels(3)
    copies = (partial(smoothed, beta=10.0),)
    flat, good = attack(steps=2), attack(steps=2, surrogates=copies)
    for cold in (1, 2):
        with pytest.raises(ValueError, match="Expected an objective with a gradient"):
            WorstOf(attacks=(flat, good), score=TOP5, cold=cold)(model, x, y)
        both = WorstOf(attacks=(good, flat), score=TOP5, cold=cold)
        one = good(model, x, y, generator=seeded(0))
        assert (
            scores(model, x, y, both(model, x, y, generator=seeded(0))) <= scores(model, x, y, one)
        ).all()


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"attacks": ()}, ValueError, "attacks to hold at least one attack, got an empty tuple"),
        ({"attacks": [attack()]}, TypeError, "attacks to be a tuple of attacks"),
        ({"attacks": (3,)}, TypeError, "attacks to be a tuple of attacks"),
        ({"attacks": (RandomSign(eps=0.1),)}, ValueError, "attribution, or an attack that has one"),
        ({"cold": 0}, ValueError, "cold to be an integer >= 1, got 0"),
    ],
)
def test_bad_suites_are_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"Expected {message}"):
        WorstOf(**{"attacks": (attack(),), "score": TOP5} | change)


# --- standard -------------------------------------------------------------------------------------


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
