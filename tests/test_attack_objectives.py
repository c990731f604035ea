"""Objectives equal their formulas, and stay finite where they are undefined."""

from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attrlib import metrics
from attrlib.attacks import Cosine, MassCenter, TargetMap, TopK
from attrlib.maps import dilate, diverse_topk, mass_center, normalize, to_heatmap, topk_mask
from tests.oracles import seeded

TARGET = torch.rand(6, 6, generator=seeded(9), dtype=torch.float64)
OBJECTIVES = pytest.mark.parametrize(
    "objective",
    [
        TopK(k=5),
        TopK(k=5, window=1),
        TopK(k=5, window=1, diverse=True),
        MassCenter(),
        TargetMap(target=TARGET),
        Cosine(),
    ],
    ids=repr,
)


def pair(n: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, n, 2, 6, 6, generator=seeded(seed), dtype=torch.float64)
    return a, b


def greedy(a: Tensor, k: int, window: int) -> Tensor:
    """The diverse set of one heatmap, pixel by pixel."""
    h, w = a.shape
    left, chosen = {(i, j) for i in range(h) for j in range(w)}, torch.zeros(h, w, dtype=torch.bool)
    while left and chosen.sum() < k:
        p, q = max(left, key=lambda at: (float(a[at]), -at[0] * w - at[1]))
        chosen[p, q] = True
        left -= {(i, j) for i, j in left if abs(i - p) <= window and abs(j - q) <= window}
    return chosen


# --- sets of pixels -------------------------------------------------------------------------------


@given(
    levels=st.integers(1, 30),
    seed=st.integers(0, 10**6),
    k=st.integers(1, 30),
    window=st.integers(0, 3),
)
@settings(max_examples=80, deadline=None)
def test_diverse_topk_is_the_greedy_selection(levels: int, seed: int, k: int, window: int) -> None:
    a = torch.randint(-levels, levels + 1, (3, 5, 6), generator=seeded(seed)).double()  # many ties
    chosen = diverse_topk(a, k=k, window=window)
    for row, one in zip(chosen, a, strict=True):
        assert torch.equal(row, greedy(one, k, window))
    if window == 0:
        assert torch.equal(chosen, topk_mask(a, k=k))
    # What ranks above the last pick lies near a pick.
    lowest = torch.where(chosen, a, torch.inf).amin((1, 2), keepdim=True)
    assert not ((a > lowest) & ~dilate(chosen, window=window)).any()


def test_windows_stop_at_the_border() -> None:
    mask = torch.zeros(1, 4, 5, dtype=torch.bool)
    mask[0, 1, 4] = True
    grown = dilate(mask, window=1)
    assert grown.nonzero().tolist() == [[0, i, j] for i in (0, 1, 2) for j in (3, 4)]
    assert torch.equal(dilate(mask, window=0), mask)
    assert dilate(mask, window=9).all()
    corner = torch.zeros(1, 4, 5, dtype=torch.bool)
    corner[0, 0, 0] = True  # pixel 0 counts, and does not reach the last row
    assert dilate(corner, window=1).sum() == 4


def test_diverse_sets_of_the_worked_examples() -> None:
    a = ((7 * torch.arange(36)) % 36).double().view(1, 6, 6)
    picks = {0: [5, 10, 15, 20], 1: [5, 15, 25, 35], 2: [2, 5, 20, 35]}
    for window, expected in picks.items():
        chosen = diverse_topk(a, k=4, window=window).flatten().nonzero().flatten()
        assert chosen.tolist() == sorted(expected)
    # The windows of nine pixels cover the map: fewer than k can be chosen.
    assert diverse_topk(a, k=36, window=1).sum() < 36


def test_the_centre_of_mass_and_its_shift() -> None:
    a = torch.zeros(3, 4, 5, dtype=torch.float64)
    a[0, 1, 2] = 3
    a[1, 0, 0] = a[1, 3, 4] = 1
    assert mass_center(a).tolist() == [[1.0, 2.0], [1.5, 2.0], [0.0, 0.0]]
    shift = metrics.center_shift(a, a.flip(2))
    assert shift[:2].tolist() == [0.0, 0.0]
    assert shift[2].isnan()
    moved = metrics.center_shift(a[:1], a[:1].roll((2, 1), dims=(1, 2)))
    torch.testing.assert_close(moved, torch.tensor([5.0], dtype=torch.float64).sqrt())
    torch.testing.assert_close(metrics.center_shift(a[:2], 7 * a[:2]), shift[:2])
    with pytest.raises(ValueError, match="Expected b to be non-negative, got -1"):
        metrics.center_shift(a, a - 1)


def test_normalize_gives_mean_one_and_leaves_zeros() -> None:
    h = torch.rand(2, 3, 4, generator=seeded(0), dtype=torch.float64)
    h[1] = 0
    h.requires_grad_()
    scaled = normalize(h)
    assert scaled.mean((1, 2)).tolist() == pytest.approx([1.0, 0.0])
    (slope,) = torch.autograd.grad(scaled[:, 0, 0].sum(), h)
    assert torch.isfinite(slope).all()


# --- objectives -----------------------------------------------------------------------------------


def test_objectives_equal_their_formulas() -> None:
    a, b = pair()
    heat, other = to_heatmap(a), normalize(to_heatmap(b))
    torch.testing.assert_close(TopK(k=5)(a, b), -(other * topk_mask(heat, k=5)).sum((1, 2)))
    torch.testing.assert_close(
        TopK(k=5, window=1)(a, b), -(other * dilate(topk_mask(heat, k=5), window=1)).sum((1, 2))
    )
    wide = dilate(diverse_topk(heat, k=3, window=1), window=1)
    torch.testing.assert_close(TopK(k=3, window=1, diverse=True)(a, b), -(other * wide).sum((1, 2)))
    torch.testing.assert_close(
        MassCenter()(a, b), metrics.center_shift(heat, to_heatmap(b)).square()
    )
    torch.testing.assert_close(Cosine()(a, b), 1 - metrics.cosine(a, b))
    torch.testing.assert_close(
        TargetMap(target=TARGET)(a, b), -(other - TARGET / TARGET.mean()).square().mean((1, 2))
    )
    each = TargetMap(target=to_heatmap(b))
    torch.testing.assert_close(each(a, b), torch.zeros(3, dtype=torch.float64))


@OBJECTIVES
def test_the_size_of_a_map_does_not_count(objective: Any) -> None:
    a, b = pair()
    for scale in (1e-3, 1e3):
        torch.testing.assert_close(objective(a, scale * b), objective(a, b))


@OBJECTIVES
@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e25])
def test_gradients_are_finite_in_float32(objective: Any, scale: float) -> None:
    a, b = (m.float() for m in pair(4))
    b = b * scale
    a[1] = b[2] = 0
    b[3] = a[3]
    b.requires_grad_()
    value = objective(a, b)
    (slope,) = torch.autograd.grad(value.sum(), b)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()
    assert not slope[2].any()  # nothing to gain where there is no map


@OBJECTIVES
def test_objectives_are_differentiable(objective: Any) -> None:
    a, b = pair(2)
    assert torch.autograd.gradcheck(partial(objective, a), b.requires_grad_())


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: TopK(k=0), ValueError, "k to be an integer >= 1, got 0"),
        (lambda: TopK(k=5, window=-1), ValueError, "window to be an integer >= 0, got -1"),
        (lambda: TargetMap(target=[[1.0]]), TypeError, "target to be a floating.*, got list"),
        (lambda: TargetMap(target=torch.ones(2, 2).long()), TypeError, "target to be a floating"),
        (lambda: TargetMap(target=torch.ones(4)), ValueError, r"target of shape .*, got \(4,\)"),
        (lambda: TargetMap(target=torch.ones(2, 2) / 0), ValueError, "target to be finite"),
        (lambda: TargetMap(target=-torch.ones(2, 2)), ValueError, "target to be non-negative"),
        (lambda: TargetMap(target=torch.zeros(2, 2)), ValueError, "target to be .* not all zero"),
    ],
)
def test_bad_objectives_are_named(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"Expected {message}"):
        make()


def test_targets_of_another_size_are_named() -> None:
    a, b = pair()
    for target in (torch.ones(3, 3), torch.ones(2, 6, 6)):
        with pytest.raises(ValueError, match=r"Expected target to fit heatmaps \(3, 6, 6\), got"):
            TargetMap(target=target)(a, b)
