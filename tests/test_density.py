"""Smoothing of the marginal density: closed forms, three estimators, kinks, and what a shift hides."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attrlib import energy
from attrlib.data import Images
from attrlib.models import SmallCNN
from attrlib.regularizers import (
    CrossEntropy,
    DoubleBackward,
    FiniteDifference,
    GaugeRatio,
    InputGradientNorm,
    MarginalDensitySmoothing,
    RandomProjection,
)
from attrlib.training import Loss, TrainConfig, train
from tests import oracles, term_oracles

EXACT = MarginalDensitySmoothing()
DENSITIES = [energy.marginal, energy.joint, energy.conditional, energy.centered]
ESTIMATORS = [
    DoubleBackward(),
    FiniteDifference(h=0.05),
    RandomProjection(sigma=0.05, draws=2),
]
every_density = pytest.mark.parametrize("density", DENSITIES, ids=lambda d: d.__name__)
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)


def _case() -> tuple[nn.Module, Tensor, Tensor]:
    return term_oracles.net(), oracles.images(), oracles.labels()


def _grads(value: Tensor, model: nn.Module) -> Tensor:
    weights = list(model.parameters())
    found = torch.autograd.grad(value.sum(), weights, materialize_grads=True)
    return torch.cat([g.flatten() for g in found])


# --- values ---------------------------------------------------------------------------------------


def test_a_linear_model_in_closed_form() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    slope = model(x).softmax(1) @ model[1].weight
    torch.testing.assert_close(EXACT(model, x, y), slope.square().sum(1) / 2)


def test_two_classes_in_closed_form() -> None:
    """One acts near the boundary, the other far from it."""
    weight = torch.tensor([2.0, -1.0, 0.5])
    model, x = term_oracles.Sigmoid(weight), 4 * oracles.images(5)[:, 0, 0, :3]
    margin, square = (x @ weight + 0.3), weight.square().sum()
    fixed = replace(EXACT, density=energy.centered)(model, x, torch.zeros(5).long())
    torch.testing.assert_close(fixed, (margin / 2).tanh().square() / 4 * square / 2)
    fades = replace(EXACT, density=energy.conditional)(model, x, torch.zeros(5).long())
    torch.testing.assert_close(fades, torch.sigmoid(-margin).square() * square / 2)


def test_the_conditional_is_half_the_input_gradient_norm() -> None:
    model, x, y = _case()
    value = replace(EXACT, density=energy.conditional)(model, x, y)
    torch.testing.assert_close(value, InputGradientNorm()(model, x, y) / 2)


def test_on_average_the_joint_penalty_is_the_marginal_one_and_the_fisher_trace() -> None:
    model, x, _ = _case()
    p = model(x).softmax(1)
    joint = replace(EXACT, density=energy.joint)
    every = [torch.full((4,), k) for k in range(oracles.CLASSES)]
    mean = sum(p[:, k] * joint(model, x, y) for k, y in enumerate(every))
    trace = energy.fisher_trace(model, x, draws=2000, generator=oracles.seeded(0))
    torch.testing.assert_close(2 * mean, 2 * EXACT(model, x, every[0]) + trace, rtol=0.05, atol=0)


# --- derivatives in the weights -------------------------------------------------------------------


@every_density
@every_estimator
def test_the_weights_get_the_derivative(
    density: energy.Density,
    estimator: DoubleBackward | FiniteDifference | RandomProjection,
) -> None:
    model, x, y = _case()
    term = MarginalDensitySmoothing(density=density, estimator=estimator)
    analytic, numeric = term_oracles.slopes(
        lambda: term(model, x, y, generator=oracles.seeded(3)), model
    )
    assert analytic.abs() > 1e-3
    # The direction of the difference is a constant: what that leaves out is of order h².
    exact = not isinstance(estimator, FiniteDifference)
    torch.testing.assert_close(analytic, numeric, rtol=1e-5 if exact else 0.01, atol=1e-7)


def test_probabilities_are_in_the_graph() -> None:
    """Held constant, they leave the value and spoil the derivative."""
    model, x, y = _case()
    whole = _grads(EXACT(model, x, y), model)
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    mixed = (logits.softmax(1).detach() * logits).sum()
    (slope,) = torch.autograd.grad(mixed, leaf, create_graph=True)
    spoiled_value = slope.flatten(1).square().sum(1) / 2
    torch.testing.assert_close(spoiled_value, EXACT(model, x, y))
    spoiled = _grads(spoiled_value, model)
    assert (whole - spoiled).norm() > 0.1 * whole.norm()
    last = model.layers[-1].bias.numel()  # the last bias acts through the probabilities alone
    assert whole[-last:].abs().amin() > 1e-3
    assert not spoiled[-last:].any()


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e3])
@every_density
@every_estimator
def test_finite_in_single_precision(
    density: energy.Density,
    estimator: DoubleBackward | FiniteDifference | RandomProjection,
    scale: float,
) -> None:
    model, x, y = _case()
    model, x = model.float(), x.float()
    with torch.no_grad():  # tied logits, saturated ones, and logits without a slope
        model.layers[-1].weight.mul_(scale)
        model.layers[-1].weight[1] = model.layers[-1].weight[0]
    term = MarginalDensitySmoothing(density=density, estimator=estimator)
    value = term(model, x, y, generator=oracles.seeded(0))
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    assert torch.isfinite(_grads(value, model)).all()


# --- orders of convergence ------------------------------------------------------------------------


@every_density
def test_the_difference_converges_as_the_square_of_its_step(density: energy.Density) -> None:
    model, x, y = _case()
    exact = MarginalDensitySmoothing(density=density)
    value, grad = exact(model, x, y).detach(), _grads(exact(model, x, y), model)
    errors, slips = [], []
    for h in (0.1, 0.01, 0.001):
        found = replace(exact, estimator=FiniteDifference(h=h))(model, x, y)
        errors.append(((found.detach() - value).norm() / value.norm()).item())
        slips.append(((_grads(found, model) - grad).norm() / grad.norm()).item())
    assert errors[2] < 1e-6
    assert slips[2] < 1e-5
    for series in (errors, slips):
        assert all(70 < a / b < 130 for a, b in itertools.pairwise(series))


def test_the_projection_is_exact_for_a_quadratic_density() -> None:
    model, x = oracles.Quadratic(), torch.rand(4, 5, generator=oracles.seeded(1))
    y = oracles.labels()
    term = MarginalDensitySmoothing(
        density=energy.joint, estimator=RandomProjection(sigma=0.5, draws=1)
    )
    ways = torch.randn(4, 5, generator=oracles.seeded(7))
    along = (model.gradient(x, y) * ways).sum(1)
    torch.testing.assert_close(term(model, x, y, generator=oracles.seeded(7)), along.square() / 2)


def test_the_projection_converges_as_the_square_of_its_step_and_is_right_on_average() -> None:
    model, x, y = _case()
    ways = torch.randn(x.shape, generator=oracles.seeded(7))
    along = (energy.gradient(model, x) * ways).flatten(1).sum(1).square() / 2
    errors = []
    for sigma in (0.01, 0.001):
        term = replace(EXACT, estimator=RandomProjection(sigma=sigma))
        found = term(model, x, y, generator=oracles.seeded(7)).detach()
        errors.append((found - along).norm().item())
    assert 70 < errors[0] / errors[1] < 130
    many = replace(EXACT, estimator=RandomProjection(sigma=0.001, draws=4000))
    mean, exact = many(model, x, y, generator=oracles.seeded(0)), EXACT(model, x, y)
    # The standard deviation of one draw is √2 times the mean.
    assert ((mean / exact - 1).abs() < 4 * (2 / 4000) ** 0.5).all()


# --- kinks ----------------------------------------------------------------------------------------


class Kink(nn.Module):
    """One density, relu(x - b) + tilt · x, as the marginal of two logits of which one is out of reach."""

    def __init__(self, tilt: float) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(0.4))
        self.tilt = tilt

    def forward(self, x: Tensor) -> Tensor:
        s = torch.relu(x - self.b) + self.tilt * x
        return torch.cat([s, torch.full_like(s, -1e3)], 1)


@pytest.mark.parametrize("h", [0.1, 0.02])
@pytest.mark.parametrize(("tilt", "derivative"), [(1e-9, -1.0), (0.1, -1.2), (0.0, -0.75)])
def test_a_kink_moves_the_difference_and_not_the_double_backward(
    h: float, tilt: float, derivative: float
) -> None:
    """The mean square slope over x in (0, 1) is (1 - b) (1 + t)² + b t²: its derivative is -1 - 2 t.

    Double backward says 0. Where the slope is exactly 0 on one side, that side has no direction, and the
    difference sees the other side only: three quarters.
    """
    x = (torch.arange(4000) + 0.5)[:, None] / 4000
    model, y = Kink(tilt), torch.zeros(4000, dtype=torch.int64)
    for estimator, expected in (
        (DoubleBackward(), 0.0),
        (FiniteDifference(h=h), derivative),
    ):
        value = 2 * replace(EXACT, estimator=estimator)(model, x, y).mean()
        (grad,) = torch.autograd.grad(value, model.b)
        assert grad.item() == pytest.approx(expected, abs=5e-3)


# --- the gauge ------------------------------------------------------------------------------------


@every_estimator
def test_log_probabilities_are_refused_where_the_penalty_would_be_nothing(
    estimator: DoubleBackward | FiniteDifference | RandomProjection,
) -> None:
    model, x, y = _case()
    for kind in (torch.float32, torch.float64):
        silent = nn.Sequential(model, nn.LogSoftmax(1)).to(kind)
        with torch.no_grad():
            model.layers[-1].weight.mul_(10)
        at = x.to(kind)
        with pytest.raises(
            ValueError, match=r"Expected .* logits before the softmax, got log-prob"
        ):
            replace(EXACT, estimator=estimator)(silent, at, y)
        term = MarginalDensitySmoothing(density=energy.centered, estimator=estimator)
        values = [term(m, at, y, generator=oracles.seeded(0)) for m in (silent, model)]
        torch.testing.assert_close(*values, rtol=1e-3, atol=1e-5)


def test_a_shift_changes_the_penalty_at_will_and_the_fixed_gauge_not() -> None:
    model, x, y = _case()
    absorbed = energy.Shifted(model, lambda v: -0.9 * energy.marginal(model, v))
    assert torch.equal(absorbed(x).argmax(1), model(x).argmax(1))
    torch.testing.assert_close(EXACT(absorbed, x, y), EXACT(model, x, y) / 100)
    fixed = replace(EXACT, density=energy.centered)
    torch.testing.assert_close(fixed(absorbed, x, y), fixed(model, x, y))
    ratio = GaugeRatio()
    torch.testing.assert_close(ratio(absorbed, x, y), ratio(model, x, y) / 10)
    assert torch.equal(ratio(model, x, y), energy.gauge_ratio(model, x.requires_grad_(), y))


def _pictures() -> Images:
    x, y = oracles.images(32).float(), oracles.labels(32)
    x[range(32), 0, 2 * y] = 1
    return Images(x, y, ("a", "b", "c"))


class Free(nn.Module):
    """A network with a shift of its own."""

    def __init__(self) -> None:
        super().__init__()
        smooth = partial(nn.Softplus, beta=5.0)
        parts = {"size": 8, "activation": smooth}
        self.net = SmallCNN(classes=3, generator=oracles.seeded(0), **parts).float()
        self.shift = SmallCNN(classes=2, generator=oracles.seeded(1), **parts).float()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.shift(x)[:, :1]


def test_training_logs_the_ratio_and_shows_the_shift_at_work() -> None:
    torch.set_default_dtype(torch.float32)  # conftest's fixture puts it back
    ratios = {}
    for density in (energy.marginal, energy.centered):
        penalty = MarginalDensitySmoothing(density=density)
        loss = Loss(
            terms={"ce": CrossEntropy(), "penalty": penalty, "gauge": GaugeRatio()},
            weights={"ce": 1.0, "penalty": 1.0, "gauge": 0.0},
        )
        config = TrainConfig(epochs=30, batch_size=16, lr=1e-2)
        history = train(Free(), _pictures(), loss, config=config, generator=oracles.seeded(2))
        ratios[density.__name__] = [row["gauge"] for row in history.epochs]
    assert ratios["marginal"][-1] < 0.1 < 0.5 < ratios["centered"][-1]


class Undefined:
    """A term that is not a number."""

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, /, **_: object) -> Tensor:
        return x.new_full((len(x),), torch.nan)


def test_a_term_of_weight_zero_is_watched_and_changes_nothing() -> None:
    torch.set_default_dtype(torch.float32)
    plain = Loss(terms={"ce": CrossEntropy()}, weights={"ce": 1.0})
    watched = Loss(
        terms={"ce": CrossEntropy(), "gauge": GaugeRatio()}, weights={"ce": 1.0, "gauge": 0.0}
    )
    nets = []
    for loss in (plain, watched):
        net = SmallCNN(size=8, classes=3, generator=oracles.seeded(0))
        config = TrainConfig(epochs=2, batch_size=16)
        train(net, _pictures(), loss, config=config, generator=oracles.seeded(2))
        nets.append(net)
    assert all(torch.equal(p, q) for p, q in zip(*(n.parameters() for n in nets), strict=True))
    broken = Loss(terms={"ce": CrossEntropy(), "nan": Undefined()}, weights={"ce": 1.0, "nan": 0.0})
    total, values = broken(nets[0], _pictures().x, _pictures().y)
    assert torch.isfinite(total).all()
    assert values["nan"].isnan().all()
    with pytest.raises(
        ValueError, match="Expected a weight > 0 for at least one term, got 0 for all"
    ):
        Loss(terms={"ce": CrossEntropy()}, weights={"ce": 0.0})


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "short", "enough"),
    [
        (torch.float64, 1e-6, 1e-5),
        (torch.float32, 1e-3, 5e-3),
        (torch.bfloat16, 0.1, 0.25),
    ],
)
def test_a_step_that_rounding_would_drown_is_refused(
    kind: torch.dtype, short: float, enough: float
) -> None:
    model, x, y = _case()
    model, x = model.to(kind), x.to(kind)
    with pytest.raises(ValueError, match=rf"Expected h >= .* for logits of {kind}, .* got {short}"):
        replace(EXACT, estimator=FiniteDifference(h=short))(model, x, y)
    with pytest.raises(ValueError, match=rf"Expected sigma >= .* for logits of {kind}"):
        replace(EXACT, estimator=RandomProjection(sigma=short))(model, x, y)
    value = replace(EXACT, estimator=FiniteDifference(h=enough))(model, x, y)
    assert value.dtype == kind
    if kind != torch.bfloat16:
        torch.testing.assert_close(value, EXACT(model, x, y), rtol=0.01, atol=0)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    model, x, y = _case()
    for h in (0.0, -0.1, float("nan")):
        with pytest.raises(ValueError, match="Expected h > 0, got"):
            FiniteDifference(h=h)
        with pytest.raises(ValueError, match="Expected sigma > 0, got"):
            RandomProjection(sigma=h)
    with pytest.raises(ValueError, match="Expected draws to be an integer >= 1, got 0"):
        RandomProjection(draws=0)
    with pytest.raises(ValueError, match=r"Expected y of shape \(4,\), got \(3,\)"):
        EXACT(model, x, y[:3])
    with pytest.raises(ValueError, match="Expected x to be finite, got NaN"):
        EXACT(model, x / 0, y)
    with pytest.raises(ValueError, match="at least 2 classes, got 1"):
        EXACT(lambda v: v.flatten(1).sum(1, keepdim=True), x, 0 * y)


def test_layers_that_draw_noise_are_refused_where_points_are_compared() -> None:
    model, x, y = _case()
    noisy = nn.Sequential(nn.Dropout(0.5), model)
    assert torch.isfinite(EXACT(noisy, x, y)).all()
    for estimator in ESTIMATORS[1:]:
        term = replace(EXACT, estimator=estimator)
        with pytest.raises(ValueError, match="Expected model that gives equal logits each time"):
            term(noisy, x, y)
        assert torch.isfinite(term(noisy.eval(), x, y)).all()
        noisy.train()
