"""Bounds of maps over a box: by hand, against enumeration, sampling and attacks, with rounding."""

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import attacks, attributions, certificates, checkpoints, data, metrics
from tests import oracles
from tests.interval_oracles import (
    NETS,
    exact_gradients,
    inside,
    mlp,
    points,
    region_gradients,
    small,
)

every_net = pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
BOUNDS: dict[str, tuple[Callable[..., Any], Callable[..., Tensor]]] = {
    "gradient": (certificates.gradient_bounds, attributions.gradient),
    "input x gradient": (certificates.input_x_gradient_bounds, attributions.input_x_gradient),
    "integrated gradients": (
        partial(certificates.integrated_gradients_bounds, steps=3),
        partial(attributions.integrated_gradients, steps=3),
    ),
}
every_map = pytest.mark.parametrize(("bounds", "attribution"), BOUNDS.values(), ids=BOUNDS.keys())


def _unit(w: float, b: float, v: float) -> nn.Sequential:
    """f(x) = v · relu(w x + b), of one pixel and one class."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), (w, b, v, 0.0), strict=True):
            parameter.fill_(value)
    return model


# --- by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("w", "b", "v", "expected"),
    [
        (2.0, -0.5, 3.0, (6.0, 6.0)),  # u in [.1, .9]: on everywhere
        (2.0, -1.5, 3.0, (0.0, 0.0)),  # u in [-.9, -.1]: off everywhere
        (2.0, -1.0, 3.0, (0.0, 6.0)),  # u in [-.4, .4]
        (2.0, -1.0, -3.0, (-6.0, 0.0)),
        (-2.0, 1.0, 3.0, (-6.0, 0.0)),
        (0.0, 0.0, 3.0, (0.0, 0.0)),  # u = 0, where the slope of ReLU is 0
    ],
)
def test_one_hidden_unit(w: float, b: float, v: float, expected: tuple[float, float]) -> None:
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    bounds = certificates.gradient_bounds(_unit(w, b, v), x, y, eps=0.2)
    assert [bound.item() for bound in bounds] == pytest.approx(expected, abs=1e-12)


def test_two_units_are_bounded_as_if_they_were_independent() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0], [1.0]]))
        model[1].bias.fill_(-0.5)
        model[3].weight.copy_(torch.tensor([[1.0, -1.0]]))
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    bounds = certificates.gradient_bounds(model, x, y, eps=0.1)
    assert [bound.item() for bound in bounds] == pytest.approx((-1, 1))  # the gradient is 0


@pytest.mark.parametrize("beta", [1.0, 20.0])
def test_one_smooth_unit(beta: float) -> None:
    model = _unit(2.0, -1.0, -3.0)
    model[2] = nn.Softplus(beta=beta)
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.2)
    slopes = [1 / (1 + torch.tensor(-beta * u).exp().item()) for u in (0.4, -0.4)]
    assert [lower.item(), upper.item()] == pytest.approx([-6 * slope for slope in slopes])


@pytest.mark.parametrize("threshold", [0.5, 2.0, 20.0])
def test_softplus_with_the_threshold_of_pytorch(threshold: float) -> None:
    """Above it the slope is 1, and the value jumps down."""
    model = _unit(8.0, -4.0, 1.0)
    model[2] = nn.Sequential(nn.Softplus(beta=3, threshold=threshold), nn.Linear(1, 1))
    y = torch.tensor([0])
    for place in torch.linspace(0.05, 0.95, 19):
        x = torch.full((1, 1, 1, 1), float(place))
        lower, upper = certificates.gradient_bounds(model, x, y, eps=0.04)
        down, up = certificates.logit_bounds(model, x, eps=0.04)
        z = (x + torch.linspace(-0.04, 0.04, 801).view(-1, 1, 1, 1)).clamp(0, 1)
        assert inside(lower, attributions.gradient(model, z, y.expand(801)), upper)
        assert inside(down, model(z).detach(), up)


def test_a_linear_model_has_a_box_of_one_point() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.3)
    torch.testing.assert_close(lower, upper, rtol=0, atol=1e-12)
    torch.testing.assert_close(lower.flatten(1), model[1].weight.detach()[y])


def test_logits_of_a_linear_model_in_closed_form() -> None:
    model, x = oracles.linear_net(), oracles.images()  # none is within 0.05 of black or white
    lower, upper = certificates.logit_bounds(model, x, eps=0.05)
    reach = 0.05 * model[1].weight.detach().abs().sum(1)
    torch.testing.assert_close(lower, model(x).detach() - reach)
    torch.testing.assert_close(upper, model(x).detach() + reach)


def test_a_box_ends_at_black_and_white() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1))
    x = torch.tensor([[[[0.1, 0.9]]]])
    lower, upper = certificates.logit_bounds(model, x, eps=0.5)
    ends = torch.tensor([[0.0, 0.4], [0.6, 1.0]]) @ torch.diag(model[1].weight[0].detach())
    reach = (ends.amin(0).sum(), ends.amax(0).sum())
    assert lower.item() == pytest.approx(float(reach[0] + model[1].bias.detach()))
    assert upper.item() == pytest.approx(float(reach[1] + model[1].bias.detach()))


# --- every net, every map -------------------------------------------------------------------------


@every_net
@every_map
def test_without_a_change_the_bounds_are_the_map(
    net: Callable[[], nn.Module], bounds: Callable[..., Any], attribution: Callable[..., Tensor]
) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    lower, upper = bounds(model, x, y, eps=0.0)
    a = attribution(model, x, y)
    assert inside(lower, a, upper)
    torch.testing.assert_close(lower, a, rtol=0, atol=1e-9)
    torch.testing.assert_close(upper, a, rtol=0, atol=1e-9)
    down, up = certificates.logit_bounds(model, x, eps=0.0)
    torch.testing.assert_close(down, up, rtol=0, atol=1e-9)
    assert inside(down, model(x).detach(), up)


@every_net
@every_map
def test_bounds_grow_with_the_box(
    net: Callable[[], nn.Module], bounds: Callable[..., Any], attribution: Callable[..., Tensor]
) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    lower, upper = bounds(model, x, y, eps=0.0)
    for eps in (0.003, 0.03, 0.3, 0.99):
        wider = bounds(model, x, y, eps=eps)
        assert inside(wider[0], lower, upper)
        assert inside(lower, upper, wider[1])
        assert not torch.equal(wider[0], lower)
        lower, upper = wider


@every_net
@every_map
@pytest.mark.parametrize("eps", [0.002, 0.05])
def test_no_point_of_the_box_leaves_it(
    net: Callable[[], nn.Module],
    bounds: Callable[..., Any],
    attribution: Callable[..., Tensor],
    eps: float,
) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    lower, upper = bounds(model, x, y, eps=eps)
    z = points(x, eps, 700)
    a = attribution(model, z.flatten(0, 1), y.repeat(700)).view_as(z)
    assert inside(lower, a, upper)
    assert (a.amax(0) > a.amin(0)).any()
    down, up = certificates.logit_bounds(model, x, eps=eps)
    assert inside(down, model(z.flatten(0, 1)).detach().view(700, *down.shape), up)


def test_ten_thousand_points_of_one_box() -> None:
    model, x, y = small(), oracles.images(1), oracles.labels(1)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.001)
    z = points(x, 0.001, 10_000)[:, 0]
    assert inside(lower, attributions.gradient(model, z, y.expand(10_000)), upper)


@every_net
def test_the_suite_of_attacks_staysinside(net: Callable[[], nn.Module]) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    attack = attacks.standard(eps=0.02, attribution=attributions.gradient, k=9, effort="quick")
    z = attack(model, x, y, generator=oracles.seeded(0))
    assert (z - x).abs().max() > 0.01
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.02)
    a, b = (attributions.gradient(model, point, y) for point in (x, z))
    assert inside(lower, b, upper)
    proved = certificates.certified_topk(lower, upper, a, k=9)
    left = (attributions.to_heatmap(m) for m in (a, b))
    assert (proved <= metrics.topk_intersection(*left, k=9)).all()


@pytest.mark.parametrize("name", ["natural", "madry", "softplus"])
def test_shipped_networks_in_float32(name: str) -> None:
    images = data.fashion_mnist("test")[:6]
    model = checkpoints.load(name).model
    a = attributions.gradient(model, images.x, images.y)
    lower, upper = certificates.gradient_bounds(model, images.x, images.y, eps=0.0)
    assert inside(lower, a, upper)
    torch.testing.assert_close(lower, upper, rtol=1e-5, atol=3e-5)
    attack = attacks.standard(eps=2 / 255, attribution=attributions.gradient, k=100, effort="quick")
    z = attack(model, images.x, images.y, generator=oracles.seeded(0))
    for eps in (2 / 255, 8 / 255):
        lower, upper = certificates.gradient_bounds(model, images.x, images.y, eps=eps)
        many = torch.cat([z[None], points(images.x, 2 / 255, 40)])
        found = attributions.gradient(model, many.flatten(0, 1), images.y.repeat(len(many)))
        assert inside(lower, found.view_as(many), upper)


# --- enumeration, and rounding --------------------------------------------------------------------


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
@pytest.mark.parametrize("seed", range(8))
def test_all_gradients_of_a_deep_network_of_one_pixel(kind: torch.dtype, seed: int) -> None:
    """Exactly, in rational numbers: no tolerance."""
    model = mlp(1, 5, 5, 1, seed=seed, kind=kind)
    y, x = torch.tensor([0]), torch.tensor([[[[0.3 + 0.05 * seed]]]], dtype=kind)
    kept = 0
    for eps in (0.0, 1e-3, 0.02, 0.25):
        bounds = certificates.gradient_bounds(model, x, y, eps=eps)
        low, high = (Fraction(bound.item()) for bound in bounds)
        at, reach = Fraction(x.item()), Fraction(eps)
        found = exact_gradients(
            model, 0, max(at - reach, Fraction(0)), min(at + reach, Fraction(1))
        )
        assert low <= min(found)
        assert max(found) <= high
        kept += float(high - low) < 1e-4 * max(1, abs(float(high)))
    assert kept >= 1  # at eps 0


@pytest.mark.parametrize("seed", range(6))
def test_all_linear_regions_that_a_box_meets(seed: int) -> None:
    model = mlp(2, 6, 2, seed=seed)
    x, y = oracles.images(1, size=1, channels=2, seed=seed), torch.tensor([seed % 2])
    for eps in (0.01, 0.1, 0.3):
        low, high = ((x + s * eps).clamp(0, 1).flatten() for s in (-1, 1))
        found = region_gradients(model, int(y), low, high)
        lower, upper = (b.flatten() for b in certificates.gradient_bounds(model, x, y, eps=eps))
        assert inside(lower, found, upper)
        if len(found) <= 2:  # one neuron at most can switch: nothing is lost
            torch.testing.assert_close(found.amin(0), lower)
            torch.testing.assert_close(found.amax(0), upper)


def _cancelling(kind: torch.dtype) -> nn.Sequential:
    """A neuron whose input is 1e-3 times a pixel, but a sum of numbers up to 1e12."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1e12, 1e-3, -1e12, 3e11]]))
        model[1].bias.fill_(-3e11)
        model[3].weight.fill_(1.0)
    return model.to(kind)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_a_sum_that_cancels_is_not_trusted(kind: torch.dtype) -> None:
    """Whether the neuron is on cannot be told in float64, and the bounds say so."""
    x = torch.tensor([[[[0.5, 0.01, 0.5, 1.0]]]], dtype=kind)
    y = torch.tensor([0])
    model = _cancelling(kind)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.0)
    assert lower[0, 0, 0, 0] <= 0
    assert upper[0, 0, 0, 0] >= 1e12
    for order in ([0, 1, 2, 3], [0, 2, 1, 3], [1, 3, 0, 2], [2, 3, 0, 1]):
        turned = _cancelling(kind)
        with torch.no_grad():
            turned[1].weight.copy_(model[1].weight[:, order])
        found = attributions.gradient(turned, x[..., order], y)
        assert inside(lower[..., order], found, upper[..., order])


@every_net
def test_the_margin_covers_sums_in_any_order(net: Callable[[], nn.Module]) -> None:
    """Float64, one image at a time, all at once, from channels-last memory, and mirrored."""
    model, x, y = net(), oracles.images(6), oracles.labels(6)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.0)
    alone = [attributions.gradient(model, *one) for one in zip(x.split(1), y.split(1), strict=True)]
    assert inside(lower, torch.cat(alone), upper)
    last = x.contiguous(memory_format=torch.channels_last)
    assert inside(lower, attributions.gradient(model, last, y), upper)
    largest = torch.maximum(lower.abs(), upper.abs()).flatten(1).amax(1).view(-1, 1, 1, 1)
    assert ((upper - lower) / largest).max() < 1e-7
    assert ((upper - lower) / largest).max() > 0


@every_net
def test_float32_bounds_are_those_of_float64_and_a_little_more(net: Callable[[], Any]) -> None:
    model, x, y = net(), oracles.images().float(), oracles.labels()
    exact = certificates.gradient_bounds(model, x.double(), y, eps=0.01)
    single = net().float()
    with torch.no_grad():
        for p, q in zip(model.parameters(), single.parameters(), strict=True):
            p.copy_(q)
        for p, q in zip(model.buffers(), single.buffers(), strict=True):
            p.copy_(q)
    exact = certificates.gradient_bounds(model, x.double(), y, eps=0.01)
    lower, upper = certificates.gradient_bounds(single, x, y, eps=0.01)
    assert lower.dtype == upper.dtype == torch.float32
    assert inside(lower, exact[0], exact[1])
    assert inside(exact[0], exact[1], upper)
    torch.testing.assert_close(lower.double(), exact[0], rtol=1e-3, atol=1e-4)
    z = points(x, 0.01, 100)
    found = attributions.gradient(single, z.flatten(0, 1), y.repeat(100))
    assert inside(lower, found.view_as(z), upper)


def test_every_image_within_the_budget_is_in_the_box() -> None:
    """Distances are rounded in the type of x: (z - x).abs() <= eps holds a little beyond eps."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    with torch.no_grad():
        model[1].weight.fill_(1.0)
        model[1].bias.fill_(0.0)
    x = torch.linspace(0.11, 0.89, 997, dtype=torch.float32).view(-1, 1, 1, 1)
    lower, upper = certificates.logit_bounds(model.float(), x, eps=0.1)
    for sign in (-1, 1):
        z = x + sign * 0.1
        for _ in range(4):
            further = torch.nextafter(z, z + sign)
            z = torch.where((further - x).abs() <= 0.1, further, z)
        kept = ((z - x).abs() <= 0.1).flatten()
        assert ((z - x).abs().double() > 0.1).any()
        assert inside(lower[kept], z.flatten(1)[kept], upper[kept])
