"""The attack that turns a map away: one step by hand, and what holds for all."""

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib.attacks import Ball, L2Ball, LinfBall
from attrlib.attributions import gradient, integrated_gradients
from attrlib.metrics import cosine
from attrlib.regularizers import (
    AlignmentAttack,
    CrossEntropy,
    IntegratedGradientRegularizer,
    LocalGradientAlignment,
)
from attrlib.training import Loss
from attrlib.types import Attack
from tests import oracles, term_oracles

_BALL = LinfBall(eps=0.1)
_smooth = term_oracles.net


def _turned(model: nn.Module, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    return 1 - cosine(gradient(model, x, y), gradient(model, z, y))


class _Bend(nn.Module):
    """Logits x1 + x2² / 2 and 0: the gradient at x is (1, x2), and turns with x2 only."""

    def forward(self, x: Tensor) -> Tensor:
        value = x[:, 0] + x[:, 1].square() / 2
        return torch.stack([value, torch.zeros_like(value)], 1)


def test_the_step_goes_where_the_gradient_turns() -> None:
    x, y = torch.tensor([[0.5, 0.5], [0.5, 0.5]]), torch.tensor([0, 0])
    attack = AlignmentAttack(ball=_BALL, steps=3, step_size=0.1)
    z = attack(_Bend(), x, y, generator=oracles.seeded(0))
    start = _BALL.sample(x, oracles.seeded(0))
    # Away from the image along the second pixel, on the side where it started; the first is free.
    side = (start - x)[:, 1].sign()
    torch.testing.assert_close(z[:, 1], x[:, 1] + 0.1 * side, rtol=0, atol=1e-9)
    torch.testing.assert_close(z[:, 0], start[:, 0])


@pytest.mark.parametrize("ball", [_BALL, L2Ball(eps=0.7)], ids=["linf", "l2"])
def test_the_attack_turns_maps_further_than_random_points(ball: Ball) -> None:
    model, x, y = _smooth(), oracles.images(16), oracles.labels(16)
    attack = AlignmentAttack(ball=ball, steps=8, step_size=ball.eps / 3)  # type: ignore[attr-defined]
    assert isinstance(attack, Attack)
    z = attack(model, x, y, generator=oracles.seeded(1))
    assert torch.equal(ball.project(z, x), z)
    assert not z.requires_grad
    for seed in range(3):
        random = ball.sample(x, oracles.seeded(seed))
        assert (_turned(model, x, y, z) > _turned(model, x, y, random)).all()


def test_any_map_can_be_turned() -> None:
    model, x, y = _smooth(), oracles.images(8), oracles.labels(8)
    attack = AlignmentAttack(ball=_BALL, steps=4, step_size=0.05)
    few = partial(integrated_gradients, steps=3)
    paths = dataclasses.replace(attack, attribution=few)
    term = IntegratedGradientRegularizer(steps=3)
    z, other = (go(model, x, y, generator=oracles.seeded(1)) for go in (paths, attack))
    assert term(model, x, y, z=z).mean() > term(model, x, y, z=other).mean()
    assert _turned(model, x, y, other).mean() > _turned(model, x, y, z).mean()


def test_attack_and_term_make_a_loss() -> None:
    model, x, y = _smooth(), oracles.images(), oracles.labels()
    attack = AlignmentAttack(ball=_BALL, steps=1, step_size=0.1)
    term = LocalGradientAlignment(l2=0.0, cosine=2.0, ball=_BALL, neighbour="adversarial")
    loss = Loss(
        terms={"cross_entropy": CrossEntropy(), "penalty": term},
        weights={"cross_entropy": 1.0, "penalty": 3.0},
        attack=attack,
    )
    total, _ = loss(model, x, y, generator=oracles.seeded(1))
    z = attack(model, x, y, generator=oracles.seeded(1))
    by_hand = CrossEntropy()(model, x, y) + 3 * _turned(model, x, y, z)
    torch.testing.assert_close(total, by_hand)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "Expected steps to be an integer >= 1, got 0"),
        ({"step_size": -0.1}, "Expected step_size > 0, got -0.1"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlignmentAttack(**{"ball": _BALL, "steps": 1, "step_size": 0.1} | changes)


def test_bad_images_are_named() -> None:
    attack = AlignmentAttack(ball=_BALL, steps=1, step_size=0.1)
    model, x, y = _smooth(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match=r"Expected x .*\[0, 1\]"):
        attack(model, x + 1, y)
    with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
        attack(model, x, torch.full_like(y, 3))
