"""Checks of the chapter "Stochastic smoothing"."""

import math

import torch
from torch.nn import functional

from attrlib.book._exercises import expect, expect_close, run


def blurred_relu(answer: object) -> str:
    """`blurred_relu(u, sigma)` is the mean of relu over normal noise."""
    u = torch.linspace(-1, 1, 9, dtype=torch.float64)
    hint = "u Φ(u / sigma) plus sigma times the normal density at u / sigma."
    nodes = torch.linspace(-9, 9, 18_001, dtype=torch.float64)
    weights = torch.exp(-(nodes**2) / 2)
    for sigma in (0.2, 1.0):
        tried = f"nine numbers, sigma={sigma}"
        mean = ((u[:, None] + sigma * nodes).relu() * weights).sum(1) / weights.sum()
        expect_close(run(answer, u, sigma, tried=tried, hint=hint), mean, tried=tried, hint=hint)
    return "At 0 the average lies above the kink by sigma over the root of 2 pi."


def deviation(answer: object) -> str:
    """`deviation(radius, dim, norm)` is the deviation of one pixel of uniform noise."""
    hint = "radius / sqrt(dim + 2) in a ball, radius / sqrt(3) in a cube."
    for radius, dim in ((4.0, 784), (0.5, 1)):
        for norm, right in (("l2", radius / math.sqrt(dim + 2)), ("linf", radius / math.sqrt(3))):
            tried = f"radius={radius}, dim={dim}, norm={norm!r}"
            got = run(answer, radius, dim, norm, tried=tried, hint=hint)
            expect_close(got, torch.tensor(right), tried=tried, hint=hint)
    return "In one dimension ball and cube are one interval, and the two formulas agree."


def samples_for(answer: object) -> str:
    """`samples_for(cosine, samples, wanted)` is the number of samples for a wanted cosine."""
    hint = "rho = samples (1 / cosine - 1); then solve for samples, and round up."
    for cosine, samples, wanted in ((0.94, 16, 0.99), (0.5, 1, 0.9), (0.8, 64, 0.7)):
        tried = f"cosine={cosine}, samples={samples}, wanted={wanted}"
        rho = samples * (1 / cosine - 1)
        need = math.ceil(rho * wanted / (1 - wanted) - 1e-9)
        got = run(answer, cosine, samples, wanted, tried=tried, hint=hint)
        close = isinstance(got, int) and 0 <= got - need <= 1  # 9 may come out as 10, by rounding
        expect(close, tried=tried, expected=f"{need}", got=got, hint=hint)
    return "To halve the distance to a cosine of 1, take twice the samples."


def constant(answer: object) -> str:
    """`constant(density, step)` is the total rise and fall of a density."""
    u = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    step = 0.001
    bell = torch.exp(-(u**2) / 0.08)
    cases = {
        "a Gaussian density": bell / (bell.sum() * step),
        "a uniform density": torch.full((500,), 2.0, dtype=torch.float64),
        "two peaks": torch.exp(-((u.abs() - 1) ** 2) / 0.02),
    }
    hint = "Add |p| of the first point, all |differences|, and |p| of the last; divide by the area."
    for tried, density in cases.items():
        right = functional.pad(density, (1, 1)).diff().abs().sum() / (density.sum() * step)
        got = run(answer, density, step, tried=tried, hint=hint)
        expect_close(got, right, tried=tried, hint=hint, tolerance=1e-4)
    return "Two separate peaks of equal area have the constant of one: each holds half."


def averaged_leaky(answer: object) -> str:
    """`averaged_leaky(u, beta, slope)` is leaky ReLU averaged over logistic noise."""
    u = torch.linspace(-1, 1, 9, dtype=torch.float64)
    shares = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    hint = "slope · u + (1 - slope) · softplus(u)."
    for beta, slope in ((8.0, 0.1), (2.0, 0.0), (4.0, 0.5)):
        tried = f"nine numbers, beta={beta}, slope={slope}"
        noisy = u[:, None] + torch.logit(shares) / beta
        right = functional.leaky_relu(noisy, slope).mean(1)
        got = run(answer, u, beta, slope, tried=tried, hint=hint)
        expect_close(got, right, tried=tried, hint=hint, tolerance=1e-3)
    return "Every activation made of straight pieces becomes a sum of softplus and a line."


def worth(answer: object) -> str:
    """`worth(alike, samples, twice)` is the number of samples that come as near to the ideal map."""
    hint = "rho = samples (1 / twice - 1), and the answer is rho c² / (1 - c²) with c = alike."
    for alike, samples, twice in ((0.92, 16, 0.94), (0.5, 4, 0.8)):
        tried = f"alike={alike}, samples={samples}, twice={twice}"
        right = samples * (1 / twice - 1) * alike**2 / (1 - alike**2)
        got = run(answer, alike, samples, twice, tried=tried, hint=hint)
        expect_close(got, torch.tensor(right), tried=tried, hint=hint)
    return "Two sampled maps agree less with each other than each does with the ideal one."
