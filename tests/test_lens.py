"""LENS scores and diverse sets: golden values and properties. See test_lens_defects.py, too."""

import itertools
import math
from collections.abc import Callable

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage, stats
from torch import Tensor

from attrlib import maps, metrics
from tests import lens_oracles, oracles

few = hypothesis.settings(max_examples=60)


@st.composite
def heatmaps(draw: st.DrawFn, count: int = 2, low: int = 1, high: int = 7) -> tuple[Tensor, ...]:
    """Batches of one shape, with ties in about half of all cases."""
    shape = draw(st.tuples(st.integers(1, 2), st.integers(low, high), st.integers(low, high)))
    values = st.one_of(st.just(st.integers(0, 3)), st.just(st.integers(0, 10**6)))
    elements = draw(values).map(float)
    return tuple(
        torch.from_numpy(draw(hnp.arrays("float64", shape, elements=elements)))
        for _ in range(count)
    )


def _options(data: st.DataObject, a: Tensor, widest: int = 3) -> dict[str, int]:
    k = data.draw(st.integers(1, a[0].numel()), "k")
    limit = min(widest, (max(a.shape[1:]) - 1) // 2)
    return {"k": k, "window": data.draw(st.integers(0, limit), "window")}


def _distance(one: Tensor, other: Tensor) -> Tensor:
    """Chebyshev distances of all pixels of two masks (h, w)."""
    return (one.nonzero()[:, None] - other.nonzero()[None]).abs().amax(2)


# --- golden values --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("window", "recall", "precision", "of_a", "of_b", "shared", "diverse_recall", "diverse_prec"),
    [
        (0, 0, 0, {5, 10, 15, 20}, {0, 11, 16, 21}, 0, 0, 0),
        (1, 0.75, 1, {5, 15, 25, 35}, {0, 11, 21, 31}, 0, 0.75, 0.75),
        (2, 0.75, 1, {5, 20, 35, 2}, {0, 11, 26, 35}, 0.25, 1, 1),
    ],
)
def test_golden_scattered(
    window: int,
    recall: float,
    precision: float,
    of_a: set[int],
    of_b: set[int],
    shared: float,
    diverse_recall: float,
    diverse_prec: float,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    a = ((7 * torch.arange(36)) % 36).view(1, 6, 6).to(device, dtype)
    b = a.roll(1, 2)
    assert lens_oracles.flat(maps.topk_mask(a, k=4)) == [5, 10, 15, 20]
    assert lens_oracles.flat(maps.topk_mask(b, k=4)) == [0, 11, 16, 21]
    assert metrics.topk_intersection(a, b, k=4).item() == 0
    assert metrics.lens_recall(a, b, k=4, window=window).item() == recall
    assert metrics.lens_precision(a, b, k=4, window=window).item() == precision
    one, other = (maps.diverse_topk(m, k=4, window=window) for m in (a, b))
    assert set(lens_oracles.flat(one)) == of_a
    assert set(lens_oracles.flat(other)) == of_b
    assert int((one & other).sum()) / 4 == shared
    assert metrics.lens_recall(a, b, k=4, window=window, diverse=True).item() == diverse_recall
    assert metrics.lens_precision(a, b, k=4, window=window, diverse=True).item() == diverse_prec


def test_golden_block_that_moves() -> None:
    a, b = (-0.001 * torch.arange(49.0).view(1, 7, 7) for _ in range(2))
    block = torch.tensor([[9.0, 8.0], [7.0, 6.0]])
    a[0, 2:4, 2:4] = block
    b[0, 2:4, 4:6] = block
    assert lens_oracles.flat(maps.topk_mask(a, k=4)) == [16, 17, 23, 24]
    assert lens_oracles.flat(maps.topk_mask(b, k=4)) == [18, 19, 25, 26]
    for window, value in ((0, 0), (1, 0.5), (2, 1)):
        assert metrics.lens_recall(a, b, k=4, window=window).item() == value
        assert metrics.lens_precision(a, b, k=4, window=window).item() == value
    assert lens_oracles.flat(maps.diverse_topk(a, k=4, window=1)) == [0, 2, 4, 16]
    assert lens_oracles.flat(maps.diverse_topk(b, k=4, window=1)) == [0, 2, 4, 18]
    assert metrics.lens_recall(a, b, k=4, window=1, diverse=True).item() == 0.75


def test_golden_recall_is_not_precision() -> None:
    a, b = torch.zeros(1, 9, 9), torch.zeros(1, 9, 9)
    for value, place, other in zip(
        (10.0, 9.0, 8.0, 7.0),
        ((4, 4), (0, 0), (0, 8), (8, 0)),
        ((4, 3), (4, 5), (3, 4), (5, 4)),
        strict=True,
    ):
        a[0][place], b[0][other] = value, value
    assert metrics.topk_intersection(a, b, k=4).item() == 0
    assert metrics.lens_recall(a, b, k=4, window=1).item() == 1
    assert metrics.lens_precision(a, b, k=4, window=1).item() == 0.25


# --- properties -----------------------------------------------------------------------------------


@few
@hypothesis.given(heatmaps(), st.data())
def test_without_a_window_it_is_the_intersection(
    pair: tuple[Tensor, ...], data: st.DataObject
) -> None:
    a, b = pair
    k = _options(data, a)["k"]
    for diverse, metric in itertools.product(
        (False, True), (metrics.lens_recall, metrics.lens_precision)
    ):
        value = metric(a, b, k=k, window=0, diverse=diverse)
        assert torch.equal(value, metrics.topk_intersection(a, b, k=k))
    for lens, plain in (
        (metrics.lens_spearman, metrics.spearman),
        (metrics.lens_kendall, metrics.kendall),
    ):
        torch.testing.assert_close(lens(a, b, window=0), plain(a, b), equal_nan=True)


@few
@hypothesis.given(heatmaps(), st.data())
def test_windows_only_add_and_stay_between_intersection_and_one(
    pair: tuple[Tensor, ...], data: st.DataObject
) -> None:
    a, b = pair
    k = _options(data, a)["k"]
    for metric in (metrics.lens_recall, metrics.lens_precision):
        values = [metric(a, b, k=k, window=window) for window in range((max(a.shape[1:]) + 1) // 2)]
        assert torch.equal(values[0], metrics.topk_intersection(a, b, k=k))
        for smaller, larger in itertools.pairwise([*values, torch.ones(len(a)).double()]):
            assert (smaller <= larger).all()


@few
@hypothesis.given(heatmaps(), st.data())
def test_recall_and_precision_are_mirrored_and_bound_each_other(
    pair: tuple[Tensor, ...], data: st.DataObject
) -> None:
    a, b = pair
    options = _options(data, a)
    recall = metrics.lens_recall(a, b, **options)
    precision = metrics.lens_precision(a, b, **options)
    assert torch.equal(recall, metrics.lens_precision(b, a, **options))
    area = (2 * options["window"] + 1) ** 2
    assert (recall <= area * precision + 1e-12).all()
    assert (precision <= area * recall + 1e-12).all()


@few
@hypothesis.given(heatmaps(), st.data())
def test_both_are_one_exactly_within_the_hausdorff_distance(
    pair: tuple[Tensor, ...], data: st.DataObject
) -> None:
    a, b = pair
    options = _options(data, a)
    both = torch.minimum(
        metrics.lens_recall(a, b, **options), metrics.lens_precision(a, b, **options)
    )
    sets = [maps.topk_mask(m, k=options["k"]) for m in pair]
    for value, s, t in zip(both, *sets, strict=True):
        apart = _distance(s, t)
        hausdorff = max(int(apart.amin(0).max()), int(apart.amin(1).max()))
        assert (value == 1) == (hausdorff <= options["window"])


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_translation_within_the_window_changes_nothing(window: int) -> None:
    a = torch.zeros(1, 20, 20)
    a[0, 6:12, 7:13] = 1 + oracles.images(1, size=6)[0, 0]
    for shift in itertools.product(range(-window, window + 1), repeat=2):
        b = a.roll(shift, (1, 2))
        for diverse in (False, True):
            assert metrics.lens_recall(a, b, k=4, window=window, diverse=diverse).item() == 1
            assert metrics.lens_precision(a, b, k=4, window=window, diverse=diverse).item() == 1
    far = a.roll((0, 6 + window), (1, 2))
    assert metrics.lens_recall(a, far, k=4, window=window).item() == 0


@few
@hypothesis.given(heatmaps(), st.data())
def test_one_minus_the_mean_is_symmetric_and_below_that_of_topk(
    pair: tuple[Tensor, ...], data: st.DataObject
) -> None:
    a, b = pair
    options = _options(data, a)

    def distance(a: Tensor, b: Tensor, **options: int) -> Tensor:
        recall, precision = (
            f(a, b, **options) for f in (metrics.lens_recall, metrics.lens_precision)
        )
        return 1 - (recall + precision) / 2

    assert torch.equal(distance(a, b, **options), distance(b, a, **options))
    assert (distance(a, a, **options) == 0).all()
    plain = distance(a, b, k=options["k"], window=0)
    assert (distance(a, b, **options) <= plain + 1e-12).all()
    s, t = (maps.topk_mask(m, k=options["k"]) for m in pair)
    torch.testing.assert_close(plain, (s ^ t).sum((1, 2)) / (2.0 * options["k"]))


@pytest.mark.parametrize("window", [1, 2])
def test_one_minus_lens_is_no_metric(window: int) -> None:
    at = [torch.zeros(1, 1, 2 * window + 1) for _ in range(3)]
    for m, place in zip(at, (0, window, 2 * window), strict=True):
        m[0, 0, place] = 1
    near = [
        metrics.lens_recall(one, other, k=1, window=window).item()
        for one, other in ((at[0], at[1]), (at[1], at[2]), (at[0], at[2]))
    ]
    assert near == [1, 1, 0]  # distances 0 + 0 < 1


@few
@hypothesis.given(heatmaps(count=3, low=3), st.data())
def test_windows_add_up_in_a_relaxed_triangle(
    three: tuple[Tensor, ...], data: st.DataObject
) -> None:
    a, b, c = three
    k = _options(data, a)["k"]
    s, t, u = (maps.topk_mask(m, k=k) for m in (a, b, c))

    def missed(one: Tensor, other: Tensor, window: int) -> Tensor:
        return 1 - (maps.dilate(one, window=window) & other).sum((1, 2)) / k

    for first, second in itertools.product((0, 1, 2), repeat=2):
        bound = missed(t, u, second) + (2 * second + 1) ** 2 * missed(s, t, first)
        assert (missed(s, u, first + second) <= bound + 1e-12).all()


@few
@hypothesis.given(heatmaps(count=1), st.data())
def test_diverse_sets_are_the_greedy_ones_spread_out_and_cover(
    one: tuple[Tensor, ...], data: st.DataObject
) -> None:
    (a,) = one
    k, window = data.draw(st.integers(1, a[0].numel())), data.draw(st.integers(0, 4))
    mask = maps.diverse_topk(a, k=k, window=window)
    assert torch.equal(mask, lens_oracles.greedy(a, k, window))
    near = maps.dilate(mask, window=window)
    for heat, chosen, covered in zip(a, mask, near, strict=True):
        apart = _distance(chosen, chosen)
        assert (apart.fill_diagonal_(window + 1) > window).all()
        assert covered[heat > heat[chosen].min()].all()
        if chosen.sum() < k:
            assert covered.all()
    assert (near | ~maps.topk_mask(a, k=k)).flatten(1).all() or (mask.sum((1, 2)) == k).all()
    assert (maps.topk_mask(a, k=1) & ~mask).sum() == 0


@few
@hypothesis.given(heatmaps(count=1, high=9), st.integers(0, 3))
def test_as_many_picks_as_packing_allows(one: tuple[Tensor, ...], window: int) -> None:
    (a,) = one
    height, width = a.shape[1:]
    picks = maps.diverse_topk(a, k=height * width, window=window).sum((1, 2))
    most = math.ceil(height / (window + 1)) * math.ceil(width / (window + 1))
    assert (math.ceil(height * width / (2 * window + 1) ** 2) <= picks).all()
    assert (picks <= most).all()


@few
@hypothesis.given(heatmaps(count=1, high=9), st.integers(0, 12))
def test_dilation_is_scipys(one: tuple[Tensor, ...], window: int) -> None:
    mask = one[0] > one[0].median()
    square = np.ones((2 * window + 1,) * 2, dtype=bool)
    grown = maps.dilate(mask, window=window)
    for ours, single in zip(grown, mask, strict=True):
        theirs = ndimage.binary_dilation(single.numpy(), structure=square)
        assert np.array_equal(ours.numpy(), theirs)


# --- rank correlations of local means -------------------------------------------------------------


@few
@hypothesis.given(heatmaps(low=2), st.data())
def test_rank_scores_are_scipys_of_local_means(
    pair: tuple[Tensor, ...], data: st.DataObject
) -> None:
    a, b = pair
    window = _options(data, a)["window"]
    for metric, theirs in (
        (metrics.lens_spearman, stats.spearmanr),
        (metrics.lens_kendall, stats.kendalltau),
    ):
        values = metric(a, b, window=window)
        for value, *rows in zip(values, a.numpy(), b.numpy(), strict=True):
            means = []
            for heat in rows:
                cut = [
                    [
                        heat[
                            max(i - window, 0) : i + window + 1, max(j - window, 0) : j + window + 1
                        ]
                        for j in range(heat.shape[1])
                    ]
                    for i in range(heat.shape[0])
                ]
                # The integers of these maps have exact sums, so that ties are ties.
                means.append([part.sum() / part.size for row in cut for part in row])
            if all(np.ptp(m) > 0 for m in means):
                assert value.item() == pytest.approx(theirs(*means).statistic, abs=1e-9)
            else:
                assert value.isnan()


@pytest.mark.parametrize("metric", [metrics.lens_spearman, metrics.lens_kendall])
@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_constant_maps_have_no_rank_score(metric: Callable[..., Tensor], value: float) -> None:
    a = oracles.images(3)[:, 0]
    b = a.clone()
    b[1] = value
    assert metric(a, b, window=1).isnan().tolist() == [False, True, False]
    assert metric(b, a, window=1).isnan().tolist() == [False, True, False]


def test_rank_scores_forgive_a_small_shift() -> None:
    a = oracles.images(8, size=24)[:, 0]
    b = a.roll(1, 2)
    plain = metrics.spearman(a, b)
    local = metrics.lens_spearman(a, b, window=2)
    assert (plain.abs() < 0.2).all()
    assert (local > 0.6).all()
