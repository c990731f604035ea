"""Wrong answers to the exercises of the chapter on top-k and LENS: at least three for each."""

import torch
from torch import Tensor
from torch.nn import functional

from attrlib import metrics

Maps = tuple[Tensor, ...]


def _pool(mask: Tensor, side: int, padding: int) -> Tensor:
    return functional.max_pool2d(mask[:, None].float(), side, 1, padding)[:, 0]


def _wrapped(mask: Tensor, window: int) -> Tensor:
    steps = range(-window, window + 1)
    return torch.stack([mask.roll((p, q), (1, 2)) for p in steps for q in steps]).any(0)


def _columns(k: int, width: int, *columns: int) -> Maps:
    maps = torch.zeros(len(columns), 1, k, width)
    for which, column in enumerate(columns):
        maps[which, 0, :, column] = 1.0
    return tuple(maps)


def _blocks(far: int) -> Maps:
    """One pixel amid nine, and `far` others at a distance; the rest of the nine lie close by."""
    a, b = torch.zeros(2, 1, 12, 12)
    a[0, 0, :far] = 1.0
    a[0, 5, 4] = 1.0
    a[0, 6, 3 : 3 + 8 - far] = 1.0
    b[0, 4:7, 3:6] = 1.0
    return a, b


def _over(a: Tensor, b: Tensor, k: int, window: int, shifts: list[tuple[int, int]]) -> Tensor:
    moved = [metrics.lens_recall(a, b.roll(s, (1, 2)), k=k, window=window) for s in shifts]
    return torch.stack(moved).mean(0)


def _area(a: Tensor, k: int, window: int) -> Tensor:
    return metrics.dilate(metrics.topk_mask(a, k=k), window=window).float().mean((1, 2))


def _all(b: Tensor) -> list[tuple[int, int]]:
    return [(p, q) for p in range(b.shape[1]) for q in range(b.shape[2])]


def _near(a: Tensor, b: Tensor, k: int, window: int) -> Tensor:
    """Who of a's top pixels (rows) is near whom of b's (columns)."""
    first, second = (metrics.topk_mask(m[None], k=k)[0].nonzero() for m in (a, b))
    return (first[:, None] - second[None]).abs().amax(-1) <= window


def _greedy(a: Tensor, b: Tensor, k: int, window: int) -> float:
    """Each pixel in order takes the first partner that is free."""
    near, pairs = _near(a, b, k, window), 0
    for row in near:
        free = row.nonzero().flatten()
        if len(free):
            near[:, free[-1]] = False
            pairs += 1
    return pairs / k


WRONG = {
    "left": [
        lambda side, columns: (side - columns) / side,
        lambda side, columns: max(0, side - columns),
        lambda side, columns: max(0, side - columns) ** 2 / side**2,
    ],
    "matched": [
        lambda a, b, k, window: _near(a, b, k, window).any(0).float().mean().item(),
        lambda a, b, k, window: _near(a, b, k, window).any(1).float().mean().item(),
        lambda a, b, k, window: _near(a, b, k, window).float().sum().item() / k,
        _greedy,
    ],
    "largest-window": [
        lambda k, pixels: int(((pixels / (2 * k)) ** 0.5 - 1) / 2) + 1,
        lambda k, pixels: int(((pixels / k) ** 0.5 - 1) / 2),
        lambda k, pixels: max(w for w in range(50) if w == 0 or 2 * k * (2 * w + 1) ** 2 < pixels),
        lambda k, pixels: 0,
    ],
    "grow": [
        lambda mask, window: _wrapped(mask, window),
        lambda mask, window: _pool(mask, 2 * window + 1, window),
        lambda mask, window: mask,
        lambda mask, window: _pool(mask, 4 * window + 1, 2 * window) > 0,
    ],
    "lopsided": [
        lambda: tuple(reversed(_blocks(8))),
        lambda: _blocks(4),
        lambda: (torch.rand(1, 9, 9), torch.rand(1, 9, 8)),
        lambda: torch.zeros(1, 9, 9),
    ],
    "broken-triangle": [
        lambda k, window: _columns(k, 2 * window + 1, 0, window - 1, 2 * window - 1),
        lambda k, window: _columns(k, 2 * window + 3, 0, window + 1, 2 * window + 2),
        lambda k, window: _columns(k, 2 * window + 1, 0, window, window),
        lambda k, window: _columns(k, 2 * window + 1, 0, window),
    ],
    "over-shifts": [
        lambda a, b, k, window: _over(a, b, k, window, [(p, 0) for p in range(b.shape[1])]),
        lambda a, b, k, window: _over(a, b, k, window, _all(b)[1:]),
        lambda a, b, k, window: _over(b, a, k, window, _all(b)),
        lambda a, b, k, window: metrics.lens_recall(a, b, k=k, window=window),
        lambda a, b, k, window: _area(a, k, window),
    ],
}
