"""Checks of the chapter "Certified smoothing"."""

import math

import torch
from torch import Tensor

from attrlib import certificates
from attrlib.book._exercises import expect, expect_close, expect_number, run


def lost_share(answer: object) -> str:
    """`lost_share(noise, shift, radius)` is the share of the draws outside the moved ball."""
    hint = "The distance of each draw from `shift`, in Euclidean length, against `radius`."
    line = torch.tensor([[-1.0], [-0.25], [0.25], [0.75]])
    plane = torch.tensor([[0.9, 0.9], [1.1, 0.1], [-1.0, 0.0], [0.0, -1.9], [1.8, 0.8]])
    for name, noise, shift, radius, right in (
        ("four numbers, shift 0.5, radius 1", line, torch.tensor([0.5]), 1.0, 0.25),
        ("four numbers, shift -0.5, radius 1", line, torch.tensor([-0.5]), 1.0, 0.25),
        ("five points, shift (1, 0), radius 1", plane, torch.tensor([1.0, 0.0]), 1.0, 0.6),
        ("five points, shift 0, radius 2", plane, torch.zeros(2), 2.0, 0.0),
    ):
        got = run(answer, noise, shift, radius, tried=name, hint=hint)
        got = got.double() if isinstance(got, Tensor) else got
        expect_close(got, torch.tensor(right).double(), tried=name, hint=hint)
    return "With enough draws this is lost_volume, in any dimension."


def least_cosine(answer: object) -> str:
    """`least_cosine(length, lost, bound)` is √(1 - ρ²), ρ = 2 bound lost / length; -1 from ρ = 1 on."""
    hint = "ρ = 2 * bound * lost / length; the root of 1 - ρ² below 1, and -1 from there on."
    cases = ((0.5, 0.2, 1.0), (1.5, 0.3, 2.0), (0.9, 0.0, 1.0), (0.4, 0.2, 1.0), (0.2, 0.3, 1.0))
    for length, lost, bound in cases:
        tried = f"length={length}, lost={lost}, bound={bound}"
        right = certificates.worst_cosine(length, lost, bound=bound, method="uncapped")
        got = run(answer, length, lost, bound, tried=tried, hint=hint)
        got = got.double() if isinstance(got, Tensor) else got
        expect_close(got, torch.tensor(right).double(), tried=tried, hint=hint)
    return "A mean map that is shorter than what can move it promises nothing."


def draws_needed(answer: object) -> str:
    """`draws_needed(width, alpha)` is ln(1 / alpha) / (2 width²), rounded up."""
    hint = "m >= ln(1 / alpha) / (2 width²), rounded up to a whole number."
    for width, alpha in ((0.1, 0.001), (0.05, 0.001), (0.1, 0.05), (0.013, 0.0001)):
        tried = f"width={width}, alpha={alpha}"
        right = math.ceil(math.log(1 / alpha) / (2 * width**2))
        got = run(answer, width, alpha, tried=tried, hint=hint)
        expect(got == right, tried=tried, expected=str(right), got=got, hint=hint)
    return (
        "A width of a tenth at alpha 0.001 takes some hundred draws; half of it four times as many."
    )


def surely_kept(answer: object) -> str:
    """`surely_kept(lower, upper, top)` is the least overlap of the top set that the bounds allow."""
    hint = "Sort the lower bounds inside up, the upper bounds outside down, and compare one by one."
    middle = torch.tensor([0.9, 0.7, 0.6, 0.5, 0.3, 0.1])
    for name, order, below, above, k in (
        ("bounds 0.05 around six entries, k = 2", [0, 1, 2, 3, 4, 5], 0.05, 0.05, 2),
        ("the same with bounds 0.15", [0, 1, 2, 3, 4, 5], 0.15, 0.15, 2),
        ("the same with bounds 0.02", [0, 1, 2, 3, 4, 5], 0.02, 0.02, 3),
        ("entries in another order, k = 3, bounds 0.25", [3, 0, 5, 1, 4, 2], 0.25, 0.25, 3),
        ("bounds 0.3 below and 0.01 above, k = 3", [5, 4, 3, 2, 1, 0], 0.3, 0.01, 3),
        ("bounds 1, k = 3", [0, 1, 2, 3, 4, 5], 1.0, 1.0, 3),
    ):
        a = middle[order].double()
        lower, upper = a - below, a + above
        top = a >= a.sort(descending=True).values[k - 1]
        share = certificates.certified_topk_overlap(lower[None], upper[None], a[None], k=k)
        right = round(share.item() * k)
        got = run(answer, lower, upper, top, tried=name, hint=hint)
        expect_number(got, right, tried=name, hint=hint)
    return "This is certified_topk_overlap, times k."


def surely_own(answer: object) -> str:
    """`surely_own(lower, maps)` is true where the nearest other map is more than two angles away."""
    hint = "The angle to the nearest other map must be more than twice the certified angle."
    turn = torch.deg2rad(torch.tensor([0.0, 30.0, 90.0, 170.0]).double())
    maps = torch.tensor([1.0, 5.0, 0.1, 2.0]).double()[:, None] * torch.stack(
        [turn.cos(), turn.sin()], dim=1
    )
    for name, degrees, right in (
        ("certified angles of 10 degrees", [10.0] * 4, [True, True, True, True]),
        ("certified angles of 20 degrees", [20.0] * 4, [False, False, True, True]),
        (
            "angles of 14, 16, 29 and 41 degrees",
            [14.0, 16.0, 29.0, 41.0],
            [True, False, True, False],
        ),
        ("angles of 35 degrees", [35.0] * 4, [False, False, False, True]),
    ):
        tried = f"maps at 0, 30, 90 and 170 degrees, {name}"
        lower = torch.deg2rad(torch.tensor(degrees).double()).cos()
        got = run(answer, lower, maps.clone(), tried=tried, hint=hint)
        kind = got.dtype if isinstance(got, Tensor) else type(got).__name__
        expect(kind == torch.bool, tried=tried, expected="a boolean tensor", got=kind, hint=hint)
        assert isinstance(got, Tensor)
        expect(got.tolist() == right, tried=tried, expected=str(right), got=got.tolist(), hint=hint)
    return "It is a certificate of identification, from the same samples."
