"""Wrong answers to the exercises of the chapter beyond images: at least three for each."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor


def _share(a: Tensor, b: Tensor, k: int) -> float:
    return len(set(a.topk(k).indices.tolist()) & set(b.topk(k).indices.tolist())) / k


def _swaps(
    sentence: tuple[str, ...], substitutes: Mapping[str, Sequence[str]]
) -> list[tuple[str, ...]]:
    return [
        (*sentence[:i], other, *sentence[i + 1 :])
        for i, word in enumerate(sentence)
        for other in substitutes.get(word, [])
    ]


def _first_place(
    score: Callable[[tuple[str, ...]], float],
    sentence: tuple[str, ...],
    substitutes: Mapping[str, Sequence[str]],
) -> tuple[str, ...]:
    """Every place at once, not one."""
    for i, word in enumerate(sentence):
        options = [
            (*sentence[:i], w, *sentence[i + 1 :]) for w in (word, *substitutes.get(word, []))
        ]
        sentence = min(options, key=score)
    return sentence


WRONG = {
    "word-score": [
        lambda vectors, slopes: (vectors * slopes).abs().sum(0),
        lambda vectors, slopes: (vectors * slopes).mean(0),
        lambda vectors, slopes: (vectors * slopes).sum(1),
        lambda vectors, slopes: slopes.sum(0),
    ],
    "shared-top": [
        lambda a, b, words, k: _share(a, b, k),
        lambda a, b, words, k: _share(a * words, b * words, k),
        lambda a, b, words, k: _share(a[words], b[words], k) * k,
        lambda a, b, words, k: _share(a[words].abs(), b[words].abs(), k),
    ],
    "sentences-within": [
        lambda counts, budget: sum(counts),
        lambda counts, budget: math.prod(c + 1 for c in counts) - 1,
        lambda counts, budget: sum(math.prod(c) for c in itertools.combinations(counts, budget)),
        lambda counts, budget: sum(counts) ** budget,
    ],
    "best-swap": [
        lambda score, sentence, substitutes: max(
            [sentence, *_swaps(sentence, substitutes)], key=score
        ),
        lambda score, sentence, substitutes: min(_swaps(sentence, substitutes), key=score),
        _first_place,
        lambda score, sentence, substitutes: score(
            min([sentence, *_swaps(sentence, substitutes)], key=score)
        ),
    ],
    "widths": [
        lambda vectors, weights: (
            ((vectors.amax(0) - vectors.amin(0)) * weights).sum(),
            (vectors @ weights).max() - (vectors @ weights).min(),
        ),
        lambda vectors, weights: (
            (vectors @ weights).max() - (vectors @ weights).min(),
            ((vectors.amax(0) - vectors.amin(0)) * weights.abs()).sum(),
        ),
        lambda vectors, weights: (
            ((vectors.amax(0) - vectors.amin(0)) * weights.abs()).sum(),
            (vectors @ weights).max(),
        ),
        lambda vectors, weights: torch.zeros(2),
    ],
}
