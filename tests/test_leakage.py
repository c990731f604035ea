"""Leakage into a region, means of groups, and scores that tell two sets apart."""

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import nn

from attrlib import attributions, data, energy, maps, metrics
from tests import oracles

REGION = torch.zeros(1, 4, 4, dtype=torch.bool)
REGION[0, :2] = True


def _heat(n: int = 3) -> torch.Tensor:
    return oracles.images(n, size=4)[:, 0]


# --- leakage --------------------------------------------------------------------------------------


def test_the_share_of_mass_in_closed_form() -> None:
    a = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    for row, share in ((0, 0.3), (1, 0.7)):
        region = torch.zeros(1, 2, 2, dtype=torch.bool)
        region[0, row] = True
        torch.testing.assert_close(metrics.leakage(a, region=region), torch.tensor([share]))
        torch.testing.assert_close(metrics.leakage(1e200 * a, region=region), torch.tensor([share]))
    a = _heat()
    both = metrics.leakage(a, region=REGION) + metrics.leakage(a, region=~REGION)
    torch.testing.assert_close(both, torch.ones(3))
    flat = torch.ones(3, 4, 4)
    torch.testing.assert_close(metrics.leakage(flat, region=REGION), torch.full((3,), 0.5))
    assert metrics.leakage(0 * a, region=REGION).isnan().all()


def test_each_image_has_its_own_region_and_its_own_k() -> None:
    a = _heat()
    region = a > a.flatten(1).median(1).values[:, None, None]  # the upper half of the ranks
    k = torch.tensor([1, 8, 16])
    value = metrics.topk_leakage(a, region=region, k=k)
    count = region.flatten(1).sum(1)
    torch.testing.assert_close(value, torch.minimum(count, k) / k)
    for i in range(3):
        alone = metrics.topk_leakage(a[i : i + 1], region=region[i : i + 1], k=int(k[i]))
        assert torch.equal(value[i : i + 1], alone)
    masked = maps.topk_mask(a, k=5)
    by_hand = (masked & REGION).flatten(1).sum(1) / 5
    torch.testing.assert_close(metrics.topk_leakage(a, region=REGION, k=5), by_hand)


def test_a_linear_model_of_one_half_leaks_nothing_and_one_of_both_leaks() -> None:
    images = data.block_fashion("val", generator=oracles.seeded(0))[:8]
    x, y = images.x.double(), images.y
    model = nn.Sequential(nn.Flatten(), nn.Linear(56 * 28, 10))

    def leak(net: nn.Module, region: torch.Tensor) -> torch.Tensor:
        return metrics.leakage(maps.to_heatmap(attributions.gradient(net, x, y)), region=region)

    assert (leak(model, images.null) > 0.4).all()
    with torch.no_grad():
        model[1].weight[:, :784] = 0  # sees the lower half only
    lower = torch.arange(56)[None, :, None].expand(1, 56, 28) >= 28
    torch.testing.assert_close(leak(model, lower), torch.ones(8))
    assert not leak(model, ~lower).any()


def test_the_contrastive_map_is_the_check_of_a_leak_that_a_shift_made() -> None:
    """A shift that looks at the null block leaks into every gradient map, and changes no prediction."""
    images = data.block_fashion("val", generator=oracles.seeded(0))[:8]
    x, y, null = images.x.double(), images.y, images.null

    class Signal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(56 * 28, 10)

        def forward(self, v: torch.Tensor) -> torch.Tensor:
            return self.layer((v[:, 0] * ~null).flatten(1))

    model = Signal()
    shifted = energy.Shifted(model, lambda v: (v[:, 0] * null).flatten(1).sum(1))

    def leak(net: nn.Module) -> torch.Tensor:
        return metrics.leakage(maps.to_heatmap(attributions.gradient(net, x, y)), region=null)

    assert not leak(model).any()
    assert (leak(shifted) > 0.9).all()
    assert (leak(energy.GaugeFixed(shifted)) < 1e-12).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_regions_are_named() -> None:
    a = _heat()
    for score in (metrics.leakage, lambda a, region: metrics.topk_leakage(a, region=region, k=3)):
        with pytest.raises(
            TypeError, match=r"Expected region to be a boolean tensor, got torch\.f"
        ):
            score(a, region=REGION.double())
        with pytest.raises(TypeError, match="Expected region to be a boolean tensor, got list"):
            score(a, region=[True])
        with pytest.raises(ValueError, match=r"Expected region of shape \(3, 4, 4\) or one row"):
            score(a, region=REGION[:, :3])
        with pytest.raises(ValueError, match=r"Expected region of shape .* got \(2, 4, 4\)"):
            score(a, region=REGION.expand(2, 4, 4))
        with pytest.raises(ValueError, match="Expected a to be finite, got NaN"):
            score(a / 0, region=REGION)
    with pytest.raises(ValueError, match=r"Expected a to be non-negative, got -0\.9"):
        metrics.leakage(-a, region=REGION)
    for k in (0, 17, torch.tensor([1, 2, 17]), torch.tensor([0, 2, 3])):
        with pytest.raises(ValueError, match="Expected k to be an integer from 1 to 16, got"):
            metrics.topk_leakage(a, region=REGION, k=k)
    with pytest.raises(ValueError, match=r"Expected k of shape \(3,\), got \(2,\)"):
        metrics.topk_leakage(a, region=REGION, k=torch.tensor([1, 2]))
    with pytest.raises(TypeError, match=r"Expected k to be an int64 tensor, got torch.float64"):
        metrics.topk_leakage(a, region=REGION, k=torch.ones(3))


# --- groups ---------------------------------------------------------------------------------------


def test_means_of_groups_and_the_worst_one() -> None:
    values = torch.rand(50, generator=oracles.seeded(0))
    groups = torch.randint(4, (50,), generator=oracles.seeded(1))
    means = metrics.group_means(values, groups, count=4)
    by_hand = torch.stack([values[groups == g].mean() for g in range(4)])
    torch.testing.assert_close(means, by_hand)
    assert metrics.group_means(values.float(), groups, count=4).dtype == torch.float32
    values[3] = torch.nan
    assert metrics.group_means(values, groups, count=4).isnan().sum() == 1


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_groups_are_named() -> None:
    values, groups = torch.ones(4), torch.tensor([0, 0, 1, 3])
    with pytest.raises(
        ValueError, match=r"Expected members in each of 4 groups, got none in gr.* 2"
    ):
        metrics.group_means(values, groups, count=4)
    for count, bad in ((3, groups), (4, groups - 1)):
        with pytest.raises(ValueError, match=rf"Expected groups from 0 to {count - 1}, got"):
            metrics.group_means(values, bad, count=count)
    with pytest.raises(ValueError, match=r"Expected groups of shape \(4,\), got \(3,\)"):
        metrics.group_means(values, groups[:3], count=4)
    with pytest.raises(
        TypeError, match=r"Expected groups to be an int64 tensor, got torch\.float64"
    ):
        metrics.group_means(values, groups.double(), count=4)
    with pytest.raises(TypeError, match="Expected values to be a floating-point tensor, got"):
        metrics.group_means(values.long(), groups, count=4)
    with pytest.raises(ValueError, match="Expected values to be a vector of at least one number"):
        metrics.group_means(values[:0], groups[:0], count=4)


# --- two sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("digits", [1, 6])
def test_the_mean_is_the_area_that_scikit_learn_computes(digits: int) -> None:
    known = (torch.randn(40, generator=oracles.seeded(0)) + 0.5).round(decimals=digits)
    unknown = torch.randn(70, generator=oracles.seeded(1)).round(decimals=digits)
    truth = [1] * 40 + [0] * 70
    area = roc_auc_score(truth, torch.cat([known, unknown]).numpy())
    assert float(metrics.auroc(known, unknown).mean()) == pytest.approx(area, abs=1e-12)
    assert torch.equal(metrics.auroc(known, known[:1] * 0 + 100), torch.zeros(40))


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_scores_are_named() -> None:
    good = torch.ones(3)
    for known, unknown, name in ((good / 0, good, "known"), (good, good / 0, "unknown")):
        with pytest.raises(ValueError, match=f"Expected {name} to be finite"):
            metrics.auroc(known, unknown)
    with pytest.raises(ValueError, match="Expected unknown to be a vector of at least one number"):
        metrics.auroc(good, good[:0])
    with pytest.raises(TypeError, match="Expected known to be a floating-point tensor, got"):
        metrics.auroc(good.long(), good)
