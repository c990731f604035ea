"""Attributions: closed forms first, then other libraries, then derivatives."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest
import torch
from captum import attr as captum
from torch import Tensor

from attrlib import attributions
from attrlib.types import Attribution
from tests import oracles

DETERMINISTIC: dict[str, Attribution] = {
    "gradient": attributions.gradient,
    "input_x_gradient": attributions.input_x_gradient,
    "integrated_gradients": partial(attributions.integrated_gradients, steps=8),
}
ALL: dict[str, Attribution] = {
    **DETERMINISTIC,
    "smooth_grad": partial(attributions.smooth_grad, sigma=0.3, samples=4),
    "uni_grad l2": partial(attributions.uni_grad, radius=1.0, samples=4),
    "uni_grad linf": partial(attributions.uni_grad, radius=0.2, samples=4, norm="linf"),
}
each = pytest.mark.parametrize("attribution", ALL.values(), ids=ALL.keys())


def _tolerance(dtype: torch.dtype) -> dict[str, float]:
    return (
        {"rtol": 1e-10, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    )


def _vectors(n: int = 6, dim: int = 5, seed: int = 7) -> tuple[Tensor, Tensor]:
    return torch.rand(n, dim, generator=oracles.seeded(seed)), oracles.labels(n)


# --- closed forms: the linear model ---------------------------------------------------------------


@each
def test_linear_model_gives_the_weights(attribution: Attribution, dtype: torch.dtype) -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    weights = model[1].weight.detach()[y].view_as(x)
    a = attribution(model, x, y, generator=oracles.seeded(0))
    name = getattr(attribution, "func", attribution).__name__
    expected = weights * x if name in ("input_x_gradient", "integrated_gradients") else weights
    torch.testing.assert_close(a, expected, **_tolerance(dtype))


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_linear_integrated_gradients_are_exact_for_any_steps(
    steps: int, dtype: torch.dtype
) -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    weights = model[1].weight.detach()[y].view_as(x)
    for baseline in (oracles.images(seed=9), oracles.images(1, seed=9)):
        a = attributions.integrated_gradients(model, x, y, baseline=baseline, steps=steps)
        torch.testing.assert_close(a, weights * (x - baseline), **_tolerance(dtype))


def test_target_logit_is_the_logit_of_the_label() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    expected = torch.stack([model(x)[i, y[i]] for i in range(len(x))])
    assert torch.equal(attributions.target_logit(model, x, y), expected)


# --- closed forms: quadratic, quartic, softplus ---------------------------------------------------


def test_quadratic_gradient(dtype: torch.dtype) -> None:
    model, (x, y) = oracles.Quadratic(), _vectors()
    expected = model.gradient(x, y).detach()
    torch.testing.assert_close(attributions.gradient(model, x, y), expected, **_tolerance(dtype))
    a = attributions.input_x_gradient(model, x, y)
    torch.testing.assert_close(a, x * expected, **_tolerance(dtype))


@pytest.mark.parametrize("steps", [1, 5])
def test_quadratic_integrated_gradients_are_exact(steps: int, dtype: torch.dtype) -> None:
    # The gradient is linear along the path, so its mean is its value in the middle.
    model, (x, y) = oracles.Quadratic(), _vectors()
    baseline = torch.rand(1, 5, generator=oracles.seeded(8))
    expected = (x - baseline) * model.gradient((x + baseline) / 2, y).detach()
    a = attributions.integrated_gradients(model, x, y, baseline=baseline, steps=steps)
    torch.testing.assert_close(a, expected, **_tolerance(dtype))


def test_completeness_error_falls_as_one_over_steps_squared() -> None:
    model, x, y = (
        oracles.softplus_net(beta=10).double(),
        oracles.images().double(),
        oracles.labels(),
    )
    with torch.no_grad():
        gap = model(x) - model(torch.zeros_like(x))
    whole = gap.gather(1, y[:, None])[:, 0]

    def error(steps: int) -> Tensor:
        a = attributions.integrated_gradients(model, x, y, steps=steps)
        return (a.flatten(1).sum(1) - whole).abs().max()

    errors = [float(error(steps)) for steps in (16, 32, 64)]
    assert errors[-1] < 1e-4 * float(whole.abs().max())
    for coarse, fine in pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.1)


def test_quadratic_smoothing_keeps_the_mean() -> None:
    # The smoothed gradient of a quadratic is its gradient; each sample adds H noise.
    model, (x, y) = oracles.Quadratic().double(), _vectors()
    x, samples, sigma = x.double(), 500, 0.5
    a = attributions.smooth_grad(
        model, x, y, sigma=sigma, samples=samples, generator=oracles.seeded(0)
    )
    standard_error = sigma * model.h[y].norm(dim=2) / math.sqrt(samples)
    assert ((a - model.gradient(x, y)).abs() < 5 * standard_error).all()


NOISE = {
    # method -> variance of one coordinate of the noise, in a space of `dim` axes
    "smooth_grad": (
        lambda size, **o: partial(attributions.smooth_grad, sigma=size, **o),
        lambda size, dim: size**2,
    ),
    "uni_grad l2": (
        lambda size, **o: partial(attributions.uni_grad, radius=size, **o),
        lambda size, dim: size**2 / (dim + 2),
    ),
    "uni_grad linf": (
        lambda size, **o: partial(attributions.uni_grad, radius=size, norm="linf", **o),
        lambda size, dim: size**2 / 3,
    ),
}


@pytest.mark.parametrize("method", NOISE)
def test_quartic_smoothed_gradient(method: str) -> None:
    """The mean of 4 (x + u)³ is 4 x³ + 12 x E[u²]."""
    make, variance = NOISE[method]
    dim, samples, size = 4, 20_000, 0.8
    x = torch.linspace(-1, 1, dim, dtype=torch.float64)[None]
    y = torch.tensor([0])
    smoothed = make(size, samples=1)
    # Every row is one draw at the same point, so the spread of rows gives the standard error.
    draws = smoothed(
        oracles.Quartic(),
        x.expand(samples, dim).contiguous(),
        y.expand(samples),
        generator=oracles.seeded(0),
    )
    expected = 4 * x[0] ** 3 + 12 * x[0] * variance(size, dim)
    standard_error = draws.std(0) / math.sqrt(samples)
    assert ((draws.mean(0) - expected).abs() < 5 * standard_error).all()
    # The test can tell the methods apart: without smoothing it would fail.
    assert ((draws.mean(0) - 4 * x[0] ** 3).abs() > 5 * standard_error).any()
    averaged = make(size, samples=500)(oracles.Quartic(), x, y, generator=oracles.seeded(1))
    assert ((averaged[0] - expected).abs() < 5 * draws.std(0) / math.sqrt(500)).all()


@pytest.mark.parametrize(
    "unsmoothed",
    [
        partial(attributions.smooth_grad, sigma=0.0),
        partial(attributions.uni_grad, radius=0.0),
        partial(attributions.uni_grad, radius=0.0, norm="linf"),
    ],
)
def test_no_noise_gives_the_gradient(unsmoothed: Attribution, dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    expected = attributions.gradient(model, x, y)
    a = unsmoothed(model, x, y, samples=3, generator=oracles.seeded(0))
    torch.testing.assert_close(a, expected, **_tolerance(dtype))
    assert torch.equal(unsmoothed(model, x, y, samples=1, generator=oracles.seeded(0)), expected)


def test_to_heatmap_is_the_one_of_maps() -> None:
    from attrlib import maps

    assert attributions.to_heatmap is maps.to_heatmap


# --- other libraries ------------------------------------------------------------------------------

# Sums in another order: a few units in the last place of float64 is all that may differ.
SAME = {"rtol": 1e-9, "atol": 1e-12}


@pytest.fixture
def net() -> tuple[torch.nn.Module, Tensor, Tensor]:
    return oracles.softplus_net().double(), oracles.images().double(), oracles.labels()


def test_gradient_equals_captum(net: tuple[torch.nn.Module, Tensor, Tensor]) -> None:
    model, x, y = net
    theirs = captum.Saliency(model).attribute(x.clone().requires_grad_(), target=y, abs=False)
    torch.testing.assert_close(attributions.gradient(model, x, y), theirs, **SAME)


def test_input_x_gradient_equals_captum(net: tuple[torch.nn.Module, Tensor, Tensor]) -> None:
    model, x, y = net
    theirs = captum.InputXGradient(model).attribute(x.clone().requires_grad_(), target=y)
    torch.testing.assert_close(attributions.input_x_gradient(model, x, y), theirs.detach(), **SAME)


@pytest.mark.parametrize("steps", [2, 8])
@pytest.mark.parametrize("shade", [0.0, 0.3])
def test_integrated_gradients_equal_captum(
    net: tuple[torch.nn.Module, Tensor, Tensor], steps: int, shade: float
) -> None:
    model, x, y = net
    theirs = captum.IntegratedGradients(model).attribute(
        x, torch.full_like(x, shade), target=y, n_steps=steps, method="riemann_middle"
    )
    ours = attributions.integrated_gradients(
        model, x, y, baseline=torch.full_like(x, shade), steps=steps
    )
    torch.testing.assert_close(ours, theirs, **SAME)


def _slope(attribution: Callable[[Tensor], Tensor], x: Tensor, v: Tensor) -> tuple[float, float]:
    """Derivative of a weighted sum of the map along v: by autograd, and by central differences."""
    w = torch.rand(x.shape, generator=oracles.seeded(5), dtype=x.dtype)
    leaf = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad((w * attribution(leaf)).sum(), leaf)
    h = 1e-5
    ahead, behind = (attribution(x + s * h * v).detach() for s in (1, -1))
    return float((grad * v).sum()), float((w * (ahead - behind)).sum()) / (2 * h)


def test_captums_integrated_gradients_have_a_wrong_derivative_and_ours_do_not() -> None:
    model, x, y = (
        oracles.softplus_net(beta=20).double(),
        oracles.images().double(),
        oracles.labels(),
    )
    v = torch.randn(x.shape, generator=oracles.seeded(6), dtype=x.dtype)

    def theirs(z: Tensor) -> Tensor:
        method = captum.IntegratedGradients(model)
        return method.attribute(z, target=y, n_steps=8, method="riemann_middle")

    def ours(z: Tensor) -> Tensor:
        return attributions.integrated_gradients(model, z, y, steps=8)

    derivative, truth = _slope(theirs, x, v)
    assert abs(derivative - truth) > 0.05 * abs(truth)  # and no warning
    derivative, truth = _slope(ours, x, v)
    assert derivative == pytest.approx(truth, rel=1e-6)


# --- derivatives ----------------------------------------------------------------------------------


@each
def test_gradcheck_on_colour_images(attribution: Attribution) -> None:
    model = oracles.softplus_net(channels=2).double()
    x, y = oracles.images(2, channels=2).double().requires_grad_(), oracles.labels(2)
    # gradcheck calls several times and needs the same noise each time
    assert torch.autograd.gradcheck(
        lambda z: attribution(model, z, y, generator=oracles.seeded(0)), (x,), fast_mode=True
    )


@each
def test_the_weights_receive_second_order_gradients(attribution: Attribution) -> None:
    model, x, y = oracles.softplus_net().double(), oracles.images(2).double(), oracles.labels(2)
    weight = model.layers[5].weight
    target = torch.rand(x.shape, generator=oracles.seeded(4), dtype=x.dtype)

    def distance() -> Tensor:
        leaf = x.clone().requires_grad_()
        a = attribution(model, leaf, y, generator=oracles.seeded(0))
        return ((a - target) ** 2).sum()

    (grad,) = torch.autograd.grad(distance(), weight)
    direction = torch.randn(weight.shape, generator=oracles.seeded(6), dtype=x.dtype)
    values, h = [], 1e-5
    for step in (h, -2 * h):
        with torch.no_grad():
            weight += step * direction
        values.append(float(distance().detach()))
    slope = (values[0] - values[1]) / (2 * h)
    assert abs(slope) > 1e-4
    assert float((grad * direction).sum()) == pytest.approx(slope, rel=1e-5)


@each
def test_a_relu_net_has_no_second_derivative_in_x(attribution: Attribution) -> None:
    """Why attacks need a surrogate: the gradient of a piecewise linear net is constant in pieces."""
    from attrlib.models import SmallCNN

    model = SmallCNN(size=8, classes=3, generator=oracles.seeded(0))
    x, y = oracles.images(2).requires_grad_(), oracles.labels(2)
    a = attribution(model, x, y, generator=oracles.seeded(0))
    (grad,) = torch.autograd.grad(a.pow(2).sum(), x, allow_unused=True)
    name = getattr(attribution, "func", attribution).__name__
    if name in ("input_x_gradient", "integrated_gradients"):
        assert grad.abs().max() > 0  # through the factor x alone
    else:
        assert grad is None or grad.abs().max() == 0


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(attributions.integrated_gradients, steps=0), "Expected steps .* >= 1, got 0"),
        (partial(attributions.integrated_gradients, steps=1.5), "Expected steps .* got 1.5"),
        (partial(attributions.integrated_gradients, steps=True), "Expected steps .* got True"),
        (partial(attributions.smooth_grad, sigma=-0.1), "Expected sigma >= 0, got -0.1"),
        (partial(attributions.smooth_grad, sigma=math.nan), "Expected sigma >= 0, got nan"),
        (partial(attributions.smooth_grad, sigma="a"), "Expected sigma >= 0, got 'a'"),
        (partial(attributions.smooth_grad, sigma=0.1, samples=0), "Expected samples .* got 0"),
        (partial(attributions.uni_grad, radius=-1), "Expected radius >= 0, got -1"),
        (partial(attributions.uni_grad, radius=math.inf), "Expected radius >= 0, got inf"),
        (partial(attributions.uni_grad, radius=1, samples=-3), "Expected samples .* got -3"),
        (
            partial(attributions.uni_grad, radius=1, norm="l1"),
            "Expected norm .* l2, linf, got 'l1'",
        ),
    ],
)
def test_bad_options_are_named(call: Attribution, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(oracles.softplus_net(), oracles.images(), oracles.labels())


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("baseline", "error", "message"),
    [
        (
            torch.zeros(3, 1, 8, 8),
            ValueError,
            r"of shape \(4, 1, 8, 8\) or one row .* \(3, 1, 8, 8",
        ),
        (torch.zeros(4, 1, 8, 7), ValueError, r"of shape \(4, 1, 8, 8\) or one row"),
        (torch.zeros(1, 8, 8), ValueError, r"of shape \(4, 1, 8, 8\) or one row"),
        (
            torch.zeros(4, 1, 8, 8, dtype=torch.int64),
            TypeError,
            "Expected baseline .* got torch.int64",
        ),
        (0.5, TypeError, "Expected baseline to be a torch.Tensor, got float"),
        (torch.full((1, 1, 8, 8), torch.nan), ValueError, "Expected baseline .* 1 of 1 samples"),
    ],
)
def test_bad_baselines_are_named(baseline: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attributions.integrated_gradients(
            oracles.softplus_net(), oracles.images(), oracles.labels(), baseline=baseline
        )


def test_another_precision_than_that_of_the_weights_is_named() -> None:
    model, x = oracles.softplus_net().double(), oracles.images().float()
    message = "dtype of the model's weights, torch.float64, got torch.float32"
    with pytest.raises(ValueError, match=message):
        attributions.gradient(model, x, oracles.labels())
