"""Whether changed maps still belong to their images: known cases, counting by hand, and bad input."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attrlib import metrics
from attrlib.maps import topk_mask
from attrlib.metrics import identity
from attrlib.types import Metric
from tests.oracles import images, seeded

SCORES: dict[str, Metric] = {
    "cosine": metrics.cosine,
    "topk_intersection": partial(metrics.topk_intersection, k=9),
    "kendall": metrics.kendall,
    "lens_recall": partial(metrics.lens_recall, k=5, window=1),
}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())
both = pytest.mark.parametrize("control", [metrics.identification, metrics.rank_one])


def heat(n: int = 8, seed: int = 1) -> Tensor:
    return images(n, seed=seed)[:, 0]


def classes(*counts: int) -> Tensor:
    return torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))


# --- identification and retrieval -----------------------------------------------------------------


@every_score
def test_unchanged_maps_belong_to_their_images(score: Metric) -> None:
    a, y = heat(), classes(5, 3)
    for control in (metrics.identification, metrics.rank_one):
        assert torch.equal(control(a, a, y, score=score), torch.ones(8))


@every_score
def test_maps_that_are_the_same_for_a_class_are_at_chance(score: Metric) -> None:
    y = classes(5, 3)
    template = heat(2)[y]
    blind = metrics.identification(template, template, y, score=score)
    assert torch.equal(blind, torch.full((8,), 0.5))
    assert torch.equal(metrics.rank_one(template, template, y, score=score), 1 / classes_of(y))
    # An attack that leaves only the template: each map is at chance against the others on average.
    a = heat()
    values = metrics.identification(a, template, y, score=score)
    assert float(values.mean()) == pytest.approx(0.5)


def classes_of(y: Tensor) -> Tensor:
    """How many images the class of each has."""
    return (y[:, None] == y).sum(1).to(torch.get_default_dtype())


@every_score
def test_exchanged_maps_belong_to_the_other_image(score: Metric) -> None:
    a, y = heat(2), classes(2)
    for control in (metrics.identification, metrics.rank_one):
        assert torch.equal(control(a, a.flip(0), y, score=score), torch.zeros(2))


@every_score
@pytest.mark.parametrize("pooled", [False, True])
def test_values_are_counts_of_pairs(
    score: Metric, pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, y, pool, pool_y = heat(7), classes(4, 3), heat(9, seed=5), classes(2, 7)
    b = 0.6 * a + 0.4 * heat(7, seed=3)
    others, options = (pool, {"pool": pool, "pool_y": pool_y}) if pooled else (a, {})
    labels = pool_y if pooled else y
    wins, firsts = [], []
    for i in range(7):
        mine = float(score(a[i : i + 1], b[i : i + 1]))
        theirs = [
            float(score(others[j : j + 1], b[i : i + 1]))
            for j in range(len(others))
            if labels[j] == y[i] and (pooled or i != j)
        ]
        wins.append(sum((t < mine) + 0.5 * (t == mine) for t in theirs) / len(theirs))
        ties = sum(t == mine for t in theirs)
        firsts.append(0.0 if max(theirs) > mine else 1 / (1 + ties))
    monkeypatch.setattr(identity, "CHUNK", 3 * 64)  # three pairs at a time
    values = metrics.identification(a, b, y, score=score, **options)
    assert values.tolist() == pytest.approx(wins)
    assert metrics.rank_one(a, b, y, score=score, **options).tolist() == pytest.approx(firsts)


def test_an_image_in_the_pool_does_not_compete_with_itself() -> None:
    a, y = heat(4), classes(4)
    b = heat(4, seed=3)
    without = metrics.identification(a, b, y, score=metrics.cosine)
    for noise in (0, 1e-12):  # another size of the batch gives other last digits
        pool = a.flip(0) * (1 + noise * heat(4, seed=9))
        within = metrics.identification(a, b, y, score=metrics.cosine, pool=pool, pool_y=y)
        assert torch.equal(within, without)
    # Only one copy is the image itself: one map for a whole class stays at chance.
    blind = a[:1].expand(4, -1, -1)
    for control, value in ((metrics.identification, 0.5), (metrics.rank_one, 0.25)):
        values = control(blind, b, y, score=metrics.cosine, pool=blind, pool_y=y)
        assert torch.equal(values, torch.full((4,), value))


def test_signed_maps_go_to_a_score_that_takes_them() -> None:
    a = images(4, channels=2) - 0.5
    values = metrics.identification(a, -a, classes(4), score=metrics.cosine)
    assert torch.equal(values, torch.zeros(4))  # as heatmaps they would be equal


def test_one_image_of_a_class_is_nan_and_counted() -> None:
    a, b, y = heat(4), heat(4, seed=3), classes(3, 1)
    pool = {"pool": a, "pool_y": y}
    for options in ({}, pool):
        for control in (metrics.identification, metrics.rank_one):
            values = control(a, b, y, score=metrics.cosine, **options)
            assert values.isnan().tolist() == [False, False, False, True]
        values = metrics.outside_template(a, b, y, k=9, **options)
        assert values.isnan().tolist() == [False, False, False, True]
    alone = metrics.identification(a, b, torch.arange(4), score=metrics.cosine)
    assert alone.isnan().all()


@both
def test_undefined_scores_are_left_out_or_nan(control: Callable[..., Tensor]) -> None:
    a, y = heat(4), classes(4)
    b = a.clone()
    a[3] = 0  # no cosine with any map
    assert control(a, b, y, score=metrics.cosine).tolist()[:3] == [1, 1, 1]
    assert control(a, b, y, score=metrics.cosine).isnan().tolist() == [False] * 3 + [True]
    b[0] = 0
    assert control(a, b, y, score=metrics.cosine).isnan().tolist() == [True, False, False, True]


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_dtype_and_tensors_stay(kind: torch.dtype, device: torch.device) -> None:
    a, b = heat().to(device, kind), heat(seed=2).to(device, kind)
    y = classes(5, 3).to(device)
    copies = a.clone(), b.clone()
    for values in (
        metrics.identification(a, b, y, score=metrics.cosine),
        metrics.rank_one(a, b.requires_grad_(), y, score=metrics.cosine, pool=a, pool_y=y),
        metrics.outside_template(a, b, y, k=9),
    ):
        assert (values.dtype, values.device, values.shape) == (kind, a.device, (8,))
        assert not values.requires_grad
        assert values.isfinite().all()
    assert torch.equal(a, copies[0])
    assert torch.equal(b, copies[1])


def test_memory_does_not_grow_with_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = []

    def spy(a: Tensor, b: Tensor) -> Tensor:
        rows.append(len(a))
        return metrics.cosine(a, b)

    monkeypatch.setattr(identity, "CHUNK", 64 * 50)
    pool, a = heat(300, seed=4), heat(20)
    y, pool_y = torch.zeros(20, dtype=torch.int64), torch.zeros(300, dtype=torch.int64)
    metrics.identification(a, a, y, score=spy, pool=pool, pool_y=pool_y)
    assert max(rows) == 50
    assert sum(rows) == 20 * 300 + 20


# --- the specific score ---------------------------------------------------------------------------


def estimate(a: Tensor, b: Tensor, y: Tensor, **options: Any) -> metrics.Estimate:
    usual = {"score": metrics.cosine, "generator": seeded(0)}
    return metrics.specific(a, b, y, **usual | options)


@every_score
def test_unchanged_maps_are_wholly_specific(score: Metric) -> None:
    a, y = heat(), classes(5, 3)
    assert estimate(a, a, y, score=score) == pytest.approx((1, 1, 1))


def test_what_is_left_of_orthogonal_parts_is_known() -> None:
    # Map i is t + e_i with a template t; clean maps have cosine 1/2, and own share c of e_i leaves
    # b_i = t + c e_i: own (1 + c) / √(2 (1 + c²)), others 1 / √(2 (1 + c²)).
    basis = torch.eye(6)
    a, y = (basis[:1] + basis[1:])[:, None], classes(5)
    for c in (0.0, 0.3, 1.0, -0.5):
        b = (basis[:1] + c * basis[1:])[:, None]
        expected = c / math.sqrt(2 * (1 + c**2)) / (1 - 0.5)
        assert estimate(a, b, y) == pytest.approx((expected,) * 3)


def test_it_is_zero_without_the_own_part_whatever_becomes_of_the_template() -> None:
    # The pitfall: (score - other) / (1 - other) with both maps clean is negative where the template goes
    # first, although the maps can be told apart without a mistake.
    basis = torch.eye(6)
    a, y = (basis[:1] + basis[1:])[:, None], classes(5)
    b = (0.2 * basis[1:] - 0.15 * basis[:1])[:, None]
    own, other = metrics.cosine(a, b).mean(), metrics.cosine(a, a.roll(1, 0)).mean()
    assert float((own - other) / (1 - other)) < -0.5
    assert float(metrics.identification(a, b, y, score=metrics.cosine).mean()) == 1
    assert estimate(a, b, y).low > 1
    template = (-basis[:1]).expand(5, -1)[:, None]
    assert estimate(a, template, y) == pytest.approx((0, 0, 0))


def test_it_is_a_ratio_of_means_over_pairs() -> None:
    a, b, y = heat(7), heat(7, seed=3), classes(4, 2, 1)
    above, below = [], []
    for i in range(6):  # the seventh is alone
        others = [j for j in range(7) if j != i and y[j] == y[i]]
        one = lambda m, i=i: m[i : i + 1].expand(len(others), -1, -1)  # noqa: B023, E731
        apart = float(metrics.cosine(a[others], one(b)).mean())
        above.append(float(metrics.cosine(a, b)[i]) - apart)
        below.append(1 - float(metrics.cosine(a[others], one(a)).mean()))
    found = estimate(a, b, y)
    assert found.value == pytest.approx(sum(above) / sum(below))
    assert found.low < found.value < found.high
    assert estimate(a, b, y) == found
    assert estimate(a, b, y, generator=seeded(1)) != found
    assert estimate(a, b, y, level=0.5).high < found.high


def test_the_interval_covers_as_often_as_it_says() -> None:
    noise, y = seeded(3), classes(15, 15)

    def draw(y: Tensor) -> tuple[Tensor, Tensor]:
        own, change = torch.randn(2, len(y), 1, 6, generator=noise)
        template = torch.eye(6)[y][:, None]
        return template + own, template + 0.5 * own + 0.5 * change

    def point(a: Tensor, b: Tensor, y: Tensor) -> float:
        return estimate(a, b, y).value

    truth = point(*draw(long := classes(600, 600)), long)
    hits = 0
    for _ in range(150):
        _, low, high = estimate(*draw(y), y, level=0.9)
        hits += low <= truth <= high
    assert hits / 150 > 0.9 - 3 * math.sqrt(0.9 * 0.1 / 150)
    assert hits < 150  # an interval that always covers says nothing


def test_maps_that_are_all_alike_have_nothing_specific() -> None:
    one = heat(1).expand(4, -1, -1) * torch.tensor([1.0, 2.0, 3.0, 0.7]).view(-1, 1, 1)
    assert all(math.isnan(v) for v in estimate(one, heat(4, seed=3), classes(4)))
    assert all(math.isnan(v) for v in estimate(heat(3), heat(3, seed=2), torch.arange(3)))


# --- pixels outside the template ------------------------------------------------------------------


def test_pixels_of_the_template_do_not_count() -> None:
    a = torch.zeros(4, 1, 8)
    a[:, 0, :2] = 1  # the template
    for i in range(4):
        a[i, 0, 2 + i] = 0.9  # the own pixel
    y = classes(4)
    only_template = a.clone()
    only_template[:, 0, 2:] = 0
    only_template[:, 0, 7] = 0.5
    assert torch.equal(metrics.outside_template(a, a, y, k=3), torch.ones(4))
    assert torch.equal(metrics.outside_template(a, only_template, y, k=3), torch.zeros(4))
    assert metrics.topk_intersection(a, only_template, k=3).tolist() == pytest.approx([2 / 3] * 4)
    assert metrics.outside_template(a, a, y, k=2).isnan().all()  # all of it is template


def test_half_of_the_others_make_the_template() -> None:
    a, b, y, pool_y = heat(3), heat(3, seed=2), classes(3), classes(6)
    pool = torch.cat([a.flip(0), heat(3, seed=7)])
    for options, others in (({}, a), ({"pool": pool, "pool_y": pool_y}, pool)):
        values = []
        for i in range(3):
            rest = [topk_mask(m[None], k=20)[0] for m in others if not torch.equal(m, a[i])]
            outside = topk_mask(a, k=20)[i] & (torch.stack(rest).double().mean(0) < 0.5)
            values.append(float((outside & topk_mask(b, k=20)[i]).sum() / outside.sum()))
        assert 0 < sum(values) < 3
        assert metrics.outside_template(a, b, y, k=20, **options).tolist() == pytest.approx(values)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"b": torch.ones(3, 8, 8)}, ValueError, "a and b to have one shape"),
        ({"a": torch.ones(4, 8, 8).long()}, TypeError, "a to be a floating-point tensor"),
        ({"b": torch.full((4, 8, 8), torch.nan)}, ValueError, "b to be finite, got NaN .* 4 of 4"),
        ({"y": [0, 0, 1, 1]}, TypeError, "y to be an int64 tensor, got list"),
        ({"y": torch.zeros(4)}, TypeError, "y to be an int64 tensor, got torch.float"),
        ({"y": classes(3)}, ValueError, r"y of shape \(4,\), got \(3,\)"),
        ({"pool": torch.ones(5, 8, 8)}, ValueError, "pool and pool_y together, got no pool_y"),
        ({"pool_y": classes(5)}, ValueError, "pool and pool_y together, got no pool$"),
        (
            {"pool": torch.ones(5, 8, 7), "pool_y": classes(5)},
            ValueError,
            r"pool of maps \(8, 8\), got shape \(5, 8, 7\)",
        ),
        (
            {"pool": torch.full((5, 8, 8), torch.inf), "pool_y": classes(5)},
            ValueError,
            "pool to be finite",
        ),
        (
            {"pool": torch.ones(5, 8, 8), "pool_y": classes(4)},
            ValueError,
            r"pool_y of shape \(5,\), got \(4,\)",
        ),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    given: dict[str, Any] = {"a": heat(4), "b": heat(4, seed=2), "y": classes(4)} | changes
    a, b, y = (given.pop(name) for name in "aby")
    calls: list[tuple[Callable[..., object], dict[str, Any]]] = [
        (metrics.identification, {"score": metrics.cosine}),
        (metrics.rank_one, {"score": metrics.cosine}),
        (metrics.outside_template, {"k": 5}),
    ]
    if not given:
        calls.append((metrics.specific, {"score": metrics.cosine, "generator": seeded(0)}))
    for call, options in calls:
        with pytest.raises(error, match=f"Expected {message}"):
            call(a, b, y, **options, **given)


def test_other_mistakes_are_named() -> None:
    a, y = heat(4), classes(4)
    with pytest.raises(ValueError, match=r"Expected score of one value for each of 12 pairs"):
        metrics.identification(a, a, y, score=lambda a, b: (a * b).mean())
    with pytest.raises(ValueError, match="Expected k to be an integer from 1 to 64, got 65"):
        metrics.outside_template(a, a, y, k=65)
    with pytest.raises(ValueError, match="Expected level strictly between 0 and 1, got 95"):
        estimate(a, a, y, level=95)


# --- intervals over seeds -------------------------------------------------------------------------


def grid(seeds: int, images: int, between: float, cell: float, draws: int = 1000) -> Tensor:
    """Tables (draws, seeds, images) with mean 0; seeds vary `between` times as much as image means."""
    noise, kind = seeded(seeds + images), torch.float64
    of_seed = torch.randn(draws, seeds, 1, generator=noise, dtype=kind)
    of_image = torch.randn(draws, 1, images, generator=noise, dtype=kind)
    rest = torch.randn(draws, seeds, images, generator=noise, dtype=kind)
    return between * math.sqrt(seeds / images) * of_seed + of_image + cell * rest


def cover(tables: Tensor, level: float) -> float:
    ends = torch.tensor([metrics.seed_interval(table, level=level) for table in tables])
    return float(((ends[:, 0] <= 0) & (ends[:, 1] >= 0)).double().mean())


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize("between", [0, 0.5, 2, 30])
def test_few_seeds_cover_as_often_as_they_say(seeds: int, between: float) -> None:
    for level, cell in ((0.95, 0.0), (0.8, 1.0)):
        tables = grid(seeds, 40, between, cell)
        error = math.sqrt(level * (1 - level) / len(tables))
        assert cover(tables, level) > level - 3 * error


def test_resampling_three_seeds_is_too_narrow() -> None:
    tables, noise = grid(3, 40, 30, 0), seeded(5)
    hits = []
    for table in tables:
        means = table.mean(1)
        drawn = means[torch.randint(3, (300, 3), generator=noise)].mean(1)
        low, high = drawn.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
        hits.append(bool(low <= 0 <= high))
    assert 0.65 < sum(hits) / len(hits) < 0.8
    assert cover(tables, 0.95) > 0.93


def test_seed_intervals_in_closed_form() -> None:
    # Student's quantiles: 4.3027 for three seeds, 3.1824 for four images.
    of_seed, of_image = torch.tensor([[-1.0], [0], [1]]), torch.tensor([[-3.0, -1, 1, 3]])
    of_seeds, of_images = 4.3027 / math.sqrt(3), 3.1824 * math.sqrt(20 / 3 / 4)
    low, high = metrics.seed_interval(5 + of_seed[:, 0])
    assert (low, high) == pytest.approx((5 - of_seeds, 5 + of_seeds), abs=1e-4)
    low, high = metrics.seed_interval(5 + of_seed + of_image)
    half = math.hypot(of_seeds, of_images)
    assert (low, high) == pytest.approx((5 - half, 5 + half), abs=1e-4)
    assert metrics.seed_interval(of_seed + of_image, level=0.99)[1] > high - 5
    same = metrics.seed_interval(of_image.expand(3, -1))
    assert same == pytest.approx((-of_images, of_images), abs=1e-4)  # images alone, as seeds agree


def test_seed_intervals_leave_nan_out() -> None:
    table = torch.rand(3, 6, generator=seeded(0))
    whole = metrics.seed_interval(table)
    padded = torch.cat([table, torch.full((3, 2), torch.nan)], 1)
    assert metrics.seed_interval(padded) == pytest.approx(whole)
    table[1, 2] = torch.nan
    middle = sum(metrics.seed_interval(table)) / 2
    assert middle == pytest.approx(float(table.nanmean(1).mean()))


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        (torch.rand(3, 4, 2), 0.95, r"values of shape \(seeds,\) or \(seeds, images\), got \(3, "),
        (torch.rand(1, 4), 0.95, "values with at least 2 seeds .*, got 1 of 1"),
        (torch.rand(1), 0.95, "values with at least 2 seeds .*, got 1 of 1"),
        (torch.rand(0, 4), 0.95, "values with at least 2 seeds .*, got 0 of 0"),
        (torch.tensor([1.0, 2.0, torch.nan]), 0.95, "values with .* a number in each, got 2 of 3"),
        (torch.rand(3, 1), 0.95, "values with at least 2 images, got 1"),
        (torch.rand(3), 95, "level strictly between 0 and 1, got 95"),
    ],
)
def test_seed_intervals_name_what_is_wrong(values: Tensor, level: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"Expected {message}"):
        metrics.seed_interval(values, level=level)
