"""Budgets hold to the last bit, and steps are the steepest of their norm."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attrlib.attacks import Ball, L2Ball, LinfBall
from tests.oracles import seeded

KINDS = pytest.mark.parametrize("kind", [LinfBall, L2Ball])
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
BUDGETS = st.one_of(st.floats(1e-6, 1), st.sampled_from([0.0, 0.1, 0.3, 8 / 255, 1 / 3, 1.0]))


def corners(n: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Pixels with all that makes rounding hard: black, white, tiny, next to white."""
    x = torch.rand(n, 2, 5, 7, generator=seeded(seed), dtype=dtype)
    kind = torch.randint(8, x.shape, generator=seeded(seed + 1))
    hard = torch.tensor([0.0, 1.0, 1e-9, 1 - torch.finfo(dtype).eps], dtype=dtype)
    return torch.where(kind < 4, hard[kind.clamp(max=3)], x)


def inside(ball: Ball, z: Tensor, x: Tensor) -> bool:
    size = (z - x).abs() if isinstance(ball, LinfBall) else (z - x).flatten(1).norm(dim=1)
    return bool((size <= ball.eps).all() and (z >= 0).all() and (z <= 1).all())


@KINDS
@DTYPES
@given(eps=BUDGETS, seed=st.integers(0, 10**6), reach=st.sampled_from([1e-4, 0.05, 1.0, 30.0]))
@settings(max_examples=60, deadline=None)
def test_projection_is_exactly_within_the_budget(
    kind: type[LinfBall] | type[L2Ball], dtype: torch.dtype, eps: float, seed: int, reach: float
) -> None:
    ball, x = kind(eps=eps), corners(3, seed, dtype)
    z = x + reach * torch.randn(x.shape, generator=seeded(seed + 2), dtype=dtype)
    near = ball.project(z, x)
    assert near.dtype == dtype
    assert inside(ball, near, x)
    assert torch.equal(ball.project(near, x), near)  # what is allowed stays as it is
    assert torch.equal(ball.project(x, x), x)
    assert inside(ball, ball.sample(x, seeded(seed)), x)
    assert (near - x).abs().max() > 0 or eps < 1e-3


def test_clamping_alone_breaks_the_budget() -> None:
    eps = 0.1
    x = torch.rand(4, 1, 28, 28, generator=seeded(0), dtype=torch.float32)
    z = x + torch.randn(x.shape, generator=seeded(1), dtype=torch.float32)
    naive = torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)
    assert ((naive - x).abs() > eps).float().mean() > 0.1
    exact = LinfBall(eps=eps).project(z, x)
    torch.testing.assert_close(exact, naive, rtol=0, atol=1e-7)


def test_linf_projection_is_the_nearest_point(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.5, 0.1, 0.95]], dtype=dtype)
    z = torch.tensor([[0.55, -3.0, 7.0]], dtype=dtype)
    expected = torch.tensor([[0.55, 0.0, 1.0]], dtype=dtype)
    torch.testing.assert_close(LinfBall(eps=0.2).project(z, x), expected)


def test_l2_projection_is_the_nearest_point_where_the_image_range_does_not_bind(
    dtype: torch.dtype,
) -> None:
    x = torch.full((1, 1, 2, 2), 0.5, dtype=dtype)
    far = torch.tensor([0.3, 0.0, -0.4, 0.0], dtype=dtype).view(x.shape)  # norm 0.5
    torch.testing.assert_close(L2Ball(eps=0.25).project(x + far, x), x + far / 2)
    # Points inside are not stretched to the surface, as one published projection does.
    assert torch.equal(L2Ball(eps=1.0).project(x + far, x), x + far)


def test_l2_budget_is_used_up_although_the_range_binds(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.9, 0.5]], dtype=dtype)
    z = L2Ball(eps=0.3).project(x + torch.tensor([[5.0, 5.0]], dtype=dtype), x)
    assert (z - x).norm() == pytest.approx(0.3, rel=1e-3)


@KINDS
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_steepest_step_gains_most(kind: type[LinfBall] | type[L2Ball], scale: float) -> None:
    ball = kind(eps=1.0)
    grad = torch.randn(3, 1, 4, 4, generator=seeded(0), dtype=torch.float32)
    grad[1] = 0
    step = ball.steepest(scale * grad)
    size = step.abs() if kind is LinfBall else step.flatten(1).norm(dim=1)
    assert size.max() == pytest.approx(1, abs=1e-5)
    assert torch.equal(step[1], torch.zeros_like(step[1]))
    gain = (step * grad).flatten(1).sum(1)
    norm = grad.flatten(1).norm(dim=1, p=1 if kind is LinfBall else 2)
    torch.testing.assert_close(gain, norm)
    other = ball.steepest(torch.randn(grad.shape, generator=seeded(1), dtype=torch.float32))
    assert ((other * grad).flatten(1).sum(1) <= norm + 1e-5).all()


@KINDS
def test_samples_fill_the_ball(kind: type[LinfBall] | type[L2Ball], dtype: torch.dtype) -> None:
    ball, x = kind(eps=0.2), torch.full((2000, 3), 0.5, dtype=dtype)
    offset = ball.sample(x, seeded(0)) - x
    size = offset.abs().amax(1) if kind is LinfBall else offset.norm(dim=1)
    # The size of a uniform point has its cube uniform, in three dimensions.
    assert (size / 0.2).pow(3).mean() == pytest.approx(0.5, abs=0.03)
    assert offset.mean(0).abs().max() < 0.01
    assert not torch.equal(ball.sample(x, seeded(1)), ball.sample(x, seeded(0)))
    assert torch.equal(ball.sample(x, seeded(0)), ball.sample(x, seeded(0)))


@KINDS
@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("eps", [-0.1, float("nan"), float("inf"), True, "0.1"])
def test_bad_budgets_are_named(kind: type[LinfBall] | type[L2Ball], eps: float) -> None:
    with pytest.raises(ValueError, match="Expected eps >= 0, got"):
        kind(eps=eps)


@KINDS
def test_balls_are_values(kind: type[LinfBall] | type[L2Ball]) -> None:
    assert kind(eps=0.1) == kind(eps=0.1)
    assert repr(kind(eps=0.1)) == f"{kind.__name__}(eps=0.1)"
    with pytest.raises(TypeError):
        kind(0.1)  # type: ignore[misc]
