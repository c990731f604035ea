"""Logits as densities: the identities that tie four log-densities, to the last digits of float64."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attrlib import attributions, energy
from tests import oracles, term_oracles

DENSITIES = [energy.marginal, energy.joint, energy.conditional, energy.centered]
exactly = partial(torch.testing.assert_close, rtol=0, atol=1e-12)
every_density = pytest.mark.parametrize("density", DENSITIES, ids=lambda d: d.__name__)


def _case() -> tuple[nn.Module, Tensor, Tensor]:
    return term_oracles.net(), oracles.images(), oracles.labels()


def _jacobian(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of all logits (n, classes, d), and probabilities (n, classes)."""
    every = [torch.full((len(x),), k) for k in range(oracles.CLASSES)]
    rows = torch.stack([attributions.gradient(model, x, y).flatten(1) for y in every], 1)
    return rows, model(x).softmax(1).detach()


def _squares(a: Tensor) -> Tensor:
    return a.square().sum(-1)


# --- values ---------------------------------------------------------------------------------------


def test_each_density_in_closed_form() -> None:
    logits = torch.tensor([[1.0, 2.0, 4.0], [0.0, -3.0, 0.5]])
    y = torch.tensor([2, 0])
    expected = logits.exp().sum(1).log()
    of_class = logits.gather(1, y[:, None])[:, 0]
    values = [density(nn.Identity(), logits, y) for density in DENSITIES]
    for value, known in zip(
        values,
        (expected, of_class, of_class - expected, expected - logits.mean(1)),
        strict=True,
    ):
        exactly(value, known)


def test_the_centered_density_is_the_loss_against_the_uniform_label_and_at_least_log_k() -> None:
    model, x, _ = _case()
    by_hand = -model(x).log_softmax(1).mean(1)
    exactly(energy.centered(model, x), by_hand)
    flat = torch.full((2, 5), 7.0)
    exactly(energy.centered(nn.Identity(), flat), torch.full((2,), 5.0).log())


@every_density
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_large_logits_stay_finite_in_single_precision(
    density: energy.Density, scale: float
) -> None:
    model, x, y = _case()
    model, x = model.float(), x.float().requires_grad_()
    with torch.no_grad():
        model.layers[-1].weight.mul_(scale)
    value = density(model, x, y)
    slope = energy.gradient(model, x, y, density=density)
    (bend,) = torch.autograd.grad(slope.square().sum() / scale**2, x)
    assert all(torch.isfinite(t).all() for t in (value, slope, bend))


# --- P1 to P5 -------------------------------------------------------------------------------------


def test_p1_the_marginal_slope_is_the_mean_slope() -> None:
    model, x, _ = _case()
    rows, p = _jacobian(model, x)
    slope = energy.gradient(model, x).flatten(1)
    exactly(slope, torch.einsum("nk,nkd->nd", p, rows))


def test_p2_joint_is_conditional_plus_marginal_and_conditionals_cancel() -> None:
    model, x, y = _case()
    g, c = (energy.gradient(model, x, y, density=d) for d in (energy.joint, energy.conditional))
    exactly(g, c + energy.gradient(model, x))
    exactly(g, attributions.gradient(model, x, y))
    _, p = _jacobian(model, x)
    mean = sum(
        p[:, k].view(-1, 1, 1, 1)
        * energy.gradient(model, x, torch.full_like(y, k), density=energy.conditional)
        for k in range(oracles.CLASSES)
    )
    exactly(mean, torch.zeros_like(x))


def _information(model: nn.Module, x: Tensor) -> Tensor:
    """The input's Fisher information (n, d, d): J^T (diag p - p p^T) J."""
    rows, p = _jacobian(model, x)
    covariance = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return rows.transpose(1, 2) @ covariance @ rows


def test_p3_mean_joint_square_is_marginal_square_plus_the_fisher_trace() -> None:
    model, x, _ = _case()
    rows, p = _jacobian(model, x)
    trace = _information(model, x).diagonal(dim1=1, dim2=2).sum(1)
    slope = energy.gradient(model, x).flatten(1)
    exactly((p * _squares(rows)).sum(1), _squares(slope) + trace)


def test_p4_the_hessian_is_the_mean_hessian_plus_the_information() -> None:
    model, x, _ = _case()
    x, d = x[:1], x[0].numel()

    def hessian(density: energy.Density, y: Tensor) -> Tensor:
        whole = torch.autograd.functional.hessian(lambda v: density(model, v, y).sum(), x)
        return whole.reshape(d, d)

    every = [torch.tensor([k]) for k in range(oracles.CLASSES)]
    p = model(x).softmax(1)[0].detach()
    mean = sum(p[k] * hessian(energy.joint, y) for k, y in enumerate(every))
    expected = mean + _information(model, x)[0]
    exactly(hessian(energy.marginal, every[0]), expected)


def test_p5_a_sure_model_s_marginal_slope_is_that_of_its_class() -> None:
    model, x, _ = _case()
    gaps = []
    for scale in (0.1, 10.0, 30.0):
        with torch.no_grad():
            model.layers[-1].weight.mul_(scale)
        rows, p = _jacobian(model, x)
        sure, top = p.max(1)
        own = rows[torch.arange(len(x)), top]
        gap = (energy.gradient(model, x).flatten(1) - own).norm(dim=1)
        limit = (1 - sure) * (rows - own[:, None]).norm(dim=2).amax(1)
        assert (gap <= limit + 1e-12).all()
        gaps.append(gap / own.norm(dim=1))
    assert (gaps[2] < 1e-3 * gaps[0]).any()


# --- the soft minimum -----------------------------------------------------------------------------


def test_the_part_of_pixels_in_the_marginal_is_a_soft_minimum_of_their_parts_in_the_logits() -> (
    None
):
    model, x, _ = _case()
    without = x.clone()
    without[:, :, 2:5, 3:6] = 0
    parts = (model(x) - model(without)).detach()
    drop = energy.soft_minimum(parts, model(x).detach())
    exactly(drop, (energy.marginal(model, x) - energy.marginal(model, without)).detach())
    assert (drop <= (model(x).softmax(1) * parts).sum(1) + 1e-12).all()
    assert (drop >= parts.amin(1) - 1e-12).all()
    assert (drop <= parts.amax(1) + 1e-12).all()


# --- the Fisher trace -----------------------------------------------------------------------------


def test_one_product_estimates_the_fisher_trace() -> None:
    model, x, _ = _case()
    exact = _information(model, x).diagonal(dim1=1, dim2=2).sum(1)
    few = torch.stack(
        [energy.fisher_trace(model, x, generator=oracles.seeded(seed)) for seed in range(400)]
    )
    error = few.std(0) / 400**0.5
    assert ((few.mean(0) - exact).abs() < 4 * error).all()
    assert (error < exact / 10).all()
    many = energy.fisher_trace(model, x, draws=400, generator=oracles.seeded(1))
    assert ((many - exact).abs() < 5 * error).all()


def test_the_trace_of_two_classes_in_closed_form() -> None:
    weight = torch.tensor([2.0, -1.0, 0.5])
    model, x = term_oracles.Sigmoid(weight), oracles.images(3)[:, 0, 0, :3]
    p = model(x).softmax(1).prod(1).detach()
    noise = oracles.seeded(0)
    value = energy.fisher_trace(model, x, generator=noise)
    draw = torch.randn(3, 2, generator=oracles.seeded(0))
    root = model(x).softmax(1).detach().sqrt()
    # u = t (1, -1) with t = sqrt(p q) times a standard normal number.
    t = root.prod(1) * (root[:, 1] * draw[:, 0] - root[:, 0] * draw[:, 1])
    exactly(value, t.square() * weight.square().sum())
    assert (p > 0).all()


# --- the gauge ------------------------------------------------------------------------------------


class Slope(nn.Module):
    """A number that grows with the pixels."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.tensor(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.size * x.flatten(1).square().sum(1)


def test_a_shift_moves_marginal_and_joint_and_nothing_else() -> None:
    model, x, y = _case()
    shift = Slope(3.0)
    shifted, c = energy.Shifted(model, shift), shift(x)
    for density, moved in zip(DENSITIES, (c, c, 0 * c, 0 * c), strict=True):
        exactly(density(shifted, x, y), density(model, x, y) + moved)
    exactly(shifted(x).softmax(1), model(x).softmax(1))
    ways = [energy.gradient(m, x, y) for m in (shifted, model)]
    exactly(ways[0] - ways[1], 6 * x)
    column = energy.Shifted(model, lambda v: shift(v)[:, None])
    exactly(column(x), shifted(x))


def test_the_fixed_gauge_does_not_see_a_shift() -> None:
    model, x, y = _case()
    shifted = energy.Shifted(model, Slope(3.0))
    for explain in (attributions.gradient, attributions.integrated_gradients):
        one, other = (explain(energy.GaugeFixed(m), x, y) for m in (model, shifted))
        exactly(one, other)
        assert not torch.allclose(explain(model, x, y), explain(shifted, x, y))
    exactly(energy.marginal(energy.GaugeFixed(shifted), x), energy.centered(model, x))


def test_the_ratio_tells_a_marginal_that_a_shift_made_flat() -> None:
    model, x, _ = _case()
    plain = energy.gauge_ratio(model, x)
    fixed = energy.gauge_ratio(energy.GaugeFixed(model), x)
    exactly(fixed, torch.ones(4))
    flat = energy.Shifted(model, lambda v: -0.999 * energy.marginal(model, v))
    torch.testing.assert_close(energy.gauge_ratio(flat, x), plain / 1000)
    silent = nn.Sequential(model, nn.LogSoftmax(1))
    assert (energy.marginal(silent, x).abs() < 1e-14).all()
    assert (energy.gauge_ratio(silent, x) < 1e-13).all()


def test_the_ratio_of_a_model_that_ignores_its_input_is_undefined() -> None:
    model, x, _ = _case()
    nn.init.zeros_(model.layers[-1].weight)
    assert energy.gauge_ratio(model, x).isnan().all()


# --- how far a density moves ----------------------------------------------------------------------


@every_density
def test_a_move_is_counted_in_spreads(density: energy.Density) -> None:
    model, x, y = _case()
    z = (x + 0.1).clamp(0, 1)
    value = energy.density_shift(model, x, z, y, density=density)
    here, there = (density(model, v, y).detach() for v in (x, z))
    exactly(value, (there - here).abs() / here.std())
    assert not value.requires_grad


def test_a_colder_model_of_logits_far_apart_moves_as_far() -> None:
    x = torch.tensor([[90.0, 0.0], [100.0, 0.0], [0.0, 120.0]])
    z = x + torch.tensor([0.0, 30.0])
    whole, colder = (energy.density_shift(lambda v, s=s: s * v, x, z) for s in (1.0, 0.7))
    exactly(whole, colder)


def test_a_density_without_spread_has_no_unit() -> None:
    model, x, _ = _case()
    silent = nn.Sequential(model, nn.LogSoftmax(1))
    assert energy.density_shift(silent, x, 0.9 * x).isnan().all()
    nn.init.zeros_(model.layers[-1].weight)
    assert energy.density_shift(model, x, 0.9 * x).isnan().all()


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    model, x, y = _case()
    with pytest.raises(ValueError, match="Expected draws to be an integer >= 1, got 0"):
        energy.fisher_trace(model, x, draws=0)
    with pytest.raises(ValueError, match=r"of at least 2 classes, got 1"):
        energy.marginal(lambda v: v.flatten(1).sum(1, keepdim=True), x)
    with pytest.raises(TypeError, match="Expected y to be an int64 tensor, got NoneType"):
        energy.joint(model, x, None)
    with pytest.raises(TypeError, match="Expected y to be an int64 tensor, got NoneType"):
        energy.gradient(model, x, density=energy.conditional)
    with pytest.raises(ValueError, match=r"Expected x to be finite, got NaN .* in 4 of 4"):
        energy.marginal(model, x / 0)
    with pytest.raises(ValueError, match=r"Expected x of at least two inputs .* got 1"):
        energy.density_shift(model, x[:1], x[:1])
    with pytest.raises(ValueError, match="Expected x and z to have one shape"):
        energy.density_shift(model, x, x[:2])
    with pytest.raises(ValueError, match="Expected z to be finite"):
        energy.density_shift(model, x, x / 0)
    with pytest.raises(ValueError, match="Expected parts and logits to have one shape"):
        energy.soft_minimum(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="Expected parts to be finite, got NaN"):
        energy.soft_minimum(torch.full((2, 3), torch.nan), torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"one number for each of 4 inputs, got shape \(4, 64\)"):
        energy.Shifted(model, lambda v: v.flatten(1))(x)
    with pytest.raises(ValueError, match=r"Expected model\(x\) to be logits \(4, classes\), got a"):
        energy.GaugeFixed(lambda v: (model(v), v))(x)
    with pytest.raises(ValueError, match="without batch normalisation in train mode"):
        energy.marginal(term_oracles.batch_norm_net(), x, y)
