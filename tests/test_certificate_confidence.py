"""Confidence bounds: known values, coverage by repetition, and which of them needs fewer samples."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from attrlib.certificates import (
    UniformBall,
    bernstein,
    betting,
    entry_bounds,
    hoeffding,
    vector_error,
)
from attrlib.certificates.confidence import BETS
from tests import oracles

BOUNDS = [hoeffding, bernstein, betting]
every_bound = pytest.mark.parametrize("bound", BOUNDS, ids=lambda b: b.__name__)


def _few(missed: int, runs: int, alpha: float) -> bool:
    """Whether so many misses are no surprise for a bound that misses with probability alpha."""
    return missed <= stats.binom.ppf(1 - 1e-4, runs, alpha)


def test_bounds_by_hand() -> None:
    values = torch.tensor([0.2, 0.4, 0.9, 0.5])[:, None]
    options = {"low": 0.0, "high": 2.0, "samples": 4, "alpha": 0.5}
    assert hoeffding([values], **options).item() == 0  # .5 - 2 √(ln 2 / 8) is below the range
    mild = {"low": 0.0, "high": 2.0, "samples": 400, "alpha": 0.5}
    many = values.repeat(100, 1)
    width = 2 * math.sqrt(math.log(2) / 800)
    assert hoeffding([many], **mild).item() == pytest.approx(0.5 - width)
    width = math.sqrt(2 * many.var().item() * math.log(4) / 400) + 14 * math.log(4) / (3 * 399)
    assert bernstein([many], **mild).item() == pytest.approx(0.5 - width)


def test_betting_by_hand() -> None:
    """Two draws, and the capital of each mean written out."""
    w, alpha = (0.9, 0.8), 0.6
    rare = math.log(1 / alpha)
    guess = (0.5 + 0.9) / 2
    spread = (0.25, (0.25 + (0.9 - guess) ** 2) / 2)
    bets = [math.sqrt(2 * rare / (2 * s)) for s in spread]

    def capital(mean: float) -> float:
        return math.prod(1 + min(b, 0.9 / mean) * (v - mean) for b, v in zip(bets, w, strict=True))

    expected = max(m for m in range(1, BETS) if capital(m / BETS) >= 1 / alpha) / BETS
    values = torch.tensor(w)[:, None]
    found = betting([values], low=0.0, high=1.0, samples=2, alpha=alpha)
    assert found.item() == expected
    shifted = betting([4 * values - 1], low=-1.0, high=3.0, samples=2, alpha=alpha)
    assert shifted.item() == pytest.approx(4 * expected - 1)


@every_bound
def test_parts_do_not_matter(bound: Callable[..., Tensor], generator: torch.Generator) -> None:
    values = torch.rand(150, 2, generator=generator)
    options = {"low": 0.0, "high": 1.0, "samples": 150, "alpha": 0.05}
    whole = bound([values], **options)
    parts = bound(iter(torch.split(values, 37)), **options)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(bound([values[:, :1]], **options)[0], whole[0])
    assert (whole.dtype, whole.shape) == (torch.float64, (2,))


def _laws(n: int, runs: int, generator: torch.Generator) -> list[tuple[Tensor, float]]:
    """Draws and their means: rare hits, a narrow law, a wide one, and one with a long tail."""
    u = torch.rand(n, runs, generator=generator)
    return [
        ((u < 0.9).double(), 0.9),
        (0.9 + 0.02 * u, 0.91),
        (u, 0.5),
        (1 - 0.7 * u**6, 0.9),
    ]


@every_bound
def test_coverage(bound: Callable[..., Tensor], generator: torch.Generator) -> None:
    alpha, runs, n = 0.1, 300, 40
    for values, mean in _laws(n, runs, generator):
        found = bound([values], low=0.0, high=1.0, samples=n, alpha=alpha)
        assert _few(int((found > mean).sum()), runs, alpha)
        assert found.mean() < mean


def test_a_bound_without_correction_would_be_caught(generator: torch.Generator) -> None:
    values, mean = _laws(60, 400, generator)[0]
    assert not _few(int((values.mean(0) > mean).sum()), 400, 0.1)


def test_betting_needs_fewer_samples(generator: torch.Generator) -> None:
    """On lengths such as those of normalised maps it reaches the bound of twice as many samples."""
    lengths = 0.87 + 0.05 * torch.randn(2000, 10, generator=generator).clamp(-2, 2)
    options = {"low": 0.0, "high": 1.0, "alpha": 0.001}

    def mean_bound(bound: Callable[..., Tensor], n: int) -> float:
        return bound([lengths[:n]], samples=n, **options).mean().item()

    for n in (500, 1000):
        assert mean_bound(betting, n) > mean_bound(bernstein, 2 * n)
        assert mean_bound(bernstein, n) > mean_bound(hoeffding, n)


@pytest.mark.parametrize("norm", [0.0, 0.9])
def test_coverage_of_mean_vectors(norm: float, generator: torch.Generator) -> None:
    """Unit vectors around a fixed one, with a mean of this length."""
    runs, n, dim, alpha = 300, 50, 8, 0.1
    noise = torch.randn(runs, n, dim, generator=generator)
    noise[..., 0] = 0
    noise = noise / noise.norm(dim=2, keepdim=True) * math.sqrt(1 - norm**2)
    noise[..., 0] = norm
    ideal = torch.zeros(dim)
    ideal[0] = norm
    error = (noise.mean(1) - ideal).norm(dim=1)
    for known in {0.0, norm}:
        assert _few(
            int((error > vector_error(n, bound=1.0, alpha=alpha, norm=known)).sum()), runs, alpha
        )
    assert error.max() > vector_error(n, bound=1.0, alpha=alpha, norm=norm) / 10


def test_known_vector_errors() -> None:
    assert vector_error(1000, bound=1.0, alpha=0.001) == pytest.approx(0.149, abs=5e-4)
    assert vector_error(1000, bound=1.0, alpha=0.001, norm=0.95) == pytest.approx(0.058, abs=5e-4)
    assert vector_error(1000, bound=3.0, alpha=0.001, norm=2.85) == pytest.approx(
        3 * 0.058, abs=2e-3
    )
    assert vector_error(10**9, bound=1.0, alpha=0.001, norm=1.0) < 1e-7


def test_known_entry_bounds() -> None:
    """Levine's half-widths: 150,528 entries and 8,192 samples; 784 and 1,000."""
    for n, q, width in ((150_528, 8192, 0.03087), (784, 1000, 0.07195)):
        mean = torch.full((n,), 0.5)
        low, high = entry_bounds(mean, samples=q, alpha=0.05, binary=False)
        assert (0.5 - low[0]).item() == pytest.approx(width, abs=5e-6)
        assert (high[0] - 0.5).item() == pytest.approx(width, abs=5e-6)
        sharp, _ = entry_bounds(mean[:4], samples=q, alpha=4 * 0.05 / n, binary=True)
        assert low[0] < sharp[0] < 0.5
    signed = entry_bounds(torch.zeros(784), samples=1000, alpha=0.05, low=-1.0, binary=False)
    assert signed[1][0].item() == pytest.approx(2 * 0.07195, abs=1e-5)


def test_exact_bounds_are_those_of_clopper_and_pearson() -> None:
    hits = torch.tensor([0.0, 3.0, 50.0, 97.0, 100.0])
    low, high = entry_bounds(hits / 100, samples=100, alpha=0.05, binary=True)
    for i, k in enumerate(hits.int().tolist()):
        known = stats.binomtest(k, 100).proportion_ci(1 - 0.05 / 5, method="exact")
        assert (low[i].item(), high[i].item()) == pytest.approx((known.low, known.high))
    assert (low[0], high[-1]) == (0, 1)


@pytest.mark.parametrize("binary", [False, True])
def test_coverage_of_all_entries_at_once(binary: bool, generator: torch.Generator) -> None:
    alpha, runs, n, truth = 0.2, 300, 40, torch.tensor([0.01, 0.3, 0.5, 0.97])
    missed = 0
    for _ in range(runs):
        mean = (torch.rand(n, 4, generator=generator) < truth).double().mean(0)
        low, high = entry_bounds(mean, samples=n, alpha=alpha, binary=binary)
        missed += int(((truth < low) | (truth > high)).any())
    assert _few(missed, runs, alpha)


def test_noise_of_a_ball_is_within_the_vector_error() -> None:
    points = UniformBall(radius=1.0).noise(torch.zeros(2000, 20), generator=oracles.seeded(0))
    assert points.mean(0).norm() < vector_error(2000, bound=1.0, alpha=1e-6)


ONES = [torch.ones(10, 1)]
OPTIONS = {"low": 0.0, "high": 1.0, "samples": 10, "alpha": 0.1}


@every_bound
def test_bad_values_are_named(bound: Callable[..., Tensor]) -> None:
    for change, message in [
        ({"alpha": 0.0}, "Expected alpha strictly between 0 and 1, got 0.0"),
        ({"alpha": 1.0}, "Expected alpha strictly between 0 and 1, got 1.0"),
        ({"low": 1.0}, "Expected low < high, got 1.0 and 1.0"),
        ({"high": 0.5}, "Expected values from 0 to 0.5, got 1"),
        ({"samples": 11}, "Expected 11 samples in all parts together, got 10"),
        ({"samples": 0}, "Expected samples to be an integer >= [12], got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            bound(ONES, **(OPTIONS | change))
    with pytest.raises(ValueError, match="Expected values from 0 to 1, got nan"):
        bound([torch.full((10, 1), torch.nan)], **OPTIONS)
    with pytest.raises(ValueError, match="Expected 10 samples in all parts together, got 0"):
        bound([], **OPTIONS)


def test_bad_vector_and_entry_numbers_are_named() -> None:
    with pytest.raises(ValueError, match=r"Expected norm from 0 to bound 1, got 1.5"):
        vector_error(10, bound=1.0, alpha=0.1, norm=1.5)
    with pytest.raises(ValueError, match=r"Expected bound > 0, got 0.0"):
        vector_error(10, bound=0.0, alpha=0.1)
    with pytest.raises(ValueError, match=r"Expected values from 0 to 1, got 1.5"):
        entry_bounds(torch.tensor([1.5]), samples=10, alpha=0.1, binary=False)
