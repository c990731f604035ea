"""Checks of the chapter "At scale"."""

from itertools import permutations

from scipy import stats

from attrlib.book._exercises import expect, expect_number, run


def scaled(answer: object) -> str:
    """`scaled(k, window, side, other)` returns k and window that mean the same on another side."""
    hint = "k goes with the square of other / side, the window with other / side; k is at least 1."
    tries = {
        (100, 1, 28, 224): (6400, 8),
        (1000, 3, 224, 28): (16, 0),
        (100, 1, 28, 32): (131, 1),
        (10, 3, 224, 28): (1, 0),  # a share of a pixel: at least one is kept
        (10, 4, 100, 25): (1, 1),
    }
    for words, right in tries.items():
        tried = f"scaled{words}"
        got = run(answer, *words, tried=tried, hint=hint)
        same = isinstance(got, tuple | list) and tuple(got) == right
        expect(same, tried=tried, expected=str(right), got=got, hint=hint)
    return "The share of 13 % on a garment is 6,400 pixels of a photograph."


def rows_that_fit(answer: object) -> str:
    """`rows_that_fit(memory, numbers, reserve)` returns how many rows an attack treats at once."""
    hint = "Free memory over 8 bytes a number, rounded down."
    tries = {
        (8e9, 1_000_000, 0.25): 750,
        (1e9, 10_000_000, 0.5): 6,
        (1e6, 1_000_000, 0.0): 0,
        (1e9, 70_000_000, 0.0): 1,  # 1.8 rows fit: the second one does not
        (16e9, 3_000_000, 0.125): 583,
    }
    for words, right in tries.items():
        tried = f"rows_that_fit{words}"
        got = run(answer, *words, tried=tried, hint=hint)
        expect_number(got, right, tried=tried, hint=hint)
    return "Where 0 rows fit, a smaller image or another device is the only way."


def chance_of(answer: object) -> str:
    """`chance_of(tau, n)` returns how likely a random order agrees by at least tau."""
    hint = "Count the permutations whose tau with range(n) is tau or more, and divide by all."
    for tau, n in ((1.0, 4), (2 / 3, 4), (0.0, 3), (-1.0, 3), (0.6, 5)):
        tried = f"chance_of({tau:.3g}, {n})"
        right = _chance(tau, n)
        got = run(answer, tau, n, tried=tried, hint=hint)
        expect_number(got, right, tried=tried, hint=hint)
    return "Full agreement of five has a probability of 1/120, the first below 1 %."


def speedup(answer: object) -> str:
    """The pair of `speedup(devices, alone)` and `most(alone)`."""
    hint = "The new time is alone + (1 - alone) / devices; with many devices, alone."
    pair = isinstance(answer, tuple | list) and len(answer) == 2
    expect(pair, tried="answer", expected="a pair of functions", got=answer, hint=hint)
    assert isinstance(answer, tuple | list)
    for devices, alone in ((8, 0.1), (1, 0.3), (4, 0.5), (100, 0.01)):
        tried = f"speedup({devices}, {alone})"
        right = 1 / (alone + (1 - alone) / devices)
        got = run(answer[0], devices, alone, tried=tried, hint=hint)
        expect_number(got, right, tried=tried, hint=hint)
        got = run(answer[1], alone, tried=f"most({alone})", hint=hint)
        expect_number(got, 1 / alone, tried=f"most({alone})", hint=hint)
    return "The part that stays alone sets the limit, however many devices there are."


def _chance(tau: float, n: int) -> float:
    found = [stats.kendalltau(range(n), order).statistic for order in permutations(range(n))]
    return float(sum(value >= tau - 1e-9 for value in found) / len(found))
