"""Wrong answers to the exercises of the chapter about large images."""

from math import ceil, factorial


def _scaled(k: int, window: int, side: int, other: int, *, area: int, length: int) -> object:
    ratio = other / side
    return max(1, round(k * ratio**area)), round(window * ratio**length)


def _unsplit(devices: int, alone: float) -> float:
    return 1 / (alone + (1 - alone) / devices)


def _most(alone: float) -> float:
    return 1 / alone


WRONG = {
    "scaled": [
        lambda *words: _scaled(*words, area=1, length=1),
        lambda *words: _scaled(*words, area=2, length=2),
        lambda *words: _scaled(*words, area=2, length=0),
        lambda k, w, s, o: (round(k * (o / s) ** 2), round(w * o / s)),
    ],
    "rows-that-fit": [
        lambda memory, numbers, reserve: int(memory * (1 - reserve) // (4 * numbers)),
        lambda memory, numbers, reserve: int(memory * reserve // (8 * numbers)),
        lambda memory, numbers, reserve: memory * (1 - reserve) / (8 * numbers),
        lambda memory, numbers, reserve: round(memory * (1 - reserve) / (8 * numbers)),
        lambda memory, numbers, reserve: ceil(memory * (1 - reserve) / (8 * numbers)),
        lambda memory, numbers, reserve: max(1, int(memory * (1 - reserve) // (8 * numbers))),
    ],
    "chance-of": [
        lambda tau, n: 1 / factorial(n),
        lambda tau, n: (1 - tau) / 2,
        lambda tau, n: 0.5**n,
    ],
    "speedup": [
        (lambda devices, alone: devices * (1 - alone), _most),
        (_unsplit, lambda alone: 1 / (1 - alone)),
        (lambda devices, alone: alone + (1 - alone) / devices, _most),
        (_unsplit, lambda alone: float("inf")),
    ],
}
