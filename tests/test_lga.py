"""Local gradient alignment: closed forms, and the statements of its paper."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import attributions, data, maps
from attrlib.attacks import PGD, Ball, L2Ball, LinfBall
from attrlib.models import SmallCNN
from attrlib.regularizers import CrossEntropy, HessianNorm, LocalGradientAlignment
from attrlib.training import Loss
from tests import oracles, term_oracles

BALL = LinfBall(eps=0.1)


def _term(**changes: Any) -> LocalGradientAlignment:
    return LocalGradientAlignment(**{"l2": 0.3, "cosine": 2.0, "ball": BALL} | changes)


def _l2(ball: Ball = BALL, **changes: Any) -> LocalGradientAlignment:
    return _term(l2=1.0, cosine=0.0, ball=ball, **changes)


def _cosine(ball: Ball = BALL, **changes: Any) -> LocalGradientAlignment:
    return _term(l2=0.0, cosine=1.0, ball=ball, **changes)


def _by_hand(a: Tensor, b: Tensor, *, l2: float = 0.3, cosine: float = 2.0) -> Tensor:
    a, b = a.flatten(1), b.flatten(1)
    turn = (1 - functional.cosine_similarity(a, b)) / 2
    return l2 * (a - b).square().sum(1) + cosine * turn


def _gradients(model: nn.Module, x: Tensor, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    one, other = (attributions.gradient(model, v, y).flatten(1) for v in (x, z))
    return one, other


def _near(x: Tensor, ball: Ball = BALL, *, seed: int = 0) -> Tensor:
    return ball.sample(x, oracles.seeded(seed))


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("ball", [BALL, L2Ball(eps=0.7)], ids=["linf", "l2"])
def test_the_value_of_a_quadratic_model_in_closed_form(ball: Ball, detach: bool) -> None:
    model, x, y = (
        oracles.Quadratic(),
        oracles.images(size=1)[:, 0, 0].expand(4, 5),
        oracles.labels(),
    )
    value = _term(ball=ball, detach=detach)(model, x, y, generator=oracles.seeded(0))
    a, b = (model.gradient(v, y) for v in (x, _near(x, ball)))
    torch.testing.assert_close(value, _by_hand(a, b))
    assert (value > 0.01).all()


def test_a_linear_model_has_nothing_to_align() -> None:
    x, y = oracles.images(), oracles.labels()
    value = _term()(oracles.linear_net(), x, y, generator=oracles.seeded(0))
    torch.testing.assert_close(value, torch.zeros(4), rtol=0, atol=1e-28)


@pytest.mark.parametrize("activation", [nn.ReLU, None], ids=["ReLU", "softplus"])
def test_a_sample_aligned_with_an_adversarial_neighbour(activation: Any) -> None:
    model, x, y = term_oracles.net(activation), oracles.images(), oracles.labels()
    z = PGD(ball=BALL, steps=3, step_size=0.05)(model, x, y)
    value = _term(neighbour="adversarial")(model, x, y, z=z)
    torch.testing.assert_close(value, _by_hand(*_gradients(model, x, z, y)))
    assert not torch.equal(value, _term()(model, x, y, z=z, generator=oracles.seeded(0)))


def test_a_uniform_neighbour_lies_in_the_ball_and_is_new_each_time() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    x[0] = 0
    recorder, generator = term_oracles.Recorder(model), oracles.seeded(0)
    for _ in range(2):
        _term()(recorder, x, y, generator=generator)
    (here, near), (_, again) = (points.chunk(2) for points in recorder.points)
    assert torch.equal(here, x)
    assert torch.equal(near, _near(x))
    assert ((near - x).abs() <= 0.1).all()
    assert (near[1:] - x[1:]).abs().mean() == pytest.approx(0.05, rel=0.1)
    assert (near[0] == 0).double().mean() == pytest.approx(0.5, abs=0.15)  # cut at black
    assert not torch.equal(near, again)


def test_channels_are_not_reduced() -> None:
    model = oracles.softplus_net(channels=3)
    x, y = oracles.images(channels=3), oracles.labels()
    value = _cosine()(model, x, y, generator=oracles.seeded(0))
    a, b = (attributions.gradient(model, v, y) for v in (x, _near(x)))
    torch.testing.assert_close(value, _by_hand(a, b, l2=0, cosine=1))
    reduced = _by_hand(a.abs().sum(1), b.abs().sum(1), l2=0, cosine=1)
    assert not torch.allclose(value, reduced, rtol=0.01)


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{}, {"l2": 0.0}, {"cosine": 0.0}], ids=["both", "cos", "l2"])
def test_the_weights_get_the_derivative_of_both_maps(changes: dict[str, float]) -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    analytic, numeric = term_oracles.slopes(
        lambda: _term(**changes)(model, x, y, generator=oracles.seeded(0)), model
    )
    assert analytic.abs() > 1e-3
    torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-7)


def test_detached_the_clean_map_is_a_target() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    weights = list(model.parameters())
    parts = []
    for detach in (False, True):
        value = _term(detach=detach)(model, x, y, generator=oracles.seeded(0))
        grads = torch.autograd.grad(value.sum(), weights, materialize_grads=True)
        parts.append(torch.cat([g.flatten() for g in grads]))
    target = attributions.gradient(model, x, y)
    near = attributions.gradient(model, _near(x).requires_grad_(), y)
    expected = torch.autograd.grad(_by_hand(target, near).sum(), weights, materialize_grads=True)
    torch.testing.assert_close(parts[1], torch.cat([g.flatten() for g in expected]))
    # Not a scaled copy: another direction.
    assert functional.cosine_similarity(parts[0], parts[1], dim=0) < 0.9


def test_what_detaching_leaves_out_is_as_large_as_what_is_kept() -> None:
    # f = θ x³ / 6 in one dimension, with the map θ x² / 2. Over a uniform δ the slope of the l2 part is
    # 2 θ (x² E δ² + E δ⁴ / 4) on average, and the detached one θ (2.5 x² E δ² + E δ⁴ / 2).
    class Cubic(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.weight * x**3 / 6

    model, x, y = Cubic(), torch.full((40_000, 1), 0.5), torch.zeros(40_000).long()
    second, fourth = 0.25 * 0.2**2 / 3, 0.2**4 / 5
    expected = 4 * (second + fourth / 4), 2 * (2.5 * second + fourth / 2)
    for detach, slope in zip((False, True), expected, strict=True):
        term = _l2(ball=LinfBall(eps=0.2), detach=detach)
        value = term(model, x, y, generator=oracles.seeded(0)).mean()
        (found,) = torch.autograd.grad(value, model.weight)
        assert float(found) == pytest.approx(slope, rel=0.04)


@pytest.mark.parametrize("term", [_term(), _term(detach=True)], ids=["both", "detached"])
def test_a_relu_network_is_trained_but_for_its_biases(term: LocalGradientAlignment) -> None:
    model, x, y = term_oracles.net(nn.ReLU), oracles.images(), oracles.labels()
    value = term(model, x, y, generator=oracles.seeded(0))
    named = dict(model.named_parameters())
    grads = torch.autograd.grad(value.sum(), list(named.values()), materialize_grads=True)
    for name, grad in zip(named, grads, strict=True):
        assert bool((grad != 0).any()) == name.endswith("weight")
    with pytest.raises(ValueError, match="Expected model with a second derivative"):
        HessianNorm()(model, x, y, generator=oracles.seeded(0))


@pytest.mark.parametrize("neighbour", ["uniform", "adversarial"])
@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e-6, 1.0, 1e4])
def test_finite_in_single_precision(neighbour: Any, detach: bool, scale: float) -> None:
    model = term_oracles.net().float()
    with torch.no_grad():  # tied, saturated, and in between; 0 is a head as some initialise it
        model.layers[-1].weight.mul_(scale)
        model.layers[-1].bias.mul_(scale)
    x, y = oracles.images().float(), oracles.labels()
    x[0], x[1], x[2] = 0, 1, 0.5  # images without any contrast
    value = _term(l2=1e-9, neighbour=neighbour, detach=detach)(
        model, x, y, z=_near(x), generator=oracles.seeded(0)
    )
    grads = torch.autograd.grad(value.sum(), list(model.parameters()), materialize_grads=True)
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(g).all() for g in grads)
    assert bool((value > 0).all()) == (scale > 1e-10)


def test_a_map_that_vanishes_on_one_side_has_no_direction() -> None:
    class Hinge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x: Tensor) -> Tensor:
            return (x @ self.weight - 1).relu()[:, None]

    model, y = Hinge(), torch.zeros(2).long()
    x, z = torch.tensor([[0.45, 0.45], [0.55, 0.55]]), torch.tensor([[0.55, 0.55], [0.45, 0.45]])
    value = _cosine(neighbour="adversarial")(model, x, y, z=z)
    assert torch.equal(value, torch.zeros(2))
    (slope,) = torch.autograd.grad(value.sum(), model.weight)
    assert torch.equal(slope, torch.zeros(2))
    both = _l2(neighbour="adversarial")(model, x, y, z=z)
    assert torch.equal(both, torch.full((2,), 2.0))


# --- statements of the paper ----------------------------------------------------------------------


def _rescaled(model: SmallCNN, factors: list[float]) -> SmallCNN:
    """The network with the layers l multiplied by s_l, the biases by s_1 ⋯ s_l."""
    twin = SmallCNN(size=8, classes=oracles.CLASSES, activation=model.activation)
    twin.load_state_dict(model.state_dict())
    layers = [m for m in twin.layers if isinstance(m, nn.Conv2d | nn.Linear)]
    product = 1.0
    with torch.no_grad():
        for layer, factor in zip(layers, factors, strict=True):
            product *= factor
            layer.weight.mul_(factor)
            layer.bias.mul_(product)
    return twin


def test_l2_depends_on_the_scale_of_the_logits_and_the_cosine_does_not() -> None:
    # Powers of two do not round: the counterexample is exact to the last bit.
    model, x, y = term_oracles.net(nn.ReLU), oracles.images(), oracles.labels()
    twin = _rescaled(model, [0.5, 4.0, 0.25, 0.25])
    assert torch.equal(twin(x), model(x) / 8)
    shown = [maps.normalize(maps.to_heatmap(attributions.gradient(m, x, y))) for m in (model, twin)]
    assert torch.equal(*shown)
    l2 = [_l2()(m, x, y, generator=oracles.seeded(0)) for m in (model, twin)]
    assert torch.equal(l2[1], l2[0] / 64)
    cosine = [_cosine()(m, x, y, generator=oracles.seeded(0)) for m in (model, twin)]
    assert torch.equal(*cosine)
    assert (cosine[0] > 0).all()


def test_softplus_is_not_homogeneous() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    twin = _rescaled(model, [0.5, 4.0, 0.25, 0.25])
    values = [_cosine()(m, x, y, generator=oracles.seeded(0)) for m in (model, twin)]
    assert not torch.allclose(*values, rtol=0.1)


def test_a_smaller_hessian_alone_can_leave_the_direction_as_it_is() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    twin = _rescaled(model, [1.0, 1.0, 1.0, 2.0**-10])  # works for any activation
    with torch.no_grad():
        twin.layers[-1].bias.copy_(model.layers[-1].bias / 2**10)
    hessian = [HessianNorm()(m, x, y, generator=oracles.seeded(0)) for m in (model, twin)]
    assert torch.equal(hessian[1], hessian[0] / 2**20)
    cosine = [_cosine()(m, x, y, generator=oracles.seeded(0)) for m in (model, twin)]
    assert torch.equal(*cosine)
    # The bound of the direction, |H δ| / |g(x + δ)|, does not change either.
    bounds = [_hessian_bound(m, x, _near(x), y) for m in (model, twin)]
    torch.testing.assert_close(*bounds)


def _bend(model: nn.Module, x: Tensor, way: Tensor, y: Tensor) -> Tensor:
    """The Hessian of the logit at x, times a direction."""
    x = x.detach().requires_grad_()
    slope = attributions.gradient(model, x, y)
    return torch.autograd.grad(slope, x, way)[0].flatten(1)


def _hessian_bound(model: nn.Module, x: Tensor, z: Tensor, y: Tensor, *, points: int = 1) -> Tensor:
    """Mean length of H(x + t δ) δ over a path (at x itself for one point), over |g(x + δ)|."""
    shares = [0.0] if points == 1 else [(k + 0.5) / points for k in range(points)]
    bends = [_bend(model, torch.lerp(x, z, t), z - x, y).norm(dim=1) for t in shares]
    return torch.stack(bends).mean(0) / attributions.gradient(model, z, y).flatten(1).norm(dim=1)


def test_l2_is_a_mismatch_of_lengths_and_one_of_directions() -> None:
    model, x, y = term_oracles.net(), oracles.images(16), oracles.labels(16)
    a, b = (g.norm(dim=1) for g in _gradients(model, x, _near(x), y))
    l2, cosine = (t(model, x, y, generator=oracles.seeded(0)) for t in (_l2(), _cosine()))
    torch.testing.assert_close(l2, (a - b).square() + 4 * a * b * cosine, rtol=1e-10, atol=0)


@pytest.mark.parametrize("activation", [nn.ReLU, None], ids=["ReLU", "softplus"])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_of_the_direction_on_real_images(activation: Any, seed: int) -> None:
    images = data.fashion_mnist("val")[:8]
    x, y = images.x.double(), images.y
    smooth = partial(nn.Softplus, beta=10.0)
    model = SmallCNN(activation=activation or smooth, generator=oracles.seeded(seed)).double()
    for eps in (0.01, 0.1, 0.5):
        ball = LinfBall(eps=eps)
        z = _near(x, ball)
        value = _cosine(ball)(model, x, y, generator=oracles.seeded(0))
        a, b = _gradients(model, x, z, y)
        apart, one, other = (v.norm(dim=1) for v in (a - b, a, b))
        first = (apart / (one + other)).square()
        assert (value <= first * (1 + 1e-9)).all()
        assert (value <= apart.square() / (4 * one * other) * (1 + 1e-9)).all()
        assert (value <= apart / torch.maximum(one, other)).all()
        assert (value >= 0.2 * first).all()  # and the first one is of the right size
        if activation is None:
            assert (value <= _hessian_bound(model, x, z, y, points=16)).all()
            if eps < 0.1:
                assert (value <= _hessian_bound(model, x, z, y)).all()


def test_to_leading_order_only_the_part_across_the_gradient_turns_it() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    g = functional.normalize(attributions.gradient(model, x, y).flatten(1))
    errors = []
    for eps in (1e-2, 1e-3, 1e-4):
        ball = LinfBall(eps=eps)
        bend = _bend(model, x, _near(x, ball) - x, y)
        across = bend - (bend * g).sum(1, keepdim=True) * g
        length = attributions.gradient(model, x, y).flatten(1).norm(dim=1)
        leading = across.square().sum(1) / (4 * length.square())
        value = _cosine(ball)(model, x, y, generator=oracles.seeded(0))
        errors.append(float((value / leading - 1).detach().abs().max()))
    assert errors[2] < 1e-3
    assert errors[2] < errors[1] / 5 < errors[0] / 25


@pytest.mark.parametrize(
    ("ball", "second"),
    [(LinfBall(eps=0.3), 0.3**2 / 3), (L2Ball(eps=0.3), 0.3**2 / (5 + 2))],
    ids=["linf", "l2"],
)
def test_l2_is_the_hessian_norm_on_average(ball: Ball, second: float) -> None:
    model = oracles.Quadratic()
    y = torch.tensor([0, 1, 2]).repeat(5000)
    x = torch.full((len(y), 5), 0.5)
    value = _l2(ball)(model, x, y, generator=oracles.seeded(0)).view(-1, 3).mean(0)
    norm = HessianNorm()(model, x, y, generator=oracles.seeded(1)).view(-1, 3).mean(0)
    torch.testing.assert_close(value, second * norm, rtol=0.06, atol=0)


def test_a_linear_function_added_to_all_logits_hides_the_turn() -> None:
    class Tilted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return net(x) + 100 * x.flatten(1).sum(1, keepdim=True)

    net, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    for term, kept in ((CrossEntropy(), True), (_l2(), True), (_cosine(), False)):
        plain, tilted = (term(m, x, y, generator=oracles.seeded(0)) for m in (net, Tilted()))
        if kept:
            torch.testing.assert_close(tilted, plain)
        else:
            assert (tilted < 0.01 * plain).all()


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l2": -0.1}, "Expected l2 >= 0, got -0.1"),
        ({"cosine": -1.0}, "Expected cosine >= 0, got -1.0"),
        ({"cosine": float("nan")}, "Expected cosine >= 0, got nan"),
        ({"l2": 0.0, "cosine": 0.0}, "Expected l2 > 0 or cosine > 0, got l2=0 and cosine=0"),
        ({"ball": LinfBall(eps=0.0)}, "Expected eps > 0, got 0.0"),
        ({"neighbour": "sign"}, "Expected neighbour to be one of uniform, adversarial, got 'sign'"),
    ],
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_settings_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _term(**changes)


@pytest.mark.parametrize("ball", [BALL, L2Ball(eps=0.5)], ids=["linf", "l2"])
def test_a_neighbour_outside_the_ball_is_refused(ball: Ball) -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    term = _term(ball=ball, neighbour="adversarial")
    term(model, x, y, z=ball.project(1 - x, x))
    term(model, x, y, z=x)
    for bad in (0.4 + 0.2 * x, torch.full_like(x, torch.nan)):
        z = x.clone()
        z[1:3] = bad[1:3]
        with pytest.raises(ValueError, match=r"Expected z in \[0, 1\] and within .*, got 2 of 4"):
            term(model, x, y, z=z)


def test_rounding_of_a_neighbour_is_no_reason_to_refuse_it() -> None:
    x = oracles.images(64).float()
    z = (x + 0.1 * torch.sign(x - 0.5)).clamp(0, 1)  # beyond the ball in about half of the entries
    assert ((z - x).abs() > 0.1).any()
    _term(neighbour="adversarial")(term_oracles.net().float(), x, oracles.labels(64), z=z)


def test_images_that_are_no_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\]"):
        _term()(term_oracles.net(), 3 * oracles.images() - 1, oracles.labels())


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_label_too_few_is_named() -> None:
    with pytest.raises(ValueError, match=r"Expected y of shape \(4,\), got \(3,\)"):
        _term()(term_oracles.net(), oracles.images(), oracles.labels(3))


def test_a_uniform_and_an_adversarial_loss() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    attack = PGD(ball=BALL, steps=2, step_size=0.05)
    terms = {"cross_entropy": CrossEntropy(), "alignment": _term(neighbour="adversarial")}
    loss = Loss(terms=terms, weights={"cross_entropy": 1.0, "alignment": 0.5}, attack=attack)
    total, values = loss(model, x, y, generator=oracles.seeded(1))
    z = attack(model, x, y, generator=oracles.seeded(1))
    torch.testing.assert_close(values["alignment"], _by_hand(*_gradients(model, x, z, y)))
    torch.testing.assert_close(total, values["cross_entropy"] + 0.5 * values["alignment"])
