"""Bounded maps and `certify`: ideal maps that are known, the same answer for any part, and coverage."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import attributions, checkpoints, data
from attrlib.certificates import (
    Bounded,
    Certificate,
    certify,
    clipped,
    hoeffding,
    normalized,
    smallest_radius,
    smoothed,
    sparsified,
    worst_cosine,
)
from attrlib.maps import to_heatmap
from attrlib.types import Attribution
from tests import oracles

unit = normalized(attributions.gradient)


def _sides(model: Any, x: Tensor, y: Tensor, *, generator: Any = None) -> Tensor:
    """Length 1 everywhere: e₁ where the first entry is positive, e₂ elsewhere."""
    first = (x.flatten(1)[:, 0] > 0).to(x)
    result = torch.zeros_like(x.flatten(1))
    result[:, 0], result[:, 1] = first, 1 - first
    return result.view_as(x)


def by_hand(attribution: Attribution = _sides, **options: Any) -> Bounded:
    promise = {"bound": 1.0, "nonnegative": True, "clamp": False} | options
    return Bounded(attribution=attribution, reduce=lambda a: a, **promise)


def ask(g: Attribution = unit, **options: Any) -> Certificate:
    """A certificate for four small images and a linear model, whose gradient is the same everywhere."""
    settings: dict[str, Any] = {
        "radius": 4.0,
        "eps": 0.05,
        "samples": 200,
        "alpha": 0.01,
        "generator": oracles.seeded(0),
    }
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    model = options.pop("model", model)
    return certify(g, model, options.pop("x", x), options.pop("y", y), **(settings | options))


# --- bounded maps ---------------------------------------------------------------------------------


def test_normalised_maps_have_length_one() -> None:
    x, y, model = oracles.images(), oracles.labels(), oracles.linear_net()
    a = attributions.gradient(model, x, y)
    length = a.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    torch.testing.assert_close(unit(model, x, y), a.abs() / length)
    torch.testing.assert_close(
        normalized(attributions.gradient, reduce=None)(model, x, y), a / length
    )
    h = normalized(attributions.gradient, reduce=to_heatmap)(model, x, y)
    assert h.shape == (4, 8, 8)
    assert (unit.bound, unit.nonnegative, unit.limits) == (1, True, (0, 1))
    assert normalized(attributions.gradient, reduce=None).limits == (-1, 1)


def _scaled(model: Any, x: Tensor, y: Tensor, *, generator: Any = None, by: float) -> Tensor:
    return by * x


@pytest.mark.parametrize("by", [1e-300, 1e-30, 1.0, 1e200])
def test_length_is_right_for_maps_of_any_size(by: float) -> None:
    x, y = oracles.images().double(), oracles.labels()
    for g in (normalized(partial(_scaled, by=by)), clipped(partial(_scaled, by=by), bound=1e-310)):
        length = g(nn.Identity(), x, y).flatten(1).norm(dim=1) / g.bound
        if g.bound == 1:
            torch.testing.assert_close(length, torch.ones(4).double())
    assert (normalized(partial(_scaled, by=0.0))(nn.Identity(), x, y) == 0).all()


def test_clipped_maps_keep_short_ones() -> None:
    x, y = oracles.images(), oracles.labels()
    x[0] *= 0.1
    size = x.flatten(1).norm(dim=1)
    bound = size[0].item() * 2
    g = clipped(partial(_scaled, by=1.0), bound=bound)
    found = g(nn.Identity(), x, y).flatten(1).norm(dim=1)
    torch.testing.assert_close(found, size.clamp(max=bound))
    assert torch.equal(g(nn.Identity(), x, y)[0], x[0])
    assert g.limits == (-bound, bound)


def test_sparsified_maps_are_sets() -> None:
    g = sparsified(attributions.gradient, k=9)
    a = g(oracles.linear_net(), oracles.images(), oracles.labels())
    assert (a.shape, set(a.unique().tolist())) == ((4, 8, 8), {0.0, 1.0})
    assert (a.sum((1, 2)) == 9).all()
    assert (g.bound, g.limits, g.binary) == (3, (0, 1), True)


def test_inputs_are_clamped_inside() -> None:
    g = partial(_scaled, by=1.0)
    x = torch.tensor([[-1.0, 0.5, 3.0]])
    same = Bounded(attribution=g, reduce=lambda a: a, bound=9.0, clamp=False)
    inside = Bounded(attribution=g, reduce=lambda a: a, bound=9.0)
    assert same(nn.Identity(), x, torch.tensor([0])).tolist() == [[-1, 0.5, 3]]
    assert inside(nn.Identity(), x, torch.tensor([0])).tolist() == [[0, 0.5, 1]]


# --- certify --------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", [{"radius": 4.0}, {"sigma": 0.5}])
def test_a_constant_map_is_certified(law: dict[str, float]) -> None:
    c = ask(**({"radius": None} | law))
    assert (c.norm > 0.95).all()
    assert (c.norm <= 1).all()
    a = attributions.gradient(oracles.linear_net(), oracles.images(), oracles.labels()).abs()
    torch.testing.assert_close(
        c.mean / c.mean.flatten(1).norm(dim=1).view(-1, 1, 1, 1),
        (a / a.flatten(1).norm(dim=1).view(-1, 1, 1, 1)).double(),
    )
    expected = worst_cosine(c.norm, c.law.lost(0.05, 64), bound=1.0, nonnegative=True)
    assert torch.equal(c.lower, expected)
    assert torch.equal(c.lower, c.cosine(0.05))
    assert not c.abstained.any()
    assert math.isnan(c.radius) == ("sigma" in law)


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_sets_that_never_change_are_certified(k: int) -> None:
    """In a user's precision, in which √5 is more than in float64."""
    torch.set_default_dtype(torch.float32)
    c = ask(sparsified(attributions.gradient, k=k))
    assert (c.norm > 0.95 * k**0.5).all()
    assert (c.norm <= k**0.5).all()


def test_coverage_where_the_length_is_known() -> None:
    """At 0 the map is e₁ or e₂ by a coin, so h = (½, ½) and H = √½; each image has its own noise."""
    alpha, n = 0.2, 100
    x, y = torch.zeros(n, 3), torch.zeros(n, dtype=torch.int64)
    c = ask(by_hand(), x=x, y=y, model=nn.Identity(), radius=1.0, samples=60, alpha=alpha)
    assert int((c.norm > math.sqrt(0.5)).sum()) <= alpha * n + 4 * math.sqrt(alpha * n)
    assert len(c.norm.unique()) > 20  # the images are independent of each other
    assert 0.3 < c.norm.mean() < math.sqrt(0.5)
    assert (c.mean[:, :2].sum(1) == 1).all()


def test_the_truth_is_above_the_certificate() -> None:
    """The same map: h(δ) is known, too, and the certificates hold for the worst of directions."""
    c = ask(by_hand(), x=torch.zeros(1, 3), y=torch.tensor([0]), model=nn.Identity(), samples=2000)
    for eps in (0.05, 0.2, 1.0, 4.0):
        share = (
            0.5 - (c.law.lost(2 * eps, 3) if 2 * eps < 8 else 1) / 2
        )  # of e₁ or of e₂, at δ = ±ε e₁
        truth = 1 / math.sqrt(2 * (share**2 + (1 - share) ** 2))
        assert c.cosine(eps).item() <= truth
        assert c.released(eps).item() <= c.cosine(eps).item()


def test_any_part_has_the_same_answer() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    whole = ask(model=model, x=x, y=y, samples=60, alpha=0.1)
    for rows in ([2], [3, 0]):
        part = ask(model=model, x=x[rows], y=y[rows], index=rows, samples=60, alpha=0.1)
        assert torch.equal(part.norm, whole.norm[rows])
        assert torch.equal(part.mean, whole.mean[rows])
    other = ask(model=model, x=x, y=y, samples=60, alpha=0.1, generator=oracles.seeded(1))
    assert not torch.equal(other.norm, whole.norm)
    moved = ask(model=model, x=x[:1], y=y[:1], index=[1], samples=60, alpha=0.1)
    assert not torch.equal(moved.mean, whole.mean[:1])


@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_batch_size_does_not_matter(batch_size: int) -> None:
    model = oracles.softplus_net()
    whole = ask(model=model, samples=60, alpha=0.1)
    small = ask(model=model, samples=60, alpha=0.1, batch_size=batch_size)
    torch.testing.assert_close(small.norm, whole.norm, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(small.mean, whole.mean)


def test_no_more_maps_exist_at_once_than_one_pass_has() -> None:
    sizes = []

    def watched(model: Any, x: Tensor, y: Tensor, *, generator: Any = None) -> Tensor:
        sizes.append(len(x))
        return _sides(model, x, y)

    g = by_hand(watched)
    ask(g, x=torch.zeros(2, 3), y=torch.tensor([0, 0]), samples=500, batch_size=16)
    assert max(sizes) <= 16
    assert sum(sizes) == 1000


def test_rows_do_not_touch_each_other_and_inputs_stay() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    before = x.clone()
    state = torch.random.get_rng_state()
    first = ask(model=model, x=x.requires_grad_(), y=y, samples=60, alpha=0.1)
    assert torch.equal(x, before)
    assert x.grad is None
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not first.mean.requires_grad
    changed = x.detach().clone()
    changed[1:] = changed[1:].flip(2)
    assert torch.equal(
        ask(model=model, x=changed, y=y, samples=60, alpha=0.1).norm[0], first.norm[0]
    )


def test_sample_once_certify_many() -> None:
    c = ask(samples=400)
    budgets = torch.linspace(0, 7.9, 20).tolist()
    curve = torch.stack([c.cosine(eps) for eps in budgets])
    assert (curve.diff(dim=0) <= 1e-12).all()
    assert (curve[0] == 1).all()
    for target in (0.5, 0.9):
        eps = c.budget(target)
        assert (eps > 0).all()
        for i, e in enumerate(eps.tolist()):
            assert c.cosine(e)[i] >= target
            assert c.cosine(e * 1.001)[i] < target
    assert (c.cosine(0.5, method="quoted") != c.cosine(0.5)).all()


def test_released_maps_pay_for_their_noise() -> None:
    few, many = ask(samples=400), ask(samples=3000)
    for c in (few, many):
        assert (c.released(0.05) < c.lower).all()
    assert (many.lower - many.released(0.05) < few.lower - few.released(0.05)).all()
    signed = ask(normalized(attributions.gradient, reduce=None), samples=3000)
    assert (signed.released(0.0) < 1).all()
    assert (signed.released(0.0) > 0.8).all()
    assert (signed.released(4.0) == -1).all()
    assert (signed.lower < many.lower).all()  # what non-negative maps gain


def test_abstention_is_explicit() -> None:
    x, y = torch.zeros(2, 3), torch.tensor([0, 0])
    signed = partial(ask, by_hand(nonnegative=False), x=x, y=y, samples=500)
    c = signed(radius=1.0, eps=1.0)
    assert c.abstained.tolist() == [True, True]
    assert c.lower.tolist() == [-1, -1]
    assert (c.budget(0.9) > 0).all()  # the same samples answer for smaller budgets
    assert not signed(radius=1.0, eps=0.01).abstained.any()

    def nothing(model: Any, x: Tensor, y: Tensor, *, generator: Any = None) -> Tensor:
        return torch.zeros_like(x)

    silent = ask(normalized(nothing), x=x, y=y)
    assert (silent.norm.tolist(), silent.lower.tolist()) == ([0, 0], [0, 0])
    assert silent.abstained.all()
    assert (silent.budget(0.9) == 0).all()


def test_an_attribution_may_draw_noise() -> None:
    noisy = normalized(partial(attributions.smooth_grad, sigma=0.1, samples=2))
    model = oracles.softplus_net()
    first, second = (ask(noisy, model=model, samples=40, alpha=0.1) for _ in range(2))
    assert torch.equal(first.norm, second.norm)


def test_smoothed_is_the_map_that_is_certified() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    shown = smoothed(unit, radius=4.0, samples=500)(model, x, y, generator=oracles.seeded(5))
    c = ask(model=model, samples=500)
    gap = (shown - c.mean).flatten(1).norm(dim=1)
    assert (gap < 0.15).all()
    assert shown.dtype == x.dtype
    leaf = x.clone().requires_grad_()
    few = smoothed(unit, sigma=0.1, samples=3)
    assert few(model, leaf, y, generator=oracles.seeded(0)).requires_grad
    torch.testing.assert_close(
        smoothed(unit, sigma=0.1, samples=9, batch_size=5)(
            model, x, y, generator=oracles.seeded(0)
        ),
        smoothed(unit, sigma=0.1, samples=9)(model, x, y, generator=oracles.seeded(0)),
    )


def test_smallest_radius_of_several() -> None:
    model, x, y = oracles.linear_net(), oracles.images(2), oracles.labels(2)
    options = {"eps": 0.3, "samples": 300, "alpha": 0.03, "generator": oracles.seeded(0)}
    find = partial(smallest_radius, unit, model, x, y, **options)
    chosen = find(radii=[8.0, 1.0, 4.0, 16.0], cosine=0.9)
    for i, radius in enumerate(chosen.tolist()):
        assert radius in (4.0, 8.0, 16.0)
        c = ask(x=x, y=y, radius=radius, eps=0.3, samples=300, alpha=0.03 / 4)
        assert c.lower[i] >= 0.88  # measured again, with other noise
    assert find(radii=[0.2], cosine=0.99).isnan().all()
    with pytest.raises(ValueError, match="Expected radii of one candidate or more, got none"):
        find(radii=[], cosine=0.9)


def test_a_shipped_network() -> None:
    """Few samples, but a certificate above zero; and attacks of random directions stay above it."""
    images = data.fashion_mnist("test")
    x, y = images.x[:2], images.y[:2]
    model = checkpoints.load("softplus").model.to(torch.float32)
    c = ask(model=model, x=x, y=y, samples=300, eps=0.1)
    assert (c.lower > 0.5).all()
    generator = oracles.seeded(0)
    shown = smoothed(unit, radius=4.0, samples=100)
    a = shown(model, x, y, generator=oracles.seeded(1))
    for _ in range(3):
        step = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        z = x + 0.1 * step / step.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        b = shown(model, z, y, generator=oracles.seeded(1))
        assert (torch.nn.functional.cosine_similarity(a.flatten(1), b.flatten(1)) > c.lower).all()


def _broken(model: Any, x: Tensor, y: Tensor, *, generator: Any = None, value: float) -> Tensor:
    result = torch.zeros_like(x)
    result.view(len(x), -1)[0, 0] = value
    return result


def test_broken_promises_are_refused() -> None:
    for value, promise, message in [
        (2.0, {}, "Expected maps of attribution with length <= 1, got 2"),
        (-0.5, {}, "Expected maps of attribution without values below 0, got -0.5"),
        (0.9, {"peak": 0.5}, "Expected maps of attribution with entry <= 0.5, got 0.9"),
        (0.9, {"binary": True}, "Expected maps of attribution of zeros and ones"),
        (math.nan, {}, "Expected maps of attribution to be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            ask(by_hand(partial(_broken, value=value), **promise))
    ask(by_hand(partial(_broken, value=1 + 1e-6)))  # rounding


def test_bad_arguments_are_named() -> None:
    for options, message in [
        ({"eps": 8.0}, r"Expected eps < 2 \* radius = 8, .*got 8"),
        ({"eps": -1.0}, "Expected eps >= 0, got -1.0"),
        ({"alpha": 0.0}, "Expected alpha strictly between 0 and 1, got 0.0"),
        ({"alpha": 1.5}, "Expected alpha strictly between 0 and 1, got 1.5"),
        ({"radius": 0.0}, "Expected radius > 0, got 0.0"),
        ({"radius": None}, "Expected radius or sigma, got None and None"),
        ({"sigma": 1.0}, "Expected radius or sigma, got 4.0 and 1.0"),
        ({"samples": 1}, "Expected samples to be an integer >= 2, got 1"),
        ({"batch_size": 0}, "Expected batch_size to be an integer >= 1, got 0"),
        ({"index": [0, 1]}, "Expected index of 4 numbers, got 2"),
        ({"index": [0, 1, 2, -1]}, "Expected index to be an integer >= 0, got -1"),
        ({"model": nn.Sequential(nn.Dropout(), oracles.linear_net())}, "Dropout '0' in train mode"),
        ({"x": oracles.images() * torch.nan}, "Expected x to be finite"),
    ]:
        with pytest.raises(ValueError, match=message):
            ask(**options)
    with pytest.raises(ValueError, match=r"maps are bounded, got gradient; give certificates.norm"):
        ask(attributions.gradient)
    c = ask()
    for call in (c.cosine, c.released, c.entries):
        with pytest.raises(ValueError, match=r"Expected eps < 2 \* radius = 8"):
            call(9.0)
    with pytest.raises(ValueError, match=r"Expected cosine strictly between 0 and 1, got 1.0"):
        c.budget(1.0)
    with pytest.raises(ValueError, match=r"Expected bound > 0, got 0.0"):
        by_hand(bound=0.0)
    with pytest.raises(ValueError, match=r"Expected peak > 0, got -1.0"):
        by_hand(peak=-1.0)


def test_too_few_samples_are_told_how_many_are_needed() -> None:
    few = {"samples": 8, "alpha": 0.001, "eps": 0.5, "interval": hoeffding}
    with pytest.raises(ValueError, match=r"Expected samples >= (\d+), the least .* got 8") as error:
        ask(**few)
    needed = int(str(error.value).split()[3].rstrip(","))
    with pytest.raises(ValueError, match=f"Expected samples >= {needed}"):
        ask(**(few | {"samples": needed - 1}))
    assert not ask(**(few | {"samples": needed})).abstained.any()
