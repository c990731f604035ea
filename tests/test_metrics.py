"""Metrics: scipy as oracle, ranges, symmetries and invariances."""

import math
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from torch import Tensor

from attrlib import metrics
from tests import oracles

TOL = 1e-9
rank_metrics = pytest.mark.parametrize("metric", [metrics.spearman, metrics.kendall])
signed_metrics = pytest.mark.parametrize("metric", [metrics.cosine, metrics.pearson])


@st.composite
def pairs(draw: st.DrawFn, elements: st.SearchStrategy[float]) -> tuple[Tensor, Tensor]:
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)))
    one, other = (draw(hnp.arrays("float64", shape, elements=elements)) for _ in range(2))
    return torch.from_numpy(one), torch.from_numpy(other)


tied = pairs(st.integers(-2, 2).map(float))
real = pairs(st.floats(-1e3, 1e3, width=32))


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=TOL, rtol=0, equal_nan=True)


# --- oracles --------------------------------------------------------------------------------------


@hypothesis.given(tied)
def test_rank_correlations_equal_scipy_with_ties(maps: tuple[Tensor, Tensor]) -> None:
    a, b = maps
    for metric, theirs in (
        (metrics.spearman, stats.spearmanr),
        (metrics.kendall, stats.kendalltau),
    ):
        ours = metric(a, b)
        for i in range(len(a)):
            one, other = a[i].flatten().numpy(), b[i].flatten().numpy()
            if np.ptp(one) == 0 or np.ptp(other) == 0:
                assert ours[i].isnan()
            else:
                assert float(ours[i]) == pytest.approx(theirs(one, other).statistic, abs=TOL)


def test_kendall_is_tau_b_by_counting_pairs() -> None:
    a = torch.tensor([[[1.0, 1.0, 2.0, 3.0]]])
    b = torch.tensor([[[1.0, 2.0, 2.0, 0.0]]])
    # Of 6 pairs one is tied in a, one in b; 1 agrees and 3 disagree.
    assert metrics.kendall(a, b).item() == pytest.approx((1 - 3) / math.sqrt(5 * 5))


def test_pearson_and_cosine_equal_numpy() -> None:
    a, b = (oracles.images(5, channels=2, seed=s).double() - 0.4 for s in (1, 2))
    for i in range(5):
        one, other = a[i].flatten().numpy(), b[i].flatten().numpy()
        r = np.corrcoef(one, other)[0, 1]
        assert metrics.pearson(a, b)[i].item() == pytest.approx(r, abs=1e-12)
        cos = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        assert metrics.cosine(a, b)[i].item() == pytest.approx(cos, abs=1e-12)


def test_topk_intersection_counts() -> None:
    a = torch.tensor([[[9.0, 8.0, 7.0], [0.0, 0.0, 0.0]]])
    b = torch.tensor([[[9.0, 0.0, 7.0], [8.0, 0.0, 0.0]]])
    assert metrics.topk_intersection(a, b, k=1).item() == 1
    assert metrics.topk_intersection(a, b, k=2).item() == 0.5
    assert metrics.topk_intersection(a, b, k=3).item() == pytest.approx(2 / 3)
    assert metrics.topk_intersection(a, b, k=6).item() == 1


def test_unrelated_maps_share_k_of_d() -> None:
    a, b = (torch.rand(4000, 5, 5, generator=oracles.seeded(s)) for s in (0, 1))
    overlap = metrics.topk_intersection(a, b, k=5)
    assert abs(overlap.mean() - 5 / 25) < 5 * overlap.std() / math.sqrt(4000)


# --- properties -----------------------------------------------------------------------------------


@hypothesis.given(real, st.data())
def test_ranges_symmetry_and_best_value(maps: tuple[Tensor, Tensor], data: st.DataObject) -> None:
    a, b = maps
    k = data.draw(st.integers(1, a[0].numel()))
    bounds: dict[Callable[..., Tensor], float] = {
        metrics.cosine: -1,
        metrics.pearson: -1,
        metrics.spearman: -1,
        metrics.kendall: -1,
        lambda a, b: metrics.topk_intersection(a, b, k=k): 0,
    }
    for metric, lowest in bounds.items():
        values = metric(a, b)
        known = values[~values.isnan()]
        assert ((lowest <= known) & (known <= 1)).all()
        assert _same(metric(b, a), values)
        itself = metric(a, a)
        assert _same(itself[~itself.isnan()], torch.ones(1).double())


@signed_metrics
@hypothesis.given(maps=real, factor=st.floats(1e-3, 1e3))
def test_a_positive_factor_changes_nothing(
    metric: Callable[..., Tensor], maps: tuple[Tensor, Tensor], factor: float
) -> None:
    a, b = (m.round(decimals=2) for m in maps)
    torch.testing.assert_close(
        metric(factor * a, b), metric(a, b), atol=1e-7, rtol=0, equal_nan=True
    )
    torch.testing.assert_close(metric(-a, b), -metric(a, b), atol=1e-7, rtol=0, equal_nan=True)


@rank_metrics
@hypothesis.given(maps=tied)
def test_a_monotone_map_changes_no_rank(
    metric: Callable[..., Tensor], maps: tuple[Tensor, Tensor]
) -> None:
    a, b = maps
    assert _same(metric(a**3 + a, b.exp()), metric(a, b))
    assert _same(metric(-a, b), -metric(a, b))


def test_pearson_ignores_a_shift() -> None:
    a, b = (oracles.images(seed=s).double() for s in (1, 2))
    assert _same(metrics.pearson(a + 5, b), metrics.pearson(a, b))
    assert not _same(metrics.cosine(a + 5, b), metrics.cosine(a, b))


@signed_metrics
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_tiny_and_huge_maps_are_not_lost_in_float32(
    metric: Callable[..., Tensor], scale: float
) -> None:
    a, b = (oracles.images(seed=s).float() - 0.5 for s in (1, 2))
    torch.testing.assert_close(metric(a * scale, b), metric(a, b), atol=1e-5, rtol=0)


# --- undefined ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_a_constant_map_has_no_correlation(value: float) -> None:
    a = oracles.images(3)[:, 0]
    b = a.clone()
    b[1] = value
    for metric in (metrics.pearson, metrics.spearman, metrics.kendall):
        assert metric(a, b).isnan().tolist() == [False, True, False]
        assert metric(b, a).isnan().tolist() == [False, True, False]
    assert metrics.cosine(a, b).isnan().tolist() == [False, value == 0, False]


def test_an_undefined_row_leaves_the_others_gradients_alone() -> None:
    a, b = (oracles.images(3, seed=s) for s in (1, 2))
    b[1] = 0
    b.requires_grad_()
    (grad,) = torch.autograd.grad(metrics.cosine(a, b)[[0, 2]].sum(), b)
    assert torch.isfinite(grad[[0, 2]]).all()


# --- interval -------------------------------------------------------------------------------------


def test_interval_covers_the_mean_as_often_as_it_says() -> None:
    source = oracles.seeded(0)
    runs, hits = 300, 0
    for _ in range(runs):
        low, high = metrics.interval(torch.randn(40, generator=source), level=0.8, generator=source)
        assert low < high
        hits += low <= 0 <= high
    spread = math.sqrt(0.8 * 0.2 / runs)
    assert abs(hits / runs - 0.8) < 5 * spread


def test_interval_leaves_nan_out_and_repeats(generator: torch.Generator) -> None:
    values = torch.linspace(0, 1, 20)
    ends = metrics.interval(values, generator=generator)
    with_nan = torch.cat([values, torch.tensor([math.nan])])
    assert metrics.interval(with_nan, generator=oracles.seeded(0)) == ends
    wider = metrics.interval(values, level=0.99, generator=oracles.seeded(0))
    assert wider[0] < ends[0] < ends[1] < wider[1]


@pytest.mark.usefixtures("unchecked_shapes")
def test_interval_names_what_is_wrong(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="Expected level strictly between 0 and 1, got 95"):
        metrics.interval(torch.rand(5), level=95, generator=generator)
    with pytest.raises(ValueError, match=r"Expected values of shape \(n,\), got \(5, 1\)"):
        metrics.interval(torch.rand(5, 1), generator=generator)
    with pytest.raises(ValueError, match="Expected values with at least 2 numbers, got 1"):
        metrics.interval(torch.tensor([math.nan, 1.0]), generator=generator)
