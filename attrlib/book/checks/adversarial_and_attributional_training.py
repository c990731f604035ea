"""Checks of the chapter "Adversarial and attributional training"."""

import torch
from torch import Tensor
from torch.nn import functional

from attrlib.book._exercises import expect_close, run


def worst_loss(answer: object) -> str:
    """`worst_loss(w, b, x, y, eps)` is the largest logistic loss in the cube around each row of x."""
    draw = torch.Generator().manual_seed(0)
    w, x = torch.randn(5, generator=draw), torch.randn(4, 5, generator=draw)
    y, b = torch.tensor([1.0, -1.0, -1.0, 1.0]), torch.tensor(0.3)
    hint = "The sign of y moves the margin; eps * (sum of absolute weights) is always taken off."
    for eps in (0.0, 0.2):
        tried = f"five weights, four images of both classes, eps={eps}"
        got = run(answer, w, b, x, y, eps, tried=tried, hint=hint)
        right = functional.softplus(-y * (x @ w + b) + eps * w.abs().sum())
        expect_close(got, right, tried=tried, hint=hint)
    return "A closed form: no attack on this model can find more."


def path_norm(answer: object) -> str:
    """`path_norm(slopes, x, z)` is the l1 norm of z - x times the mean slope, for each image."""
    draw = torch.Generator().manual_seed(0)
    slopes = torch.randn(6, 3, 4, generator=draw)
    x, z = torch.rand(2, 3, 4, generator=draw)
    tried, hint = "6 points, 3 images, 4 entries", "Mean over points first, absolute values after."
    got = run(answer, slopes, x, z, tried=tried, hint=hint)
    right = ((z - x) * slopes.mean(0)).abs().sum(1)
    expect_close(got, right, tried=tried, hint=hint)
    return "Slopes that cancel along the path leave no attribution."


def flip_on_grey(answer: object) -> str:
    """`flip_on_grey(weights, intercept, level)` is the noise that flips each filter on a grey patch."""
    draw = torch.Generator().manual_seed(0)
    weights, intercept = torch.randn(5, 4, generator=draw), torch.randn(5, generator=draw) / 10
    hint = (
        "The unit receives b + level * (sum of weights); noise moves it by ε * (sum of |weights|)."
    )
    for level in (0.4, 0.6):
        tried = f"five filters of four pixels, level={level}"
        got = run(answer, weights, intercept, level, tried=tried, hint=hint)
        right = (intercept + level * weights.sum(1)).abs() / weights.abs().sum(1)
        expect_close(got, right, tried=tried, hint=hint)
    return "On grey, weights of both signs help the noise."


def silhouette_chance(answer: object) -> str:
    """`silhouette_chance(chosen, live)` is the expected share of hits with the same split by live."""
    draw = torch.Generator().manual_seed(0)
    chosen = torch.rand(3, 6, 7, generator=draw) > 0.6
    live = torch.rand(3, 6, 7, generator=draw) > torch.tensor([0.3, 0.5, 0.8]).view(3, 1, 1)
    live[2] = chosen[2]
    tried = "three random sets of 6×7 pixels; the third lies exactly on its live pixels"
    hint = "m inside an area A gives m² / A expected hits; add both sides, divide by the whole set."
    got = run(answer, chosen, live, tried=tried, hint=hint)
    total = torch.zeros(3, dtype=torch.float64)
    for side in (live, ~live):
        total += _size(chosen & side) ** 2 / _size(side)
    right = total / _size(chosen)
    got = got.double() if isinstance(got, Tensor) else got
    expect_close(got, right, tried=tried, hint=hint)
    return "A set that fills the silhouette is hit for certain."


def _size(mask: Tensor) -> Tensor:
    return mask.sum((1, 2)).double()
