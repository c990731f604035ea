"""Checks of the chapter "Do the claims hold?"."""

import torch

from attrlib.book._exercises import expect, expect_close, run


def count_cases(answer: object) -> str:
    """`count_cases(low, high, threshold)` returns the numbers of clear, failed and open cases."""
    hint = "Clear: the lower end is above. Failed: the upper end is not above. Open: neither."
    tries = {
        ((0.2, 0.1), (0.4, 0.3), 0.05): (2, 0, 0),
        ((0.2, -0.1, 0.0), (0.4, 0.0, 0.3), 0.1): (1, 1, 1),
        ((0.5, 0.1), (0.5, 0.5), 0.5): (0, 2, 0),
        ((-0.3,), (-0.1,), -0.2): (0, 0, 1),
    }
    for (low, high, level), right in tries.items():
        tried = f"count_cases({list(low)}, {list(high)}, {level})"
        got = run(answer, list(low), list(high), level, tried=tried, hint=hint)
        same = isinstance(got, tuple | list) and [int(k) for k in got] == list(right)
        expect(same, tried=tried, expected=str(right), got=got, hint=hint)
    return "An open case asks for more data, a failed one for another sentence."


def holds_at(answer: object) -> str:
    """`holds_at(lows, thresholds)` returns how many claims hold at each threshold."""
    hint = "Take the smallest lower end of each claim; it must be above the threshold."
    lows = [[0.3, 0.2], [0.1, 0.6, 0.4], [-0.1], [0.2]]
    levels = [-0.5, 0.0, 0.1, 0.2, 0.7]
    tried = f"holds_at({lows}, {levels})"
    got = run(answer, lows, levels, tried=tried, hint=hint)
    right = [4, 3, 2, 0, 0]
    same = isinstance(got, list | tuple) and [int(k) for k in got] == right
    expect(same, tried=tried, expected=str(right), got=got, hint=hint)
    return "Each case more makes a claim harder to hold, as it should."


def all_at_once(answer: object) -> str:
    """`all_at_once(values, cases)` returns an interval that is fair for many cases."""
    hint = "Divide the 0.025 of each side by the number of cases; use n - 1 degrees of freedom."
    tries = {
        ((1.0, 2.0, 3.0), 1): (-0.484138, 4.484138),
        ((1.0, 2.0, 3.0), 10): (-6.134315, 10.134315),
        ((0.0, 0.1, 0.1, 0.2, 0.1), 40): (-0.156829, 0.356829),
    }
    for (values, cases), right in tries.items():
        tried = f"all_at_once(torch.tensor({list(values)}), {cases})"
        got = run(answer, torch.tensor(values), cases, tried=tried, hint=hint)
        two = isinstance(got, tuple | list) and len(got) == 2
        expect(two, tried=tried, expected="two ends", got=got, hint=hint)
        assert isinstance(got, tuple | list)
        ends = torch.tensor([float(end) for end in got])
        expect_close(ends, torch.tensor(right), tried=tried, hint=hint, tolerance=1e-4)
    return "Ten times as many cases cost three seeds about three times the width."


def true_lead(answer: object) -> str:
    """`true_lead(attacked, certified)` returns the least and the largest true difference."""
    hint = "Least: what is proved for the method, less what the attack leaves of the baseline."
    tries = {
        ((0.85, 0.13), (0.8, 0.0)): (0.67, 0.85),
        ((0.7, 0.6), (0.1, 0.2)): (-0.5, 0.5),
    }
    for (attacked, certified), right in tries.items():
        tried = f"true_lead({attacked}, {certified})"
        got = run(answer, attacked, certified, tried=tried, hint=hint)
        two = isinstance(got, tuple | list) and len(got) == 2
        expect(two, tried=tried, expected="two numbers", got=got, hint=hint)
        assert isinstance(got, tuple | list)
        ends = torch.tensor([float(end) for end in got])
        expect_close(ends, torch.tensor(right), tried=tried, hint=hint)
    return "Without a certificate of the method, no attack can make its lead safe."
