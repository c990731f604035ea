"""Checks of the chapter "Marginal density"."""

import torch

from attrlib import energy, metrics
from attrlib.book._exercises import expect_close, run
from attrlib.models import SmallCNN, with_softplus


def leaked(answer: object) -> str:
    """`leaked(heat, null)` is the share of each heatmap in the null block."""
    generator = torch.Generator().manual_seed(0)
    heat = torch.rand(4, 6, 3, generator=generator) * torch.tensor([1, 3, 1, 9]).view(-1, 1, 1)
    null = torch.zeros(4, 6, 3, dtype=torch.bool)
    null[:2, :3], null[2, 3:], null[3, 0] = True, True, True
    tried, hint = "four heatmaps, each with its own block", "Sum over the mask, then over the map."
    got = run(answer, heat, null, tried=tried, hint=hint)
    expect_close(got, metrics.leakage(heat, region=null), tried=tried, hint=hint)
    return "An even map leaks one half: that is the share of the area."


def marginal_slope(answer: object) -> str:
    """`marginal_slope(logits, slopes)` is the mean of the slopes under the probabilities."""
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randn(3, 4, 5, generator=generator)
    logits = torch.randn(3, 4, generator=generator)
    hint = "Softmax over the classes, then multiply and add up over the classes."
    for scale in (1.0, 200.0):
        tried = f"three images, four classes, five pixels, logits times {scale:g}"
        got = run(answer, scale * logits, slopes, tried=tried, hint=hint)
        want = torch.einsum("nk,nkd->nd", (scale * logits).softmax(1), slopes)
        expect_close(got, want, tried=tried, hint=hint)
    return "Where the network is sure, it is the slope of the winning logit."


def flattened(answer: object) -> str:
    """`flattened(logits)` has the probabilities of the logits and the marginal 0."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 5, generator=generator)
    hint = "Take one number from all logits of an image: their log-sum-exp."
    for scale in (1.0, 1000.0):
        tried = f"four images, five classes, logits times {scale:g}"
        got = run(answer, scale * logits, tried=tried, hint=hint)
        expect_close(got, (scale * logits).log_softmax(1), tried=tried, hint=hint)
    return "You wrote log_softmax: a network that ends in it cannot be smoothed in this way."


def taken(answer: object) -> str:
    """`taken(model, x, region)` is what blackening a region takes from the marginal."""
    generator = torch.Generator().manual_seed(0)
    model = with_softplus(SmallCNN(size=8, generator=generator), beta=10)
    x = torch.rand(3, 1, 8, 8, generator=generator)
    region = torch.rand(3, 8, 8, generator=generator) < 0.4
    tried = "three images of 8×8, each with a region of its own"
    hint = "energy.marginal of the image, minus that of the image with the region at 0."
    got = run(answer, model, x, region, tried=tried, hint=hint)
    hidden = x.masked_fill(region[:, None], 0)
    want = (energy.marginal(model, x) - energy.marginal(model, hidden)).detach()
    expect_close(got, want, tried=tried, hint=hint, tolerance=1e-4)
    return "A flat marginal bounds it by its slope times the length of the region's pixels."


def projected(answer: object) -> str:
    """`projected(model, x, v, sigma)` is half the squared slope of the marginal along noise."""
    generator = torch.Generator().manual_seed(0)
    model = with_softplus(SmallCNN(size=8, generator=generator), beta=10)
    x = torch.rand(3, 1, 8, 8, generator=generator)
    hint = "Difference of the marginal at x + v and x - v, over 2 sigma; square it and halve it."
    for sigma in (0.05, 0.5):
        v = sigma * torch.randn(3, 1, 8, 8, generator=generator)
        tried = f"three images of 8×8, sigma={sigma}"
        got = run(answer, model, x, v, sigma, tried=tried, hint=hint)
        rise = energy.marginal(model, x + v) - energy.marginal(model, x - v)
        want = ((rise / (2 * sigma)).square() / 2).detach()
        expect_close(got, want, tried=tried, hint=hint, tolerance=1e-3)
    return "Its mean over draws is the penalty, and no gradient in the input was needed."
