"""How far a map can move, to first order: an estimate, which proves nothing."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from attrlib import _check, _model, _random, _shape
from attrlib.types import Attribution, Classifier, Inputs, Labels, Norm, PerSample


class FirstOrder(NamedTuple):
    """Estimates of the worst change of a map."""

    change: Tensor
    cosine: Tensor


def first_order_estimate(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    eps: float,
    norm: Norm = "l2",
    steps: int = 20,
    generator: torch.Generator | None,
) -> FirstOrder:
    r"""Return how far a map moves within ε, and the cosine it keeps, if it were linear in the input.

    $$\rho = \epsilon \, \sigma_{\max}(J), \qquad
      \cos \approx \sqrt{1 - (\rho / \|g(x)\|)^2}, \qquad J = \partial g / \partial x$$

    for l2; $\rho$ has one more factor $\sqrt d$ for linf.

    **An estimate, no certificate.** The remainder of the Taylor series is left out, and power iteration
    comes from below. Where the network has kinks, autograd does not see what the gradient does there, and
    attacks pass the estimate nearly always, by factors; take a copy by `models.smoothed`, and an attack
    beside it.

    `steps` products with J and with its transpose, each about a double backward pass.

    Args:
        attribution: Explains class y; differentiable.
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        eps: Budget in pixel units, >= 0.
        norm: `l2`, or `linf`, which takes the ball of l2 radius ε√d around the cube.
        steps: Rounds of the power iteration, >= 1.
        generator: Source of its start, and of the noise of the attribution; None is torch's global
            generator.

    Returns:
        Two values for each image: `change`, the length in the unit of the map, and `cosine`, -1 where the
        change is at least as long as the map.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If a number is out of range, the map has no graph to x, or `x` holds NaN.

    Source: after Wang and Kong 2023, whose formulas could not be consulted; the Jacobian of a map, its
    power iteration and the cosine of a ball are ours.

    >>> from attrlib.attributions import input_x_gradient
    >>> model, x = torch.nn.Linear(2, 1, bias=False), torch.ones(1, 2)
    >>> _ = model.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    >>> worst = first_order_estimate(input_x_gradient, model, x, torch.tensor([0]), eps=0.5,
    ...                              generator=torch.Generator().manual_seed(0))
    >>> round(worst.change.item(), 4), round(worst.cosine.item(), 4)
    (2.0, 0.9165)
    """
    _check.labelled(x, y)
    _check.nonnegative(eps=eps)
    _check.one_of(("l2", "linf"), norm=norm)
    _check.count(steps=steps)
    _check.recording(x)
    direction = _random.normal_like(x, generator=generator)
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad(), _model.second_derivative():
        a = attribution(model, leaf, y, generator=generator)
        if not a.requires_grad:
            raise ValueError(
                "Expected attribution that is differentiable in x, got one without graph"
            )
        # J v as the derivative of u ↦ uᵀJ, which is linear in u.
        dual = torch.zeros_like(a, requires_grad=True)
        (row,) = torch.autograd.grad(a, leaf, dual, create_graph=True, materialize_grads=True)
    size = x.new_zeros(len(x))
    for _ in range(steps):
        length = _length(direction)
        direction = direction / _shape.wide(torch.where(length == 0, 1, length), x)
        if row.requires_grad:
            (image,) = torch.autograd.grad(
                row, dual, direction, retain_graph=True, materialize_grads=True
            )
        else:  # a map that does not depend on x
            image = torch.zeros_like(a)
        size = _length(image)
        (direction,) = torch.autograd.grad(
            a, leaf, image.detach(), retain_graph=True, materialize_grads=True
        )
    change = eps * size * (math.sqrt(x[0].numel()) if norm == "linf" else 1)
    share = change / _length(a.detach())
    cosine = torch.where(share < 1, torch.sqrt((1 - share**2).clamp(min=0)), -1)
    return FirstOrder(change=change.detach(), cosine=cosine.detach())


def _length(a: Tensor) -> PerSample:
    length: Tensor = torch.linalg.vector_norm(a.flatten(1), dim=1)
    return length
