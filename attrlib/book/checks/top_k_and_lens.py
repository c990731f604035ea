"""Checks of the chapter "Top-k and LENS"."""

import torch
from torch import Tensor

from attrlib import metrics
from attrlib.book._exercises import expect, expect_close, run, wrong


def left(answer: object) -> str:
    """`left(side, columns)` is the share of columns that a square and the moved square have in common."""
    hint = "They share side - columns of side columns, and none if the square has moved further."
    for side, columns, right in ((2, 1, 0.5), (10, 1, 0.9), (4, 0, 1.0), (4, 4, 0.0), (3, 8, 0.0)):
        tried = f"side={side}, columns={columns}"
        got = run(answer, side, columns, tried=tried, hint=hint)
        expect_close(got, torch.tensor(right), tried=tried, hint=hint)
    return "A square of ten by ten keeps nine tenths; a real map has no such square."


def largest_window(answer: object) -> str:
    """`largest_window(k, pixels)` is the largest w with k (2w + 1)² at most half of the pixels."""
    hint = "Compare 2 * k * (2 * w + 1) ** 2 with pixels; equality still fits."
    for k, pixels, right in ((1000, 50_176, 2), (100, 784, 0), (1, 18, 1), (1, 17, 0), (4, 800, 4)):
        tried = f"k={k} of {pixels} pixels"
        got = run(answer, k, pixels, tried=tried, hint=hint)
        expect(got == right, tried=tried, expected=str(right), got=got, hint=hint)
    return "With that window no map can get more than one half by area alone."


def grow(answer: object) -> str:
    """`grow(mask, window)` is each mask grown by a square window, cut off at the border."""
    mask = torch.rand(3, 6, 8, generator=torch.Generator().manual_seed(0)) > 0.9
    mask[0, 2, 7] = True
    for window in (0, 1, 2):
        tried = f"three masks of 6×8, window={window}"
        hint = "max_pool2d with a side of 2 * window + 1, stride 1 and padding `window`; then > 0."
        got = run(answer, mask, window, tried=tried, hint=hint)
        kind = got.dtype if isinstance(got, Tensor) else type(got).__name__
        expect(kind == torch.bool, tried=tried, expected="a boolean tensor", got=kind, hint=hint)
        assert isinstance(got, Tensor)
        right = metrics.dilate(mask, window=window)
        expect_close(got.float(), right.float(), tried=tried, hint=hint)
    return "Row by row and column by column is faster still: metrics.dilate does that."


def lopsided(answer: object) -> str:
    """`lopsided()` is a pair of heatmaps with recall 1 and precision 1/9 at k = 9, window 1."""
    tried, hint = "k=9, window=1", "One pixel of the first set must serve all nine of the second."
    a, b = _maps(run(answer, tried=tried, hint=hint), 2, tried=tried, hint=hint)
    for score, right in ((metrics.lens_recall, 1.0), (metrics.lens_precision, 1 / 9)):
        got = _scored(score, a, b, k=9, window=1, tried=tried, hint=hint)
        expect(
            abs(got - right) < 1e-6,
            tried=tried,
            expected=f"{score.__name__} {right:.4f}",
            got=f"{got:.4f}",
            hint=hint,
        )
    return "So the bound (2w + 1)² cannot be improved."


def broken_triangle(answer: object) -> str:
    """`broken_triangle(k, window)` is three heatmaps with recall 1, 1 and, from a to c, 0."""
    hint = "Columns of k pixels at 0, window and 2 * window."
    for k, window in ((1, 1), (4, 2), (7, 3)):
        tried = f"k={k}, window={window}"
        got = run(answer, k, window, tried=tried, hint=hint)
        a, b, c = _maps(got, 3, tried=tried, hint=hint)
        for names, one, other, right in (
            ("a, b", a, b, 1.0),
            ("b, c", b, c, 1.0),
            ("a, c", a, c, 0.0),
        ):
            value = _scored(
                metrics.lens_recall, one, other, k=k, window=window, tried=tried, hint=hint
            )
            expect(
                value == right,
                tried=tried,
                expected=f"recall {right:.0f} of {names}",
                got=f"{value:.4f}",
                hint=hint,
            )
    return "Two steps that cost nothing, and everything is lost."


def matched(answer: object) -> str:
    """`matched(a, b, k, window)` is the largest number of one-to-one pairs of near pixels, over k."""
    corners, gathered, path, other = torch.zeros(4, 9, 9)
    corners[[4, 0, 0, 8], [4, 0, 8, 0]] = 1.0
    gathered[[4, 4, 3, 5], [3, 5, 4, 4]] = 1.0
    path[0, [2, 4]] = 1.0
    other[0, [1, 3]] = 1.0  # the first in order may take the partner of the second
    for name, a, b, k, window, right in (
        ("four corners and a cross", corners, gathered, 4, 1, 0.25),
        ("a cross and four corners", gathered, corners, 4, 1, 0.25),
        ("pixels at 2, 4 and at 1, 3", path, other, 2, 1, 1.0),
        ("pixels at 1, 3 and at 2, 4", other, path, 2, 1, 1.0),
        ("pixels at 2, 4 and at 1, 3", path, other, 2, 0, 0.0),
        ("a map and itself", corners, corners, 4, 0, 1.0),
    ):
        tried = f"{name}, k={k}, window={window}"
        hint = (
            "Each pixel may be in one pair only, and the number of pairs is the largest there is."
        )
        got = run(answer, a, b, k, window, tried=tried, hint=hint)
        expect_close(got, torch.tensor(right), tried=tried, hint=hint)
    return "One minus this score obeys the triangle inequality, if the windows add."


def over_shifts(answer: object) -> str:
    """`over_shifts(a, b, k, window)` is LENS-recall averaged over all cyclic shifts of b."""
    a, b = torch.rand(2, 2, 5, 6, generator=torch.Generator().manual_seed(0))
    hint = "Shift b, not a, by 0 to h - 1 rows and 0 to w - 1 columns, and take the mean."
    for k, window in ((3, 1), (6, 0)):
        tried = f"two pairs of 5×6, k={k}, window={window}"
        got = run(answer, a, b, k, window, tried=tried, hint=hint)
        right = metrics.dilate(metrics.topk_mask(a, k=k), window=window).double().mean((1, 2))
        expect_close(got, right, tried=tried, hint=hint)
    a, b = a[:1, :4, :4], torch.zeros(1, 4, 4)
    b[0, 1, 2] = 1.0
    moved = [b.roll((p, q), (1, 2)) for p in range(4) for q in range(4)]
    right = torch.stack([metrics.lens_recall(a, m, k=3, window=1) for m in moved]).mean(0)
    tried = "a map that is zero but for one pixel, 4×4, k=3, window=1"
    hint = "With ties it is not the area: take the mean over the shifts themselves."
    got = run(answer, a, b, 3, 1, tried=tried, hint=hint)
    expect_close(got, right, tried=tried, hint=hint)
    return "It is the area of the windows, exactly, unless ties choose the pixels."


def _maps(got: object, count: int, *, tried: str, hint: str) -> tuple[Tensor, ...]:
    """The reader's heatmaps, all of one shape (1, h, w)."""
    if not isinstance(got, tuple | list) or not all(isinstance(m, Tensor) for m in got):
        wrong(tried=tried, expected=f"{count} heatmaps", got=type(got).__name__, hint=hint)
    shapes = [tuple(m.shape) for m in got]
    right = len(got) == count and len(set(shapes)) == 1 and len(shapes[0]) == 3
    expect(
        right and shapes[0][0] == 1,
        tried=tried,
        expected=f"{count} heatmaps of one shape (1, h, w)",
        got=f"shapes {shapes}",
        hint=hint,
    )
    return tuple(got)


def _scored(
    metric: object, a: Tensor, b: Tensor, *, tried: str, hint: str, **options: int
) -> float:
    """One score of the reader's maps; maps that the metric refuses are a wrong answer."""
    value = run(metric, a, b, tried=tried, hint=hint, **options)
    assert isinstance(value, Tensor)
    return float(value)
