"""Argument checks: what passes, and what the message says."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from attrlib import _check

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2), np.int64(3)])
def test_positive_numbers_pass(value: float) -> None:
    _check.positive(a=value)
    _check.nonnegative(a=value, b=0)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None, True, torch.tensor(1.0), 1j])
@pytest.mark.parametrize(("check", "sign"), [(_check.positive, ">"), (_check.nonnegative, ">=")])
def test_other_numbers_are_named(check: Callable[..., None], sign: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^Expected sigma {sign} 0, got "):
        check(other=1, sigma=value)


def test_zero_is_not_positive() -> None:
    with pytest.raises(ValueError, match=r"^Expected eps > 0, got 0$"):
        _check.positive(eps=0)


@pytest.mark.parametrize("value", [0, 1.0, True, "2", None, 6])
def test_counts(value: object) -> None:
    _check.count(high=5, k=5, steps=np.int64(1))
    with pytest.raises(ValueError, match=r"^Expected k to be an integer from 1 to 5, got "):
        _check.count(high=5, k=value)


def test_counts_without_upper_limit() -> None:
    _check.count(low=0, window=0)
    with pytest.raises(ValueError, match=r"^Expected steps to be an integer >= 1, got 0$"):
        _check.count(steps=0)


@pytest.mark.parametrize("value", [0, 1, -0.1, math.nan, "a"])
def test_unit_interval(value: object) -> None:
    _check.unit_interval(level=0.5)
    with pytest.raises(ValueError, match=r"^Expected level strictly between 0 and 1, got "):
        _check.unit_interval(level=value)


def test_one_of() -> None:
    _check.one_of(("l2", "linf"), norm="l2")
    with pytest.raises(ValueError, match=r"^Expected norm to be one of l2, linf, got 'l1'$"):
        _check.one_of(("l2", "linf"), norm="l1")


def test_finite_counts_samples() -> None:
    a = torch.zeros(3, 2)
    _check.finite(a=a)
    a[0, 0], a[0, 1], a[2, 1] = math.nan, math.inf, -math.inf
    with pytest.raises(ValueError, match=r"^Expected a to be finite, got .* in 2 of 3 samples$"):
        _check.finite(a=a)
    with pytest.raises(ValueError, match=r"^Expected a to be finite, got .* in a scalar$"):
        _check.finite(a=torch.tensor(math.nan))


def test_finite_is_not_fooled_by_a_sum_that_overflows() -> None:
    _check.finite(a=torch.full((2, 2), 1e38, dtype=torch.float32))
    _check.finite(a=torch.full((9, 9), 6e4, dtype=torch.float16))


def test_heatmaps() -> None:
    _check.heatmaps(a=torch.zeros(2, 3, 3))
    with pytest.raises(ValueError, match=r"^Expected a to be heatmaps .* \(2, 1, 3, 3\)$"):
        _check.heatmaps(a=torch.zeros(2, 1, 3, 3))


@pytest.mark.parametrize("value", [-0.01, 1.01, math.nan])
def test_pixels(value: float) -> None:
    x = torch.tensor([[0.0, 1.0, 0.5]])
    _check.pixels(x=x)
    x[0, 2] = value
    with pytest.raises(ValueError, match=r"^Expected x to be pixels in \[0, 1\], got \["):
        _check.pixels(x=x)
