"""What scores give by chance, and scores corrected for it."""

import itertools
import math
from functools import partial

import pytest
import torch
from torch import Tensor

from attrlib import maps, metrics
from attrlib.types import Metric
from tests import oracles

EXACT = {
    "topk_intersection": partial(metrics.topk_intersection, k=7),
    "lens_recall": partial(metrics.lens_recall, k=7, window=1),
    "lens_precision": partial(metrics.lens_precision, k=7, window=1),
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "kendall": metrics.kendall,
}


@pytest.mark.parametrize("name", EXACT)
def test_chance_levels_without_chance_are_means_over_orders(name: str) -> None:
    metric = EXACT[name]
    a, b = (oracles.images(300, seed=s)[:, 0].double() for s in (1, 2))
    exact = metrics.chance_level(metric, a, b)
    if name == "lens_precision":  # the windows of `b` stay, and `a` is put in random order
        drawn = _drawn(lambda b, a: metric(a, b), b, a)
    else:
        drawn = _drawn(lambda a, b: metric(a, b), a, b)
    difference = drawn - exact
    assert difference.std() > 0
    assert abs(difference.mean()) < 4 * difference.std() / math.sqrt(len(a))


def _drawn(metric: Metric, a: Tensor, b: Tensor) -> Tensor:
    """The chance level of a metric without a name."""
    return metrics.chance_level(metric, a, b, draws=8, generator=oracles.seeded(0))


@pytest.mark.parametrize("diverse", [False, True])
def test_the_covered_area_is_the_mean_over_all_shifts(diverse: bool) -> None:
    a, b = (oracles.images(3, seed=s)[:, 0].double() for s in (1, 2))
    options = {"k": 6, "window": 1, "diverse": diverse}
    chance = metrics.chance_level(partial(metrics.lens_recall, **options), a, b)
    pick = partial(maps.diverse_topk, window=1) if diverse else maps.topk_mask
    s, t = (pick(m, k=6) for m in (a, b))
    near, shifts = maps.dilate(s, window=1), list(itertools.product(range(8), repeat=2))
    mean = sum((near & t.roll(shift, (1, 2))).sum((1, 2)) / 6 for shift in shifts) / len(shifts)
    torch.testing.assert_close(chance, mean)
    mirrored = metrics.chance_level(partial(metrics.lens_precision, **options), b, a)
    assert torch.equal(chance, mirrored)


def test_chance_of_an_undefined_score_is_nan() -> None:
    a, b = (oracles.images(2, seed=s)[:, 0] for s in (1, 2))
    b[1] = 0.5
    for metric in (metrics.spearman, partial(metrics.lens_spearman, window=1)):
        chance = metrics.chance_level(metric, a, b, draws=2, generator=oracles.seeded(0))
        assert chance.isnan().tolist() == [False, True]


def test_drawn_chance_levels_repeat_and_differ() -> None:
    a, b = (oracles.images(3, seed=s)[:, 0] for s in (1, 2))

    def level(seed: int) -> Tensor:
        return metrics.chance_level(
            metrics.center_shift, a, b, draws=3, generator=oracles.seeded(seed)
        )

    assert torch.equal(level(0), level(0))
    assert not torch.equal(level(0), level(1))
    assert (level(0) > 0).all()


def test_correction_puts_chance_at_zero_and_the_best_value_at_one() -> None:
    chance = torch.tensor([0.2, 0.2, 0.2, 0.0, 1.0])
    values = torch.tensor([0.2, 1.0, 0.6, 0.3, 1.0])
    ours = metrics.corrected(values, chance)
    expected = torch.tensor([0.0, 1.0, 0.5, 0.3, math.nan])
    torch.testing.assert_close(ours, expected, equal_nan=True)
    assert metrics.corrected(torch.tensor([0.0]), torch.tensor([0.5])).item() == -1


def test_unrelated_maps_have_a_corrected_score_of_zero() -> None:
    a, b = (torch.rand(2000, 7, 7, generator=oracles.seeded(s)) for s in (0, 1))
    metric = partial(metrics.lens_recall, k=4, window=1)
    value, chance = metric(a, b), metrics.chance_level(metric, a, b)
    assert value.mean() > 0.4  # area alone
    score = metrics.corrected(value, chance)
    assert abs(score.mean()) < 4 * score.std() / math.sqrt(2000)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_settings_are_named() -> None:
    a = torch.rand(1, 8, 6)
    with pytest.raises(ValueError, match="Expected draws to be an integer >= 1, got 0"):
        metrics.chance_level(metrics.cosine, a, a, draws=0)
    with pytest.raises(ValueError, match="Expected a to be finite"):
        metrics.chance_level(metrics.cosine, a / 0, a)
    with pytest.raises(ValueError, match="Expected k to be an integer from 1 to 48, got 49"):
        metrics.chance_level(partial(metrics.topk_intersection, k=49), a, a)
    with pytest.raises(ValueError, match="Expected values and chance to have one shape"):
        metrics.corrected(torch.rand(2), torch.rand(3))
    with pytest.raises(ValueError, match="Expected chance <= 1, got 2"):
        metrics.corrected(torch.rand(2), torch.full((2,), 2.0))
