"""Lost volume, and the least cosine of smoothed maps: closed forms, counterexamples, adversaries."""

import functools
import math

import mpmath
import pytest
import torch
from torch import Tensor

from attrlib import certificates
from attrlib.certificates import (
    Gaussian,
    UniformBall,
    certified_cosine,
    certified_radius,
    distance_at,
    largest_loss,
    lost_volume,
    minimal_smoothing_radius,
    worst_cosine,
)
from tests import oracles

signed = functools.partial(worst_cosine, bound=1.0)
positive = functools.partial(worst_cosine, bound=1.0, nonnegative=True)


# --- volume ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [1e-9, 0.01, 0.125, 0.5, 0.99])
def test_volume_in_one_to_three_dimensions(share: float) -> None:
    """An interval, a disc and a ball, by school geometry; `share` is e / 2r."""
    disc = 1 - (2 / math.pi) * (math.acos(share) - share * math.sqrt(1 - share**2))
    expected = {1: share, 2: disc, 3: (3 * share - share**3) / 2}
    for dim, value in expected.items():
        assert lost_volume(share * 6, 3.0, dim) == pytest.approx(value, rel=1e-6, abs=1e-16)


@pytest.mark.parametrize("dim", [1, 2, 784, 150_528, 10**6])
@pytest.mark.parametrize("distance", [1e-8, 1e-4, 0.003, 0.3])
def test_volume_has_no_cancellation(dim: int, distance: float) -> None:
    """Against an integral over slices of the ball, with 40 digits."""
    with mpmath.workdps(40):
        power = mpmath.mpf(dim - 1) / 2
        slices = mpmath.linspace(0, min(distance / 2, 30 / math.sqrt(dim)), 12)
        area = mpmath.quad(lambda t: (1 - t * t) ** power, slices)
        whole = mpmath.sqrt(mpmath.pi) / 2 * mpmath.gammaprod([power + 1], [power + 1.5])
        expected = area / whole
        assert abs(lost_volume(distance, 1.0, dim) / expected - 1) < 1e-12


@pytest.mark.parametrize("dim", [1, 2, 7, 64])
def test_volume_by_counting_points(dim: int) -> None:
    points = UniformBall(radius=2.0).noise(torch.zeros(20_000, dim), generator=oracles.seeded(0))
    assert points.norm(dim=1).max() <= 2
    points[:, 0] -= 0.7
    outside = (points.norm(dim=1) > 2).double().mean().item()
    assert outside == pytest.approx(lost_volume(0.7, 2.0, dim), abs=4 * 0.5 / math.sqrt(20_000))


def test_known_volumes() -> None:
    known = {
        (0.1, 4, 784): 0.273755,
        (0.25, 8, 3072): 0.613591,
        (0.5, 2, 3): 0.186523,
        (0.5, 2, 2): 0.158740,
        (0.5, 2, 1): 0.125,
        (0.05, 8, 784): 0.070,
    }
    for (distance, radius, dim), value in known.items():
        assert lost_volume(distance, radius, dim) == pytest.approx(value, abs=5e-4)
    assert lost_volume(0.31547, 1, 2) == pytest.approx(0.2, abs=1e-5)


def test_volume_is_monotone_and_takes_tensors() -> None:
    distances = torch.linspace(0, 10, 101)
    lost = lost_volume(distances, 4.0, 3)
    assert lost.dtype == torch.float64
    assert (lost[0], lost[80:].min()) == (0, 1)
    assert (lost.diff()[:80] > 0).all()
    assert lost_volume(1.0, 4.0, 10) > lost_volume(1.0, 4.0, 9)
    assert lost_volume(1.0, 4.0, 9) > lost_volume(1.0, 5.0, 9)
    assert lost_volume(8, 4, 784) == lost_volume(100.0, 4.0, 784) == 1


@pytest.mark.parametrize("dim", [1, 3, 784, 10**6])
def test_distance_is_the_inverse_of_volume(dim: int) -> None:
    shares = torch.tensor([1e-12, 1e-3, 0.2, 0.9])
    there = distance_at(shares, 3.0, dim)
    torch.testing.assert_close(lost_volume(there, 3.0, dim), shares.double(), rtol=1e-9, atol=0)
    assert distance_at(1.0, 3.0, dim) == 6


def test_gaussian_noise_is_the_limit_of_the_ball() -> None:
    dim, radius = 150_528, 8.0
    law = Gaussian(sigma=radius / math.sqrt(dim + 2))
    for eps in (0.001, 0.01, 0.05):
        assert law.lost(eps, dim) == pytest.approx(lost_volume(eps, radius, dim), abs=1e-5)
    lost = torch.tensor([0.1, 0.7])
    there = law.distance(lost, dim)
    assert [law.lost(e, dim) for e in there.tolist()] == pytest.approx(lost.tolist())
    assert law.lost(1e-20, dim) == pytest.approx(1e-20 / (law.sigma * math.sqrt(2 * math.pi)))


@pytest.mark.parametrize("law", [UniformBall(radius=2.0), Gaussian(sigma=0.7)])
def test_noise_has_its_law(law: UniformBall | Gaussian, device: torch.device) -> None:
    like = torch.zeros(4000, 1, 2, 2, device=device)
    noise = law.noise(like, generator=oracles.seeded(1))
    assert (noise.shape, noise.dtype, noise.device) == (like.shape, torch.float64, like.device)
    spread = law.sigma if isinstance(law, Gaussian) else law.radius / math.sqrt(6)
    assert noise.mean().item() == pytest.approx(0, abs=4 * spread / math.sqrt(16_000))
    assert noise.std().item() == pytest.approx(spread, rel=0.03)
    low_bits = noise.flatten() * 2**24
    assert (low_bits != low_bits.round()).double().mean() > 0.99  # finer than float32


def test_lowest_mean_is_that_of_the_worst_set() -> None:
    """Gaussian: a half-space. Ball: what only one of the two balls has, first."""
    points = torch.randn(200_000, 1, generator=oracles.seeded(2))
    mean, there = (points < 0.8).double().mean(), (points + 0.5 < 0.8).double().mean()
    assert Gaussian(sigma=1.0).lowest(mean, 0.5, 1).item() == pytest.approx(there.item(), abs=0.005)
    law = UniformBall(radius=2.0)
    assert law.lowest(torch.tensor([0.1, 0.9]), 0.5, 1).tolist() == pytest.approx([0, 0.775])
    edge = Gaussian(sigma=1.0).lowest(torch.tensor([0.0, 1.0]), 0.5, 1)
    assert edge.tolist() == [0, 1]


# --- cosine ---------------------------------------------------------------------------------------

KNOWN = [
    # H, v, signed, non-negative without the cap, as quoted
    (0.5, 0.1, 0.916515, 0.959166, 0.928477),
    (0.9, 0.1, 0.974996, 0.987577, 0.976187),
    (0.9, 0.3, 0.748122, 0.881917, 0.832050),
    (0.95, 0.2, 0.919272, 0.954650, 0.921635),
    (0.99, 0.2, 0.948329, 0.958319, 0.927179),
    (0.999, 0.3, 0.890579, 0.905339, 0.857266),
    (0.2, 0.15, -1, 0.316228, 0.554700),
]


@pytest.mark.parametrize(("h", "v", "low", "high", "quoted"), KNOWN)
def test_cosines_by_hand(h: float, v: float, low: float, high: float, quoted: float) -> None:
    assert signed(h, v) == pytest.approx(low, abs=1e-6)
    assert positive(h, v, method="uncapped") == pytest.approx(high, abs=1e-6)
    assert positive(h, v) >= high - 1e-6  # and the cap can only help
    for certificate in (signed, positive):
        assert certificate(h, v, method="quoted") == pytest.approx(quoted, abs=1e-6)


def test_closed_forms_at_special_lengths() -> None:
    for v in (0.1, 0.25, 0.3):
        assert signed(1.0, v) == pytest.approx(math.cos(math.asin(v / (1 - v))))
        assert positive(1.0, v) == pytest.approx((1 - v) / math.sqrt((1 - v) ** 2 + v**2))
        assert signed(0.6, v, method="uncapped") == pytest.approx(
            math.sqrt(max(1 - (v / 0.3) ** 2, 0)) if v < 0.3 else -1
        )
    assert signed(0.5, 0.0) == positive(0.5, 0.0) == 1
    assert (signed(0.0, 0.0), positive(0.0, 0.0)) == (-1, 0)
    assert (signed(1.0, 1.0), positive(1.0, 1.0)) == (-1, 0)
    assert positive(0.4, 0.2) == pytest.approx(math.sqrt(0.5))  # ρ = 1, where two forms meet
    assert positive(0.4, 0.2 + 1e-9) == pytest.approx(math.sqrt(0.5), abs=1e-7)


def _pieces(shared: list[float], here: list[float], there: list[float]) -> tuple[Tensor, Tensor]:
    """The smoothed maps of an attribution that is constant on the three parts of two discs, v = .2."""
    a, b, c = (torch.tensor(v, dtype=torch.float64) for v in (shared, here, there))
    return 0.8 * a + 0.2 * b, 0.8 * a + 0.2 * c


def test_the_quoted_formula_is_no_bound_and_ours_is() -> None:
    """Attributions of length <= 1, on the plane, against noise in a disc at a distance with v = .2."""
    cases = [
        (_pieces([0.425, 0.15], [0.8, -0.6], [-0.8, 0.6]), False, 0.6, 0.781),
        (_pieces([0, 0], [1, 0], [0, 1]), True, 0.0, 0.447),
    ]
    for (h, other), nonnegative, truth, quoted in cases:
        cosine = torch.nn.functional.cosine_similarity(h, other, dim=0).item()
        assert cosine == pytest.approx(truth, abs=1e-6)
        ask = functools.partial(
            certified_cosine,
            h.norm().item(),
            bound=1.0,
            eps=distance_at(0.2, 1.0, 2),
            radius=1.0,
            dim=2,
            nonnegative=nonnegative,
        )
        assert ask(method="quoted") == pytest.approx(quoted, abs=1e-3)
        assert ask(method="quoted") > cosine + 0.1
        assert ask() <= cosine + 1e-9
        assert ask() == pytest.approx(truth, abs=1e-6)  # and it is tight: the example is the worst


def test_the_quoted_formula_fails_under_real_noise() -> None:
    """The second example with points of the disc instead of volumes."""
    law, gap = UniformBall(radius=1.0), distance_at(0.2, 1.0, 2)

    def smoothed(at: float) -> Tensor:
        points = law.noise(torch.zeros(40_000, 2), generator=oracles.seeded(0))
        points[:, 0] += at
        here, there = points.norm(dim=1) <= 1, (points - torch.tensor([gap, 0])).norm(dim=1) <= 1
        return torch.stack([(here & ~there).double().mean(), (there & ~here).double().mean()])

    h, other = smoothed(0.0), smoothed(gap)
    assert h.norm().item() == pytest.approx(0.2, abs=0.01)
    assert torch.nn.functional.cosine_similarity(h, other, dim=0) < 0.05
    assert positive(h.norm().item(), 0.2, method="quoted") > 0.4


def _vectors(n: int, dim: int, top: float, nonnegative: bool, generator: torch.Generator) -> Tensor:
    """Vectors no longer than `top`, most of them just as long, and sparse if they are non-negative."""
    v = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    if nonnegative:
        v = v.abs() * (torch.rand(n, dim, generator=generator) < 0.6)
    length = torch.rand(n, 1, generator=generator, dtype=torch.float64)
    length = torch.where(torch.rand(n, 1, generator=generator) < 0.6, 1.0, length)
    return top * length * v / v.norm(dim=1, keepdim=True).clamp(min=1e-12)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_no_adversary_gets_below(nonnegative: bool) -> None:
    """10,000 choices of what both points share and what each has alone, in 2 to 5 dimensions."""
    generator, closest, broken = oracles.seeded(3), 1.0, 0
    for dim in (2, 3, 5):
        for lost in (0.03, 0.1, 0.2, 0.35, 0.6):
            a, b, c = (
                _vectors(700, dim, top, nonnegative, generator) for top in (1 - lost, lost, lost)
            )
            h, other = a + b, a + c
            norm = h.norm(dim=1)
            defined = (other.norm(dim=1) > 1e-9) & (norm > 1e-9)
            cosine = torch.nn.functional.cosine_similarity(h, other, dim=1)[defined]
            ask = functools.partial(
                worst_cosine, norm[defined].clamp(max=1), lost, bound=1.0, nonnegative=nonnegative
            )
            least, loose = ask(), ask(method="uncapped")
            assert (cosine >= least - 1e-7).all()
            assert (loose <= least + 1e-9).all()
            gaps = (cosine - least)[least > 0.01]
            closest = min([closest, *gaps.tolist()])
            broken += int((cosine < ask(method="quoted") - 1e-9).sum())
    assert closest < 1e-3  # some come close: the bound is not merely low
    assert broken > 100  # the quoted formula is passed again and again


@pytest.mark.parametrize("method", ["tight", "uncapped"])
@pytest.mark.parametrize("nonnegative", [False, True])
def test_cosine_is_monotone(method: str, nonnegative: bool) -> None:
    norm = torch.linspace(0, 1, 301)
    table = torch.stack(
        [
            worst_cosine(norm, v, bound=1.0, nonnegative=nonnegative, method=method)
            for v in torch.linspace(0, 1, 201).tolist()
        ]
    )
    assert (table.diff(dim=0) <= 1e-12).all()  # a larger lost share is worse
    assert (table.diff(dim=1) >= -1e-12).all()  # a longer mean is better
    assert table.max() <= 1
    scaled = worst_cosine(7 * norm, 0.1, bound=7.0, nonnegative=nonnegative, method=method)
    torch.testing.assert_close(scaled, table[20])


@pytest.mark.parametrize("nonnegative", [False, True])
def test_radius_and_budget_are_inverse(nonnegative: bool) -> None:
    options = {"bound": 2.0, "dim": 784, "nonnegative": nonnegative}
    norm = torch.tensor([0.0, 0.9, 1.8, 1.99])
    for target in (0.5, 0.9, 0.99):
        budget = certified_radius(norm, cosine=target, radius=4.0, **options)
        assert (budget[0], (budget.diff() > 0).all()) == (0, True)
        for h, eps in zip(norm[1:].tolist(), budget[1:].tolist(), strict=True):
            ask = functools.partial(certified_cosine, h, radius=4.0, **options)
            assert ask(eps=eps) >= target
            assert ask(eps=eps * (1 + 1e-6)) < target
            least = minimal_smoothing_radius(h, eps=eps, cosine=target, **options)
            assert least == pytest.approx(4.0, rel=1e-9)
            assert certified_cosine(h, eps=eps, radius=least, **options) >= target - 1e-12
    assert minimal_smoothing_radius(0.0, eps=0.1, cosine=0.9, **options) == math.inf
    assert minimal_smoothing_radius(1.0, eps=0.0, cosine=0.9, **options) == 0
    several = minimal_smoothing_radius(norm, eps=0.1, cosine=0.9, **options)
    assert several[0] == math.inf
    assert (several[1:].diff() < 0).all()


def test_known_budgets() -> None:
    ask = functools.partial(certified_radius, bound=1.0, cosine=0.9)
    for h, radius, dim, low, high, quoted in [
        (0.9, 4.0, 784, 0.0709, 0.1014, 0.0790),
        (0.95, 8.0, 3072, None, 0.1084, 0.0844),
    ]:
        known = functools.partial(ask, h, radius=radius, dim=dim)
        assert known(nonnegative=True, method="uncapped") == pytest.approx(high, abs=5e-5)
        assert known(method="quoted") == pytest.approx(quoted, abs=5e-5)
        if low is not None:
            assert known(method="uncapped") == pytest.approx(low, abs=5e-5)
            assert known() > low  # the cap gains a little
    assert ask(0.95, radius=8.0, dim=3072) == pytest.approx(0.0811, abs=5e-5)
    closed = 0.5 * math.sqrt(1 - 0.9**2) / 2
    assert largest_loss(0.5, bound=1.0, cosine=0.9) == pytest.approx(closed)


BAD = [
    (lambda: lost_volume(-0.1, 1.0, 2), "Expected distance >= 0, got -0.1"),
    (lambda: lost_volume(torch.tensor([0.1, -2.0]), 1.0, 2), "Expected distance >= 0 .*got -2"),
    (lambda: lost_volume(torch.tensor(torch.nan), 1.0, 2), "Expected distance >= 0 .*got nan"),
    (lambda: lost_volume(0.1, 0.0, 2), "Expected radius > 0, got 0.0"),
    (lambda: lost_volume(0.1, 1.0, 0), "Expected dim to be an integer >= 1, got 0"),
    (lambda: distance_at(1.5, 1.0, 2), "Expected volume <= 1, got 1.5"),
    (lambda: Gaussian(sigma=0.0), "Expected sigma > 0, got 0.0"),
    (lambda: Gaussian(sigma=1.0).lost(-1.0, 3), "Expected eps >= 0, got -1.0"),
    (lambda: UniformBall(radius=-1.0), "Expected radius > 0, got -1.0"),
    (lambda: signed(1.1, 0.1), "Expected norm from 0 to bound 1, got 1.1"),
    (lambda: signed(torch.tensor([0.5, -1.0]), 0.1), "Expected norm from 0 to bound 1, got -1"),
    (lambda: signed(torch.tensor([torch.nan]), 0.1), "Expected norm from 0 to bound 1, got nan"),
    (lambda: signed(0.5, 1.1), "Expected lost from 0 to 1, got 1.1"),
    (lambda: signed(0.5, 0.1, method="loose"), "Expected method to be one of tight, .*got 'loose'"),
    (lambda: worst_cosine(0.5, 0.1, bound=0.0), "Expected bound > 0, got 0.0"),
    (
        lambda: certified_cosine(0.5, bound=1.0, eps=8.0, radius=4.0, dim=2),
        r"Expected eps < 2 \* radius = 8, .*got 8",
    ),
    (
        lambda: certified_cosine(0.5, bound=1.0, eps=-0.1, radius=4.0, dim=2),
        "Expected eps >= 0, got -0.1",
    ),
    (
        lambda: certified_radius(0.5, bound=1.0, cosine=1.0, radius=4.0, dim=2),
        "Expected cosine strictly between 0 and 1, got 1.0",
    ),
    (
        lambda: minimal_smoothing_radius(0.5, bound=1.0, eps=-1.0, cosine=0.5, dim=2),
        "Expected eps >= 0, got -1.0",
    ),
]


@pytest.mark.parametrize(("call", "message"), BAD)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_numbers_are_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_all_is_sorted_and_complete() -> None:
    assert certificates.__all__ == sorted(certificates.__all__, key=lambda n: (n.islower(), n))
