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
    "steepest": [
        lambda slopes: divmod(int(slopes.argmax()), 28),
        lambda slopes: divmod(int(slopes.abs().argmax()), 28)[::-1],
        lambda slopes: int(slopes.abs().argmax()),
    ],
    "predicted-fall": [
        lambda slopes, step: step * slopes.flatten(1).norm(dim=1),
        lambda slopes, step: step * slopes.square().sum(),
        lambda slopes, step: slopes.square().flatten(1).sum(1),
        lambda slopes, step: None,
    ],
}
