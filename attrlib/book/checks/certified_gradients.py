"""Checks of the chapter "Certified gradients"."""

import math

import torch
from torch import Tensor

from attrlib.book._exercises import expect_close, expect_number, run, wrong


def slope_box(answer: object) -> str:
    """`slope_box(weight, bias, low, high)` holds every slope of max(0, weight · p + bias) there."""
    hint = "Is the unit on at every pixel, at none, or at some? A weight below 0 gives [weight, 0]."
    for weight, bias, low, high, right in (
        (2.0, -1.0, 0.55, 0.65, (2.0, 2.0)),
        (2.0, -1.0, 0.4, 0.8, (0.0, 2.0)),
        (2.0, -1.0, 0.1, 0.4, (0.0, 0.0)),
        (-3.0, 1.0, 0.2, 0.6, (-3.0, 0.0)),
        (-3.0, 1.0, 0.1, 0.3, (-3.0, -3.0)),
    ):
        tried = f"weight={weight}, bias={bias}, low={low}, high={high}"
        got = run(answer, weight, bias, low, high, tried=tried, hint=hint)
        _pair_of(got, torch.tensor(right), tried=tried, hint=hint)
    return "Only a unit that may switch makes the box wide."


def through(answer: object) -> str:
    """`through(low, high, weight, bias)` is the box of weight @ p + bias over a box of p."""
    hint = "A negative weight turns the interval round: it takes the high end to the low one."
    draw = torch.Generator().manual_seed(0)
    for outputs, inputs in ((1, 2), (4, 3), (2, 6)):
        weight = torch.randn(outputs, inputs, generator=draw)
        bias = torch.randn(outputs, generator=draw)
        low = torch.rand(inputs, generator=draw)
        high = low + torch.rand(inputs, generator=draw)
        ends = torch.cartesian_prod(*torch.stack([low, high], 1)).reshape(-1, inputs)
        values = ends @ weight.T + bias
        tried = f"a random layer with {inputs} inputs and {outputs} outputs"
        got = run(answer, low, high, weight, bias, tried=tried, hint=hint)
        right = torch.stack([values.amin(0), values.amax(0)])
        _pair_of(got, right, tried=tried, hint=hint, tolerance=1e-4)
    return "For one layer the box is exact: its ends are reached at corners."


def kept(answer: object) -> str:
    """`kept(inside, outside)` is how many pixels stay in the top set, whatever the map."""
    hint = "m pixels are lost only if the m lowest inside are all within reach of the m highest outside."
    for inside, outside, right in (
        ((4.0, 3.0), (2.0, 1.0), 2),
        ((4.0, 3.0), (3.0, 1.0), 1),
        ((4.0, 1.0, 3.0), (0.5, 3.5, 2.0), 2),
        ((4.0, 1.0, 3.0), (0.5, 3.5, 3.2), 1),
        ((1.0, 1.5, 2.0), (9.0, 9.0), 1),
        ((1.0, 1.0), (2.0, 2.0, 2.0, 2.0), 0),
        ((5.0, 4.9, 4.8, 1.0), (4.85, 4.0, 4.0), 3),
    ):
        tried = f"inside={list(inside)}, outside={list(outside)}"
        got = run(answer, torch.tensor(inside), torch.tensor(outside), tried=tried, hint=hint)
        expect_number(got, right, tried=tried, hint=hint)
    return "Two sorted lists are enough, although the map has many more ways to change."


def exact_slopes(answer: object) -> str:
    """`exact_slopes(weights, biases, outer, low, high)`: lowest and highest slope of a sum of ReLUs."""
    hint = "The slope is constant between kinks: look at one pixel in each piece of [low, high]."
    draw = torch.Generator().manual_seed(1)
    cases = [(torch.tensor([2.0, 1.0]), torch.tensor([-1.0, -0.5]), torch.tensor([1.0, -2.0]))]
    for count in (1, 3, 6):
        weights, outer = torch.randn(2, count, generator=draw)
        kinks = torch.rand(count, generator=draw)
        cases.append((weights, -weights * kinks, outer))
    for weights, biases, outer in cases:
        for low, high in ((0.2, 0.8), (0.41, 0.43)):
            tried = f"{len(weights)} units, low={low}, high={high}"
            got = run(answer, weights, biases, outer, low, high, tried=tried, hint=hint)
            right = _pieces(weights, biases, outer, low, high)
            _pair_of(got, right, tried=tried, hint=hint, tolerance=1e-4)
    return "Exact, for one pixel. With many pixels there are far too many pieces to visit."


def still_its_own(answer: object) -> str:
    """`still_its_own(least, a, y)` is the share of others that no map within reach is more like."""
    hint = "The angle to another clean map must be more than twice the arccos of the least cosine."
    angles = torch.tensor([0.0, 0.3, 0.9, 1.5, 0.1, 0.5])
    a = torch.stack([angles.cos(), angles.sin()], 1)[:, None, None] * torch.tensor(
        [1.0, 2.0, 0.5, 3.0, 1.0, 1.0]
    ).view(-1, 1, 1, 1)
    y = torch.tensor([0, 0, 0, 0, 1, 1])
    for reach in (0.1, 0.16, 0.35, 0.5, 0.8, math.pi):
        least = torch.full((6,), math.cos(reach), dtype=torch.float64)
        right = []
        for i in range(6):
            others = [j for j in range(6) if j != i and y[j] == y[i]]
            right.append(sum(abs(angles[i] - angles[j]) > 2 * reach for j in others) / len(others))
        tried = f"six maps at known angles, each may turn by {reach:.2f}"
        got = run(answer, least, a.double(), y, tried=tried, hint=hint)
        expect_close(got, torch.tensor(right).double(), tried=tried, hint=hint)
    return "A proof that the map still tells this image from the others of its class."


def _pieces(weights: Tensor, biases: Tensor, outer: Tensor, low: float, high: float) -> Tensor:
    """The lowest and the highest slope over all pieces of [low, high]."""
    kinks = -biases / weights
    inside = kinks[(kinks > low) & (kinks < high)]
    ends = torch.cat([torch.tensor([low]), inside.sort().values, torch.tensor([high])])
    middles = (ends[1:] + ends[:-1]) / 2
    on = (middles[:, None] * weights + biases > 0).float()
    slopes = (on * weights * outer).sum(1)
    return torch.stack([slopes.amin(), slopes.amax()])


def _pair_of(got: object, right: Tensor, *, tried: str, hint: str, tolerance: float = 1e-5) -> None:
    """The reader's two ends, numbers or tensors."""
    if not isinstance(got, tuple | list) or len(got) != 2:
        wrong(tried=tried, expected="two results, low and high", got=got, hint=hint)
    for name, value, wanted in zip(("low", "high"), got, right, strict=True):
        expect_close(value, wanted, tried=f"{tried}: {name} end", hint=hint, tolerance=tolerance)
