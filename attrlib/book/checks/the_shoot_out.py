"""Checks of the chapter "The shoot-out"."""

from collections.abc import Sequence

import pandas as pd

from attrlib.book._exercises import expect, expect_number, run


def open_ranks(answer: object) -> str:
    """`open_ranks(low, high)` returns the first and last rank that each interval leaves open."""
    hint = (
        "First: one more than the lower ends above mine. Last: all, less the upper ends below mine."
    )
    tries: list[tuple[list[float], list[float], list[tuple[int, int]]]] = [
        ([0.70, 0.75, 0.20], [0.80, 0.90, 0.30], [(1, 2), (1, 2), (3, 3)]),
        ([0.1, 0.2, 0.3, 0.4], [0.15, 0.35, 0.38, 0.5], [(4, 4), (2, 3), (2, 3), (1, 1)]),
        ([0.0, 0.5, 0.8], [1.0, 0.6, 0.9], [(1, 3), (2, 3), (1, 2)]),
    ]
    for low, high, right in tries:
        tried = f"open_ranks({low}, {high})"
        got = run(answer, list(low), list(high), tried=tried, hint=hint)
        expect(_pairs(got) == right, tried=tried, expected=str(right), got=got, hint=hint)
    return "Rank 1 is open to everybody who is not surely behind somebody."


def order_tau(answer: object) -> str:
    """`order_tau(first, second)` returns Kendall's tau; a tied pair counts as neither."""
    hint = "Add 1 for a pair in the same order and -1 for one reversed; divide by all pairs."
    tries: list[tuple[list[float], list[float], float]] = [
        ([4, 3, 2, 1], [4, 2, 3, 1], 4 / 6),
        ([1, 2, 3], [0.3, 0.2, 0.1], -1.0),
        ([1, 1, 2, 5], [3, 4, 7, 7], 4 / 6),
        ([0.1, 10.0, 0.2, 0.3, 0.4], [1, 2, 5, 4, 3], -0.2),
    ]
    for first, second, right in tries:
        tried = f"order_tau({first}, {second})"
        got = run(answer, list(first), list(second), tried=tried, hint=hint)
        expect_number(got, right, tried=tried, hint=hint)
    return "With ties, tau_b divides by less: only by pairs that both lists could order."


def not_beaten(answer: object) -> str:
    """`not_beaten(goods)` returns the places of the tuples that no other one beats."""
    hint = "Another beats mine if it is at least as good in every entry and not the same."
    tries: list[tuple[list[tuple[float, ...]], list[int]]] = [
        ([(0.91, 0.8), (0.90, 0.85), (0.85, 0.7)], [0, 1]),
        ([(1, 2, 3), (1, 2, 4), (3, 0, 0), (2, 0, 0)], [1, 2]),
        ([(0.5, 0.5), (0.5, 0.5), (0.4, 0.5)], [0, 1]),
    ]
    for goods, right in tries:
        tried = f"not_beaten({goods})"
        got = run(answer, list(goods), tried=tried, hint=hint)
        places = list(got) if isinstance(got, Sequence | set) else []
        same = all(isinstance(k, int) for k in places) and sorted(places) == right
        expect(same, tried=tried, expected=str(right), got=got, hint=hint)
    return "Two that are equal in everything beat neither each other nor themselves."


def regret(answer: object) -> str:
    """`regret(used, wanted)` returns what choosing by the wrong score loses."""
    hint = "Choose by `used`, look the choice up in `wanted`, and take it from the largest wanted."
    names = ["a", "b", "c"]
    tries = [
        ([0.9, 0.8, 0.7], [0.2, 0.5, 0.4], 0.3),
        ([0.1, 0.8, 0.7], [0.2, 0.5, 0.4], 0.0),
        ([-3.0, -2.0, -1.0], [-0.2, -0.5, -0.4], 0.2),
    ]
    for used, wanted, right in tries:
        tried = f"regret({used}, {wanted})"
        series = (pd.Series(used, names), pd.Series(wanted, names))
        got = run(answer, *series, tried=tried, hint=hint)
        expect_number(got, right, tried=tried, hint=hint)
    return "Where the winner is the same, even a poor agreement of the rest costs nothing."


def seeds_needed(answer: object) -> str:
    """`seeds_needed(spread, gap, cases)` returns the least number of seeds that tells two apart."""
    hint = "Use 2n - 2 degrees of freedom and 0.025 / cases; count upwards from 2."
    tries = {
        (0.02, 0.1, 1): 2,
        (0.02, 0.02, 1): 9,
        (0.02, 0.02, 105): 28,
        (0.05, 0.1, 10): 7,
        (0.001, 0.5, 1): 2,
    }
    for (spread, gap, cases), right in tries.items():
        tried = f"seeds_needed({spread}, {gap}, {cases})"
        got = run(answer, spread, gap, cases, tried=tried, hint=hint)
        same = isinstance(got, int) and got == right
        expect(same, tried=tried, expected=str(right), got=got, hint=hint)
    return "A table of recipes pays this price once for each of them."


def _pairs(got: object) -> list[tuple[int, ...]] | None:
    if not isinstance(got, list | tuple):
        return None
    if not all(isinstance(pair, list | tuple) for pair in got):
        return None
    return [tuple(int(rank) for rank in pair) for pair in got]
