"""Penalties on slope and curvature against closed forms and against Hessians from autograd."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib.models import SmallCNN
from attrlib.regularizers import (
    Curvature,
    HessianNorm,
    InputGradientNorm,
    SmoothSurface,
    loss_hessian_eigenvalue,
)
from attrlib.types import Term
from tests import oracles
from tests.term_oracles import Sigmoid, batch_norm_net, net, slopes

TERMS = [InputGradientNorm(), HessianNorm(probes=2), Curvature(h=0.5)]
named = pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)


def hessian(model: nn.Module, x: Tensor, y: Tensor, *, of: str) -> Tensor:
    """Hessian of the loss or of the explained logit, one matrix per sample, by autograd alone."""

    def value(flat: Tensor, shape: torch.Size, label: Tensor) -> Tensor:
        logits = model(flat.view(1, *shape))
        if of == "loss":
            return functional.cross_entropy(logits, label[None])
        return logits[0, label]

    return torch.stack(
        [
            torch.autograd.functional.hessian(
                partial(value, shape=row.shape, label=label), row.flatten()
            )
            for row, label in zip(x, y, strict=True)
        ]
    )


def vectors(n: int = 4, *, seed: int = 1) -> Tensor:
    return torch.rand(n, 5, generator=oracles.seeded(seed))


# --- slope of the loss ----------------------------------------------------------------------------


def test_input_gradient_norm_of_softmax_regression() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    p = model(x).softmax(1)
    slope = (p - functional.one_hot(y, oracles.CLASSES)) @ model[1].weight
    torch.testing.assert_close(InputGradientNorm()(model, x, y), slope.square().sum(1))


def test_input_gradient_norm_of_two_classes() -> None:
    weight = torch.randn(64, generator=oracles.seeded(5))
    model, x = Sigmoid(weight), oracles.images()
    y = torch.tensor([0, 1, 0, 1])
    wrong = 1 - model(x).softmax(1).gather(1, y[:, None])[:, 0]
    expected = wrong.square() * weight.square().sum()
    torch.testing.assert_close(InputGradientNorm()(model, x, y), expected)


def test_input_gradient_norm_bounds_the_smooth_surface_from_below() -> None:
    model, x = net(nn.ReLU), oracles.images(16)
    for label in range(oracles.CLASSES):
        y = torch.full((16,), label)
        p = model(x).softmax(1)[:, label]
        lower = p / (1 - p) * InputGradientNorm()(model, x, y)
        assert (lower <= loss_hessian_eigenvalue(model, x) * (1 + 1e-9)).all()


# --- Hessian of the explained logit ---------------------------------------------------------------


def test_hessian_norm_of_a_quadratic_model_in_closed_form() -> None:
    model, x, y = oracles.Quadratic(), vectors(), oracles.labels()
    noise = oracles.seeded(0)
    v = [torch.randn(x.shape, generator=noise) for _ in range(3)]
    moved = torch.stack([torch.einsum("nij,nj->ni", model.h[y], part) for part in v])
    value = HessianNorm(probes=3)(model, x, y, generator=oracles.seeded(0))
    torch.testing.assert_close(value, moved.square().sum(2).mean(0))


def test_hessian_norm_is_unbiased() -> None:
    model, y = oracles.Quadratic(), torch.tensor([0, 1, 2])
    many = HessianNorm(probes=4000)(model, vectors(3), y, generator=oracles.seeded(0))
    expected = model.h[y].square().sum((1, 2))
    # Var ‖Hv‖² = 2 ‖H²‖_F² <= 2 ‖H‖_F⁴, so that 4000 probes leave a relative deviation of 2.3 %.
    torch.testing.assert_close(many, expected, rtol=0.08, atol=0)


def test_hessian_norm_of_a_softplus_network() -> None:
    model, x, y = net(), oracles.images(2), oracles.labels(2)
    v = torch.randn(x.shape, generator=oracles.seeded(7)).flatten(1)
    moved = torch.einsum("nij,nj->ni", hessian(model, x, y, of="logit"), v)
    value = HessianNorm()(model, x, y, generator=oracles.seeded(7))
    torch.testing.assert_close(value, moved.square().sum(1))


@pytest.mark.parametrize("make", [partial(net, nn.ReLU), oracles.linear_net])
def test_hessian_norm_refuses_models_without_curvature(make: Callable[[], nn.Module]) -> None:
    model, x, y = make(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match=r"Expected model with a second derivative \(softplus"):
        HessianNorm()(model, x, y, generator=oracles.seeded(0))
    frozen = model.requires_grad_(False)
    with pytest.raises(ValueError, match="a Hessian that is zero in the whole batch"):
        HessianNorm()(frozen, x, y, generator=oracles.seeded(0))


def test_hessian_norm_accepts_single_flat_samples() -> None:
    class Bowl(nn.Module):
        """Curved for the first class, flat for the second."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([x.square().sum(1), x.sum(1)], 1)

    value = HessianNorm()(Bowl(), vectors(2), torch.tensor([0, 1]), generator=oracles.seeded(0))
    assert value[0] > 0
    assert value[1] == 0


# --- curvature of the loss along the sign of its gradient -----------------------------------------


class Bowls(nn.Module):
    """Two classes, logits 0 and m(x) = a·x: the loss of class 0 is softplus(m)."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x: Tensor) -> Tensor:
        margin = x.flatten(1) @ self.a
        return torch.stack([torch.zeros_like(margin), margin], 1)


@pytest.mark.parametrize("h", [0.01, 0.5, 2.0])
def test_curvature_of_two_classes_in_closed_form(h: float) -> None:
    # The gradient is s(m) a, and along u = sign(a) / √d the margin grows by h ‖a‖₁ / √d.
    a = torch.tensor([2.0, -1.0, 0.5, 0.25, -3.0])
    model, x, y = Bowls(a), vectors(), torch.zeros(4, dtype=torch.long)
    margin = x @ a
    there = margin + h * a.abs().sum() / 5**0.5
    expected = (there.sigmoid() - margin.sigmoid()).square() * a.square().sum() / h**2
    torch.testing.assert_close(Curvature(h=h)(model, x, y), expected)


def test_curvature_tends_to_the_hessian_times_the_direction() -> None:
    model, x, y = net(), oracles.images(3), oracles.labels(3)
    matrix = hessian(model, x, y, of="loss")
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(functional.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    u = functional.normalize(slope.sign().flatten(1))
    expected = torch.einsum("nij,nj->ni", matrix, u).square().sum(1)
    value = Curvature(h=1e-5)(model, x, y)
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-10)
    sizes = torch.linalg.eigvalsh(matrix).abs().amax(1)
    assert (value <= sizes.square() * (1 + 1e-4)).all()


def test_curvature_stays_below_the_smooth_surface_on_relu_networks() -> None:
    model, x, y = net(nn.ReLU), oracles.images(8), oracles.labels(8)
    value = Curvature(h=1e-6)(model, x, y)
    assert (value <= SmoothSurface()(model, x, y).square() * (1 + 1e-4)).all()
    assert (value > 0).any()


def test_curvature_ignores_pixels_without_slope() -> None:
    a = torch.tensor([2.0, 0.0, 0.0, 0.0, -3.0])
    model, x, y = Bowls(a), vectors(), torch.zeros(4, dtype=torch.long)
    there = x @ a + 0.5 * 5 / 2**0.5
    expected = (there.sigmoid() - (x @ a).sigmoid()).square() * 13 / 0.25
    torch.testing.assert_close(Curvature(h=0.5)(model, x, y), expected)


def test_curvature_is_zero_where_there_is_no_slope() -> None:
    model = Bowls(torch.zeros(5))
    value = Curvature(h=0.5)(model, vectors(), torch.zeros(4, dtype=torch.long))
    assert torch.equal(value, torch.zeros(4))
    (slope,) = torch.autograd.grad(value.sum(), model.a)
    assert torch.isfinite(slope).all()


# --- all three ------------------------------------------------------------------------------------


@named
def test_one_value_per_sample_for_flat_and_shaped_inputs(term: Term) -> None:
    assert isinstance(term, Term)
    for model, x in ((net(), oracles.images()), (oracles.Quadratic(), vectors())):
        value = term(model, x, oracles.labels(), generator=oracles.seeded(0))
        assert value.shape == (4,)
        assert (value >= 0).all()


@pytest.mark.parametrize("term", [InputGradientNorm(), Curvature(h=0.5)])
def test_batch_size_does_not_matter(term: Term) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    alone = torch.cat([term(model, x[i : i + 1], y[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(term(model, x, y), alone)


@named
def test_gradient_in_the_weights(term: Term) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()

    def values() -> Tensor:
        return term(model, x, y, generator=oracles.seeded(3))

    analytic, numeric = slopes(values, model)
    assert analytic.abs() > 1e-3
    torch.testing.assert_close(analytic, numeric, rtol=1e-5, atol=1e-6)


@named
def test_gradient_in_the_input(term: Term) -> None:
    model, x, y = net(), oracles.images(2).requires_grad_(), oracles.labels(2)
    assert torch.autograd.gradcheck(
        lambda x: term(model, x, y, generator=oracles.seeded(3)), x, fast_mode=True
    )


class Hard(nn.Module):
    """A softplus network with chosen logits added: tied, or saturated."""

    def __init__(self, bias: Tensor, *, flat: bool) -> None:
        super().__init__()
        self.net = SmallCNN(
            size=8,
            classes=len(bias),
            activation=partial(nn.Softplus, beta=10.0),
            generator=oracles.seeded(0),
        )
        if flat:  # all classes alike: exact ties at every input
            with torch.no_grad():
                last = self.net.layers[-1]
                last.weight[:] = last.weight[0].clone()
                last.bias.zero_()
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.bias


@named
@pytest.mark.parametrize(
    ("bias", "flat"),
    [
        ([0.0, 0.0, 0.0], True),
        ([3.0, 0.0, 0.0], True),
        ([120.0, 0.0, 0.0], False),
        ([1e6, 0.0, -1e6], False),
        ([-1e6, 0.0, 0.0], False),
    ],
    ids=["uniform", "tied", "saturated", "far", "hopeless"],
)
def test_finite_in_single_precision(term: Term, bias: list[float], flat: bool) -> None:
    model = Hard(torch.tensor(bias), flat=flat).float()
    x, y = oracles.images().float(), torch.tensor([0, 1, 2, 0])
    value = term(model, x, y, generator=oracles.seeded(0))
    grads = torch.autograd.grad(value.sum(), list(model.parameters()), materialize_grads=True)
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(g).all() for g in grads)


@named
def test_no_graph_without_grad_mode(term: Term) -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    tracked = term(model, x, y, generator=oracles.seeded(0))
    with torch.no_grad():
        plain = term(model, x, y, generator=oracles.seeded(0))
    assert tracked.requires_grad
    assert not plain.requires_grad
    torch.testing.assert_close(plain, tracked.detach())


@named
def test_a_model_that_mixes_samples_is_refused(term: Term) -> None:
    with pytest.raises(ValueError, match="without batch normalisation in train mode"):
        term(batch_norm_net(), oracles.images(), oracles.labels())


def test_probes_come_from_the_generator() -> None:
    model, x, y = net(), oracles.images(), oracles.labels()
    term = HessianNorm()
    first = term(model, x, y, generator=oracles.seeded(0))
    assert torch.equal(first, term(model, x, y, generator=oracles.seeded(0)))
    assert not torch.equal(first, term(model, x, y, generator=oracles.seeded(1)))


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="Expected probes to be an integer >= 1, got 0"):
        HessianNorm(probes=0)
    with pytest.raises(ValueError, match="Expected h > 0, got 0"):
        Curvature(h=0)
    for term in TERMS:
        with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
            term(net(), oracles.images(1), torch.tensor([3]))
