"""Maps at the ends of the floating-point range, where sums overflow and shares vanish."""

import torch
from torch import Tensor

from attrlib import _shape


def level(a: Tensor) -> Tensor:
    """Return each row times the power of two that brings its largest entry to between 1/2 and 1.

    What does not depend on the size of a map stays the same to the last bit, since multiplying by powers
    of two does not round. Rows that are zero or not finite stay as they are. Differentiable in `a`, with
    the power a constant.
    """
    peak = a.detach().flatten(1).abs().amax(1).double()
    exponent = torch.frexp(peak).exponent.where(peak.isfinite(), 0)
    first = -exponent // 2  # in two steps, since the whole power need not exist
    for power in (first, -exponent - first):
        factor = torch.ldexp(torch.ones_like(power, dtype=a.dtype), power)
        a = a * _shape.wide(factor, a)
    return a
