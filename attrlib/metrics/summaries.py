"""What many scores come to: means of groups, and how well a score tells two sets apart."""

import torch
from torch import Tensor

from attrlib import _check
from attrlib.types import Labels, PerSample


def group_means(values: PerSample, groups: Labels, *, count: int) -> Tensor:
    r"""Return the mean of each group; of hits the lowest is the accuracy of the worst group.

    $$\frac{1}{|G_g|} \sum_{i \in G_g} v_i$$

    Args:
        values: One value for each image, (n,), such as `training.correct`.
        groups: Group of each image, int64 (n,), from 0, such as `data.Shortcuts.groups`.
        count: Number of groups; all of them must have members, since a missing one could be the worst.

    Returns:
        Means (count,); NaN where a value is. Not differentiable.

    Raises:
        TypeError: If `values` are not floating-point or `groups` not int64.
        ValueError: If shapes disagree, a group is not from 0 to count - 1, or a group has no members.

    Source: the worst of them is the score of Sagawa et al. 2020.

    >>> hits, groups = torch.tensor([1.0, 1.0, 0.0, 1.0]), torch.tensor([0, 0, 1, 1])
    >>> group_means(hits, groups, count=2).tolist()
    [1.0, 0.5]
    """
    _check.count(count=count)
    _numbers(values=values)
    _check.labels(len(values), groups=groups)
    low, high = (int(group) for group in torch.aminmax(groups))
    if low < 0 or high >= count:
        raise ValueError(f"Expected groups from 0 to {count - 1}, got {low if low < 0 else high}")
    sizes = groups.bincount(minlength=count)
    if bool((sizes == 0).any()):
        empty = int((sizes == 0).nonzero()[0])
        raise ValueError(f"Expected members in each of {count} groups, got none in group {empty}")
    sums = torch.zeros(count, dtype=torch.float64, device=values.device)
    return (sums.index_add(0, groups, values.detach().double()) / sizes).to(values)


def auroc(known: PerSample, unknown: Tensor) -> PerSample:
    r"""Return how often a known image scores above an unknown one; the mean is the area under the curve.

    $$\frac1m \sum_{j=1}^m [u_j < k_i] + \tfrac12 \, [u_j = k_i]$$

    Args:
        known: Scores of images of the kind the model was trained on, (n,), such as `energy.marginal`;
            higher is meant to say known.
        unknown: Scores of images of another kind, (m,).

    Returns:
        Values (n,) in [0, 1], higher is better; their mean is the area under the ROC curve, 1/2 by
        chance. Not differentiable.

    Raises:
        TypeError: If scores are not floating-point.
        ValueError: If one is no vector, is empty, or holds NaN.

    Source: Hanley and McNeil 1982; for unknown data, Hendrycks and Gimpel 2017.

    >>> auroc(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0])).tolist()
    [1.0, 0.25]
    """
    _numbers(known=known, unknown=unknown)
    _check.finite(known=known, unknown=unknown)
    order = unknown.detach().to(known).sort().values
    mine = known.detach()
    below, upto = (torch.searchsorted(order, mine, right=right) for right in (False, True))
    return ((below + upto).double() / (2 * len(order))).to(known)


def _numbers(**vectors: Tensor) -> None:
    """Raise unless each is a vector of floating-point numbers, and not empty."""
    for name, vector in vectors.items():
        if not isinstance(vector, Tensor) or not vector.is_floating_point():
            kind = vector.dtype if isinstance(vector, Tensor) else type(vector).__name__
            raise TypeError(f"Expected {name} to be a floating-point tensor, got {kind}")
        if vector.ndim != 1 or len(vector) == 0:
            raise ValueError(
                f"Expected {name} to be a vector of at least one number, got shape "
                f"{tuple(vector.shape)}"
            )
