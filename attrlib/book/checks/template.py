"""Checks of the template chapter: a pattern for those of a new chapter.

Each function takes the reader's answer, tries it where a wrong idea shows, and returns one sentence
for the reader who is right. `run` calls the reader's function, `expect_close` compares tensors,
`expect` states a condition; all of them raise `WrongAnswer` with what was tried and a hint.
"""

import torch

from attrlib import attributions, models
from attrlib.book._exercises import expect, expect_close, run


def twice_gradient(answer: object) -> str:
    """Compare with twice the gradient, on a small net and two random images."""
    generator = torch.Generator().manual_seed(1)
    model = models.SmallCNN(generator=generator)
    x, y = torch.rand(2, 1, 28, 28, generator=generator), torch.tensor([3, 7])
    tried, hint = "a random net and two random images", "Twice means every entry times two."
    got = run(answer, model, x, y, tried=tried, hint=hint)
    expect_close(got, 2 * attributions.gradient(model, x, y), tried=tried, hint=hint)
    return "Your function returns twice the gradient."


def entries(answer: object) -> str:
    """Compare with the number of entries of a Fashion-MNIST image."""
    hint = "A grey image has one channel."
    expect(answer == 784, tried="your number", expected="28 × 28", got=answer, hint=hint)
    return "One slope for each of 28 × 28 pixels."


def steepest(answer: object) -> str:
    """Try a map whose largest entry is negative and lies in row 3, column 20."""
    slopes = torch.zeros(1, 28, 28)
    slopes[0, 3, 20], slopes[0, 25, 1] = -2.0, 1.0
    tried, hint = "a map with -2 in row 3, column 20", "Take absolute values; the row comes first."
    got = run(answer, slopes, tried=tried, hint=hint)
    expect(got == (3, 20), tried=tried, expected="(3, 20)", got=got, hint=hint)
    return "Your function finds a steep slope, whatever its sign."


def predicted_fall(answer: object) -> str:
    """Compare with the squared length of two maps of different length, times the step."""
    slopes = torch.tensor([3.0, 4, 0, 1]).view(2, 1, 1, 2)
    tried, hint = "the maps (3, 4) and (0, 1), a step of 0.1", "Square, add up, times the step."
    got = run(answer, slopes, 0.1, tried=tried, hint=hint)
    expect_close(got, torch.tensor([2.5, 0.1]), tried=tried, hint=hint)
    return "To first order the logit falls by the step times the squared length of the map."
