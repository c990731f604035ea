"""Checks of the chapter "The integrated gradient regularizer"."""

import torch
from torch import Tensor, nn

from attrlib.book._exercises import expect, expect_close, run
from attrlib.models import SmallCNN
from attrlib.regularizers import IntegratedGradientRegularizer


def worst_cosine(answer: object) -> str:
    """`worst_cosine(length, distance)` is the smallest cosine between a map and a ball around it."""
    hint = (
        "Inside: the root of 1 - (distance / length)²; a ball beyond the origin holds all angles."
    )
    for length, distance, right in (
        (5.0, 3.0, 0.8),
        (5.0, 4.0, 0.6),
        (2.0, 2.0, 0.0),
        (1.0, 1.5, -1.0),
    ):
        tried = f"length={length}, distance={distance}"
        got = run(answer, length, distance, tried=tried, hint=hint)
        expect_close(got, torch.tensor(right), tried=tried, hint=hint)
    return "The same distance is harmless for a long map and anything for a short one."


def unit_distance(answer: object) -> str:
    """`unit_distance(a, b)` is half the squared distance of the maps after normalisation, by row."""
    a, b = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(0))
    hint = "Divide each row by its own length, then add up the squares along dimension 1, halved."
    a, others = a.repeat(3, 1), torch.cat([b, 3 * a, -a])
    tried = "four maps beside others, beside 3 times and beside -1 times themselves"
    right = 1 - torch.cosine_similarity(a, others)
    expect_close(run(answer, a, others, tried=tried, hint=hint), right, tried=tried, hint=hint)
    return "It is one minus the cosine: what IGR penalises, written as a distance."


def state_cosine(answer: object) -> str:
    """`state_cosine(u, v)` is the cosine of the patterns of positive entries, by row."""
    u, v = torch.randn(2, 5, 40, generator=torch.Generator().manual_seed(1))
    v[:, 30:] = -1.0
    tried, hint = (
        "five images, 40 units",
        "Shared units over the root of the product of both counts.",
    )
    got = run(answer, u, v, tried=tried, hint=hint)
    right = torch.cosine_similarity((u > 0).float(), (v > 0).float())
    expect_close(got, right, tried=tried, hint=hint)
    return "For layers with independent weights it is 1 - φ/180°, as the figure shows."


def map_turn(answer: object) -> str:
    """`map_turn(model, x, z, y, steps)` is IGR: one minus the cosine of both maps, trainable."""
    generator = torch.Generator().manual_seed(2)
    model = SmallCNN(size=8, generator=generator)
    x, z = torch.rand(2, 3, 1, 8, 8, generator=generator)
    y = torch.tensor([4, 0, 7])
    hint = (
        "integrated_gradients at x and at z, both inputs requiring grad, then one minus the cosine."
    )
    for steps in (1, 4):
        tried = f"three images of 8×8, steps={steps}"
        right = IntegratedGradientRegularizer(steps=steps)(model, x, y, z=z)
        got = run(answer, model, x, z, y, steps, tried=tried, hint=hint)
        expect_close(got, right, tried=tried, hint=hint, tolerance=1e-4)
    assert isinstance(got, Tensor)
    expect(
        got.requires_grad,
        tried="the derivative in the weights",
        expected="a value that can be differentiated",
        got="a constant",
        hint="integrated_gradients keeps its graph only if the image it is given requires grad.",
    )
    slopes, wanted = _slopes(got, model), _slopes(right, model)
    expect_close(slopes, wanted, tried="the derivative in the weights", hint=hint, tolerance=1e-3)
    return "Times a weight and beside a base loss, this is the whole method."


def best_tradeoffs(answer: object) -> str:
    """`best_tradeoffs(accuracy, kept)` marks the runs that no other run beats in both numbers."""
    accuracy = torch.tensor([0.90, 0.88, 0.85, 0.86, 0.90, 0.80])
    kept = torch.tensor([0.30, 0.60, 0.60, 0.70, 0.20, 0.65])
    hint = "Run j beats run i if it is at least as good in both numbers and better in one of them."
    tried = f"accuracies {accuracy.tolist()}, kept {kept.tolist()}"
    got = run(answer, accuracy, kept, tried=tried, hint=hint)
    right = torch.tensor([True, True, False, True, False, False])
    expect_close(got, right, tried=tried, hint=hint)
    twins = torch.tensor([0.5, 0.5])
    tried = "two runs that are equal"
    expect_close(
        run(answer, twins, twins, tried=tried, hint=hint), twins > 0, tried=tried, hint=hint
    )
    return "What is not marked can be left out of the discussion, whatever you prefer."


def _slopes(values: Tensor, model: nn.Module) -> Tensor:
    """The derivative of the sum in all weights it depends on, in one row."""
    weights = [w for name, w in model.named_parameters() if name.endswith("weight")]
    return torch.cat([g.flatten() for g in torch.autograd.grad(values.sum(), weights)])
