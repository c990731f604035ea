"""Checks of the chapter "What is an attribution?"."""

import copy

import torch
from torch import Tensor, nn

from attrlib import attributions
from attrlib.book._exercises import expect, expect_close, run
from attrlib.metrics import spearman
from attrlib.models import SmallCNN


def another_unit(answer: object) -> str:
    """`(weight_factor, product_factor)`, if grey levels run from 0 to 255 instead of 0 to 1."""
    tried, hint = "your two factors", "Multiply the pixel by 255 and divide its weight by 255."
    numbers = isinstance(answer, tuple) and all(isinstance(one, int | float) for one in answer)
    expected = "two numbers"
    expect(numbers, tried=tried, expected=expected, got=answer, hint=hint)
    expect_close(
        torch.tensor(answer, dtype=torch.float64),
        torch.tensor([1 / 255, 1], dtype=torch.float64),
        tried=tried,
        hint=hint,
    )
    return "The weights depend on the unit of the pixels, the products do not."


def completeness_gap(answer: object) -> str:
    """`completeness_gap(model, x, y, a)` is |sum of the map - (logit at x - logit at black)|."""
    model, x, y = _case()
    black = torch.zeros_like(x)
    change = attributions.target_logit(model, x, y) - attributions.target_logit(model, black, y)
    for name, a in (
        (
            "integrated gradients with 3 points",
            attributions.integrated_gradients(model, x, y, steps=3),
        ),
        ("a map of zeros", black),
    ):
        got = run(answer, model, x, y, a, tried=name, hint="One number per image, shape (n,).")
        expect_close(
            got,
            (a.flatten(1).sum(1) - change).abs().detach(),
            tried=f"three images, {name}",
            hint="Subtract the logit of class y at the black image, and take the absolute value.",
        )
    return "A gap of zero is completeness."


def right_end_points(answer: object) -> str:
    """`right_end_points(model, x, y, steps)` is the right Riemann sum of integrated gradients."""
    model, x, y = _case()
    for steps in (1, 5):
        points = (x * (k + 1) / steps for k in range(steps))
        mean = torch.stack([attributions.gradient(model, p, y) for p in points]).mean(0)
        tried = f"three images, steps={steps}"
        hint = "The points are at the shares 1/m, 2/m, …, 1 of the way; divide by m; times x."
        expect_close(
            run(answer, model, x, y, steps, tried=tried, hint=hint),
            x * mean,
            tried=tried,
            hint=hint,
        )
    return "With one step it is input × gradient."


def no_black_pixel(answer: object) -> str:
    """Spearman's correlation of the two heatmaps of the image (0.1, 0.1, 0.5, 1)."""
    image = torch.tensor([0.1, 0.1, 0.5, 1]).view(1, 2, 2)
    first = torch.tensor([3.0, 1, 2, 4]).view(1, 2, 2)
    second = torch.tensor([1.0, 4, 3, 2]).view(1, 2, 2)
    expect_close(
        answer,
        spearman(image * first, image * second)[0],
        tried="your number",
        hint="The ranks are (2, 1, 3, 4) and one other list; only two pixels change theirs.",
    )
    return "Without a single black pixel, the image still makes unrelated slopes look alike."


def without_biases(answer: object) -> str:
    """`without_biases(model)` is a copy whose biases are zero."""
    model, _, _ = _case()
    before = copy.deepcopy(model.state_dict())
    hint = "copy.deepcopy the model, then zero every bias of the copy in place under no_grad."
    got = run(answer, model, tried="a small network", hint=hint)
    same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    expect(
        same,
        tried="a small network",
        expected="the model itself as it was",
        got="changed weights",
        hint=hint,
    )
    expect(
        isinstance(got, nn.Module),
        tried="a small network",
        expected="a network",
        got=got,
        hint=hint,
    )
    assert isinstance(got, nn.Module)
    wanted = {k: torch.zeros_like(v) if k.endswith("bias") else v for k, v in before.items()}
    state = got.state_dict()
    right = state.keys() == wanted.keys() and all(torch.equal(state[k], wanted[k]) for k in wanted)
    expect(
        right,
        tried="a small network",
        expected="zero biases, weights as before",
        got="other weights or biases",
        hint=hint,
    )
    return "For this copy, input × gradient adds up to the logit exactly."


def average_baselines(answer: object) -> str:
    """`average_baselines(model, x, y, baselines, steps)` is the mean map over the baselines."""
    model, x, y = _case()
    baselines = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    maps = [
        attributions.integrated_gradients(model, x, y, baseline=b[None], steps=6) for b in baselines
    ]
    tried = "three images, four random baselines, 6 points each"
    hint = (
        "Call integrated_gradients once per baseline, with baseline=b[None], and average the maps."
    )
    got = run(answer, model, x, y, baselines, 6, tried=tried, hint=hint)
    expect_close(got, torch.stack(maps).mean(0), tried=tried, hint=hint)
    return "Its entries add up to the logit less the mean logit of the baselines."


def _case() -> tuple[SmallCNN, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = SmallCNN(size=8, generator=generator)
    return model, torch.rand(3, 1, 8, 8, generator=generator), torch.tensor([0, 3, 9])
