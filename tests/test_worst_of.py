"""The worst of several attacks."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attrlib import metrics
from attrlib.attacks import (
    Cosine,
    LinfBall,
    RandomSign,
    TargetMap,
    UnattackedWarning,
    WorstOf,
)
from attrlib.attributions import gradient, smooth_grad
from attrlib.models import smoothed
from tests import oracles
from tests.attack_oracles import Bowl, Fixed, attack, zeros
from tests.oracles import seeded
from tests.suite_oracles import TOP5, Counting, relu_net, scores, setting


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
