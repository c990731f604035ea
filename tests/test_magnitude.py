"""Maps at the ends of the floating-point range score as the same maps of ordinary size."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from attrlib import _magnitude, attacks, maps, metrics
from tests import oracles

ENDS = [(torch.float32, 3e38), (torch.float32, 1e-41), (torch.float64, 1.7e308)]
ENDS += [(torch.float64, 1e-319)]
WHICH = [(True, True), (True, False), (False, True)]
TARGET = oracles.images(1, size=16, seed=9)[0, 0]

METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": metrics.cosine,
    "pearson": metrics.pearson,
    "spearman": metrics.spearman,
    "kendall": metrics.kendall,
    "topk_intersection": partial(metrics.topk_intersection, k=20),
    "lens_recall": partial(metrics.lens_recall, k=20, window=1),
    "lens_recall, diverse": partial(metrics.lens_recall, k=9, window=1, diverse=True),
    "lens_precision": partial(metrics.lens_precision, k=20, window=1),
    "lens_spearman": partial(metrics.lens_spearman, window=2),
    "lens_kendall": partial(metrics.lens_kendall, window=2),
    "center_shift": metrics.center_shift,
    "chance_level": partial(metrics.chance_level, partial(metrics.lens_recall, k=9, window=1)),
}
OBJECTIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "TopK": attacks.TopK(k=9),
    "TopK, diverse": attacks.TopK(k=9, window=1, diverse=True),
    "MassCenter": attacks.MassCenter(),
    "TargetMap": attacks.TargetMap(target=TARGET),
    "Cosine": attacks.Cosine(),
}


def _agree(call: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, size: float) -> None:
    wanted = call(a, b)
    assert wanted.isfinite().all()
    for first, second in WHICH:
        value = call(a * size if first else a, b * size if second else b)
        # Numbers below the normal range have few digits left.
        torch.testing.assert_close(value, wanted, rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(("kind", "size"), ENDS)
@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_metrics_do_not_see_the_size_of_a_map(
    metric: Callable[[Tensor, Tensor], Tensor], kind: torch.dtype, size: float
) -> None:
    a, b = (oracles.images(2, size=16, seed=s)[:, 0].to(kind) for s in (1, 2))
    _agree(metric, a, b, size)


@pytest.mark.parametrize(("kind", "size"), ENDS)
@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())
def test_objectives_do_not_see_it_though_sums_over_channels_overflow(
    objective: Callable[[Tensor, Tensor], Tensor], kind: torch.dtype, size: float
) -> None:
    a, b = (oracles.images(2, channels=3, size=16, seed=s).to(kind) - 0.5 for s in (1, 2))
    _agree(objective, a, b, size)


@pytest.mark.parametrize("mode", ["abs_sum", "sum", "max_abs"])
def test_a_heatmap_beyond_the_range_is_given_in_a_larger_unit(mode: maps.HeatmapMode) -> None:
    a = oracles.images(3, channels=3).float()
    a[0] *= 3e38
    a[1, :, 0, 0] = torch.inf
    h, own = (maps.to_heatmap(m, mode=mode) for m in (a, a[:1]))
    assert torch.equal(h[0], own[0])
    wanted = maps.to_heatmap(oracles.images(3, channels=3).float(), mode=mode)
    unit = h[0, 0, 0] / wanted[0, 0, 0]
    torch.testing.assert_close(h[0] / unit, wanted[0])
    assert torch.equal(h[2], wanted[2])
    assert h[1, 0, 0].isinf()  # what is not finite is not made to look so


def test_two_single_pixels_below_the_normal_range() -> None:
    a, b = torch.zeros(2, 1, 50, 50, dtype=torch.float32)
    a[0, 10, 5] = b[0, 40, 45] = 1e-41
    assert metrics.center_shift(a, b).item() == pytest.approx(50.0)
    assert maps.mass_center(a).tolist() == [[10.0, 5.0]]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_level_multiplies_by_powers_of_two(kind: torch.dtype) -> None:
    limits = torch.finfo(kind)
    a = torch.tensor([[3.0, -5.0], [0.0, 0.0], [limits.max, 1], [limits.tiny, 0]], dtype=kind)
    peaks = _magnitude.level(a).abs().amax(1).tolist()
    assert peaks[:2] == [5 / 8, 0]
    assert 0.5 <= peaks[2] <= 1
    assert peaks[3] == 0.5
    assert _magnitude.level(a[:1]).tolist() == [[3 / 8, -5 / 8]]
    broken = torch.tensor([[torch.inf, 1.0], [torch.nan, 2.0]], dtype=kind)
    assert torch.equal(_magnitude.level(broken).nan_to_num(), broken.nan_to_num())


def test_maps_of_ordinary_size_are_scaled_as_ever() -> None:
    h = oracles.images(3)[:, 0].float() * torch.tensor([1e-20, 1.0, 1e20])[:, None, None]
    assert torch.equal(maps.normalize(h), h / h.mean((1, 2), keepdim=True))
    h[1] = 0  # makes the batch take the other way, which gives equal bits
    assert torch.equal(maps.normalize(h)[::2], (h / h.mean((1, 2), keepdim=True))[::2])
