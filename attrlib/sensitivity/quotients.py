"""Change of a map against the length of the map, or against the change of image or logits."""

from typing import Literal

import torch
from torch import Tensor

from attrlib import _check
from attrlib.types import Inputs, Logits, PerSample

FLOOR = 1e-6
"""What an entry or a length is raised to before something is divided by it, as in Quantus."""


def relative_change(a: Inputs, b: Inputs) -> PerSample:
    r"""Return the length of the change of a map, as a share of the length of the map.

    $$\|b - a\|_2 \,/\, \|a\|_2$$

    Args:
        a: Maps at the images (n, …).
        b: Maps at changed images, of the same shape.

    Returns:
        Values (n,), >= 0, smaller is more stable; NaN where `a` is zero everywhere. Not differentiable.

    Raises:
        TypeError: If a map is not floating-point.
        ValueError: If shapes differ or a map holds NaN.

    >>> relative_change(torch.tensor([[3.0, 4.0]]), torch.tensor([[3.0, 3.0]]))
    tensor([0.2000])
    """
    _pair(a=a, b=b)
    length = _length(a)
    return (_length(b.double() - a.double()) / _positive(length)).to(a)


def lipschitz_quotient(
    a: Inputs, b: Inputs, x: Inputs, z: Inputs, *, order: Literal[1, 2] = 2
) -> PerSample:
    r"""Return the change of a map for each unit by which the image changed.

    $$\|b - a\|_p \,/\, \|z - x\|_2$$

    Args:
        a: Maps at `x` (n, …).
        b: Maps at `z`, of the same shape.
        x: Images (n, …).
        z: Changed images, in the shape of `x`.
        order: p: 2, or 1 for the numerator of continuity.

    Returns:
        Values (n,), >= 0, smaller is more stable, in units of the map per unit of pixel; NaN where the
        image did not change. Not differentiable.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If shapes differ, `order` is neither 1 nor 2, or a tensor holds NaN.
    """
    _pair(a=a, b=b)
    _pair(x=x, z=z)
    _check.count(order=order, high=2)
    change = _length(b.double() - a.double(), order)
    return (change / _positive(_length(z.double() - x.double()))).to(a)


def relative_input_quotient(
    a: Inputs, b: Inputs, x: Inputs, z: Inputs, *, floor: float = FLOOR
) -> PerSample:
    r"""Return the relative change of a map, entry by entry, against that of the image.

    $$\Big\|\frac{b - a}{a}\Big\|_2 \,\Big/\, \max\Big(\Big\|\frac{z - x}{x}\Big\|_2, \epsilon\Big)$$

    Args:
        a: Maps at `x` (n, …).
        b: Maps at `z`, of the same shape.
        x: Images (n, …).
        z: Changed images, in the shape of `x`.
        floor: ε > 0: no entry of `a` or `x` that is divided by, and no length of a change, counts as
            smaller. Where pixels are black or entries of a map zero, it decides the value.

    Returns:
        Values (n,), >= 0, smaller is more stable. Not differentiable.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If shapes differ, `floor` is not above 0, or a tensor holds NaN.
    """
    _pair(a=a, b=b)
    _pair(x=x, z=z)
    _check.positive(floor=floor)
    return (_share(a, b, floor) / _share(x, z, floor).clamp(min=floor)).to(a)


def relative_output_quotient(
    a: Inputs, b: Inputs, f: Logits, g: Logits, *, floor: float = FLOOR
) -> PerSample:
    r"""Return the relative change of a map, entry by entry, against the change of all logits.

    $$\Big\|\frac{b - a}{a}\Big\|_2 \,\Big/\, \max\big(\|g - f\|_2, \epsilon\big)$$

    Args:
        a: Maps at the images (n, …).
        b: Maps at changed images, of the same shape.
        f: Logits at the images (n, classes).
        g: Logits at the changed images, in the shape of `f`.
        floor: ε > 0: no entry of `a` that is divided by, and no length of a change of logits, counts as
            smaller.

    Returns:
        Values (n,), >= 0, smaller is more stable. Not differentiable.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If shapes differ, `floor` is not above 0, or a tensor holds NaN.
    """
    _pair(a=a, b=b)
    _pair(f=f, g=g)
    _check.positive(floor=floor)
    change = _length(g.double() - f.double()).clamp(min=floor)
    return (_share(a, b, floor) / change).to(a)


def _pair(**tensors: Tensor) -> None:
    """Raise unless both are finite batches of one shape."""
    _check.floating(**tensors)
    _check.same_shape(**tensors)
    _check.finite(**tensors)


@torch.no_grad()
def _length(rows: Tensor, order: int = 2) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(rows.double().flatten(1), ord=order, dim=1)
    return length


@torch.no_grad()
def _share(a: Tensor, b: Tensor, floor: float) -> Tensor:
    """Length of the change, each entry as a share of what it was."""
    return _length((b.double() - a.double()) / a.double().abs().clamp(min=floor))


def _positive(length: Tensor) -> Tensor:
    """NaN in place of zero: a share of nothing is undefined."""
    return torch.where(length == 0, torch.nan, length)
