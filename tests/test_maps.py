"""Reductions of maps."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from attrlib import maps
from attrlib._select import kth_highest
from tests import oracles

# Few different values, so that ties are common.
tied_maps = hnp.arrays(
    "float64",
    st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)),
    elements=st.integers(-3, 3).map(float),
).map(torch.from_numpy)


def _reference_topk(a: Tensor, k: int) -> Tensor:
    """By Python's stable sort, pixel by pixel."""
    mask = torch.zeros_like(a, dtype=torch.bool)
    for row, values in enumerate(a.flatten(1).tolist()):
        for i in sorted(range(len(values)), key=lambda i: -values[i])[:k]:
            mask[row].view(-1)[i] = True
    return mask


@hypothesis.given(tied_maps, st.data())
def test_topk_mask_takes_exactly_k_and_the_lower_index(a: Tensor, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, a[0].numel()))
    mask = maps.topk_mask(a, k=k)
    assert mask.flatten(1).sum(1).eq(k).all()
    assert torch.equal(mask, _reference_topk(a, k))


@hypothesis.given(tied_maps, st.data())
def test_topk_mask_does_not_change_under_a_monotone_map(a: Tensor, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, a[0].numel()))
    assert torch.equal(maps.topk_mask(a.exp() - 7, k=k), maps.topk_mask(a, k=k))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_kth_highest_is_the_last_of_the_k_highest(dtype: torch.dtype) -> None:
    rows = torch.rand(8, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    rows[1, ::3], rows[2, 4], rows[3, :9] = rows[1, 0], torch.nan, -torch.inf
    for k in (1, 10, 30):
        expected = rows.topk(k, dim=1).values[:, -1]
        torch.testing.assert_close(kth_highest(rows, k), expected, rtol=0, atol=0, equal_nan=True)


def test_topk_mask_of_a_constant_map_is_its_first_pixels() -> None:
    mask = maps.topk_mask(torch.zeros(2, 3, 4), k=5)
    assert mask.flatten(1).tolist() == [[True] * 5 + [False] * 7] * 2


@pytest.mark.parametrize("k", [0, 65, -1, 2.0, True])
@pytest.mark.usefixtures("unchecked_shapes")
def test_topk_mask_names_k(k: object) -> None:
    with pytest.raises(ValueError, match="Expected k to be an integer from 1 to 64, got"):
        maps.topk_mask(torch.zeros(1, 8, 8), k=k)


def test_to_heatmap_modes() -> None:
    a = torch.tensor([[[[1.0, -2.0]], [[-3.0, -4.0]]]])
    assert maps.to_heatmap(a).tolist() == [[[4.0, 6.0]]]
    assert maps.to_heatmap(a, mode="abs_sum").tolist() == [[[4.0, 6.0]]]
    assert maps.to_heatmap(a, mode="sum").tolist() == [[[-2.0, -6.0]]]
    assert maps.to_heatmap(a, mode="max_abs").tolist() == [[[3.0, 4.0]]]


@pytest.mark.parametrize("mode", ["abs_sum", "max_abs"])
def test_to_heatmap_forgets_the_sign(mode: maps.HeatmapMode) -> None:
    a = oracles.images(channels=3) - 0.5
    assert torch.equal(maps.to_heatmap(a, mode=mode), maps.to_heatmap(-a, mode=mode))
    assert maps.to_heatmap(a, mode=mode).min() >= 0


@pytest.mark.usefixtures("unchecked_shapes")
def test_to_heatmap_names_the_mode_and_the_shape() -> None:
    with pytest.raises(ValueError, match="Expected mode to be one of abs_sum, sum, max_abs, got"):
        maps.to_heatmap(torch.zeros(1, 1, 2, 2), mode="mean")
    with pytest.raises(ValueError, match=r"Expected a to be maps .* got shape \(1, 2, 2\)"):
        maps.to_heatmap(torch.zeros(1, 2, 2))
