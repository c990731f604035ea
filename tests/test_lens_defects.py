"""LENS scores and diverse sets: defects known from other code, and bad input."""

import itertools
from functools import partial

import pytest
import torch

from attrlib import maps, metrics
from tests import lens_oracles, oracles


def test_windows_do_not_run_into_the_next_row() -> None:
    last = lens_oracles.mask(4, 5, (1, 4))
    near = maps.dilate(last, window=1)
    assert torch.equal(near, lens_oracles.mask(4, 5, *itertools.product((0, 1, 2), (3, 4))))
    a, b = (m.to(torch.get_default_dtype()) for m in (last, lens_oracles.mask(4, 5, (2, 0))))
    assert metrics.lens_recall(a, b, k=1, window=1).item() == 0
    both = a + b / 2
    assert lens_oracles.flat(maps.diverse_topk(both, k=2, window=1)) == [9, 10]


def test_windows_do_not_run_into_the_next_image() -> None:
    a = torch.zeros(3, 4, 4)
    a[0, 3, 3], a[1, 0, 0], a[1, 3, 3], a[2, 0, 0] = 4.0, 3.0, 2.0, 1.0
    mask = maps.diverse_topk(a, k=2, window=1)
    assert mask[0, 3, 3]
    assert mask[1, 0, 0]
    assert mask[1, 3, 3]
    assert mask[2, 0, 0]


def test_windows_do_not_start_over_at_the_bottom() -> None:
    near = maps.dilate(lens_oracles.mask(9, 4, (0, 1)), window=2)
    assert torch.equal(near, lens_oracles.mask(9, 4, *itertools.product((0, 1, 2), (0, 1, 2, 3))))


def test_the_second_pick_is_kept() -> None:
    a = torch.arange(9.0, 0, -1).view(1, 1, 9)
    for k in range(1, 6):
        assert lens_oracles.flat(maps.diverse_topk(a, k=k, window=1)) == [0, 2, 4, 6, 8][:k]


def test_pixel_zero_counts() -> None:
    a = torch.arange(16.0, 0, -1).view(1, 4, 4)
    assert lens_oracles.flat(maps.topk_mask(a, k=1)) == [0]
    assert lens_oracles.flat(maps.diverse_topk(a, k=1, window=1)) == [0]
    assert maps.dilate(lens_oracles.mask(4, 4, (1, 1)), window=1)[0, 0, 0]
    b = a.flip(1)
    assert metrics.lens_recall(b, a, k=1, window=1).item() == 0
    assert metrics.lens_recall(a, a, k=16, window=0).item() == 1


def test_the_window_of_seven_is_a_square() -> None:
    near = maps.dilate(lens_oracles.mask(128, 128, (64, 64)), window=3)
    assert torch.equal(
        near, lens_oracles.mask(128, 128, *itertools.product(range(61, 68), repeat=2))
    )


def test_no_candidate_is_cut_off() -> None:
    # On a ramp each pick hides many of the next candidates: 196 picks need nearly all pixels.
    a = torch.linspace(0, 1, 56 * 56).view(1, 56, 56)
    for k in (1, 60, 196):
        mask = maps.diverse_topk(a, k=k, window=3)
        assert torch.equal(mask, lens_oracles.greedy(a, k, 3))
        assert mask.sum() == k


def test_ties_are_stable_and_alike_in_every_set() -> None:
    a = torch.zeros(1, 6, 6)
    a[0, 2, 3] = 1
    assert lens_oracles.flat(maps.topk_mask(a, k=4)) == [0, 1, 2, 15]
    assert lens_oracles.flat(maps.diverse_topk(a, k=4, window=0)) == [0, 1, 2, 15]
    assert lens_oracles.flat(maps.diverse_topk(a, k=3, window=1)) == [0, 2, 15]
    assert metrics.lens_recall(a, a + 1, k=4, window=0).item() == 1


def test_too_few_picks_are_reported_and_do_not_lower_the_score() -> None:
    a, b = (torch.rand(2, 28, 28, generator=oracles.seeded(s)) for s in (0, 1))
    mask = maps.diverse_topk(a, k=100, window=2)
    assert (mask.sum((1, 2)) < 100).all()
    assert maps.dilate(mask, window=2).all()
    metric = partial(metrics.lens_recall, k=100, window=2, diverse=True)
    assert (metric(a, b) == 1).all()  # the authors' divisor k would say less
    chance = metrics.chance_level(metric, a, b)
    assert (chance == 1).all()
    assert metrics.corrected(metric(a, b), chance).isnan().all()


def test_one_k_for_both_sets() -> None:
    a, b = (oracles.images(seed=s)[:, 0] for s in (1, 2))
    for k in (1, 9, 63):
        for diverse in (False, True):
            assert (metrics.lens_recall(a, a, k=k, window=0, diverse=diverse) == 1).all()
        assert (metrics.lens_recall(a, b, k=k, window=0) * k).round(decimals=6).frac().eq(0).all()


@pytest.mark.parametrize("size", [(227, 227), (224, 224), (30, 200)])
def test_any_size_of_image(size: tuple[int, int], device: torch.device) -> None:
    a = torch.rand(2, *size, generator=oracles.seeded(0)).to(device)
    b = a.roll((2, -3), (1, 2))
    assert (metrics.lens_recall(a, b, k=1000, window=3) > 0.95).all()
    mask = maps.diverse_topk(a, k=1000, window=3)
    assert torch.equal(mask.cpu(), maps.diverse_topk(a.cpu(), k=1000, window=3))
    places = mask[0].nonzero()
    apart = (places[:, None] - places).abs().amax(2).fill_diagonal_(4)
    assert (apart > 3).all()


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_settings_are_named() -> None:
    a = torch.rand(1, 8, 6)
    for metric in (metrics.lens_recall, metrics.lens_precision):
        with pytest.raises(ValueError, match="Expected k to be an integer from 1 to 48, got 49"):
            metric(a, a, k=49, window=1)
        with pytest.raises(
            ValueError, match="Expected window to be no larger than the image of 8 × 6"
        ):
            metric(a, a, k=2, window=4)
        with pytest.raises(ValueError, match="Expected window to be an integer >= 0, got -1"):
            metric(a, a, k=2, window=-1)
        with pytest.raises(ValueError, match="Expected a and b to have one shape"):
            metric(a, a[:, :-1], k=2, window=1)
    for metric in (metrics.lens_spearman, metrics.lens_kendall):
        with pytest.raises(
            ValueError, match=r"Expected window to be no larger .* got radius 4, 9 × 9"
        ):
            metric(a, a, window=4)
    with pytest.raises(ValueError, match="Expected k to be an integer from 1 to 48, got 49"):
        maps.diverse_topk(a, k=49, window=1)
    with pytest.raises(ValueError, match=r"Expected window to be an integer >= 0, got 1\.5"):
        maps.diverse_topk(a, k=4, window=1.5)
