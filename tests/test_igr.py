"""The integrated gradient regularizer: closed forms, and what it shares with adversarial training."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import attributions
from attrlib.attacks import KLPGD, PGD, LinfBall
from attrlib.regularizers import (
    AdversarialCrossEntropy,
    CrossEntropy,
    IntegratedGradientRegularizer,
    Mart,
    Trades,
)
from attrlib.training import Loss
from attrlib.types import Attack, Term
from tests import oracles, term_oracles

BALL = LinfBall(eps=0.1)


def _point(x: Tensor) -> Tensor:
    return BALL.sample(x, oracles.seeded(5))


def _turn(a: Tensor, b: Tensor) -> Tensor:
    return 1 - functional.cosine_similarity(a.flatten(1), b.flatten(1))


class Bump(nn.Module):
    """One logit, the sum of w (x − 2 x²): integrated gradients are w x (1 − 2 x)."""

    def __init__(self, dim: int = 5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, generator=oracles.seeded(4)))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 2 * x**2) @ self.weight)[:, None]


# --- values ---------------------------------------------------------------------------------------


def test_a_linear_model_in_closed_form() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    z, weight = _point(x), model[1].weight[y]
    value = IntegratedGradientRegularizer(steps=1)(model, x, y, z=z)
    torch.testing.assert_close(value, _turn(x.flatten(1) * weight, z.flatten(1) * weight))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_quadratic_model_in_closed_form(steps: int) -> None:
    # The gradient is linear on the path: any number of midpoints gives x (H x / 2 + w).
    model, y = oracles.Quadratic(), oracles.labels()
    x, z = (torch.rand(4, 5, generator=oracles.seeded(s)) for s in (1, 2))
    value = IntegratedGradientRegularizer(steps=steps)(model, x, y, z=z)
    a, b = (v * model.gradient(v / 2, y) for v in (x, z))
    torch.testing.assert_close(value, _turn(a, b))


@pytest.mark.parametrize("scale", [1.0, 3.0, 0.01])
def test_a_longer_map_of_one_direction_costs_nothing(scale: float) -> None:
    model, y = oracles.linear_net((5,)), oracles.labels()
    x = torch.rand(4, 5, generator=oracles.seeded(1)) / 3
    value = IntegratedGradientRegularizer()(model, x, y, z=scale * x)
    torch.testing.assert_close(value, torch.zeros(4), rtol=0, atol=1e-15)


def test_the_opposite_map_costs_two_and_a_right_angle_one() -> None:
    x, z, y = torch.full((1, 5), 0.25), torch.full((1, 5), 0.75), torch.tensor([0])
    term = IntegratedGradientRegularizer()
    torch.testing.assert_close(term(Bump(), x, y, z=z), torch.tensor([2.0]))
    half = torch.tensor([[0.25, 0.25, 0.5, 0.5, 0.5]])
    other = torch.tensor([[0.5, 0.5, 0.25, 0.3, 0.4]])
    torch.testing.assert_close(term(Bump(), half, y, z=other), torch.tensor([1.0]))


def test_the_maps_are_the_package_s_own_and_add_up_to_the_change_of_the_logit() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    z = _point(x)
    value = IntegratedGradientRegularizer(steps=64)(model, x, y, z=z)
    a, b = (attributions.integrated_gradients(model, v, y, steps=64) for v in (x, z))
    torch.testing.assert_close(value, _turn(a, b))
    for point, whole in ((x, a), (z, b)):
        ends = model(point) - model(torch.zeros_like(point))
        expected = ends.gather(1, y[:, None]).squeeze(1)
        torch.testing.assert_close(whole.flatten(1).sum(1), expected, rtol=1e-3, atol=1e-3)


def test_all_points_share_one_pass() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    recorder, z = term_oracles.Recorder(model), _point(x)
    IntegratedGradientRegularizer(steps=3)(recorder, x, y, z=z)
    (points,) = recorder.points
    shares = torch.tensor([1, 3, 5]) / 6
    expected = torch.cat([share * torch.cat([x, z]) for share in shares])
    torch.testing.assert_close(points, expected)


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [nn.ReLU, None], ids=["ReLU", "softplus"])
def test_the_weights_get_the_derivative_of_both_maps(activation: Any) -> None:
    model, x, y = term_oracles.net(activation), oracles.images(), oracles.labels()
    z, term = _point(x), IntegratedGradientRegularizer(steps=2)
    analytic, numeric = term_oracles.slopes(lambda: term(model, x, y, z=z), model)
    assert analytic.abs() > 1e-3
    torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-7)
    for name, weight in model.named_parameters():
        if name.endswith("weight"):
            (grad,) = torch.autograd.grad(term(model, x, y, z=z).sum(), weight)
            assert grad.abs().sum() > 0


def test_the_example_is_a_constant() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    z = _point(x).requires_grad_()
    (grad,) = torch.autograd.grad(
        IntegratedGradientRegularizer()(model, x, y, z=z).sum(), z, allow_unused=True
    )
    assert grad is None


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1.0, 1e6])
def test_finite_in_single_precision(scale: float) -> None:
    model = term_oracles.net().float()
    with torch.no_grad():  # 0 is a head as some initialise it: all maps are 0
        model.layers[-1].weight.mul_(scale)
        model.layers[-1].bias.mul_(scale)
    x, y = oracles.images().float(), oracles.labels()
    x[0], x[1] = 1, 0.5
    value = IntegratedGradientRegularizer()(model, x, y, z=_point(x))
    grads = torch.autograd.grad(value.sum(), list(model.parameters()), materialize_grads=True)
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(g).all() for g in grads)
    assert bool((value > 0).all()) == (scale > 1e-10)


def test_a_black_image_has_no_direction() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    x[1] = 0
    value = IntegratedGradientRegularizer()(model, x, y, z=_point(x))
    assert value.detach().nonzero().flatten().tolist() == [0, 2, 3]


def test_a_network_with_a_head_of_zeros_learns() -> None:
    model, x, y = term_oracles.net(nn.ReLU).float(), oracles.images(32).float(), oracles.labels(32)
    nn.init.zeros_(model.layers[-1].weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    terms = {"adversarial": AdversarialCrossEntropy(), "igr": IntegratedGradientRegularizer()}
    loss = Loss(
        terms=terms,
        weights={"adversarial": 1.0, "igr": 3.0},
        attack=PGD(ball=BALL, steps=1, step_size=0.05, random_start=True),
    )
    generator, igr = oracles.seeded(0), []
    for _ in range(30):
        total, values = loss(model, x, y, generator=generator)
        igr.append(float(values["igr"].detach().mean()))
        optimizer.zero_grad()
        total.mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert igr[0] == 0
    assert max(igr[1:4]) > 1.5 * igr[-1] > 0


# --- with its bases -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "attack"),
    [
        ({"adversarial": AdversarialCrossEntropy()}, PGD(ball=BALL, steps=2, step_size=0.05)),
        (
            {"cross_entropy": CrossEntropy(), "divergence": Trades()},
            KLPGD(ball=BALL, steps=2, step_size=0.05),
        ),
        ({"objective": Mart()}, PGD(ball=BALL, steps=2, step_size=0.05)),
    ],
    ids=["AT", "TRADES", "MART"],
)
def test_base_and_regularizer_share_one_example(base: dict[str, Term], attack: Attack) -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    term = IntegratedGradientRegularizer()
    weights = dict.fromkeys(base, 1.0) | {"igr": 3.0}
    loss = Loss(terms={**base, "igr": term}, weights=weights, attack=attack)
    total, _ = loss(model, x, y, generator=oracles.seeded(1))
    z = attack(model, x, y, generator=oracles.seeded(1))
    by_hand = sum(part(model, x, y, z=z) for part in base.values())
    torch.testing.assert_close(total, by_hand + 3 * term(model, x, y, z=z))


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match="Expected steps to be an integer >= 1, got 0"):
        IntegratedGradientRegularizer(steps=0)
    term = IntegratedGradientRegularizer()
    with pytest.raises(ValueError, match=r"Expected z of shape \(4, 1, 8, 8\), got \(1, 1, 8, 8\)"):
        term(model, x, y, z=x[:1])
    with pytest.raises(ValueError, match=r"Expected y of shape \(4,\), got \(3,\)"):
        term(model, x, y[:3], z=x)
    with pytest.raises(ValueError, match=r"Expected z to be finite, got NaN .* in 4 of 4"):
        term(model, x, y, z=torch.full_like(x, torch.nan))
