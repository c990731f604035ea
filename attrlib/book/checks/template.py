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
