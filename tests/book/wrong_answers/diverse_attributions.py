"""Wrong answers to the exercises of the chapter on diverse attributions: at least three for each."""

import torch
from torch import Tensor, nn

from attrlib.maps import diverse_topk, topk_mask


def _greedy(h: Tensor, k: int, w: int, *, stop: bool, wrap: bool) -> list[tuple[int, int]]:
    left, picks = h.clone(), []
    for _ in range(k):
        if stop and left.max() == -torch.inf:
            break
        row, column = divmod(int(left.argmax()), h.shape[1])
        picks.append((row, column))
        for i in range(row - w, row + w + 1):
            for j in range(column - w, column + w + 1):
                at = i * h.shape[1] + j
                inside = 0 <= i < h.shape[0] and 0 <= j < h.shape[1]
                if inside or (wrap and 0 <= at < h.numel()):
                    left.view(-1)[at] = -torch.inf
    return picks


def _in_place(h: Tensor, k: int, w: int) -> list[tuple[int, int]]:
    picks = _greedy(h, k, w, stop=True, wrap=False)
    h.zero_()
    return picks


def _by_row(h: Tensor, k: int, w: int) -> list[tuple[int, ...]]:
    return [tuple(place) for place in diverse_topk(h[None], k=k, window=w)[0].nonzero().tolist()]


def _widest(height: int, width: int, k: int, step: int) -> int:
    w = -1
    while (height // (step * (w + 1) + 1)) * (width // (step * (w + 1) + 1)) >= k:
        w += 1
    return w


def _most(height: int, width: int, k: int) -> int:
    w = -1
    while -(-height // (w + 2)) * -(-width // (w + 2)) >= k and w < max(height, width):
        w += 1
    return w


def _peaks(height: int, width: int, w: int, start: int, step: int) -> Tensor:
    h = torch.zeros(height, width)
    h[start::step, start::step] = 1.0
    return h


@torch.no_grad()
def _curve(
    model: nn.Module, x: Tensor, y: Tensor, h: Tensor, counts: list[int], *, keep: bool, logit: bool
) -> Tensor:
    curve = []
    for count in counts:
        top = topk_mask(h, k=count) if count else torch.zeros_like(h, dtype=torch.bool)
        scores = model(x * (top if keep else ~top)[:, None])
        curve.append((scores if logit else scores.softmax(1)).gather(1, y[:, None])[:, 0])
    return torch.stack(curve, dim=1)


WRONG = {
    "greedy": [
        lambda h, k, w: _greedy(h, k, 0, stop=True, wrap=False),
        lambda h, k, w: _greedy(h, k, w, stop=False, wrap=False),
        lambda h, k, w: _greedy(h, k, w, stop=True, wrap=True),
        _in_place,
        _by_row,
        lambda h, k, w: diverse_topk(h[None], k=k, window=w),
    ],
    "widest": [
        _most,
        lambda height, width, k: _widest(height, width, k, 2),
        lambda height, width, k: _widest(height, width, k, 1),
        lambda height, width, k: 1,
    ],
    "stingy": [
        lambda height, width, w: torch.ones(height, width),
        lambda height, width, w: _peaks(height, width, w, 0, 2 * w + 1),
        lambda height, width, w: _peaks(height, width, w, w, 2 * w + 1),
        lambda height, width, w: torch.zeros(width, height),
    ],
    "region-shares": [
        lambda mask, regions: (mask[:, None] & regions).double().mean((2, 3)),
        lambda mask, regions: (mask[:, None] & regions).flatten(2).sum(2) / mask.sum(),
        lambda mask, regions: (
            (mask[:, None] & regions).flatten(2).sum(2) / regions.flatten(2).sum(2)
        ),
        lambda mask, regions: regions.double().mean((2, 3)),
    ],
    "deletion-curve": [
        lambda *args: _curve(*args, keep=True, logit=False),
        lambda *args: _curve(*args, keep=False, logit=True),
        lambda *args: _curve(*args, keep=False, logit=False).T,
        lambda model, x, y, h, counts: _curve(model, x, y, -h, counts, keep=False, logit=False),
    ],
}
