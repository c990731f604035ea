"""From a box of maps to a score: what it is at least, whichever map of the box comes out.

A box is a lower and an upper bound for each entry, as of `gradient_bounds`; `a` is the clean map in it.
The lowest score over all maps of the box is bounded, as if the entries could move independently. Heat is
the sum over channels of absolute values, with its own interval for each pixel.
"""

import torch
from torch import Tensor

from attrlib import _check
from attrlib.maps import dilate, to_heatmap, topk_mask
from attrlib.types import Inputs, Labels, Logits, PerSample

_SURE = 1e-12  # more than what float64 rounds away from the scores below


def certified_topk(lower: Inputs, upper: Inputs, a: Inputs, *, k: int) -> PerSample:
    r"""Return the share of the k highest pixels of `a` that are among the k highest of every map.

    $$1 - \frac1k \max\{m : \underline h_{(m)} \le \overline h^{(m)}\}$$

    with the m-th smallest lower bound of the heat in the top set $S$ of `a`, and the m-th largest upper
    bound outside. To drive m pixels out of the top set, m others must each reach every one of them. The
    set that stays may be another one in each map; its size is what is bounded.

    Args:
        lower: Lower bounds (n, channels, h, w).
        upper: Upper bounds of the same shape.
        a: The clean map in the box, signed.
        k: Pixels per set, 1 to h·w.

    Returns:
        Values (n,) in [0, 1], at most `topk_intersection` of the heatmaps of `a` and of any map in the
        box, ties included. The bound is attained by a map of the box if no ties are decided by index. Not
        differentiable.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If the shapes differ, are not (n, channels, h, w), a bound is not finite, lower is
            above upper, `a` is outside the box by more than rounding, or `k` is out of range.

    Source: ours; the first step of Wicker et al. 2023, whose abstract was at hand, is a box of maps.

    >>> a = torch.tensor([[[[4.0, 3.0, 2.0, 1.0]]]])
    >>> [certified_topk(a - r, a + r, a, k=2).item() for r in (0.4, 0.5, 1.5)]
    [1.0, 0.5, 0.0]
    """
    return lens_in_box(lower, upper, a, k=k, window=0)


def lens_in_box(lower: Inputs, upper: Inputs, a: Inputs, *, k: int, window: int) -> PerSample:
    r"""Return the share of the k highest pixels of every map that lie near the k highest of `a`.

    $$1 - \frac1k \max\{t : \underline h^{(k - t + 1)} \le \overline h^{(t)}\}$$

    with the (k - t + 1)-th largest lower bound of the heat within the windows around the top set of `a`,
    and the t-th largest upper bound outside: where t of the top k lie outside, at most k - t pixels
    inside are above them all. A bound on `lens_recall`; `lens_precision` is at least `certified_topk`.

    Args:
        lower: Lower bounds (n, channels, h, w).
        upper: Upper bounds of the same shape.
        a: The clean map in the box, signed, whose windows are drawn.
        k: Pixels per set, 1 to h·w.
        window: Radius w >= 0 of the windows; 0 gives `certified_topk`.

    Returns:
        Values (n,) in [0, 1], at most `lens_recall` of the heatmaps of `a` and of any map in the box.
        Never smaller for a larger window, also where that is due to area alone. Not differentiable.

    Raises:
        TypeError: As `certified_topk`.
        ValueError: As `certified_topk`, or if `window` is negative or larger than the image.

    Source: ours.
    """
    low, high, heat = _heat(lower, upper, a)
    _check.count(k=k, high=heat[0].numel())
    _check.count(window=window, low=0, high=(max(heat.shape[1:]) - 1) // 2)
    near = dilate(topk_mask(heat, k=k), window=window).flatten(1)
    # The k-th largest inside against the largest outside, the one before against the second, and so on:
    # one side rises, the other falls.
    inside = low.masked_fill(~near, -torch.inf).topk(k, dim=1).values.flip(1)
    outside = high.masked_fill(near, -torch.inf).topk(k, dim=1).values
    lost = (inside <= outside).sum(1)
    return (k - lost).to(a) / k


def cosine_in_box(lower: Inputs, upper: Inputs, a: Inputs) -> PerSample:
    r"""Return the least cosine of `a` with the maps of a box, a lower bound.

    $$\max\left(\sqrt{1 - q^2},\; \frac{s}{\|a\|_2 \, \|v\|_2}\right), \qquad
      s = \sum_i \min(a_i \underline g_i, a_i \overline g_i)$$

    with $q = \|\max(\overline g - a, a - \underline g)\|_2 / \|a\|_2$ and
    $v = \max(|\underline g|, |\overline g|)$; the first for $q < 1$, when the box lies in a ball
    that does not reach 0, the second for $s \ge 0$; -1 if neither holds.

    Args:
        lower: Lower bounds (n, …).
        upper: Upper bounds of the same shape.
        a: The clean map in the box, signed.

    Returns:
        Values (n,) in [-1, 1], at most the cosine of `a` with any map of the box, less a few units of
        roundoff; NaN where `a` is zero. Not differentiable.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If the shapes differ, a bound is not finite, lower is above upper, or `a` is outside
            the box by more than rounding.

    Source: ours.

    >>> a = torch.tensor([[3.0, 4.0]])
    >>> round(cosine_in_box(a - 0.3, a + 0.3, a).item(), 4)
    0.9964
    """
    low, high, clean = (part.flatten(1) for part in _box(lower, upper, a))
    scale = clean.abs().amax(1, keepdim=True)  # so that no square is lost or overflows
    low, high, clean = low / scale, high / scale, clean / scale
    length = clean.norm(dim=1)
    q = torch.maximum(high - clean, clean - low).norm(dim=1) / length
    product = torch.minimum(clean * low, clean * high).sum(1)
    longest = torch.maximum(low.abs(), high.abs()).norm(dim=1)
    ball = torch.where(q < 1, (1 - q.square()).clamp(min=0).sqrt(), -1.0)
    ends = torch.where(product >= 0, product / (length * longest), -1.0)
    rounding = 16 * torch.finfo(a.dtype).eps + _SURE  # a cosine is rounded, too
    least = torch.maximum(ball, ends) - rounding
    return least.clamp(-1, 1).where(length > 0, torch.nan).to(a)


def kendall_in_box(lower: Inputs, upper: Inputs, a: Inputs) -> PerSample:
    r"""Return the least Kendall's tau-b of `a` with the maps of a box, a lower bound.

    $$\frac{2c}{P} - 1 \quad\text{where that is negative, else}\quad \frac{2c - P}{\sqrt{P N}}$$

    with $N$ pairs of pixels, $P$ of which `a` does not tie, and $c$ whose order is certain: the lower
    bound of one heat is above the upper bound of the other. Of the other P - c pairs each may be turned;
    the more pairs a map ties, the less negative the product of the two roots lets it be.

    Args:
        lower: Lower bounds (n, channels, h, w).
        upper: Upper bounds of the same shape.
        a: The clean map in the box, signed.

    Returns:
        Values (n,) in [-1, 1], at most `kendall` of the heatmaps of `a` and of any map in the box where
        that is defined; NaN where the heatmap of `a` is constant. Not differentiable.

    Raises:
        TypeError: As `certified_topk`.
        ValueError: As `certified_topk`, `k` aside.

    Source: ours.
    """
    low, high, heat = _heat(lower, upper, a)
    m = low.shape[1]
    pairs = m * (m - 1) / 2
    certain = torch.searchsorted(high.sort(dim=1).values, low).sum(1).double()
    untied = pairs - _tied(heat.flatten(1))
    balance = 2 * certain - untied
    least = torch.where(balance < 0, balance / untied, balance / (untied * pairs).sqrt())
    return (least - _SURE).clamp(-1, 1).where(untied > 0, torch.nan).to(a)


def accuracy_in_box(lower: Logits, upper: Logits, y: Labels) -> PerSample:
    """Return whether the logit of the label is the highest everywhere, 1 or 0.

    Its lower bound is above the upper bounds of all others.

    Args:
        lower: Lower bounds of the logits (n, classes), as of `logit_bounds`.
        upper: Upper bounds of the same shape.
        y: True classes, int64 (n,).

    Returns:
        Values (n,), 1 where no image of the box is classified wrongly, 0 where that is not proved. Their
        mean is the certified accuracy. Not differentiable.

    Raises:
        TypeError: If a bound is not floating-point or `y` not int64.
        ValueError: If the shapes differ, a bound is not finite, lower is above upper, or a label is not
            one of the classes.

    Source: Gowal et al. 2018, section 3. Differs: the last layer is not merged with the comparison, which
    would give tighter bounds.

    >>> lower, upper = torch.tensor([[1.0, -1.0]]), torch.tensor([[2.0, 0.5]])
    >>> accuracy_in_box(lower, upper, torch.tensor([0])).item()
    1.0
    """
    _ordered(lower, upper)
    _check.labelled(lower, y)
    _check.logits(lower, len(lower), y, classes=2)
    own = torch.nn.functional.one_hot(y, lower.shape[1]).bool()
    return (lower[own] > upper.masked_fill(own, -torch.inf).amax(1)).to(lower)


def _ordered(lower: Tensor, upper: Tensor) -> None:
    _check.floating(lower=lower, upper=upper)
    _check.same_shape(lower=lower, upper=upper)
    _check.finite(lower=lower, upper=upper)
    crossed = (lower > upper).flatten(1).any(1)
    if bool(crossed.any()):
        raise ValueError(
            f"Expected lower <= upper, got lower above upper in {int(crossed.sum())} of "
            f"{len(lower)} samples"
        )


def _box(lower: Tensor, upper: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The box and the clean map in float64; the map may be outside by rounding, and then is an end."""
    _check.floating(a=a)
    _ordered(lower, upper)
    _check.same_shape(lower=lower, upper=upper, a=a)
    _check.finite(a=a)
    low, high, clean = (part.detach().double() for part in (lower, upper, a))
    away = torch.maximum(low - clean, clean - high).flatten(1).amax(1)
    outside = away > torch.finfo(a.dtype).eps ** 0.5 * clean.abs().flatten(1).amax(1)
    if bool(outside.any()):
        raise ValueError(
            f"Expected a between lower and upper, got {int(outside.sum())} of {len(a)} samples up to "
            f"{float(away.max()):.3g} outside"
        )
    return torch.minimum(low, clean), torch.maximum(high, clean), clean


def _heat(lower: Tensor, upper: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bounds of the heat of each pixel (n, h·w) in float64, and the heatmap of the clean map."""
    low, high, _ = _box(lower, upper, a)
    heat = to_heatmap(a.detach())
    least = torch.maximum(low, -high).clamp(min=0).sum(1).flatten(1)
    most = torch.maximum(high, -low).sum(1).flatten(1)
    # A sum over channels is rounded in the type of the maps, and the heat of one channel is exact.
    rounding = 0.0 if a.shape[1] == 1 else a.shape[1] * torch.finfo(a.dtype).eps
    return least * (1 - rounding), most * (1 + rounding), heat


def _tied(rows: Tensor) -> Tensor:
    """Pairs of equal entries of each row."""
    ordered = rows.sort(dim=1).values
    first, last = (torch.searchsorted(ordered, ordered, right=side) for side in (False, True))
    return (last - first - 1).sum(1).double() / 2
