"""Bounds of maps over a box: by hand, against enumeration, sampling and attacks, with rounding."""

import inspect
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import attacks, attributions, certificates, checkpoints, data, metrics, models
from tests import oracles
from tests.interval_oracles import (
    NETS,
    Functional,
    Residual,
    exact_gradients,
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


def _inside(lower: Tensor, value: Tensor, upper: Tensor) -> bool:
    return bool(((lower <= value) & (value <= upper)).all())


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
        assert _inside(lower, attributions.gradient(model, z, y.expand(801)), upper)
        assert _inside(down, model(z).detach(), up)


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
    assert _inside(lower, a, upper)
    torch.testing.assert_close(lower, a, rtol=0, atol=1e-9)
    torch.testing.assert_close(upper, a, rtol=0, atol=1e-9)
    down, up = certificates.logit_bounds(model, x, eps=0.0)
    torch.testing.assert_close(down, up, rtol=0, atol=1e-9)
    assert _inside(down, model(x).detach(), up)


@every_net
@every_map
def test_bounds_grow_with_the_box(
    net: Callable[[], nn.Module], bounds: Callable[..., Any], attribution: Callable[..., Tensor]
) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    lower, upper = bounds(model, x, y, eps=0.0)
    for eps in (0.003, 0.03, 0.3, 0.99):
        wider = bounds(model, x, y, eps=eps)
        assert _inside(wider[0], lower, upper)
        assert _inside(lower, upper, wider[1])
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
    assert _inside(lower, a, upper)
    assert (a.amax(0) > a.amin(0)).any()
    down, up = certificates.logit_bounds(model, x, eps=eps)
    assert _inside(down, model(z.flatten(0, 1)).detach().view(700, *down.shape), up)


def test_ten_thousand_points_of_one_box() -> None:
    model, x, y = small(), oracles.images(1), oracles.labels(1)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.001)
    z = points(x, 0.001, 10_000)[:, 0]
    assert _inside(lower, attributions.gradient(model, z, y.expand(10_000)), upper)


@every_net
def test_the_suite_of_attacks_stays_inside(net: Callable[[], nn.Module]) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    attack = attacks.standard(eps=0.02, attribution=attributions.gradient, k=9, effort="quick")
    z = attack(model, x, y, generator=oracles.seeded(0))
    assert (z - x).abs().max() > 0.01
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.02)
    a, b = (attributions.gradient(model, point, y) for point in (x, z))
    assert _inside(lower, b, upper)
    proved = certificates.certified_topk(lower, upper, a, k=9)
    left = (attributions.to_heatmap(m) for m in (a, b))
    assert (proved <= metrics.topk_intersection(*left, k=9)).all()


@pytest.mark.parametrize("name", ["natural", "madry", "softplus"])
def test_shipped_networks_in_float32(name: str) -> None:
    images = data.fashion_mnist("test")[:6]
    model = checkpoints.load(name).model
    a = attributions.gradient(model, images.x, images.y)
    lower, upper = certificates.gradient_bounds(model, images.x, images.y, eps=0.0)
    assert _inside(lower, a, upper)
    torch.testing.assert_close(lower, upper, rtol=1e-5, atol=3e-5)
    attack = attacks.standard(eps=2 / 255, attribution=attributions.gradient, k=100, effort="quick")
    z = attack(model, images.x, images.y, generator=oracles.seeded(0))
    for eps in (2 / 255, 8 / 255):
        lower, upper = certificates.gradient_bounds(model, images.x, images.y, eps=eps)
        many = torch.cat([z[None], points(images.x, 2 / 255, 40)])
        found = attributions.gradient(model, many.flatten(0, 1), images.y.repeat(len(many)))
        assert _inside(lower, found.view_as(many), upper)


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
        assert _inside(lower, found, upper)
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
        assert _inside(lower[..., order], found, upper[..., order])


@every_net
def test_the_margin_covers_sums_in_any_order(net: Callable[[], nn.Module]) -> None:
    """Float64, one image at a time, all at once, from channels-last memory, and mirrored."""
    model, x, y = net(), oracles.images(6), oracles.labels(6)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.0)
    alone = [attributions.gradient(model, *one) for one in zip(x.split(1), y.split(1), strict=True)]
    assert _inside(lower, torch.cat(alone), upper)
    last = x.contiguous(memory_format=torch.channels_last)
    assert _inside(lower, attributions.gradient(model, last, y), upper)
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
    assert _inside(lower, exact[0], exact[1])
    assert _inside(exact[0], exact[1], upper)
    torch.testing.assert_close(lower.double(), exact[0], rtol=1e-3, atol=1e-4)
    z = points(x, 0.01, 100)
    found = attributions.gradient(single, z.flatten(0, 1), y.repeat(100))
    assert _inside(lower, found.view_as(z), upper)


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
        assert _inside(lower[kept], z.flatten(1)[kept], upper[kept])


# --- the executed graph ---------------------------------------------------------------------------


def test_the_same_network_written_in_other_ways() -> None:
    conv, linear = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3 * 64, CLASSES := 3)

    class Own(nn.Module):
        def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.conv, self.linear, self.act = conv, linear, act

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 1 or x.dim() != 4 or len(x) == 0:
                raise ValueError("not an image")
            return self.linear(self.act(self.conv(x)).view(x.size(0), -1))

    x, y = oracles.images(), oracles.labels(classes=CLASSES)
    plain = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    wanted = certificates.gradient_bounds(plain, x, y, eps=0.05)
    ways: list[Any] = [
        Own(torch.relu),
        Own(functional.relu),
        Own(functional.relu_),
        Own(lambda h: h.relu()),
        Own(nn.ReLU(inplace=True)),
        lambda z: plain(z),
        nn.Sequential(nn.Identity(), plain, nn.Dropout(0.3)).eval(),
    ]
    for way in ways:
        for one, other in zip(
            certificates.gradient_bounds(way, x, y, eps=0.05), wanted, strict=True
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_layer_that_is_not_called_does_not_count() -> None:
    model, x, y = small(), oracles.images(), oracles.labels()
    wanted = certificates.gradient_bounds(model, x, y, eps=0.05)
    model.unused = nn.MaxPool2d(2)
    assert torch.equal(certificates.gradient_bounds(model, x, y, eps=0.05)[0], wanted[0])


def test_a_layer_that_is_called_twice_counts_twice() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared)
    x, y = oracles.images(size=2), oracles.labels(classes=4)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.1)
    z = points(x, 0.1, 300)
    found = attributions.gradient(model, z.flatten(0, 1), y.repeat(300)).view_as(z)
    assert _inside(lower, found, upper)
    torch.testing.assert_close(
        certificates.gradient_bounds(model, x, y, eps=0.0)[0], attributions.gradient(model, x, y)
    )


def test_a_smoothed_copy_has_the_bounds_of_softplus() -> None:
    x, y = oracles.images(), oracles.labels()
    one = certificates.gradient_bounds(models.smoothed(small(), 10.0), x, y, eps=0.05)
    other = certificates.gradient_bounds(small(partial(nn.Softplus, beta=10)), x, y, eps=0.05)
    assert torch.equal(one[0], other[0])


def test_frozen_batch_normalisation_is_an_affine_map() -> None:
    from torchvision.ops import FrozenBatchNorm2d

    model = Residual().eval()
    frozen = Residual().eval()
    frozen.load_state_dict(model.state_dict())
    frozen.norm = FrozenBatchNorm2d(4, eps=model.norm.eps)
    frozen.norm.load_state_dict(model.norm.state_dict())
    x, y = oracles.images(), oracles.labels()
    for one, other in zip(
        *(certificates.gradient_bounds(m, x, y, eps=0.05) for m in (model, frozen)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


class Bent(nn.Module):
    """A linear layer, and one more function."""

    def __init__(self, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("bend", "named"),
    [
        (torch.sigmoid, "torch.sigmoid in Bent"),
        (lambda h: h * h, "torch.Tensor.mul of two values that both depend on the input in Bent"),
        (lambda h: h.softmax(1), "torch.Tensor.softmax in Bent"),
        (lambda h: h[:, :3], "torch.Tensor.__getitem__ in Bent"),
        (lambda h: h.clamp(min=0), "torch.Tensor.clamp in Bent"),
        (lambda h: h.half().float(), "torch.Tensor.half in Bent"),
        (lambda h: h.to(torch.bfloat16), "torch.Tensor.to from .* to torch.bfloat16 in Bent"),
        (lambda h: h.detach(), "torch.Tensor.detach in Bent"),
        (lambda h: h.T.relu(), "torch.Tensor.T in Bent"),
        (lambda h: 1 / h, "torch.Tensor.__rtruediv__ in Bent|torch.Tensor.* in Bent"),
        (nn.LayerNorm(16), "torch.nn.functional.layer_norm in LayerNorm 'bend'"),
        (nn.Softplus(beta=-1.0), "softplus with beta -1.0 .* in Softplus 'bend'"),
        (
            nn.Sequential(nn.Unflatten(1, (4, 4)), nn.MaxPool1d(2)),
            "max_pool1d in MaxPool1d 'bend.1'",
        ),
        (lambda h: h.view(-1, 16).relu_() + h, "torch.Tensor.relu_ in place on a view in Bent"),
        (lambda h: h.add_(1).mean(), "logits"),
        (lambda h: functional.dropout(h, 0.5), "dropout in train mode in Bent"),
        (lambda h: functional.batch_norm(h, None, None, training=True), "statistics of a batch"),
        (lambda h: torch.zeros(4, 16).add_(h), "torch.Tensor.add_ in place on what has no bounds"),
        (lambda h: functional.pad(h, (1, 1), value=2.0), "functional.pad with 2.0"),
        (lambda h: torch.ones(len(h), 16), "to depend on x"),
        (lambda h: float(h[0]), "__getitem__"),
    ],
)
def test_what_has_no_bounds_is_refused_by_name(bend: Callable[..., Any], named: str) -> None:
    model = Bent(bend).eval()
    with pytest.raises(ValueError, match=named):
        certificates.gradient_bounds(model, oracles.images(size=4), oracles.labels(), eps=0.1)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.parametrize("compile_", [torch.jit.script, partial(torch.jit.trace, strict=False)])
def test_compiled_code_is_refused(compile_: Callable[..., Any]) -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU())
    example = {} if compile_ is torch.jit.script else {"example_inputs": torch.zeros(1, 1, 4, 4)}
    model = compile_(layers, **example)
    with pytest.raises(ValueError, match=r"got code of torch\.jit in "):
        certificates.gradient_bounds(model, oracles.images(size=4), oracles.labels(), eps=0.1)


def test_values_in_place_are_followed() -> None:
    x, y = oracles.images(size=4), oracles.labels()
    bends = [
        (lambda h: h.mul_(2).sub_(1).relu_().add_(h), lambda h: 2 * torch.relu(2 * h - 1)),
        (lambda h: torch.flatten(h.clone().relu_(), 1) + h, lambda h: torch.relu(h) + h),
        (lambda h: -(2 - h) / 4, lambda h: (h - 2) / 4),
        (lambda h: torch.sub(h, 3, alpha=2), lambda h: h - 6),
        (lambda h: h.sum(1, keepdim=True) + h, lambda h: h + 16 * h.mean(1).unsqueeze(1)),
        (lambda h: functional.pad(h, (1, 1)).relu(), lambda h: functional.pad(h.relu(), (1, 1))),
    ]
    for bend, plain in bends:
        one, other = Bent(bend), Bent(plain)
        other.linear = one.linear
        pair = zip(
            *(certificates.gradient_bounds(m, x, y, eps=0.1) for m in (one, other)), strict=True
        )
        for a, b in pair:
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(one(x), other(x))


def test_batch_statistics_and_noise_are_refused() -> None:
    x, y = oracles.images(), oracles.labels()
    for model, layer in (
        (Residual(), "BatchNorm2d 'norm'"),
        (NETS["Sequential"]().train(), "Batch"),
    ):
        with pytest.raises(ValueError, match=f"without batch normalisation in train .* {layer}"):
            certificates.gradient_bounds(model, x, y, eps=0.1)
    noisy = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="equal logits each time, got Dropout '1' in train mode"):
        certificates.logit_bounds(noisy, x, eps=0.1)


# --- the contract of every callable ---------------------------------------------------------------

CALLS: dict[str, Callable[..., Any]] = {
    **{name: call for name, (call, _) in BOUNDS.items()},
    "logits": lambda model, x, y, **o: certificates.logit_bounds(model, x, **o),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@every_call
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_dtype_and_device(
    call: Callable[..., Any], kind: torch.dtype, device: torch.device
) -> None:
    model = small().to(device, kind)
    x, y = oracles.images().to(device, kind), oracles.labels().to(device)
    for bound in call(model, x.requires_grad_(), y, eps=0.05):
        assert bound.shape == (x.shape if call is not CALLS["logits"] else (4, 3))
        assert (bound.dtype, bound.device) == (kind, x.device)
        assert not bound.requires_grad
        assert type(bound) is Tensor


@every_call
def test_nothing_of_the_caller_changes(call: Callable[..., Any]) -> None:
    model, x, y = small().train(), oracles.images(), oracles.labels()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    kept = [t.detach().clone() for t in (x, *model.parameters())]
    noise = torch.get_rng_state()
    first = call(model, x, y, eps=0.05)
    assert all(map(torch.equal, kept, (x, *model.parameters())))
    assert all((p.grad == 1).all() for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), noise)
    with torch.no_grad():
        again = call(model, x, y, eps=0.05)
    assert all(map(torch.equal, first, again))


@every_call
def test_a_row_does_not_depend_on_the_others_nor_on_memory(call: Callable[..., Any]) -> None:
    model, x, y = small(), oracles.images(300), oracles.labels(300)
    whole = call(model, x, y, eps=0.05)  # in parts
    for rows in (slice(0, 1), slice(298, 300)):
        part = call(model, x[rows], y[rows], eps=0.05)
        for one, other in zip(part, whole, strict=True):
            torch.testing.assert_close(one, other[rows], rtol=1e-9, atol=1e-12)
    strided = torch.stack([x, x], -1)[..., 1].contiguous(memory_format=torch.channels_last)
    for one, other in zip(call(model, strided, y, eps=0.05), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@every_call
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named(call: Callable[..., Any]) -> None:
    model, x, y = small(), oracles.images(), oracles.labels()
    for eps in (-0.1, float("nan"), float("inf"), True, "a"):
        with pytest.raises(ValueError, match="Expected eps >= 0, got"):
            call(model, x, y, eps=eps)
    for eps in (1, 1.0, 3.0):
        with pytest.raises(ValueError, match=f"Expected eps < 1, the whole range .*, got {eps}"):
            call(model, x, y, eps=eps)
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\], got \["):
        call(model, 2 * x, y, eps=0.1)
    with pytest.raises(ValueError, match="Expected x to be finite"):
        call(model, x / 0, y, eps=0.1)
    with pytest.raises(TypeError, match="Expected x to be a floating-point tensor"):
        call(model, x.long(), y, eps=0.1)
    with pytest.raises(ValueError, match=r"Expected x of shape \(n, 1, 8, 8\)"):
        call(model, x[..., :4], y, eps=0.1)
    with pytest.raises(ValueError, match=r"Expected model\(x\) to be logits"):
        call(nn.Identity(), x, y, eps=0.1)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside torch.inference_mode"):
        call(model, x, y, eps=0.1)
    if call is not CALLS["logits"]:
        with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
            call(model, x, y + 3 - y, eps=0.1)
        with pytest.raises(TypeError, match="Expected y to be an int64 tensor"):
            call(model, x, y.int(), eps=0.1)
        with pytest.raises(ValueError, match=r"Expected y of shape \(4,\)"):
            call(model, x, y[:2], eps=0.1)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_path_needs_points() -> None:
    for steps in (0, 1.5):
        with pytest.raises(ValueError, match="Expected steps to be an integer >= 1"):
            certificates.integrated_gradients_bounds(
                small(), oracles.images(), oracles.labels(), eps=0.1, steps=steps
            )


def test_all_after_the_tensors_is_keyword_only() -> None:
    for name in certificates.__all__:
        for parameter in inspect.signature(getattr(certificates, name)).parameters.values():
            tensors = {"model", "x", "y", "a", "lower", "upper"}
            assert (parameter.kind is parameter.KEYWORD_ONLY) == (parameter.name not in tensors)


def test_one_class_of_a_users_own_with_functions_only() -> None:
    assert not [m for m in Functional().modules() if not isinstance(m, Functional)]
