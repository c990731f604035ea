"""Noise: the right law, the right device, and only the generator given."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from attrlib import _random
from tests import oracles

DRAWS = [_random.normal_like, _random.uniform_like, _random.sign_like, _random.ball_like]
# A chance of 1e-6 that a right law is called wrong; the seed is fixed, so it never happens twice.
ALPHA = 1e-6


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize("kind", [torch.float16, torch.float32, torch.float64])
def test_shape_dtype_device(
    draw: Callable[..., Tensor], kind: torch.dtype, device: torch.device
) -> None:
    x = torch.zeros(3, 2, 4, 4, dtype=kind, device=device)
    noise = draw(x, generator=oracles.seeded(0))
    assert (noise.shape, noise.dtype, noise.device) == (x.shape, x.dtype, x.device)
    assert torch.isfinite(noise).all()
    assert not noise.requires_grad


@pytest.mark.parametrize("draw", DRAWS)
def test_the_generator_decides(draw: Callable[..., Tensor]) -> None:
    x = torch.zeros(3, 5)
    before = torch.get_rng_state()
    first = draw(x, generator=oracles.seeded(0))
    assert torch.equal(first, draw(x, generator=oracles.seeded(0)))
    assert not torch.equal(first, draw(x, generator=oracles.seeded(1)))
    assert torch.equal(torch.get_rng_state(), before)


def test_normal_is_standard_normal(generator: torch.Generator) -> None:
    noise = _random.normal_like(torch.zeros(100, 100), generator=generator)
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > ALPHA


def test_uniform_fills_the_cube_and_stays_inside(generator: torch.Generator) -> None:
    noise = _random.uniform_like(torch.zeros(100, 100), generator=generator)
    assert noise.abs().max() <= 1
    assert stats.kstest(noise.flatten().numpy(), stats.uniform(-1, 2).cdf).pvalue > ALPHA


def test_signs_are_one_or_minus_one_with_equal_chance(generator: torch.Generator) -> None:
    signs = _random.sign_like(torch.zeros(100, 100), generator=generator)
    assert torch.equal(signs.abs(), torch.ones(100, 100))
    assert abs(signs.mean()) < 5 / math.sqrt(10_000)


@pytest.mark.parametrize("dim", [1, 2, 3, 64])
def test_ball_points_are_uniform_in_the_ball(dim: int, generator: torch.Generator) -> None:
    points = _random.ball_like(torch.zeros(10_000, dim), generator=generator)
    radius = points.norm(dim=1)
    assert radius.max() <= 1 + 1e-6
    # The share of the ball within r is r^dim …
    assert stats.kstest((radius**dim).numpy(), "uniform").pvalue > ALPHA
    # … and all directions are alike: one coordinate has the law of a uniform ball's.
    if dim > 1:
        half = (dim + 1) / 2
        law = stats.beta(half, half, loc=-1, scale=2)
        assert stats.kstest(points[:, 0].numpy(), law.cdf).pvalue > ALPHA
        correlation = torch.corrcoef(points[:, :2].T)[0, 1]
        assert abs(correlation) < 5 / math.sqrt(10_000)


def test_ball_in_the_pixels_of_an_image(generator: torch.Generator) -> None:
    points = _random.ball_like(torch.zeros(50, 3, 8, 8), generator=generator)
    radius = points.flatten(1).norm(dim=1)
    assert radius.max() <= 1 + 1e-6
    assert radius.min() > 0.9  # nearly all of a ball in 192 dimensions is close to its border


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("draw", [*DRAWS, lambda _, generator: _random.seed(generator)])
def test_a_seed_in_place_of_a_generator_is_named(draw: Callable[..., Tensor]) -> None:
    with pytest.raises(
        TypeError, match=r"Expected generator to be a torch.Generator or None, got i"
    ):
        draw(torch.zeros(2, 3), generator=0)
