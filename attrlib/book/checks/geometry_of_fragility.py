"""Checks of the chapter "The geometry of fragility"."""

import math

import torch
from torch import Tensor

from attrlib import attributions
from attrlib.book._exercises import expect, expect_close, run
from attrlib.models import SmallCNN, with_softplus


def matched(answer: object) -> str:
    """`matched(sigma)` is the radius and the sharpness that round a kink as steeply as `sigma`."""
    for sigma in (0.1, 0.25):
        tried = f"sigma={sigma}"
        hint = "Set 1 / (2 r) and beta / 4 equal to 1 / (sigma sqrt(2 pi))."
        got = run(answer, sigma, tried=tried, hint=hint)
        expect(
            isinstance(got, tuple) and len(got) == 2,
            tried=tried,
            expected="a pair (radius, beta)",
            got=got,
            hint=hint,
        )
        assert isinstance(got, tuple)
        radius = sigma * math.sqrt(math.pi / 2)
        for name, value, want in (("radius", got[0], radius), ("beta", got[1], 2 / radius)):
            expect_close(value, torch.tensor(want), tried=f"{name} for {tried}", hint=hint)
    return "Halve sigma and the ramp is twice as steep: radius halves, beta doubles."


def seam_distance(answer: object) -> str:
    """`seam_distance(weights, intercepts, points)` is the distance to the nearest line."""
    generator = torch.Generator().manual_seed(0)
    weights, intercepts = (
        torch.randn(5, 2, generator=generator),
        torch.randn(5, generator=generator),
    )
    points = torch.rand(7, 2, generator=generator)
    tried, hint = "five units, seven points", "|w·p + b| / ‖w‖ for each unit; the smallest counts."
    got = run(answer, weights, intercepts, points, tried=tried, hint=hint)
    every = (points @ weights.T + intercepts).abs() / weights.norm(dim=1)
    expect_close(got, every.amin(1), tried=tried, hint=hint)
    return "Within this distance the gradient of a network with one hidden layer is constant."


def curvature(answer: object) -> str:
    """`curvature(gradient, hessian)` is the curvature of level sets in the plane."""
    hint = "Turn the gradient by 90 degrees, scale it to length 1, and put it on both sides of H."
    # f = x1² + x2² at radius 1/2, whose level sets are circles; f = x1 x2; a function of x1 alone
    gradient = torch.tensor([[0.6, 0.8], [0.5, 0.5], [0.3, 0.0], [-3.0, 4.0]])
    hessian = torch.tensor(
        [
            [[2.0, 0.0], [0.0, 2.0]],
            [[0.0, 1.0], [1.0, 0.0]],
            [[7.0, 0.0], [0.0, 0.0]],
            [[1.0, 2.0], [2.0, -4.0]],
        ]
    )
    tried = "a circle of radius 1/2, x1 x2 at (0.5, 0.5), a function of x1 alone, and one more"
    got = run(answer, gradient, hessian, tried=tried, hint=hint)
    # tangent (4, 3)/5: (16 + 48 - 36) / 25 / 5
    want = torch.tensor([2.0, math.sqrt(2), 0.0, 28 / 125])
    expect_close(got, want, tried=tried, hint=hint, tolerance=1e-4)
    return "A function of one direction has straight level sets, however strongly it bends."


def average_gradient(answer: object) -> str:
    """`average_gradient(model, x, y, steps)` is the mean gradient on the way from black."""
    generator = torch.Generator().manual_seed(0)
    model = with_softplus(SmallCNN(size=8, generator=generator), beta=10)
    x, y = torch.rand(3, 1, 8, 8, generator=generator), torch.tensor([2, 0, 7])
    x[:, :, :2] = 0.0  # black pixels, where integrated gradients hold nothing to divide
    hint = "Add up the gradients at x (k + 0.5) / steps for k = 0, ..., steps - 1, then divide."
    for steps in (1, 6):
        tried = f"three images of 8×8, steps={steps}"
        got = run(answer, model, x, y, steps, tried=tried, hint=hint)
        path = (attributions.gradient(model, x * (k + 0.5) / steps, y) for k in range(steps))
        want = torch.stack(list(path)).mean(0)
        expect_close(got, want, tried=tried, hint=hint, tolerance=1e-4)
    return "Multiplied by x it is integrated gradients; without x it has the constant L/2."


def ball_constant(answer: object) -> str:
    """`ball_constant(dimension)` is 2 V_{d-1} / V_d, the constant of UniGrad for K = r = 1."""
    hint = "V_d is pi^(d/2) / Gamma(d/2 + 1); subtract two math.lgamma before you take exp."
    for dimension in (1, 2, 3, 784, 150_528):
        tried = f"dimension {dimension}"
        logs = math.lgamma(dimension / 2 + 1) - math.lgamma((dimension + 1) / 2)
        want = torch.tensor(2 * math.exp(logs) / math.sqrt(math.pi), dtype=torch.float64)
        got = run(answer, dimension, tried=tried, hint=hint)
        if isinstance(got, Tensor):
            got = got.double()
        expect_close(got, want, tried=tried, hint=hint, tolerance=1e-4)
    return "From 784 pixels to 150,528 it grows by a factor of 14, the root of their ratio."


def largest_turn(answer: object) -> str:
    """`largest_turn(length, change)` is the largest angle in degrees by which a map can turn."""
    hint = "The tangent from the origin: its sine is change / length. Beyond the length, 180."
    for length, change in ((5.0, 1.0), (2.0, 1.0), (1.0, 0.99), (0.05, 4.84), (3.0, 0.0)):
        tried = f"length {length}, change {change}"
        want = 180.0 if change >= length else math.degrees(math.asin(change / length))
        got = run(answer, length, change, tried=tried, hint=hint)
        expect_close(got, torch.tensor(want), tried=tried, hint=hint, tolerance=1e-4)
    return (
        "A bound on the change promises a direction only while it is below the length of the map."
    )
