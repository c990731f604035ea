"""TRADES: the divergence, and the attack that raises it."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from attrlib.attacks import KLPGD, Ball, L2Ball, LinfBall
from attrlib.regularizers import CrossEntropy, Trades
from attrlib.training import Loss
from attrlib.types import Attack, Term
from tests import oracles, term_oracles


def _point(x: Tensor) -> Tensor:
    return LinfBall(eps=0.1).sample(x, oracles.seeded(5))


def test_the_divergence_is_that_of_the_example_from_the_image() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    z, term = oracles.images(seed=7), Trades()
    assert isinstance(term, Term)
    p, q = (Categorical(logits=model(v)) for v in (x, z))
    torch.testing.assert_close(term(model, x, y, z=z), kl_divergence(p, q))
    assert not torch.allclose(term(model, x, y, z=z), kl_divergence(q, p), rtol=1e-3)


def test_the_divergence_of_two_classes_by_hand() -> None:
    model = term_oracles.Sigmoid(torch.tensor([2.0, -1.0]))
    x, z, y = torch.tensor([[0.2, 0.6]]), torch.tensor([[0.7, 0.1]]), torch.tensor([1])
    p, q = torch.tensor([0.4 - 0.6 + 0.3, 1.4 - 0.1 + 0.3]).sigmoid()
    expected = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(Trades()(model, x, y, z=z), expected[None])


def test_nothing_moves_at_the_image_itself() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    value = Trades()(model, x, y, z=x.clone())
    assert torch.equal(value, torch.zeros(len(x)))
    for grad in torch.autograd.grad(value.sum(), list(model.parameters())):
        torch.testing.assert_close(grad, torch.zeros_like(grad))


def test_the_label_and_the_generator_play_no_part() -> None:
    model, x = term_oracles.net(), oracles.images()
    values = [
        Trades()(model, x, y, z=_point(x), generator=oracles.seeded(3))
        for y in (torch.tensor([0, 0, 1, 2]), torch.tensor([2, 1, 0, 0]))
    ]
    assert torch.equal(*values)


def test_the_weights_get_the_derivative_of_both_sides() -> None:
    model, x, y = term_oracles.net().double(), oracles.images().double(), oracles.labels()
    z = oracles.images(seed=7).double()
    analytic, numeric = term_oracles.slopes(lambda: Trades()(model, x, y, z=z), model)
    torch.testing.assert_close(analytic, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3, 1e6])
def test_gradients_are_finite_for_tied_and_saturated_logits(scale: float) -> None:
    model, x, y = oracles.linear_net().float(), oracles.images().float(), oracles.labels()
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
    x = x.requires_grad_()
    value = Trades()(model, x, y, z=oracles.images(seed=7).float())
    assert value.dtype == torch.float32
    for grad in torch.autograd.grad(value.sum(), [x, *model.parameters()]):
        assert torch.isfinite(grad).all()
    assert torch.isfinite(value).all()
    assert (value == 0).all() if scale == 0 else (value >= -1e-6).all()


def test_a_row_does_not_depend_on_the_others() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    z, other = _point(x), oracles.images(seed=8)
    x2, z2 = torch.cat([x[:1], other[1:]]), torch.cat([z[:1], other.flip(0)[1:]])
    first, second = Trades()(model, x, y, z=z), Trades()(model, x2, y, z=z2)
    assert torch.equal(first[0], second[0])
    assert (first[1:] != second[1:]).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match=r"Expected z, the adversarial example .* got None"):
        Trades()(model, x, y)
    with pytest.raises(ValueError, match=r"Expected z of shape \(4, 1, 8, 8\), got \(1, 1, 8, 8\)"):
        Trades()(model, x, y, z=x[:1])
    with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
        Trades()(model, x, torch.full_like(y, 3), z=x)


def test_the_term_is_frozen_and_equal_by_value() -> None:
    assert Trades() == Trades()
    with pytest.raises(dataclasses.FrozenInstanceError):
        Trades().beta = 1


# --- the attack -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", [LinfBall(eps=0.03), L2Ball(eps=0.1)], ids=["linf", "l2"])
def test_the_attack_finds_the_nearest_of_both_optima_of_two_classes(ball: Ball) -> None:
    weight = torch.randn(64, generator=oracles.seeded(0))
    model, x, y = term_oracles.Sigmoid(weight), oracles.images(16), torch.zeros(16).long()
    attack = KLPGD(ball=ball, steps=80, step_size=ball.eps / 3)  # type: ignore[attr-defined]
    assert isinstance(attack, Attack)
    z = attack(model, x, y, generator=oracles.seeded(1))
    noise = 1e-3 * torch.randn(x.shape, generator=oracles.seeded(1))
    side = (noise.flatten(1) @ weight).sign()
    way = ball.steepest(weight.view(1, 1, 8, 8))
    expected = x + ball.eps * side.view(-1, 1, 1, 1) * way  # type: ignore[attr-defined]
    torch.testing.assert_close(z, expected, rtol=0, atol=1e-9)
    assert {-1.0, 1.0} == set(side.tolist())


@pytest.mark.parametrize("ball", [LinfBall(eps=0.1), L2Ball(eps=0.7)], ids=["linf", "l2"])
def test_the_attack_beats_random_points_of_the_ball(ball: Ball) -> None:
    model, x, y = term_oracles.net(), oracles.images(16), oracles.labels(16)
    step = ball.eps / 4  # type: ignore[attr-defined]
    z = KLPGD(ball=ball, steps=10, step_size=step)(model, x, y, generator=oracles.seeded(1))
    assert torch.equal(ball.project(z, x), z)
    assert not z.requires_grad
    found = Trades()(model, x, y, z=z)
    for seed in range(5):
        random = Trades()(model, x, y, z=ball.sample(x, oracles.seeded(seed)))
        assert (found > random).all()


def test_the_attack_starts_from_noise_within_the_ball() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    rest = {"steps": 1, "step_size": 1e-9}
    wide = KLPGD(ball=LinfBall(eps=0.1), **rest)(model, x, y, generator=oracles.seeded(1))
    noise = torch.randn(x.shape, generator=oracles.seeded(1))
    torch.testing.assert_close(wide, x + 1e-3 * noise, rtol=0, atol=2e-9)
    narrow = KLPGD(ball=LinfBall(eps=1e-4), **rest)(model, x, y, generator=oracles.seeded(1))
    assert ((narrow - x).abs() <= 1e-4).all()
    still = KLPGD(ball=LinfBall(eps=0.0), steps=2, step_size=0.1)(model, x, y)
    assert torch.equal(still, x)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "Expected steps to be an integer >= 1, got 0"),
        ({"step_size": 0.0}, "Expected step_size > 0, got 0.0"),
        ({"noise": 0.0}, "Expected noise > 0, got 0.0"),
    ],
)
def test_bad_settings_of_the_attack_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KLPGD(**{"ball": LinfBall(eps=0.1), "steps": 1, "step_size": 0.1} | changes)


def test_term_and_attack_make_a_loss() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    attack = KLPGD(ball=LinfBall(eps=0.1), steps=3, step_size=0.05)
    loss = Loss(
        terms={"cross_entropy": CrossEntropy(), "trades": Trades()},
        weights={"cross_entropy": 1.0, "trades": 6.0},
        attack=attack,
    )
    total, _ = loss(model, x, y, generator=oracles.seeded(1))
    z = attack(model, x, y, generator=oracles.seeded(1))
    by_hand = CrossEntropy()(model, x, y) + 6 * Trades()(model, x, y, z=z)
    torch.testing.assert_close(total, by_hand)
