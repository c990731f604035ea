"""Checks of the chapter "Beyond images"."""

import itertools
import math

import torch

from attrlib.book._exercises import expect, expect_close, expect_number, run


def word_score(answer: object) -> str:
    """`word_score(vectors, slopes)` is the inner product of both in each column."""
    hint = "Multiply entry by entry, and add up over the channels, with their signs."
    generator = torch.Generator().manual_seed(0)
    small = torch.tensor([[2.0, 1.0], [-3.0, 0.0]]), torch.tensor([[1.0, -1.0], [1.0, 5.0]])
    large = torch.randn(2, 16, 7, generator=generator).double().unbind()
    for name, (vectors, slopes) in {"two words": small, "seven words": large}.items():
        got = run(answer, vectors, slopes, tried=name, hint=hint)
        expect_close(got, (vectors * slopes).sum(0), tried=name, hint=hint)
    return "No rotation of the channels changes it."


def shared_top(answer: object) -> str:
    """`shared_top(a, b, words, k)` is the share of the k highest words of both maps, without padding."""
    hint = "Cut both maps to the words first: a zero of the padding is above a negative score."
    words = torch.tensor([True, True, True, True, False, False])
    a = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0, 0.0])
    for name, first, second, k, right in (
        ("all positive, k = 2", a, torch.tensor([4.0, 1.0, 3.0, 2.0, 0.0, 0.0]), 2, 0.5),
        ("all negative, k = 2", a - 9 * words, torch.tensor([-1.0, -2, -4, -3, 0, 0]), 2, 1.0),
        ("all negative, k = 1", -a, torch.tensor([-1.0, -2.0, -4.0, -3.0, 0.0, 0.0]), 1, 0.0),
        (
            "signs mixed, k = 1",
            torch.tensor([-8.0, 3, 2, 1, 0, 0]),
            torch.tensor([-9.0, 1, -2, 5, 0, 0]),
            1,
            0.0,
        ),
        ("k = 3", a, a.flip(0).roll(4), 3, 2 / 3),
    ):
        got = run(answer, first, second, words, k, tried=name, hint=hint)
        expect_number(got, right, tried=name, hint=hint)
    return "This is topk_intersection inside OnWords."


def sentences_within(answer: object) -> str:
    """`sentences_within(counts, budget)` counts the other sentences within a budget of words."""
    hint = "For each choice of 1 to budget places, the product of the counts there."
    for counts, budget in (([2, 3], 1), ([2, 3], 2), ([1, 0, 4, 2], 2), ([5, 1, 2, 3], 3)):
        tried = f"counts={counts}, budget={budget}"
        right = sum(
            math.prod(chosen)
            for size in range(1, budget + 1)
            for chosen in itertools.combinations(counts, size)
        )
        got = run(answer, list(counts), budget, tried=tried, hint=hint)
        expect(got == right, tried=tried, expected=str(right), got=got, hint=hint)
    return "It is what AllSynonyms.evaluations says before anything is tried."


def best_swap(answer: object) -> str:
    """`best_swap(score, sentence, substitutes)` is the lowest sentence within one swap."""
    hint = "Try each synonym in each place, one at a time; the sentence itself is a candidate, too."
    substitutes = {"good": ["fine", "nice"], "film": ["movie"], "bad": ["poor"]}
    values = {"good": 3, "fine": 2, "nice": 4, "film": 2, "movie": 0, "bad": 1, "poor": 5, "a": 1}

    def score(sentence: tuple[str, ...]) -> int:
        return sum((place + 1) * values[word] for place, word in enumerate(sentence))

    for sentence, right in (
        (("a", "good", "film"), ("a", "good", "movie")),
        (("film", "a", "good"), ("film", "a", "fine")),
        (("a", "bad", "a"), ("a", "bad", "a")),
        (("good", "film", "good"), ("good", "movie", "good")),
    ):
        tried = " ".join(sentence)
        got = run(answer, score, sentence, substitutes, tried=tried, hint=hint)
        expect(got == right, tried=tried, expected=str(right), got=got, hint=hint)
    return "With replaced words locked and the answer kept, repeating it is the greedy search."


def widths(answer: object) -> str:
    """`widths(vectors, weights)` is the width of the products over the hull, and over the set."""
    hint = "Over the hull: width of each channel times |weight|, added up. Over the set: max - min."
    for name, vectors, weights, hull, whole in (
        ("weights (1, -1)", [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], [1.0, -1.0], 3.0, 3.0),
        ("weights (1, 1)", [[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], [1.0, 1.0], 3.0, 1.0),
        ("weights (-2, 3)", [[-1.0, 0.5], [2.0, 1.5]], [-2.0, 3.0], 9.0, 3.0),
    ):
        got = run(answer, torch.tensor(vectors), torch.tensor(weights), tried=name, hint=hint)
        pair = got if isinstance(got, tuple | list) else ()
        right = torch.tensor([hull, whole])
        numbers = torch.stack([torch.as_tensor(v).float() for v in pair]) if len(pair) else got
        expect_close(numbers, right, tried=name, hint=hint)
    return "The set is never wider, and the certificate uses it column by column."
