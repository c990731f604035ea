"""ART: the triplet of image, own gradient and runner-up's gradient, and the attack on it."""

import dataclasses
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib.attacks import Ball, L2Ball, LinfBall
from attrlib.models import with_softplus
from attrlib.regularizers import AdversarialCrossEntropy, AttributionTriplet, TripletAttack
from attrlib.training import Loss
from attrlib.types import Attack, Term
from tests import oracles, term_oracles

PLAIN = AttributionTriplet(beta=None)
BALL = LinfBall(eps=0.1)


def _attack(**changes: Any) -> TripletAttack:
    usual = {"ball": BALL, "steps": 4, "step_size": 0.04, "k": 20, "beta": None}
    return TripletAttack(**usual | changes)


def _linear(*rows: list[float]) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(len(rows[0]), len(rows), bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(rows))
    return model


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return functional.cosine_similarity(a.flatten(1), b.flatten(1), dim=1)


# --- closed forms ---------------------------------------------------------------------------------


def test_own_gradient_along_the_image_and_the_other_across_it() -> None:
    model, x, y = _linear([3.0, 0.0], [0.0, 1.0]), torch.tensor([[0.5, 0.0]]), torch.tensor([0])
    one = torch.ones(1)
    torch.testing.assert_close(PLAIN(model, x, y, z=x), (1 + (-one).exp()).log())  # d = 0 and 1
    torch.testing.assert_close(PLAIN(model, x, 1 - y, z=x), (1 + one.exp()).log())  # d = 1 and 0
    opposed = _linear([3.0, 0.0], [-1.0, 0.0])
    torch.testing.assert_close(PLAIN(opposed, x, y, z=x), (1 + (-2 * one).exp()).log())  # 0 and 2
    torch.testing.assert_close(PLAIN(opposed, x, 1 - y, z=x), (1 + (2 * one).exp()).log())


def test_the_hardest_pair_of_a_linear_model_by_hand() -> None:
    # The runner-up is class 1 at x and class 2 at z; the label's gradient is the same at both.
    model = _linear([1.0, 1.0], [2.0, 0.0], [0.0, 2.0])
    x, z, y = torch.tensor([[0.6, 0.2]]), torch.tensor([[0.1, 0.7]]), torch.tensor([0])
    losses = []
    for u in (x, z):
        near = 1 - _cosine(u, torch.tensor([[1.0, 1.0]]))
        far = torch.minimum(
            1 - _cosine(u, torch.tensor([[2.0, 0.0]])), 1 - _cosine(u, torch.tensor([[0.0, 2.0]]))
        )
        losses.append((1 + (near - far).exp()).log())
    torch.testing.assert_close(PLAIN(model, x, y, z=z), (losses[0] + losses[1]) / 2)


def test_a_linear_model_at_the_image() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    weight = model[1].weight.detach()
    scores = model(x).detach()
    scores[torch.arange(4), y] = -torch.inf
    near, far = 1 - _cosine(x, weight[y]), 1 - _cosine(x, weight[scores.argmax(1)])
    torch.testing.assert_close(PLAIN(model, x, y, z=x), functional.softplus(near - far))


def test_the_gradient_of_the_label_is_the_farthest_of_both() -> None:
    """Two classes f = (‖x‖²/2 − s·x, 0·x + t·x): the label's gradient x − s differs at x and z."""

    class Shifted(nn.Module):
        def forward(self, v: Tensor) -> Tensor:
            v = v.flatten(1)
            own = v.square().sum(1) / 2 - v @ torch.tensor([0.5, 0.5])
            return torch.stack([own, v @ torch.tensor([0.0, 1.0])], 1)

    x, z, y = torch.tensor([[0.9, 0.6]]), torch.tensor([[0.6, 0.9]]), torch.tensor([0])
    maps = x - 0.5, z - 0.5
    losses = []
    for u in (x, z):
        near = torch.maximum(*(1 - _cosine(u, g) for g in maps))
        far = 1 - _cosine(u, torch.tensor([[0.0, 1.0]]))
        losses.append(functional.softplus(near - far))
    torch.testing.assert_close(PLAIN(Shifted(), x, y, z=z), (losses[0] + losses[1]) / 2)


# --- the softplus copy ----------------------------------------------------------------------------


def test_the_softplus_copy_has_the_weights_of_the_model() -> None:
    model, x, y = term_oracles.net(nn.ReLU), oracles.images(), oracles.labels()
    z = oracles.images(seed=7)
    twin = with_softplus(model, 5.0)
    value, same = AttributionTriplet(beta=5.0)(model, x, y, z=z), PLAIN(twin, x, y, z=z)
    torch.testing.assert_close(value, same)
    assert not torch.allclose(value, PLAIN(model, x, y, z=z), rtol=1e-4)
    grads = torch.autograd.grad(value.sum(), list(model.parameters()), allow_unused=True)
    expected = torch.autograd.grad(same.sum(), list(twin.parameters()), allow_unused=True)
    for one, other in zip(grads[:-1], expected[:-1], strict=True):
        torch.testing.assert_close(one, other)
        assert (one != 0).any()
    assert grads[-1] is None or not grads[-1].any()  # a bias of the logits moves no gradient


@pytest.mark.parametrize("term", [PLAIN, AttributionTriplet(beta=5.0)], ids=["model", "copy"])
def test_the_weights_get_the_derivative(term: AttributionTriplet) -> None:
    activation = None if term.beta is None else nn.ReLU
    model, x, y = term_oracles.net(activation).double(), oracles.images().double(), oracles.labels()
    z = oracles.images(seed=7).double()
    analytic, numeric = term_oracles.slopes(lambda: term(model, x, y, z=z), model)
    torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-8)
    assert analytic.abs() > 1e-4


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_copy_needs_a_module_with_relus() -> None:
    x, y = oracles.images(), oracles.labels()
    smooth = term_oracles.net()
    with pytest.raises(ValueError, match=r"Expected model to have nn\.ReLU"):
        AttributionTriplet()(smooth, x, y, z=x)
    with pytest.raises(TypeError, match=r"Expected model to be a torch\.nn\.Module .*got function"):
        AttributionTriplet()(lambda v: smooth(v), x, y, z=x)
    torch.testing.assert_close(
        PLAIN(lambda v: smooth(v), x, y, z=x), PLAIN(smooth, x, y, z=x), rtol=0, atol=0
    )


# --- numbers that are hard to divide by -----------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 1e-20, 1e6, 1e18])
def test_gradients_are_finite_for_tied_and_saturated_logits(scale: float) -> None:
    model, x, y = oracles.linear_net().float(), oracles.images().float(), oracles.labels()
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
    z = _attack()(model, x, y, generator=oracles.seeded(0))
    assert torch.isfinite(z).all()
    value = PLAIN(model, x, y, z=z)
    assert value.dtype == torch.float32
    (grad,) = torch.autograd.grad(value.sum(), model[1].weight)
    assert torch.isfinite(value).all()
    assert torch.isfinite(grad).all()
    if scale == 0:  # no gradient to compare with: a draw
        torch.testing.assert_close(value, torch.full_like(value, 2.0).log())


def test_saturated_and_tied_logits_of_a_relu_network() -> None:
    model, x, y = term_oracles.net(nn.ReLU).float(), oracles.images().float(), oracles.labels()
    for scale in (0.0, 1e4):
        with torch.no_grad():
            model.layers[-1].weight.mul_(scale or 1.0)
            model.layers[-1].weight[1:] = model.layers[-1].weight[:1]  # all logits tie
        value = AttributionTriplet()(model, x, y, z=x)
        torch.testing.assert_close(value, torch.full_like(value, 2.0).log())
        for grad in torch.autograd.grad(value.sum(), list(model.parameters()), allow_unused=True):
            assert grad is None or torch.isfinite(grad).all()


def test_a_black_image_is_a_draw() -> None:
    model, x, y = oracles.linear_net(), torch.zeros(4, 1, 8, 8), oracles.labels()
    value = PLAIN(model, x, y, z=x)
    torch.testing.assert_close(value, torch.full_like(value, 2.0).log())
    (grad,) = torch.autograd.grad(value.sum(), model[1].weight)
    assert torch.equal(grad, torch.zeros_like(grad))


# --- the attack -----------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", [BALL, L2Ball(eps=0.7)], ids=["linf", "l2"])
@pytest.mark.parametrize("activation", [nn.ReLU, None], ids=["ReLU", "softplus"])
def test_the_attack_beats_random_points_of_the_ball(ball: Ball, activation: Any) -> None:
    model, x, y = term_oracles.net(activation), oracles.images(16), oracles.labels(16)
    beta = None if activation is None else 5.0
    step = ball.eps / 4  # type: ignore[attr-defined]
    attack = _attack(ball=ball, steps=8, step_size=step, k=64, beta=beta)
    assert isinstance(attack, Attack)
    z = attack(model, x, y, generator=oracles.seeded(0))
    assert torch.equal(ball.project(z, x), z)
    assert not z.requires_grad
    term = AttributionTriplet(beta=beta)
    found = term(model, z, y, z=z)
    for seed in range(3):
        random = ball.sample(x, oracles.seeded(seed))
        assert (found > term(model, random, y, z=random)).all()


def test_the_attack_moves_the_chosen_entries_only() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    z = _attack(k=5)(model, x, y, generator=oracles.seeded(0))
    start = BALL.sample(x, oracles.seeded(0))
    moved = (z != start).flatten(1)
    largest = model[1].weight.detach()[y].abs().topk(5).indices
    expected = torch.zeros(4, 64, dtype=torch.bool).scatter(1, largest, True)
    assert not (moved & ~expected).any()
    assert (moved & expected).any(1).all()


def test_one_step_of_the_attack_on_a_linear_model() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    z = _attack(steps=1, step_size=1e-3, k=64)(model, x, y, generator=oracles.seeded(0))
    start = BALL.sample(x, oracles.seeded(0)).requires_grad_()
    scores = model(start).detach().scatter(1, y[:, None], -torch.inf)
    weight = model[1].weight.detach()
    gap = _cosine(start, weight[scores.argmax(1)]) - _cosine(start, weight[y])
    (way,) = torch.autograd.grad(gap.sum(), start)
    torch.testing.assert_close(z, BALL.project(start + 1e-3 * way.sign(), x).detach())


def test_the_entries_are_chosen_on_the_network_itself_and_steps_are_taken_on_the_copy() -> None:
    model, x, y = term_oracles.net(nn.ReLU), oracles.images(), oracles.labels()
    seen: list[str] = []
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(lambda *_: seen.append("relu"))
    _attack(beta=5.0, steps=3)(model, x, y, generator=oracles.seeded(0))
    assert seen == 3 * ["relu"]  # one pass through three layers


def test_term_and_attack_make_a_loss() -> None:
    model, x, y = term_oracles.net(nn.ReLU), oracles.images(), oracles.labels()
    attack, term = _attack(beta=50.0), AttributionTriplet()
    loss = Loss(
        terms={"adversarial": AdversarialCrossEntropy(), "triplet": term},
        weights={"adversarial": 1.0, "triplet": 0.5},
        attack=attack,
    )
    total, _ = loss(model, x, y, generator=oracles.seeded(1))
    z = attack(model, x, y, generator=oracles.seeded(1))
    by_hand = AdversarialCrossEntropy()(model, x, y, z=z) + 0.5 * term(model, x, y, z=z)
    torch.testing.assert_close(total, by_hand)


# --- conduct --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")  # the shape checker draws numbers itself
def test_noise_comes_from_the_generator_alone() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    state = torch.get_rng_state()
    first, second, other = (_attack()(model, x, y, generator=oracles.seeded(s)) for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    term = AttributionTriplet()
    assert isinstance(term, Term)
    relu = term_oracles.net(nn.ReLU)
    assert torch.equal(term(relu, x, y, z=first), term(relu, x, y, z=first))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_row_does_not_depend_on_the_others() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    changed = torch.cat([x[:1], oracles.images(seed=8)[1:]])
    points = [_attack()(model, v, y, generator=oracles.seeded(0)) for v in (x, changed)]
    assert torch.equal(points[0][0], points[1][0])
    values = [PLAIN(model, v, y, z=z) for v, z in zip((x, changed), points, strict=True)]
    assert torch.equal(values[0][0], values[1][0])
    assert (values[0][1:] != values[1][1:]).all()


@pytest.mark.parametrize("leaf", [False, True])
def test_model_and_arguments_are_untouched(leaf: bool) -> None:
    model, x, y = term_oracles.net(nn.ReLU), oracles.images().requires_grad_(leaf), oracles.labels()
    model.train()
    model.layers[0].eval()
    modes, before = [m.training for m in model.modules()], x.detach().clone()
    z = _attack(beta=50.0)(model, x, y, generator=oracles.seeded(0))
    value = AttributionTriplet()(model, x, y, z=z)
    assert torch.equal(value, AttributionTriplet()(model, before, y, z=z))
    assert torch.equal(x, before)
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert [m.training for m in model.modules()] == modes
    assert sum(isinstance(m, nn.ReLU) for m in model.modules()) == 3


def test_batch_normalisation_in_train_mode_is_refused() -> None:
    model, x, y = term_oracles.batch_norm_net(), oracles.images(), oracles.labels()
    message = "Expected model without batch normalisation in train mode"
    for beta in (None, 50.0):
        with pytest.raises(ValueError, match=message):
            AttributionTriplet(beta=beta)(model, x, y, z=x)
        with pytest.raises(ValueError, match=message):
            _attack(beta=beta)(model, x, y)
    assert torch.isfinite(AttributionTriplet()(model.eval(), x, y, z=x)).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match=r"Expected z, the adversarial example .* got None"):
        PLAIN(model, x, y)
    with pytest.raises(ValueError, match=r"Expected z of shape \(4, 1, 8, 8\), got \(1, 1, 8, 8\)"):
        PLAIN(model, x, y, z=x[:1])
    single = nn.Sequential(nn.Flatten(), nn.Linear(64, 1))
    for call in (partial(PLAIN, z=x), _attack()):
        with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
            call(model, x, torch.full_like(y, 3))
        with pytest.raises(ValueError, match=r"Expected .* of at least 2 classes, got 1"):
            call(single, x, torch.zeros_like(y))
    with pytest.raises(ValueError, match="Expected k to be an integer from 1 to 64, got 65"):
        _attack(k=65)(model, x, y)
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\]"):
        _attack()(model, 2 * x, y)
    with pytest.raises(TypeError, match="Expected y to be an int64 tensor"):
        _attack()(model, x, y.int())
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference_mode"):
        _attack()(model, x, y)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "Expected steps to be an integer >= 1, got 0"),
        ({"step_size": 0.0}, "Expected step_size > 0, got 0.0"),
        ({"k": 0}, "Expected k to be an integer >= 1, got 0"),
        ({"beta": -1.0}, "Expected beta > 0, got -1.0"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _attack(**changes)


def test_the_term_is_frozen_and_its_sharpness_checked() -> None:
    assert AttributionTriplet() == AttributionTriplet(beta=50.0)
    with pytest.raises(ValueError, match=r"Expected beta > 0, got 0\.0"):
        AttributionTriplet(beta=0.0)
    for part in (AttributionTriplet(), _attack()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            part.beta = 1.0  # type: ignore[misc]
