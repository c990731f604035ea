"""Sets of pixels by their definition, and short ways to write them."""

import torch
from torch import Tensor


def greedy(a: Tensor, k: int, window: int) -> Tensor:
    """The definition, pixel by pixel: the highest left, then out with its window."""
    chosen = torch.zeros_like(a, dtype=torch.bool)
    for heat, mask in zip(a, chosen, strict=True):
        left = {
            (-value, i, j) for i, row in enumerate(heat.tolist()) for j, value in enumerate(row)
        }
        while left and mask.sum() < k:
            _, i, j = min(left)
            mask[i, j] = True
            left = {p for p in left if max(abs(p[1] - i), abs(p[2] - j)) > window}
    return chosen


def flat(mask: Tensor) -> list[int]:
    """Flat indices of the first set."""
    return mask[0].flatten().nonzero().flatten().tolist()


def mask(height: int, width: int, *places: tuple[int, int]) -> Tensor:
    """The set of these pixels (1, height, width)."""
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    for i, j in places:
        mask[0, i, j] = True
    return mask
