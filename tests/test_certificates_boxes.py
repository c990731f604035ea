"""Scores of a box: by hand, attained, and never above what a map of the box gets."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from attrlib import certificates, metrics
from attrlib.maps import to_heatmap, topk_mask
from tests import oracles

K, WINDOW = 5, 1
SCORES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "topk": (
        partial(certificates.certified_topk, k=K),
        lambda a, b: metrics.topk_intersection(to_heatmap(a), to_heatmap(b), k=K),
    ),
    "lens": (
        partial(certificates.lens_in_box, k=K, window=WINDOW),
        lambda a, b: metrics.lens_recall(to_heatmap(a), to_heatmap(b), k=K, window=WINDOW),
    ),
    "lens, no window": (
        partial(certificates.lens_in_box, k=K, window=0),
        lambda a, b: metrics.lens_recall(to_heatmap(a), to_heatmap(b), k=K, window=0),
    ),
    "cosine": (certificates.cosine_in_box, metrics.cosine),
    "kendall": (
        certificates.kendall_in_box,
        lambda a, b: metrics.kendall(to_heatmap(a), to_heatmap(b)),
    ),
}
every_score = pytest.mark.parametrize(("bound", "score"), SCORES.values(), ids=SCORES.keys())
SHARES = torch.tensor([0.0, 0.03, 0.1, 0.3, 1.0])  # of the largest entry, as the size of boxes


def _row(*values: float) -> Tensor:
    return torch.tensor([[[values]]], dtype=torch.get_default_dtype())


def _boxes(n: int, *, channels: int, whole: bool, kind: torch.dtype) -> tuple[Tensor, ...]:
    """Random boxes of all sizes with a map in each; whole numbers make ties."""
    noise = oracles.seeded(n + channels)
    a, down, up = (torch.randn(n, channels, 4, 6, generator=noise) for _ in range(3))
    size = 3 * SHARES[torch.randint(len(SHARES), (n, 1, 1, 1), generator=noise)]
    down, up = down.abs() * size, up.abs() * size
    if whole:
        a, down, up = ((2 * part).round() for part in (a, down, up))
    a, lower, upper = (part.to(kind) for part in (a, a - down, a + up))
    return torch.minimum(lower, a), torch.maximum(upper, a), a


def _members(lower: Tensor, upper: Tensor, a: Tensor, count: int, *, whole: bool) -> Tensor:
    """Maps of the box: from inside, from its corners, and those that turn the order of heats around."""
    noise = oracles.seeded(1)
    share = torch.rand(count, *a.shape, generator=noise).to(a)
    share[::2] = share[::2].round()
    b = lower + share * (upper - lower)
    b = b.round() if whole else b
    far = torch.where(upper.abs() > lower.abs(), upper, lower)
    near = torch.zeros_like(a).clamp(lower, upper)
    top = topk_mask(to_heatmap(a), k=K)[:, None]
    b[0], b[1] = torch.where(top, near, far), torch.where(top, far, near)
    return torch.minimum(torch.maximum(b, lower), upper)


@every_score
@pytest.mark.parametrize("whole", [False, True], ids=["real", "ties"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", [torch.float64, torch.float32])
def test_no_map_of_the_box_scores_less(
    bound: Callable[..., Tensor],
    score: Callable[..., Tensor],
    whole: bool,
    channels: int,
    kind: torch.dtype,
) -> None:
    lower, upper, a = _boxes(300, channels=channels, whole=whole, kind=kind)
    least = bound(lower, upper, a)
    lowest = torch.full_like(least, torch.inf)
    for b in _members(lower, upper, a, 12, whole=whole):
        got = score(a, b)
        assert not (got < least).any()  # NaN where a score is undefined
        lowest = torch.minimum(lowest, got.nan_to_num(torch.inf))
    # Boxes of one point have the best score, or almost; of the others some are nearly attained.
    torch.testing.assert_close(least[least > 0.99], lowest[least > 0.99], rtol=0, atol=1e-2)
    assert (least < 0.5).any()


@every_score
def test_a_box_of_one_point_keeps_everything(
    bound: Callable[..., Tensor], score: Callable[..., Tensor]
) -> None:
    a = oracles.images(channels=2) - 0.5
    torch.testing.assert_close(bound(a, a, a), torch.ones(4))


@every_score
def test_larger_boxes_keep_less(bound: Callable[..., Tensor], score: Callable[..., Tensor]) -> None:
    a, way = oracles.images(channels=2) - 0.5, oracles.images(channels=2, seed=3)
    values = [bound(a - r * way, a + r * way, a) for r in (0, 0.01, 0.03, 0.1, 0.3, 1, 3)]
    assert all((wide <= narrow).all() for narrow, wide in pairwise(values))
    assert (values[-1] <= 0).all()


# --- top-k ----------------------------------------------------------------------------------------


def test_top_k_by_hand() -> None:
    a = _row(5, 4, 3, 2, 1, 0)
    for reach, kept in ((0.4, 3), (0.5, 2), (1.0, 2), (1.5, 1), (2.4, 1), (2.5, 0)):
        value = certificates.certified_topk(a - reach, a + reach, a, k=3)
        assert value.item() == pytest.approx(kept / 3), reach


def test_two_pixels_of_the_top_can_be_lost_only_together_with_two_others() -> None:
    """One pixel outside reaches all of the top three, but it can take the place of one."""
    a = _row(5, 5, 5, 4, 0, 0)
    upper = a.clone()
    upper[..., 3] = 9
    assert certificates.certified_topk(a, upper, a, k=3).item() == pytest.approx(2 / 3)


def test_fewer_pixels_outside_than_in_the_top() -> None:
    a = _row(3, 2, 1)
    assert certificates.certified_topk(a - 9, a + 9, a, k=2).item() == 0.5
    assert certificates.certified_topk(a - 9, a + 9, a, k=3).item() == 1


def test_the_sign_does_not_count_and_zero_may_be_inside() -> None:
    a = _row(-5, 1)
    assert certificates.certified_topk(_row(-6, 0), _row(-4, 3), a, k=1).item() == 1
    assert certificates.certified_topk(_row(-6, -4.5), _row(-4, 3), a, k=1).item() == 0
    assert certificates.certified_topk(_row(-6, 0), _row(6, 3), a, k=1).item() == 0


@pytest.mark.parametrize("k", [1, 4, 11, 24])
def test_the_bound_on_top_k_is_attained(k: int) -> None:
    """The pixels that can be lost at their lowest, those that take their place at their highest."""
    lower, upper, a = _boxes(200, channels=1, whole=False, kind=torch.float64)
    value = certificates.certified_topk(lower, upper, a, k=k)
    low = torch.maximum(lower, -upper).clamp(min=0).flatten(1)
    high = torch.maximum(upper, -lower).flatten(1)
    weakest = torch.zeros(1).clamp(lower, upper).flatten(1)
    strongest = torch.where(upper >= -lower, upper, lower).flatten(1)
    top = topk_mask(to_heatmap(a), k=k).flatten(1)
    b = torch.where(top, strongest, weakest)
    for i, lost in enumerate((k * (1 - value)).round().int().tolist()):
        down = low[i].masked_fill(~top[i], torch.inf).argsort()[:lost]
        up = high[i].masked_fill(top[i], -torch.inf).argsort(descending=True)[:lost]
        b[i, down], b[i, up] = weakest[i, down], strongest[i, up]
    b = b.view_as(a)
    got = metrics.topk_intersection(to_heatmap(a), to_heatmap(b), k=k)
    assert torch.equal(got, value)


# --- LENS -----------------------------------------------------------------------------------------


def test_lens_by_hand() -> None:
    a = _row(9, 0, 0, 0, 0, 1)
    upper = _row(9, 5, 0, 0, 0, 8)
    lower = _row(6, 0, 0, 0, 0, 1)
    # The pixel at the top can be passed by the last one, which is in none of its windows.
    values = [certificates.lens_in_box(lower, upper, a, k=1, window=w).item() for w in (0, 1, 2)]
    assert values == [0, 0, 0]
    upper[..., 5] = 5
    assert certificates.lens_in_box(lower, upper, a, k=1, window=0).item() == 1
    upper[..., 1] = 7
    values = [certificates.lens_in_box(lower, upper, a, k=1, window=w).item() for w in (0, 1)]
    assert values == [0, 1]


def test_a_larger_window_never_keeps_less() -> None:
    lower, upper, a = _boxes(200, channels=2, whole=True, kind=torch.float64)
    values = [certificates.lens_in_box(lower, upper, a, k=4, window=w) for w in range(3)]
    assert torch.equal(values[0], certificates.certified_topk(lower, upper, a, k=4))
    assert all((wide >= narrow).all() for narrow, wide in pairwise(values))


# --- cosine and Kendall ---------------------------------------------------------------------------


def test_cosine_of_a_box_in_closed_form() -> None:
    a = torch.tensor([[3.0, 4.0], [3.0, 4.0], [1.0, 0.0], [0.0, 0.0]])
    r = torch.tensor([[0.3], [9.0], [0.5], [1.0]])
    got = certificates.cosine_in_box(a - r, a + r, a)
    assert got[0].item() == pytest.approx((1 - 2 * 0.09 / 25) ** 0.5)
    assert got[1].item() == -1
    assert got[2].item() == pytest.approx(max(0.5**0.5, 0.5 / (1.5**2 + 0.5**2) ** 0.5))
    assert got[3].isnan()


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_cosine_of_very_small_and_very_large_maps(scale: float) -> None:
    a = torch.tensor([[3.0, 4.0]])
    got = certificates.cosine_in_box(scale * (a - 0.3), scale * (a + 0.3), scale * a)
    torch.testing.assert_close(got, certificates.cosine_in_box(a - 0.3, a + 0.3, a))


def test_kendall_of_a_box_by_hand() -> None:
    a = _row(4, 3, 2, 1)
    for reach, certain in ((0.4, 6), (0.5, 3), (1.0, 1), (1.5, 0)):
        value = certificates.kendall_in_box(a - reach, a + reach, a).item()
        assert value == pytest.approx(2 * certain / 6 - 1), reach


def test_kendall_where_pairs_are_tied() -> None:
    a, wide = _row(2, 1, 1), _row(2, 1, 1.5)
    # Two of the three pairs have an order, and keep it; the tie may be broken: 2 / √(2 · 3).
    assert certificates.kendall_in_box(a, wide, a).item() == pytest.approx(2 / 6**0.5)
    broken = metrics.kendall(a[:, 0], wide[:, 0]).item()
    assert broken == pytest.approx(2 / 6**0.5)


def test_kendall_of_a_constant_map_is_undefined() -> None:
    a = _row(1, -1, 1)
    assert certificates.kendall_in_box(a - 0.1, a + 0.1, a).isnan().all()


# --- accuracy -------------------------------------------------------------------------------------


def test_accuracy_in_a_box_of_logits() -> None:
    lower = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    upper = torch.tensor([[2.0, 0.5], [2.0, 1.0], [2.0, 3.0], [2.0, 0.5]])
    y = torch.tensor([0, 0, 0, 1])
    assert certificates.accuracy_in_box(lower, upper, y).tolist() == [1, 0, 0, 0]


# --- the contract ---------------------------------------------------------------------------------


@every_score
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_one_value_per_sample(
    bound: Callable[..., Tensor],
    score: Callable[..., Tensor],
    kind: torch.dtype,
    device: torch.device,
) -> None:
    box = [part.to(device) for part in _boxes(6, channels=2, whole=True, kind=kind)]
    kept = [part.clone() for part in box]
    box[2].requires_grad_()
    value = bound(*box)
    assert (value.shape, value.dtype, value.device) == ((6,), kind, box[0].device)
    assert not value.requires_grad
    assert all(map(torch.equal, box, kept))
    torch.testing.assert_close(bound(*(part[2:4] for part in box)), value[2:4], rtol=0, atol=0)
    strided = [torch.stack([part.detach()] * 2, -1)[..., 1] for part in box]
    assert torch.equal(bound(*strided), value)


@every_score
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_boxes_are_named(bound: Callable[..., Tensor], score: Callable[..., Tensor]) -> None:
    a = oracles.images() - 0.5
    lower, upper = a - 0.1, a + 0.1
    with pytest.raises(ValueError, match=r"Expected lower <= upper, got .* in 4 of 4 samples"):
        bound(upper, lower, a)
    with pytest.raises(ValueError, match="Expected a between lower and upper, got 4 of 4 samples"):
        bound(lower, upper, a + 0.2)
    with pytest.raises(ValueError, match="Expected lower and upper to have one shape, got lower"):
        bound(lower[:2], upper, a)
    with pytest.raises(ValueError, match="Expected lower and upper and a to have one shape"):
        bound(lower, upper, a[..., :4])
    for place, name in enumerate(("lower", "upper", "a")):
        for bad in (torch.nan, torch.inf):
            box = [lower, upper, a]
            box[place] = torch.full_like(a, bad)
            with pytest.raises(ValueError, match=f"Expected {name} to be finite"):
                bound(*box)
        box[place] = a.long()
        with pytest.raises(TypeError, match=f"Expected {name} to be a floating-point tensor"):
            bound(*box)


@every_score
def test_a_map_outside_by_rounding_is_taken_into_the_box(
    bound: Callable[..., Tensor], score: Callable[..., Tensor]
) -> None:
    a = (oracles.images() - 0.5).float()
    moved = a * (1 + 1e-6)
    torch.testing.assert_close(bound(moved, moved, a), torch.ones(4).float(), rtol=0, atol=1e-2)


@pytest.mark.usefixtures("unchecked_shapes")
def test_numbers_out_of_range_are_named() -> None:
    a = oracles.images() - 0.5
    for k in (0, 65, 1.5):
        with pytest.raises(ValueError, match=f"Expected k to be an integer from 1 to 64, got {k}"):
            certificates.certified_topk(a, a, a, k=k)
    for window in (-1, 4):
        with pytest.raises(ValueError, match=f"Expected window to be .* 0 to 3, got {window}"):
            certificates.lens_in_box(a, a, a, k=3, window=window)
    for call in (partial(certificates.certified_topk, k=2), certificates.kendall_in_box):
        with pytest.raises(ValueError, match=r"Expected a to be maps \(n, channels, h, w\)"):
            call(a.flatten(1), a.flatten(1), a.flatten(1))
    logits = torch.zeros(4, 3)
    bad: Any
    for bad in (3, -1):
        with pytest.raises(ValueError, match=f"Expected y from 0 to 2, got {bad}"):
            certificates.accuracy_in_box(logits, logits, torch.full((4,), bad))
    with pytest.raises(TypeError, match="Expected y to be an int64 tensor"):
        certificates.accuracy_in_box(logits, logits, torch.zeros(4))
    with pytest.raises(ValueError, match="Expected lower <= upper"):
        certificates.accuracy_in_box(logits, logits - 1, torch.zeros(4).long())
