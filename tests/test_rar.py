"""RAR: the norm of the attribution of a change of the loss, and its search."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib.attacks import PGD, Ball, L2Ball, LinfBall
from attrlib.regularizers import AdversarialCrossEntropy, CrossEntropy, IGNorm, IGSumNorm
from attrlib.types import Term
from tests import oracles, term_oracles

BALL = LinfBall(eps=0.1)
TERMS = [IGNorm, IGSumNorm]
every_term = pytest.mark.parametrize("make", TERMS, ids=lambda make: make.__name__)


def _term(make: Callable[..., Term], **changes: Any) -> Term:
    return make(**{"ball": BALL, "steps": 4, "step_size": 0.04} | changes)


def _searched(term: Any, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The value, and the point that was found: the last point of the path lies just before it."""
    recorder = term_oracles.Recorder(model)
    value = term(recorder, x, y, generator=oracles.seeded(0))
    m = term.path_points
    path = next(p for p in reversed(recorder.points) if len(p) == m * len(x))
    return value, x + (path[-len(x) :] - x) * m / (m - 0.5)


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(model(x), y, reduction="none")


# --- closed forms ---------------------------------------------------------------------------------


def test_the_norm_of_a_linear_softmax_model() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    value, z = _searched(_term(IGNorm, path_points=4), model, x, y)
    weight, bias = model[1].weight, model[1].bias
    total = torch.zeros_like(x.flatten(1))
    for t in (0.125, 0.375, 0.625, 0.875):
        p = ((x + t * (z - x)).flatten(1) @ weight.T + bias).softmax(1)
        total += (p - functional.one_hot(y, 3)) @ weight
    expected = ((z - x).flatten(1) * total / 4).abs().sum(1)
    torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-12)


def test_in_one_dimension_the_norm_is_the_change_of_the_loss() -> None:
    model = term_oracles.Sigmoid(torch.tensor([8.0]))
    x, y = oracles.images(64, size=1), torch.zeros(64).long()
    value = IGNorm(ball=BALL, steps=8, step_size=0.05, path_points=400)(
        model, x, y, generator=oracles.seeded(0)
    )
    ends = [
        (_loss(model, BALL.project(x + s, x), y) - _loss(model, x, y)).abs() for s in (0.1, -0.1)
    ]
    reached = [torch.isclose(value, end, rtol=1e-5) for end in ends]
    assert (reached[0] | reached[1]).all()
    assert reached[0].any()
    assert reached[1].any()


def test_the_worst_corner_of_two_classes_pays_the_change_of_the_loss() -> None:
    weight = torch.randn(64, generator=oracles.seeded(0))
    model, x, y = term_oracles.Sigmoid(weight), oracles.images(), torch.zeros(4).long()
    ball = LinfBall(eps=0.02)
    corner = ball.project(x - 0.02 * weight.sign().view(1, 1, 8, 8), x)
    clean, worst = _loss(model, x, y), _loss(model, corner, y)
    errors = []
    for points in (4, 8, 64):
        term = IGSumNorm(ball=ball, steps=5, step_size=0.02, norm_weight=0.1, path_points=points)
        value = term(model, x, y, generator=oracles.seeded(0))
        errors.append((value - (worst + 0.1 * (worst - clean))).abs().max())
    assert errors[0] > 3.5 * errors[1]  # the error of the midpoint rule falls as 1/m²
    assert errors[2] < 1e-6


@every_term
def test_the_norm_is_at_least_the_change_of_the_loss(make: Callable[..., Term]) -> None:
    model, x, y = term_oracles.net(), oracles.images(16), oracles.labels(16)
    value, z = _searched(_term(make, path_points=100), model, x, y)
    change = (_loss(model, z, y) - _loss(model, x, y)).abs()
    norm = value if make is IGNorm else (value - _loss(model, z, y)) / 0.1
    assert (norm > change - 1e-6).all()
    assert (norm < 100 * change.mean()).all()


def test_without_the_norm_the_sum_is_adversarial_training() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    term = _term(IGSumNorm, norm_weight=0.0)
    z = PGD(ball=BALL, steps=4, step_size=0.04, random_start=True)(
        model, x, y, generator=oracles.seeded(0)
    )
    torch.testing.assert_close(
        term(model, x, y, generator=oracles.seeded(0)),
        AdversarialCrossEntropy()(model, x, y, z=z),
    )


# --- the search -----------------------------------------------------------------------------------


@every_term
@pytest.mark.parametrize("ball", [BALL, L2Ball(eps=0.7)], ids=["linf", "l2"])
@pytest.mark.parametrize("activation", [nn.ReLU, None], ids=["ReLU", "softplus"])
def test_the_search_beats_random_points_of_the_ball(
    make: Callable[..., Term], ball: Ball, activation: Callable[[], nn.Module] | None
) -> None:
    model, x, y = term_oracles.net(activation), oracles.images(16), oracles.labels(16)
    settings = {"ball": ball, "attack_points": 5, "path_points": 5}
    step = ball.eps / 4  # type: ignore[attr-defined]
    found = make(**settings, steps=8, step_size=step)(model, x, y, generator=oracles.seeded(0))
    for seed in range(3):  # a step of nearly no length: the random start itself
        start = make(**settings, steps=1, step_size=1e-12)(
            model, x, y, generator=oracles.seeded(seed)
        )
        assert (found > start).all()


@every_term
@pytest.mark.parametrize("ball", [BALL, L2Ball(eps=0.7)], ids=["linf", "l2"])
def test_the_model_is_asked_within_the_ball_only(make: Callable[..., Term], ball: Ball) -> None:
    model, x, y = term_oracles.Recorder(term_oracles.net()), oracles.images(), oracles.labels()
    _term(make, ball=ball, steps=6)(model, x, y, generator=oracles.seeded(0))
    assert len(model.points) >= 7
    for points in model.points:
        around = x.repeat(len(points) // len(x), 1, 1, 1)
        torch.testing.assert_close(points, ball.project(points, around), rtol=0, atol=1e-12)


def test_the_sum_searches_elsewhere_than_the_norm() -> None:
    model, x, y = term_oracles.net(), oracles.images(16), oracles.labels(16)
    term = partial(_term, attack_points=5, steps=8)
    _, of_norm = _searched(term(IGNorm), model, x, y)
    _, of_sum = _searched(term(IGSumNorm), model, x, y)
    assert _loss(model, of_sum, y).mean() > _loss(model, of_norm, y).mean()


@every_term
def test_fewer_points_are_used_while_searching(make: Callable[..., Term]) -> None:
    model, x, y = term_oracles.Recorder(term_oracles.net()), oracles.images(), oracles.labels()
    _term(make, attack_points=2, path_points=7)(model, x, y, generator=oracles.seeded(0))
    sizes = [len(points) for points in model.points if len(points) > len(x)]
    assert sizes == [2 * len(x)] * 4 + [7 * len(x)]


# --- derivatives ----------------------------------------------------------------------------------


@every_term
def test_the_weights_get_the_derivative(make: Callable[..., Term]) -> None:
    model, x, y = term_oracles.net().double(), oracles.images().double(), oracles.labels()
    term = _term(make)  # in the cube, the found point does not change with the weights
    analytic, numeric = term_oracles.slopes(
        lambda: term(model, x, y, generator=oracles.seeded(0)), model
    )
    torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-8)
    assert analytic.abs() > 1e-4


@every_term
@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3, 1e6])
def test_gradients_are_finite_for_tied_and_saturated_logits(
    make: Callable[..., Term], scale: float
) -> None:
    model, x, y = oracles.linear_net().float(), oracles.images().float(), oracles.labels()
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
    value = _term(make)(model, x, y, generator=oracles.seeded(0))
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    assert (value >= 0).all()
    for grad in torch.autograd.grad(value.sum(), list(model.parameters())):
        assert torch.isfinite(grad).all()
    if scale == 0:  # all classes equally likely, everywhere
        expected = 0.0 if make is IGNorm else float(torch.tensor(3.0).log())
        torch.testing.assert_close(value, torch.full_like(value, expected))


@every_term
def test_a_ball_without_room_leaves_the_loss_alone(make: Callable[..., Term]) -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    value = _term(make, ball=LinfBall(eps=0.0))(model, x, y)
    expected = 0 * _loss(model, x, y) if make is IGNorm else CrossEntropy()(model, x, y)
    torch.testing.assert_close(value, expected)
    for grad in torch.autograd.grad(value.sum(), list(model.parameters()), allow_unused=True):
        assert grad is None or torch.isfinite(grad).all()


# --- conduct --------------------------------------------------------------------------------------


@every_term
@pytest.mark.usefixtures("unchecked_shapes")  # the shape checker draws numbers itself
def test_noise_comes_from_the_generator_alone(make: Callable[..., Term]) -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    term, state = _term(make), torch.get_rng_state()
    assert isinstance(term, Term)
    first, second, other = (term(model, x, y, generator=oracles.seeded(s)) for s in (5, 5, 6))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(term(model, x, y, z=1 - x, generator=oracles.seeded(5)), first)


@every_term
def test_a_row_does_not_depend_on_the_others(make: Callable[..., Term]) -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    changed = torch.cat([x[:1], oracles.images(seed=8)[1:]])
    first, second = (_term(make)(model, v, y, generator=oracles.seeded(0)) for v in (x, changed))
    assert torch.equal(first[0], second[0])
    assert (first[1:] != second[1:]).all()


@every_term
@pytest.mark.parametrize("leaf", [False, True])
def test_model_and_arguments_are_untouched(make: Callable[..., Term], leaf: bool) -> None:
    model, x, y = term_oracles.net(), oracles.images().requires_grad_(leaf), oracles.labels()
    model.train()
    model.layers[0].eval()
    modes = [m.training for m in model.modules()]
    before = x.detach().clone()
    value = _term(make)(model, x, y, generator=oracles.seeded(0))
    assert torch.equal(x, before)
    assert x.grad is None
    assert all(p.grad is None for p in model.parameters())
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(value, _term(make)(model, before, y, generator=oracles.seeded(0)))


@every_term
def test_batch_normalisation_in_train_mode_is_refused(make: Callable[..., Term]) -> None:
    model, x, y = term_oracles.batch_norm_net(), oracles.images(), oracles.labels()
    with pytest.raises(
        ValueError, match="Expected model without batch normalisation in train mode"
    ):
        _term(make)(model, x, y)
    assert torch.isfinite(_term(make)(model.eval(), x, y, generator=oracles.seeded(0))).all()


@every_term
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named(make: Callable[..., Term]) -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
        _term(make)(model, x, torch.full_like(y, 3))
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\]"):
        _term(make)(model, 2 * x, y)


@every_term
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "Expected steps to be an integer >= 1, got 0"),
        ({"step_size": -0.1}, "Expected step_size > 0, got -0.1"),
        ({"path_points": 0}, "Expected path_points to be an integer >= 1, got 0"),
        ({"attack_points": 2.5}, "Expected attack_points to be an integer >= 1, got 2.5"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_settings_are_named(
    make: Callable[..., Term], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        _term(make, **changes)


def test_the_weight_of_the_norm_is_checked_and_terms_are_frozen() -> None:
    with pytest.raises(ValueError, match="Expected norm_weight >= 0, got -1"):
        _term(IGSumNorm, norm_weight=-1.0)
    for make in TERMS:
        assert _term(make) == _term(make)
        with pytest.raises(dataclasses.FrozenInstanceError):
            _term(make).steps = 1  # type: ignore[attr-defined]
