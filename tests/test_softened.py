"""Soft copies: the values of the network, slopes over a width that follows each layer."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import attributions, models
from attrlib.types import Norm
from tests import oracles
from tests.test_smoothed import OTHERS, RELU, Call

WIDTH, EPS = 0.5, 0.1
U = torch.linspace(0, 1, 401, dtype=torch.float64)[
    :, None
]  # pixels; the kink is put in their middle


class Shifted(nn.Module):
    """An activation of 8·(x − 1/2), so that its numbers lie on both sides of a kink at 0."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(8 * (x - 0.5))


def derivatives(net: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value, slope and bend at each of the numbers."""
    x = x.clone().requires_grad_()
    value = net(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    bend = torch.autograd.grad(slope.sum(), x)[0] if slope.requires_grad else torch.zeros_like(x)
    return value.detach(), slope.detach(), bend


def moves(x: Tensor) -> Tensor:
    """What the random move does to each pixel of a batch of single pixels: all go one way."""
    up = bool(torch.rand((1, 1), generator=torch.Generator().manual_seed(0)) < 0.5)
    return (x + (EPS if up else -EPS)).clamp(0, 1) - x


@pytest.mark.parametrize("function", RELU.values(), ids=RELU.keys())
def test_every_way_to_write_a_relu_has_the_value_and_a_soft_slope(
    function: Callable[[Tensor], Tensor],
) -> None:
    net = Shifted(function)
    value, slope, bend = derivatives(models.softened(net, WIDTH, eps=EPS), U)
    assert torch.equal(value, net(U))
    wide = torch.where(moves(U) == 0, 1, WIDTH * 8 * moves(U).abs())  # where nothing moves: 1
    wanted = torch.sigmoid(torch.where(moves(U) == 0, 8 * (U - 0.5) / WIDTH, 8 * (U - 0.5) / wide))
    torch.testing.assert_close(
        slope, 8 * wanted, rtol=0, atol=1e-6
    )  # softplus is linear from 20 on
    assert bend.max() == pytest.approx(8 * 8 / (4 * WIDTH * 8 * EPS), rel=1e-6)


@pytest.mark.parametrize("function", [f for f, _ in OTHERS.values()], ids=OTHERS.keys())
def test_other_kinks_are_softened_where_they_are(function: Callable[[Tensor], Tensor]) -> None:
    layer = function if isinstance(function, nn.Module) else Call(function)
    net = Shifted(layer)
    value, _, bend = derivatives(models.softened(net, WIDTH, eps=EPS), U)
    torch.testing.assert_close(value, net(U), rtol=0, atol=1e-12)
    assert bend.abs().max() > 1
    narrow = derivatives(models.softened(net, 1e-9, eps=EPS), U + 1e-5)[1]
    x = (U + 1e-5).requires_grad_()
    (sharp,) = torch.autograd.grad(net(x).sum(), x)
    torch.testing.assert_close(narrow, sharp)


def test_softplus_is_widened_by_as_much(dtype: torch.dtype) -> None:
    x, beta = U.to(dtype), 3.0
    inside = moves(x)[:, 0].abs() > EPS / 2
    net = Shifted(nn.Softplus(beta))
    value, slope, _ = derivatives(models.softened(net, WIDTH, eps=EPS), x)
    torch.testing.assert_close(value, net(x))
    total = 1 / beta + WIDTH * 8 * moves(x).abs()
    wanted = 8 * torch.sigmoid(8 * (x - 0.5) / total)
    torch.testing.assert_close(slope[inside], wanted[inside], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smooth", [nn.GELU(), nn.SiLU(), nn.ELU(), nn.Tanh(), Call(torch.sin)])
def test_other_smooth_networks_stay_as_they_are(smooth: nn.Module) -> None:
    net = Shifted(smooth)
    for ours, theirs in zip(
        derivatives(models.softened(net, WIDTH, eps=EPS), U), derivatives(net, U), strict=True
    ):
        assert torch.equal(ours, theirs)


REACH = 2.0


def weighted(u: Tensor, sign: float) -> Tensor:
    """The pull on numbers u of which a slope is to rise (sign 1) or to fall (−1)."""
    net = Shifted(nn.ReLU())
    x = u.clone().requires_grad_()
    value = models.softened(net, WIDTH, eps=EPS, reach=REACH)(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    torch.testing.assert_close(
        slope.detach(), derivatives(models.softened(net, WIDTH, eps=EPS), u)[1]
    )  # first derivatives are those without reach
    return torch.autograd.grad(sign * slope.sum(), x)[0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_unit_on_the_wrong_side_is_pulled_from_far_away(sign: float) -> None:
    inside = moves(U)[:, 0].abs() > EPS * 0.99
    pull, u = weighted(U, sign)[inside], 8 * (U - 0.5)[inside]
    far = REACH * 8 * EPS
    wrong = (u < 0) if sign > 0 else (u > 0)
    reach = torch.where(wrong, far, 0.1 * far)
    wanted = sign * 8 * 8 / far * torch.exp(-u.abs() / reach)  # the chain rule brings 8 twice
    torch.testing.assert_close(pull, wanted, rtol=1e-6, atol=1e-9)
    assert wrong.any()
    assert not wrong.all()


def test_softplus_reaches_as_much_further() -> None:
    beta = 3.0
    inside = moves(U)[:, 0].abs() > EPS * 0.99
    x = U.clone().requires_grad_()
    value = models.softened(Shifted(nn.Softplus(beta)), WIDTH, eps=EPS, reach=REACH)(x)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    pull = torch.autograd.grad(slope.sum(), x)[0]
    u, unit = 8 * (U - 0.5), 8 * EPS
    far, near = 1 / beta + REACH * unit, 1 / beta + 0.1 * REACH * unit
    wanted = 64 / far * torch.exp(-u.abs() / torch.where(u < 0, far, near))
    torch.testing.assert_close(pull[inside], wanted[inside], rtol=1e-6, atol=1e-9)


def test_a_dead_unit_far_from_its_kink_is_reached() -> None:
    """One unit opens the way to another pixel; a symmetrical slope of this width does not see it."""
    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1, bias=False)).double()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(2))
        net[0].bias.copy_(torch.tensor([0.0, -0.8]))
        net[2].weight.fill_(1.0)
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    rises = {}
    for reach in (None, 10.0):
        z = x.clone().requires_grad_()
        twin = models.softened(net, 0.1, eps=EPS, reach=reach)
        (g,) = torch.autograd.grad(twin(z).sum(), z, create_graph=True)
        rises[reach] = float(torch.autograd.grad(g[0, 1], z)[0][0, 1])
    assert 0 <= rises[None] < 1e-9
    assert rises[10.0] > 0.1


def test_each_layer_gets_a_width_of_its_own(dtype: torch.dtype) -> None:
    """A layer times 1000 and the next one divided by it are the same network: so are the copies."""
    net = models.SmallCNN(size=8, classes=3, generator=oracles.seeded(0)).to(dtype)
    other = models.SmallCNN(size=8, classes=3, generator=oracles.seeded(0)).to(dtype)
    with torch.no_grad():
        other.layers[0].weight *= 1024
        other.layers[0].bias *= 1024
        other.layers[2].weight /= 1024
    x, y = oracles.images(6).to(dtype), oracles.labels(6)
    ours, theirs = (
        attributions.gradient(models.softened(m, WIDTH, eps=EPS), x, y) for m in (net, other)
    )
    torch.testing.assert_close(ours, theirs)
    sharp = attributions.gradient(net, x, y)
    assert (ours - sharp).norm() > 0.01 * sharp.norm()
    blunt = [attributions.gradient(models.smoothed(m, 10), x, y) for m in (net, other)]
    assert (
        blunt[0] - blunt[1]
    ).norm() > 0.01 * sharp.norm()  # which copies of one sharpness are not


def test_narrow_slopes_are_those_of_the_network(dtype: torch.dtype) -> None:
    net = models.SmallCNN(size=8, classes=3, generator=oracles.seeded(0)).to(dtype)
    x, y = oracles.images(6).to(dtype), oracles.labels(6)
    sharp = attributions.gradient(net, x, y)
    gaps = [
        float((attributions.gradient(models.softened(net, w, eps=EPS), x, y) - sharp).norm())
        for w in (1, 0.1, 1e-6)
    ]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-3 * float(sharp.norm())


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_row_depends_on_another(norm: Norm, dtype: torch.dtype) -> None:
    net = models.SmallCNN(size=8, classes=3, generator=oracles.seeded(0)).to(dtype)
    x, y = oracles.images(6).to(dtype), oracles.labels(6)
    twin = models.softened(net, WIDTH, eps=EPS, norm=norm)
    together = attributions.gradient(twin, x, y)
    alone = torch.cat([attributions.gradient(twin, x[i, None], y[i, None]) for i in range(6)])
    torch.testing.assert_close(together, alone)


def test_the_move_of_an_l2_ball_has_its_length(dtype: torch.dtype) -> None:
    """In the middle of the pixel range nothing is cut off, and pixels are the numbers of the layer."""
    net = nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(16, 2, bias=False)).to(dtype)
    x = torch.full((1, 1, 4, 4), 0.5, dtype=dtype)
    y = torch.zeros(1, dtype=torch.int64)
    for norm, size in (("linf", EPS), ("l2", EPS / 4)):
        twin = models.softened(net, 1.0, eps=EPS, norm=norm)
        share = attributions.gradient(twin, x, y) / attributions.gradient(net, x, y)
        torch.testing.assert_close(share, torch.sigmoid(0.5 / torch.full_like(x, size)))


def test_a_layer_that_nothing_moves_has_a_width(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).to(dtype)
    with torch.no_grad():
        net[1].weight.zero_()
    x, y = torch.full((2, 1, 2, 2), 0.5, dtype=dtype), torch.zeros(2, dtype=torch.int64)
    assert (attributions.gradient(models.softened(net, WIDTH, eps=EPS), x, y) == 0).all()


def test_the_network_is_left_alone_and_may_be_a_function() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(inplace=True), nn.Linear(3, 2))
    with torch.no_grad():
        for p in net.parameters():
            p.uniform_(0.1, 1, generator=oracles.seeded(1))  # all units are on
    x, y = torch.rand((2, 1, 2, 2), generator=oracles.seeded(0)), torch.tensor([0, 1])
    before = [p.clone() for p in net.parameters()]
    twin = models.softened(net, WIDTH, eps=EPS)
    through = attributions.gradient(models.softened(lambda z: net(z), WIDTH, eps=EPS), x, y)
    torch.testing.assert_close(attributions.gradient(twin, x, y), through)
    assert all(map(torch.equal, before, net.parameters()))
    with torch.no_grad():
        net[1].weight.zero_()
    assert not torch.equal(twin(x), net(x))
    assert torch.equal(functional.relu(U - 0.5), (U - 0.5).clamp(min=0))


def test_code_that_takes_another_way_is_named() -> None:
    class Forked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            u = x.flatten(1)
            return u.relu() if x.requires_grad else u.relu().relu()[:, :2].relu()

    class Short(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            u = x.flatten(1)
            return u.relu() if x.requires_grad else u

    x = torch.full((1, 1, 2, 2), 0.5, requires_grad=True)
    models.softened(Forked(), 1.0, eps=0.2)(x)  # the first call is the same
    with pytest.raises(ValueError, match="to call the same activations for all images"):
        models.softened(Short(), 1.0, eps=0.2)(x)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"width": 0.0}, ValueError, "width > 0"),
        ({"width": math.nan}, ValueError, "width"),
        ({"eps": 0.0}, ValueError, "eps > 0"),
        ({"eps": -0.1}, ValueError, "eps > 0"),
        ({"norm": "l1"}, ValueError, "norm"),
        ({"reach": 0.0}, ValueError, "reach > 0"),
        ({"reach": math.nan}, ValueError, "reach"),
    ],
)
def test_bad_input(options: dict[str, object], error: type[Exception], match: str) -> None:
    settings: dict[str, object] = {"width": 1.0, "eps": 0.1} | options
    with pytest.raises(error, match=match):
        models.softened(nn.ReLU(), **settings)  # type: ignore[arg-type]
