"""What bounds of each entry say about the order of a map: its top k, Kendall's tau, single pixels.

All three take bounds `lower` and `upper` between which the entries of another map lie, from
`Certificate.entries`, and the clean map itself. They hold for any map between the bounds, so they are as
sure as the bounds are.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from attrlib import _check
from attrlib.types import Inputs, PerSample


class Pixels(NamedTuple):
    """Pixels whose side is certain; all others are left open."""

    inside: Tensor
    outside: Tensor


def certified_topk_overlap(lower: Inputs, upper: Inputs, a: Inputs, *, k: int) -> PerSample:
    r"""Return the share of the k highest entries of a map that must stay among the k highest.

    $$1 - \frac1k \max \{m : u_{(m)}^{\text{out}} \ge l_{(m)}^{\text{in}}\}$$

    with the m-th largest upper bound outside the top k and the m-th smallest lower bound inside: m
    entries can come in for m others exactly if all m of them can be at least as high. The least overlap
    that the bounds allow, not only a bound of it.

    Args:
        lower: Lower bounds (n, …) of the entries of the other map.
        upper: Upper bounds (n, …).
        a: The map at x (n, …), between the bounds: the mean map of a certificate. Its entries are
            compared as they are.
        k: Entries in the top set, 1 to all; ties go to the lower index.

    Returns:
        Shares (n,) in [0, 1], in the dtype of `a`; ties in the other map count as lost. Rising as the
        bounds get narrower. Not differentiable.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If shapes disagree, `a` is not between the bounds, `k` is out of range, or a tensor
            holds NaN.

    Source: Levine et al. 2019, whose condition pairs rank i with rank 2k - i + 1. Differs: bounds of any
    origin, one for each entry, and k up to all entries.

    >>> a = torch.tensor([[0.9, 0.7, 0.5, 0.3]])
    >>> certified_topk_overlap(a - 0.15, a + 0.15, a, k=2).item()
    0.5
    """
    low, high, rows = _checked(lower, upper, a)
    size = rows.shape[1]
    _check.count(k=k, high=size)
    order = rows.argsort(stable=True, dim=1, descending=True)
    inside = low.gather(1, order[:, :k]).sort(1).values
    outside = high.gather(1, order[:, k:]).sort(1, descending=True).values
    pairs = min(k, size - k)
    lost = (outside[:, :pairs] >= inside[:, :pairs]).sum(1)
    return (1 - lost.double() / k).to(a)


def certified_kendall(lower: Inputs, upper: Inputs, a: Inputs) -> PerSample:
    r"""Return a lower bound of Kendall's tau between a map and any other one between the bounds.

    $$\tau \ge \frac{2 |\{(i, j) : l_i > u_j\}|}{N} - 1$$

    with N pairs of entries: a pair whose bounds are apart keeps its order, and any other one is taken to
    be turned round.

    Args:
        lower: Lower bounds (n, …) of the entries of the other map.
        upper: Upper bounds (n, …).
        a: The map at x (n, …), between the bounds.

    Returns:
        Values (n,) in [-1, 1], in the dtype of `a`; NaN for a map of one entry. A bound of tau-a, ties
        counting 0; where it is not negative, of tau-b, too. Not differentiable.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If shapes disagree, `a` is not between the bounds, or a tensor holds NaN.

    Source: ours.

    >>> a = torch.tensor([[0.9, 0.6, 0.3]])
    >>> certified_kendall(a - 0.1, a + 0.1, a).item()
    1.0
    """
    low, high, rows = _checked(lower, upper, a)
    size = rows.shape[1]
    below = torch.searchsorted(high.sort(1).values.contiguous(), low.contiguous())
    return (2 * below.sum(1).double() / (size * (size - 1) / 2) - 1).to(a)


def certified_pixels(lower: Inputs, upper: Inputs) -> Pixels:
    r"""Return the entries that are certainly above one half, and those that are certainly below.

    For the bounds of a map of `sparsified`: whether more than half of the noisy copies have the pixel
    among the k highest, anywhere within the budget.

    Args:
        lower: Lower bounds (n, …) of probabilities.
        upper: Upper bounds (n, …).

    Returns:
        Two masks (n, …), `inside` and `outside`, which do not meet. Where both are false it is left open;
        the share of that is what a report of certain pixels has to give, too.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If shapes disagree, a lower bound is above its upper one, or a tensor holds NaN.

    Source: Anani et al. 2025, after Fischer et al. 2021. Differs: bounds of all pixels at once say at
    which budget a pixel is certain; the paper fixes a threshold, spends samples on a first guess of the
    side and tests it.

    >>> pixels = certified_pixels(torch.tensor([[0.6, 0.1, 0.4]]), torch.tensor([[0.9, 0.3, 0.6]]))
    >>> pixels.inside.tolist(), pixels.outside.tolist()
    ([[True, False, False]], [[False, True, False]])
    """
    _bounds(lower, upper)
    return Pixels(inside=lower > 0.5, outside=upper < 0.5)


def _checked(lower: Tensor, upper: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three as rows in float64; raise unless the map is between the bounds."""
    _bounds(lower, upper)
    _check.floating(a=a)
    _check.same_shape(lower=lower, a=a)
    _check.finite(a=a)
    low, high, rows = (t.detach().double().flatten(1) for t in (lower, upper, a))
    slack = torch.finfo(a.dtype).eps * rows.abs().amax(1, keepdim=True)
    outside = ~((low <= rows + slack) & (rows <= high + slack))
    if bool(outside.any()):
        raise ValueError(
            f"Expected a between lower and upper, got {int(outside.sum())} entries outside"
        )
    return low, high, rows


def _bounds(lower: Tensor, upper: Tensor) -> None:
    _check.floating(lower=lower, upper=upper)
    _check.same_shape(lower=lower, upper=upper)
    _check.finite(lower=lower, upper=upper)
    if not bool((lower <= upper).all()):
        raise ValueError(
            f"Expected lower <= upper, got {int((lower > upper).sum())} entries the other way round"
        )
