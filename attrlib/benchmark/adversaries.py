"""Adversaries of certificates: points and vectors that no search has chosen, and what they left."""

from collections.abc import Iterator

import torch
from scipy import stats
from torch import Tensor

from attrlib import certificates
from attrlib.certificates import Bounded

_SURE = 0.999  # a count of failures above this quantile of what alpha allows is no chance
_BATCH = 250  # random points of a box at once


def shared_and_alone(g: Bounded, lost: float, count: int, *, generator: torch.Generator) -> Tensor:
    """How far random smoothed maps (count,) stay above the least cosine of their lengths.

    A map at two points is a part that both balls of noise share and a part that each has alone, of any
    directions and at most so long as its share of the noise; nothing else is known of a network.

    Args:
        g: Whose bound the lengths obey.
        lost: Share of the noise that the balls do not have in common, in [0, 1].
        count: Number of random maps.
        generator: Source of their parts.
    """
    gaps = []
    for dim, part in zip(
        (2, 3, 8), (count // 3, count // 3, count - 2 * (count // 3)), strict=True
    ):
        both, one, other = (
            _within(part, dim, top * g.bound, generator) for top in (1 - lost, lost, lost)
        )
        here, there = both + one, both + other
        norm = here.norm(dim=1).clamp(max=g.bound)
        least = certificates.worst_cosine(norm, lost, bound=g.bound, nonnegative=g.nonnegative)
        gaps.append(torch.cosine_similarity(here, there, dim=1) - least)
    return torch.cat(gaps)


def shares(count: int, images: int) -> Iterator[tuple[int, int]]:
    """An image and a number of adversaries at once, until all have had their share.

    Args:
        count: Adversaries in all.
        images: Among how many images they are divided.
    """
    for i in range(images):
        left = count // images + (i < count % images)
        while left > 0:
            yield i, min(left, _BATCH)
            left -= _BATCH


def places(count: int, like: Tensor, generator: torch.Generator) -> Tensor:
    """Points of the unit cube in the shape of `like`, half of them corners.

    Args:
        count: Number of points.
        like: Tensor whose shape, dtype and device each of them has.
        generator: Source of the points.
    """
    drawn = torch.rand(count, *like.shape, generator=generator, dtype=torch.float64)
    drawn[::2] = drawn[::2].round()
    return drawn.to(like)


def _within(count: int, dim: int, top: float, noise: torch.Generator) -> Tensor:
    """Non-negative vectors, half of them as long as can be, many of them sparse."""
    v = torch.randn(count, dim, generator=noise, dtype=torch.float64).abs()
    v = v * (torch.rand(count, dim, generator=noise) < 0.6)
    length = torch.rand(count, 1, generator=noise, dtype=torch.float64)
    length = torch.where(torch.rand(count, 1, generator=noise) < 0.5, 1.0, length)
    unit = torch.nn.functional.normalize(v, dim=1)
    return top * length * unit


def gap_row(
    certificate: str, certified: Tensor, attacked: Tensor, *, alpha: float, random: Tensor
) -> dict[str, str]:
    """What is certified beside what is left, and the gap: what an adversary leaves, less that.

    Args:
        certificate: What is certified, in words.
        certified: Values of the images.
        attacked: What an attack leaves of each.
        alpha: Failure probability of a certificate.
        random: Gaps that random adversaries left; may be empty.
    """
    gap = attacked - certified
    allowed = int(stats.binom.ppf(_SURE, len(gap), alpha)) if alpha else 0
    tried = random[~random.isnan()]
    return {
        "certificate": certificate,
        "certified": f"{float(certified.nanmean()):.4f}",
        "attacked": f"{float(attacked.nanmean()):.4f}",
        "gap": f"{float(gap[~gap.isnan()].min()):.3g}",
        "checked": str(len(gap)),
        "violations": str(int((gap < -_rounding(attacked)).sum())),
        "alpha": f"{alpha:g}",
        "allowed": str(allowed),
        "adversaries": str(len(random)),
        "random_gap": f"{float(tried.min()):.3g}" if len(tried) else "",
        "random_violations": str(int((tried < -_rounding(random)).sum())) if len(random) else "",
    }


def _rounding(values: Tensor) -> float:
    """By how much a score that is computed may be below the true one."""
    return 1e-12 if values.dtype == torch.float64 else 1e-6
