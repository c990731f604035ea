"""Wrong answers to the exercises of the chapter on the marginal density: at least three for each."""

import torch
from torch import Tensor

from attrlib import energy


def _hidden(x: Tensor, region: Tensor) -> Tensor:
    return x.masked_fill(region[:, None], 0)


WRONG = {
    "leaked": [
        lambda heat, null: (heat * ~null).flatten(1).sum(1) / heat.flatten(1).sum(1),
        lambda heat, null: (heat * null).sum() / heat.sum(),  # one number for all
        lambda heat, null: (heat * null).flatten(1).sum(1),
        lambda heat, null: (
            (heat * null).flatten(1).sum(1) / (heat * ~null).flatten(1).sum(1)  # of the rest
        ),
    ],
    "marginal-slope": [
        lambda logits, slopes: slopes.mean(1),
        lambda logits, slopes: torch.einsum("nk,nkd->nd", logits, slopes),
        lambda logits, slopes: slopes[torch.arange(len(slopes)), logits.argmax(1)],
    ],
    "flattened": [
        lambda logits: logits - logits.mean(1, keepdim=True),
        lambda logits: logits - logits.amax(1, keepdim=True),
        lambda logits: logits.softmax(1),
        lambda logits: logits - logits.exp().sum(1, keepdim=True).log(),  # overflows
    ],
    "taken": [
        lambda model, x, region: (
            energy.marginal(model, _hidden(x, region)) - energy.marginal(model, x)
        ),
        lambda model, x, region: (
            energy.marginal(model, x) - energy.marginal(model, _hidden(x, ~region))
        ),
        lambda model, x, region: model(x).amax(1) - model(_hidden(x, region)).amax(1),
        lambda model, x, region: (
            energy.centered(model, x) - energy.centered(model, _hidden(x, region))
        ),
    ],
    "projected": [
        lambda model, x, v, sigma: (
            (energy.marginal(model, x + v) - energy.marginal(model, x - v)) / (2 * sigma)
        ).square(),
        lambda model, x, v, sigma: (
            ((energy.marginal(model, x + v) - energy.marginal(model, x)) / sigma).square() / 2
        ),
        lambda model, x, v, sigma: (
            ((energy.marginal(model, x + v) - energy.marginal(model, x - v)) / 2).square() / 2
        ),
        lambda model, x, v, sigma: (
            energy.gradient(model, x).flatten(1).square().sum(1) / 2  # the penalty itself
        ),
    ],
}
