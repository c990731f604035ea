"""Checks of the chapter "Diverse attributions"."""

import torch
from torch import Tensor

from attrlib.book._exercises import expect, expect_close, run
from attrlib.maps import diverse_topk
from attrlib.models import SmallCNN


def greedy(answer: object) -> str:
    """`greedy(h, k, w)` lists up to k picks (row, column), no two within w rows and columns."""
    uneven = torch.tensor([[9.0, 8, 1, 2], [7, 6, 0, 5], [0, 1, 0, 4]])
    ties = torch.ones(2, 4)
    random = torch.rand(9, 7, generator=torch.Generator().manual_seed(0))
    border = torch.tensor([[0.0, 0, 0, 9], [8, 0, 0, 0]])
    cases = {
        "the map of the chapter, k=4, w=1": (uneven, 4, 1, [(0, 0), (1, 3), (2, 1)]),
        "the map of the chapter, k=3, w=0": (uneven, 3, 0, [(0, 0), (0, 1), (1, 0)]),
        "two rows of ones, k=2, w=1": (ties, 2, 1, [(0, 0), (0, 2)]),
        "a peak at the right border, another at the left, k=2, w=1": (
            *(border, 2, 1),
            [(0, 3), (1, 0)],
        ),
        "a random map of 9×7, k=6, w=2": (random, 6, 2, None),
    }
    hint = "Take the argmax, then write -inf into its window, cut off at the border; stop at -inf."
    for tried, (h, k, w, order) in cases.items():
        before = h.clone()
        got = run(answer, h, k, w, tried=tried, hint=hint)
        if order is None:
            places = diverse_topk(h[None], k=k, window=w)[0].nonzero().tolist()
            order = sorted(map(tuple, places), key=lambda place: -float(h[place]))
        try:
            found = [(int(row), int(column)) for row, column in got]  # type: ignore[attr-defined]
        except (TypeError, ValueError):
            found = got  # type: ignore[assignment]
        expect(found == order, tried=tried, expected=str(order), got=got, hint=hint)
        keep = "Work on h.clone()."
        same = bool(torch.equal(h, before))
        expect(same, tried=tried, expected="h left as it was", got="h changed", hint=keep)
    return "The package finds the same picks in rounds, for a whole batch."


def widest(answer: object) -> str:
    """`widest(height, width, k)` is the largest radius at which every map offers k picks, or -1."""
    cases = {
        (28, 28, 100): 1,
        (28, 28, 36): 2,
        (28, 28, 37): 1,
        (224, 224, 1000): 3,
        (10, 30, 12): 2,
        (4, 4, 16): 0,
        (4, 4, 17): -1,
    }
    hint = "ceil(height / (2w + 1)) * ceil(width / (2w + 1)) >= k."
    for (height, width, k), radius in cases.items():
        tried = f"height={height}, width={width}, k={k}"
        got = run(answer, height, width, k, tried=tried, hint=hint)
        expect(got == radius, tried=tried, expected=str(radius), got=got, hint=hint)
    return "On 224×224 pixels a thousand picks are safe up to w = 3."


def stingy(answer: object) -> str:
    """`stingy(height, width, w)` is a heatmap on which the greedy rule finds as few as possible."""
    hint = "Peaks in the middle of blocks of 2w + 1; clamp the last one to the border."
    for height, width, w in ((9, 9, 1), (28, 28, 2), (7, 12, 1), (11, 8, 3), (5, 5, 0)):
        tried = f"height={height}, width={width}, w={w}"
        got = run(answer, height, width, w, tried=tried, hint=hint)
        shaped = isinstance(got, Tensor) and got.shape == (height, width)
        shape = tuple(got.shape) if isinstance(got, Tensor) else type(got).__name__
        want = f"a tensor of shape ({height}, {width})"
        expect(shaped, tried=tried, expected=want, got=shape, hint=hint)
        assert isinstance(got, Tensor)
        found = int(diverse_topk(got[None].double(), k=height * width, window=w).sum())
        fewest = -(-height // (2 * w + 1)) * -(-width // (2 * w + 1))
        expect(found == fewest, tried=tried, expected=f"{fewest} picks", got=found, hint=hint)
    return "A constant map of the same size gives the most picks there can be."


def region_shares(answer: object) -> str:
    """`region_shares(mask, regions)` is the share of each map's picks in each region, (n, r)."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(3, 6, 6, generator=generator) < 0.4
    regions = torch.rand(3, 2, 6, 6, generator=generator) < 0.5
    share = torch.stack(
        [
            torch.stack([mask[i][regions[i, r]].sum() / mask[i].sum() for r in range(2)])
            for i in range(3)
        ]
    )
    tried = "three masks of 6×6 with two regions each"
    hint = "Count the picks in each region and divide by the picks of that map, not by k."
    got = run(answer, mask, regions, tried=tried, hint=hint)
    expect_close(got, share, tried=tried, hint=hint)
    return "Compare these shares with those of picks from noise."


def deletion_curve(answer: object) -> str:
    """`deletion_curve(model, x, y, h, counts)`: probability of y with the top pixels blackened."""
    generator = torch.Generator().manual_seed(0)
    model = SmallCNN(size=8, channels=2, generator=generator)
    x, y = torch.rand(3, 2, 8, 8, generator=generator), torch.tensor([0, 3, 9])
    h, counts = (torch.rand(3, 8, 8, generator=generator) * 4).round(), [0, 1, 10, 64]
    order = h.flatten(1).argsort(dim=1, descending=True, stable=True)
    expected = []
    for count in counts:
        z = x.flatten(2).clone()
        for row, out in enumerate(order[:, :count]):
            z[row, :, out] = 0
        scores = model(z.view_as(x)).detach().softmax(1)
        expected.append(scores.gather(1, y[:, None])[:, 0])
    tried = f"three images of two channels, a heatmap with ties, counts={counts}"
    hint = "Black out topk_mask(h, k=count) in all channels; softmax, then the column of y."
    got = run(answer, model, x, y, h, counts, tried=tried, hint=hint)
    expect_close(got, torch.stack(expected, dim=1), tried=tried, hint=hint)
    return "The area under this curve is the deletion score."
