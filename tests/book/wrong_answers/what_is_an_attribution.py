"""Wrong answers to the exercises of the first chapter: at least three for each."""

import copy

import torch
from torch import Tensor, nn

from attrlib import attributions

ig = attributions.integrated_gradients


def _signed_gap(model: nn.Module, x: Tensor, y: Tensor, a: Tensor) -> Tensor:
    black = attributions.target_logit(model, torch.zeros_like(x), y)
    return a.flatten(1).sum(1) - (attributions.target_logit(model, x, y) - black)


def _end_points(model: nn.Module, x: Tensor, y: Tensor, steps: int, first: int) -> Tensor:
    points = [x * k / steps for k in range(first, first + steps)]
    return x * sum(attributions.gradient(model, p, y) for p in points) / steps


def _zeroed(model: nn.Module, suffix: str) -> nn.Module:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(suffix):
                parameter.zero_()
    return model


WRONG = {
    "another-unit": [(255, 1), (1 / 255, 1 / 255), (1, 1), None],
    "no-black-pixel": [1.0, -0.8, 0.2, None],
    "completeness-gap": [
        _signed_gap,
        lambda model, x, y, a: _signed_gap(model, x, y, a).abs().mean(),
        lambda model, x, y, a: (a.flatten(1).sum(1) - attributions.target_logit(model, x, y)).abs(),
        lambda model, x, y, a: torch.zeros(len(x)),
    ],
    "right-end-points": [
        lambda model, x, y, steps: ig(model, x, y, steps=steps),
        lambda model, x, y, steps: _end_points(model, x, y, steps, first=0),
        lambda model, x, y, steps: _end_points(model, x, y, steps, first=1) / x.clamp(min=1e-6),
        lambda model, x, y, steps: _end_points(model, x, y, steps, first=1) * steps,
    ],
    "without-biases": [
        lambda model: model,
        lambda model: _zeroed(model, "bias"),
        lambda model: _zeroed(copy.deepcopy(model), ""),
        lambda model: copy.deepcopy(model).state_dict(),
    ],
    "average-baselines": [
        lambda model, x, y, baselines, steps: ig(
            model, x, y, baseline=baselines.mean(0)[None], steps=steps
        ),
        lambda model, x, y, baselines, steps: ig(model, x, y, baseline=baselines[:1], steps=steps),
        lambda model, x, y, baselines, steps: sum(
            ig(model, x, y, baseline=b[None], steps=steps) for b in baselines
        ),
        lambda model, x, y, baselines, steps: ig(model, x, y, steps=steps),
    ],
}
