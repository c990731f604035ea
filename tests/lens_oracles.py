"""Sets of pixels by their definition, and short ways to write them."""

import numpy as np
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


def numpy_lens_recall(a: np.ndarray, b: np.ndarray, k: int, window: int) -> float:
    """LENS recall of two maps (h, w) as one writes it in NumPy."""
    s, t = (_numpy_topk(heat, k) for heat in (a, b))
    (height, width), framed, near = s.shape, np.pad(s, window), np.zeros_like(s)
    for i in range(2 * window + 1):
        for j in range(2 * window + 1):
            near |= framed[i : i + height, j : j + width]
    return float((near & t).sum() / k)


def numpy_diverse_topk(a: np.ndarray, k: int, window: int) -> np.ndarray:
    """The greedy selection on one map (h, w), as it is defined: the highest left, out with its window."""
    left, chosen = a.copy(), np.zeros_like(a, dtype=bool)
    for _ in range(k):
        i, j = divmod(int(left.argmax()), a.shape[1])
        if left[i, j] == -np.inf:
            break
        chosen[i, j] = True
        left[max(i - window, 0) : i + window + 1, max(j - window, 0) : j + window + 1] = -np.inf
    return chosen


def sorted_diverse_topk(a: np.ndarray, k: int, window: int) -> np.ndarray:
    """The same by a shorter way: down the sorted list, past what a window covers."""
    chosen, left = np.zeros_like(a, dtype=bool), np.ones_like(a, dtype=bool)
    free = left.ravel()
    for place in np.argsort(-a.ravel(), kind="stable").tolist():
        if free[place]:
            i, j = divmod(place, a.shape[1])
            chosen[i, j], k = True, k - 1
            if not k:
                break
            left[max(i - window, 0) : i + window + 1, max(j - window, 0) : j + window + 1] = False
    return chosen


def _numpy_topk(heat: np.ndarray, k: int) -> np.ndarray:
    mask = np.zeros(heat.size, dtype=bool)
    mask[np.argsort(-heat.ravel(), kind="stable")[:k]] = True
    return mask.reshape(heat.shape)
