"""Smooth surface regularization against closed forms and against Hessians from autograd."""

import dataclasses
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import checkpoints, data
from attrlib.regularizers import SmoothSurface, loss_hessian_eigenvalue
from attrlib.types import Term
from tests import oracles

EXACT, FREE = SmoothSurface(), SmoothSurface(solver="matrix-free", iterations=60)
SOLVERS = [pytest.param(EXACT, id="exact"), pytest.param(FREE, id="matrix-free")]
# Logits at which the published factorisation has no derivative.
HARD = {
    "tied": [3.0, 0.0, 0.0, 0.0, 0.0],
    "uniform": [0.0, 0.0, 0.0, 0.0, 0.0],
    "saturated": [40.0, 0.0, -5.0, -10.0, -20.0],
    "one-hot": [120.0, 0.0, 0.0, 0.0, 0.0],
    "far": [1e6, 0.0, -1e6, 3.0, 3.0],
}


class Softmax(nn.Module):
    """f(x) = W x + c with chosen weights and, at x = 0, chosen logits."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x.flatten(1), self.weight, self.bias)


def relu_net(*, classes: int = 4, seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 9), nn.ReLU())
        net.append(nn.Linear(9, classes))
    with torch.no_grad():
        net[-1].weight.mul_(scale)
    return net


def points(n: int = 5, *, seed: int = 1) -> Tensor:
    return torch.rand(n, 1, 3, 4, generator=oracles.seeded(seed))


def hessian(model: nn.Module, x: Tensor, label: int) -> Tensor:
    """Hessian of one sample's cross-entropy, without any formula of ours."""

    def loss(flat: Tensor) -> Tensor:
        return functional.cross_entropy(model(flat.view_as(x)[None]), torch.tensor([label]))

    return torch.autograd.functional.hessian(loss, x.flatten())


def labels(n: int, classes: int = 4) -> Tensor:
    return torch.arange(n) % classes


@pytest.mark.parametrize("term", SOLVERS)
@pytest.mark.parametrize("scale", [0.1, 1.0, 5.0])
def test_largest_eigenvalue_of_the_hessian_for_every_label(
    term: SmoothSurface, scale: float
) -> None:
    model, x = relu_net(scale=scale), points()
    y = labels(len(x))
    assert isinstance(term, Term)
    values = term(model, x, y)
    assert values.shape == (5,)
    for i, row in enumerate(x):
        for label in range(4):
            expected = torch.linalg.eigvalsh(hessian(model, row, label))[-1]
            torch.testing.assert_close(values[i], expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(loss_hessian_eigenvalue(model, x), values.detach())


@pytest.mark.parametrize("term", SOLVERS)
def test_two_classes_in_closed_form(term: SmoothSurface) -> None:
    weight = torch.randn(2, 12, generator=oracles.seeded(3))
    model, x = Softmax(weight), points()
    p = model(x).softmax(1)[:, 0]
    expected = p * (1 - p) * (weight[0] - weight[1]).square().sum()
    torch.testing.assert_close(term(model, x, labels(5, 2)), expected)


@pytest.mark.parametrize("term", SOLVERS)
def test_even_odds_and_orthogonal_gradients(term: SmoothSurface) -> None:
    model = Softmax(3 * torch.eye(4, 12))  # all gradients have norm a = 3: λ = a²/C, C - 1 times
    values = term(model, torch.zeros(2, 1, 3, 4), labels(2))
    torch.testing.assert_close(values, torch.full((2,), 9 / 4))


def test_smooth_networks_give_the_gauss_newton_part() -> None:
    model, x = oracles.softplus_net(), oracles.images(2)
    y = oracles.labels(2)
    for i, row in enumerate(x):
        jacobian = torch.autograd.functional.jacobian(lambda a: model(a[None])[0], row).flatten(1)
        p = model(row[None]).softmax(1)[0]
        part = jacobian.T @ (p.diag() - p.outer(p)) @ jacobian
        full = hessian(model, row, int(y[i]))
        assert (full - part).norm() > 1e-3 * part.norm()
        value = EXACT(model, x, y)[i]
        torch.testing.assert_close(value, torch.linalg.eigvalsh(part)[-1])


def test_gradient_in_the_weights_and_in_the_input() -> None:
    model, x = oracles.softplus_net(), oracles.images(2)
    names = [name for name, _ in model.named_parameters()]
    leaves = [p.detach().clone().requires_grad_() for p in model.parameters()]

    def value(x: Tensor, *weights: Tensor) -> Tensor:
        def call(x: Tensor) -> Tensor:
            return torch.func.functional_call(model, dict(zip(names, weights, strict=True)), x)

        return EXACT(call, x, oracles.labels(2))

    x.requires_grad_()
    assert torch.autograd.gradcheck(value, (x, *leaves), fast_mode=True)


def test_matrix_free_gradient_approaches_the_exact_one() -> None:
    model, x, y = relu_net(scale=8.0), points(16), labels(16)
    exact, *free = (
        torch.autograd.grad(term(model, x, y).sum(), model[1].weight)[0].flatten()
        for term in (
            EXACT,
            *(SmoothSurface(solver="matrix-free", iterations=k) for k in (0, 2, 10, 60)),
        )
    )
    error = [float((f - exact).norm() / exact.norm()) for f in free]
    assert error == sorted(error, reverse=True)
    assert error[-1] < 1e-6


def test_matrix_free_approaches_the_eigenvalue_from_below() -> None:
    model, x, y = relu_net(classes=6, scale=8.0), points(64), labels(64, 6)
    exact = EXACT(model, x, y)
    rows = [
        SmoothSurface(solver="matrix-free", iterations=k)(model, x, y) / exact
        for k in (0, 1, 2, 5, 50)
    ]
    for fewer, more in itertools.pairwise(rows):
        assert (fewer <= more * (1 + 1e-9)).all()
        assert more.mean() > fewer.mean()
    assert (rows[-1] <= 1 + 1e-9).all()
    assert rows[0].median() > 0.5  # a random direction among the 12 would leave a twelfth or so
    assert rows[1].median() > 0.9


def test_without_iterations_it_is_the_reweighted_gradient_norm() -> None:
    model, x, y = relu_net(scale=4.0), points(), labels(5)
    logits = model(x.requires_grad_())
    p, winner = logits.softmax(1).max(1)
    (slope,) = torch.autograd.grad(functional.cross_entropy(logits, winner, reduction="sum"), x)
    expected = p / (1 - p) * slope.flatten(1).square().sum(1)
    value = SmoothSurface(solver="matrix-free", iterations=0)(model, x.detach(), y)
    torch.testing.assert_close(value, expected)


def test_bounds_on_both_sides() -> None:
    for seed in range(5):
        model, x = relu_net(classes=5, seed=seed, scale=8.0), points(20, seed=seed)
        value = loss_hessian_eigenvalue(model, x)
        rows = torch.func.vmap(torch.func.jacrev(lambda a, model=model: model(a[None])[0]))(x)
        rows = rows.flatten(2)
        p = model(x).softmax(1).detach()
        trace = (p * (rows - p[:, None] @ rows).square().sum(2)).sum(1)
        spread = torch.cdist(rows, rows).square().amax((1, 2)) / 4
        for label in range(5):
            slope = p[:, None] @ rows - rows[:, label : label + 1]
            lower = p[:, label] / (1 - p[:, label]) * slope.square().sum((1, 2))
            assert (lower <= value * (1 + 1e-6)).all()
        assert (value <= torch.minimum(trace, spread) * (1 + 1e-9)).all()
        assert (value >= trace / 4 * (1 - 1e-9)).all()


@pytest.mark.parametrize("term", SOLVERS)
def test_scaling_the_pixels(term: SmoothSurface) -> None:
    model, x, y = relu_net(), points(), labels(5)
    before = term(model, x, y)
    with torch.no_grad():
        model[1].weight.div_(255)
    torch.testing.assert_close(term(model, 255 * x, y), before / 255**2)


@pytest.mark.parametrize("term", [*SOLVERS, SmoothSurface(solver="matrix-free", iterations=0)])
@pytest.mark.parametrize("logits", HARD.values(), ids=HARD.keys())
def test_finite_in_single_precision(term: SmoothSurface, logits: list[float]) -> None:
    weight = torch.randn(5, 12, generator=oracles.seeded(3))
    values, slopes = [], []
    for kind in (torch.float32, torch.float64):
        model = Softmax(weight.clone(), torch.tensor(logits)).to(kind)
        x = torch.zeros(2, 1, 3, 4, dtype=kind, requires_grad=True)
        value = term(model, x, labels(2))
        assert value.dtype == kind
        grads = torch.autograd.grad(value.sum(), (x, *model.parameters()))
        assert torch.isfinite(value).all()
        assert all(torch.isfinite(g).all() for g in grads)
        values.append(value.double())
        slopes.append(torch.cat([g.double().flatten() for g in grads]))
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-30)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-3, atol=1e-5)


def test_gradient_where_eigenvalues_coincide_is_a_directional_one() -> None:
    # W = 3 I and even odds: λ is three-fold. Any slope of a one-sided derivative is a fair answer,
    # and its product with W is 2 λ, because λ is homogeneous of degree 2 in W.
    model = Softmax(3 * torch.eye(4, 12)).float()
    value = EXACT(model, torch.zeros(1, 1, 3, 4, dtype=torch.float32), labels(1))
    (slope,) = torch.autograd.grad(value.sum(), model.weight)
    torch.testing.assert_close((slope * model.weight).sum(), 2 * value.sum(), rtol=1e-5, atol=0)


def test_confident_samples_keep_their_relative_precision() -> None:
    # p (1 - p) a² with 1 - p = e^-30: 1 - p is 0 in float32, the eigenvalue is not.
    weight = torch.zeros(2, 12)
    weight[0, 0] = 2.0
    model = Softmax(weight, torch.tensor([30.0, 0.0])).float()
    x = torch.zeros(1, 1, 3, 4, dtype=torch.float32)
    for term in (EXACT, SmoothSurface(solver="matrix-free", iterations=0)):
        value = float(term(model, x, labels(1)).detach())
        assert value == pytest.approx(4 * math.exp(-30), rel=1e-5)


def test_nearly_one_hot_networks_have_finite_values() -> None:
    # Entries from 1e-8 down to the smallest in single precision, where LAPACK's solver gives NaN.
    net, images = checkpoints.load("natural").model, data.fashion_mnist("test")

    def sharp(x: Tensor) -> Tensor:
        return 8 * net(x)

    x = images.x[:512].float()
    assert loss_hessian_eigenvalue(sharp, x).isfinite().all()
    assert EXACT(sharp, x, images.y[:512]).isfinite().all()


@pytest.mark.parametrize("term", SOLVERS)
def test_half_precision_is_summed_in_single(term: SmoothSurface) -> None:
    model, x, y = relu_net(), points(), labels(5)
    expected = term(model, x, y)
    value = term(model.bfloat16(), x.bfloat16(), y)
    assert value.dtype == torch.bfloat16
    torch.testing.assert_close(value.double(), expected, rtol=0.1, atol=0)


def test_training_with_it_flattens_the_surface() -> None:
    model, x, y = relu_net(scale=8.0), points(32), labels(32)
    before = loss_hessian_eigenvalue(model, x).mean()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(30):
        optimizer.zero_grad()
        EXACT(model, x, y).mean().backward()
        optimizer.step()
    assert loss_hessian_eigenvalue(model, x).mean() < before / 2


@pytest.mark.parametrize("term", SOLVERS)
def test_no_graph_without_grad_mode(term: SmoothSurface) -> None:
    model, x, y = relu_net(), points(), labels(5)
    tracked = term(model, x, y)
    with torch.no_grad():
        plain = term(model, x, y)
    assert tracked.requires_grad
    assert not plain.requires_grad
    assert not loss_hessian_eigenvalue(model, x).requires_grad
    torch.testing.assert_close(plain, tracked.detach())


def test_a_model_that_mixes_samples_is_refused() -> None:
    model = nn.Sequential(relu_net(), nn.BatchNorm1d(4))
    with pytest.raises(ValueError, match="without batch normalisation in train mode"):
        EXACT(model, points(), labels(5))
    with pytest.raises(ValueError, match="without batch normalisation in train mode"):
        loss_hessian_eigenvalue(model, points())
    assert torch.isfinite(EXACT(model.eval(), points(), labels(5))).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_errors_name_what_is_wrong() -> None:
    with pytest.raises(
        ValueError, match="Expected solver to be one of exact, matrix-free, got 'e'"
    ):
        SmoothSurface(solver="e")
    with pytest.raises(ValueError, match="Expected iterations to be an integer >= 0, got -1"):
        SmoothSurface(solver="matrix-free", iterations=-1)
    with pytest.raises(ValueError, match="Expected y from 0 to 3, got 4"):
        EXACT(relu_net(), points(1), torch.tensor([4]))
    broken = relu_net()
    with torch.no_grad():
        broken[-1].bias[0] = torch.nan
    with pytest.raises(ValueError, match=r"Expected jacobian to be finite, got NaN .* 5 of 5"):
        EXACT(broken, points(), labels(5))
    with pytest.raises(dataclasses.FrozenInstanceError):
        EXACT.iterations = 3
