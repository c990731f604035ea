"""Checks of the chapter "Kendall and cosine"."""

import math

import torch
from scipy import stats
from torch import Tensor

from attrlib import metrics
from attrlib.book._exercises import expect, expect_close, run, wrong


def fooling_pair(answer: object) -> str:
    """`fooling_pair(n)` returns two vectors with a cosine above 0.99 and a negative tau."""
    hint = "Give both the same huge entry, and reverse the order of all others."
    for n in (10, 101):
        tried = f"fooling_pair({n})"
        got = run(answer, n, tried=tried, hint=hint)
        two = isinstance(got, tuple | list) and len(got) == 2
        expect(two, tried=tried, expected="two vectors", got=type(got).__name__, hint=hint)
        assert isinstance(got, tuple | list)
        a, b = (torch.as_tensor(v).detach().double() for v in got)
        shape = f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
        right = a.shape == b.shape == (n,)
        expect(right, tried=tried, expected=f"{n} numbers each", got=shape, hint=hint)
        fair = all(bool((v > 0).all()) and len(set(v.tolist())) == n for v in (a, b))
        expect(fair, tried=tried, expected="positive, no ties", got="others", hint=hint)
        cosine = metrics.cosine(a[None], b[None]).item()
        tau = float(stats.kendalltau(a.numpy(), b.numpy()).statistic)
        facts = f"cosine {cosine:.4f}, tau {tau:.3f}"
        good = cosine > 0.99 and tau < 0
        expect(good, tried=tried, expected="cosine > 0.99, tau < 0", got=facts, hint=hint)
    return "A score near 1 says something about the large entries only."


def unchanged(answer: object) -> str:
    """`unchanged` names, for four changes of two heatmaps, the scores that never change."""
    hint = "Try it: draw two random heatmaps, change them, and compare each score before and after."
    generator = torch.Generator().manual_seed(0)
    a, b = 0.1 + torch.rand(2, 5, 6, 6, generator=generator, dtype=torch.float64)
    order = torch.randperm(36, generator=generator)
    shuffled = tuple(m.flatten(1)[:, order].view_as(m) for m in (a, b))
    changes = {
        "3 * b": (a, 3 * b),
        "b + 1": (a, b + 1),
        "b ** 3": (a, b**3),
        "both shuffled": shuffled,
    }
    if not isinstance(answer, dict):
        kind = type(answer).__name__
        wrong(tried="the type", expected="a dictionary", got=kind, hint=hint)
    before = _scores(a, b)
    for name, pair in changes.items():
        after = _scores(*pair)
        right = {key for key in before if torch.allclose(before[key], after[key])}
        got = answer.get(name)
        same = isinstance(got, set | frozenset | list | tuple) and set(got) == right
        expect(same, tried=f"{name!r}", expected="another set of scores", got=got, hint=hint)
    return "Adding a constant or taking a power leaves only the rank-based scores alone."


def erf_tau(answer: object) -> str:
    """`erf_tau(a, angle)` is the mean of erf(|r_i - r_j| / (2 tan angle)) over all pairs."""
    hint = "Divide by the root mean square, take all |r_i - r_j|, divide by 2 tan(angle)."
    for angle in (0.2, 1.0):
        a = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        r = 3 * a / (3 * a).square().mean().sqrt()
        i, j = torch.triu_indices(40, 40, 1)
        value = torch.erf((r[i] - r[j]).abs() / (2 * math.tan(angle))).mean()
        tried = f"40 normal entries times 3, angle={angle}"
        got = run(answer, 3 * a, angle, tried=tried, hint=hint)
        expect_close(got, value, tried=tried, hint=hint)
    return "The number of pixels is gone: only the distribution of the entries is left."


def ceiling_b(answer: object) -> str:
    """`ceiling_b(a)` is the largest tau-b between a and a map without ties."""
    hint = "Count the tied pairs T of every value, not of 0 alone; the answer is sqrt(1 - T / N)."
    for a in ([0.0, 0, 0, 1, 2, 3], [1.0, 1, 2, 2, 2, 5, 7, 7], [4.0, 3, 2, 1]):
        # The best partner keeps every order and breaks the ties.
        best = stats.kendalltau(a, stats.rankdata(a, method="ordinal")).statistic
        tried = f"a = {a}"
        got = run(answer, torch.tensor(a), tried=tried, hint=hint)
        if isinstance(got, Tensor):
            got = got.double()
        wanted = torch.tensor(float(best), dtype=torch.float64)
        expect_close(got, wanted, tried=tried, hint=hint)
    return "SciPy agrees, with a partner that keeps every order and breaks the ties."


def certain_share(answer: object) -> str:
    """`certain_share(a, angle)` is the share of pairs that no map at this angle can reverse."""
    hint = "Normalise a; a pair is safe if its gap is at least sqrt(2) times sin(angle)."
    a = torch.tensor([4.0, 2.0, 1.0, 0.0, -2.0], dtype=torch.float64)
    e = a / a.norm()
    for angle in (0.1, 0.3, 0.6):
        i, j = torch.triu_indices(5, 5, 1)
        # At the extreme the second map lies in the plane of a and the pair.
        w = torch.zeros(len(i), 5, dtype=torch.float64)
        rows = torch.arange(len(i))
        w[rows, i], w[rows, j] = 1.0, -1.0
        along = (w @ e)[:, None] * e
        worst = math.cos(angle) * (w @ e).abs() - math.sin(angle) * (w - along).norm(dim=1)
        tried = f"a = {a.tolist()}, angle={angle}"
        got = run(answer, a, angle, tried=tried, hint=hint)
        if isinstance(got, Tensor):
            got = got.double()
        expect_close(got, (worst >= 0).double().mean(), tried=tried, hint=hint)
    return "Checked against the worst map of each pair."


def _scores(a: Tensor, b: Tensor) -> dict[str, Tensor]:
    return {
        "l2": (a - b).flatten(1).norm(dim=1),
        "cosine": metrics.cosine(a, b),
        "kendall": metrics.kendall(a, b),
        "top-k": metrics.topk_intersection(a, b, k=9),
    }
