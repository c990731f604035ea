"""Wrong answers to the exercises of the template: at least three for each."""

import torch

from attrlib import attributions

WRONG = {
    "twice-gradient": [
        attributions.gradient,
        attributions.input_x_gradient,
        lambda model, x, y: 2 * attributions.gradient(model, x, y).abs(),
        lambda model, x, y: torch.zeros_like(x),
        lambda model, x: x,
    ],
    "entries": [28, 28 + 28, 3 * 28 * 28, None],
}
