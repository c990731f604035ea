"""Wrong answers to the exercises of the chapter that compares all recipes."""

from collections.abc import Sequence
from itertools import combinations

from pandas import Series
from scipy import stats

Ends = Sequence[float]
Goods = Sequence[tuple[float, ...]]


def _ranks(low: Ends, high: Ends) -> list[tuple[int, int]]:
    """Open ranks where 1 is the smallest value."""
    n = len(low)
    first = [1 + sum(end < bottom for end in high) for bottom in low]
    last = [n - sum(end > top for end in low) for top in high]
    return list(zip(first, last, strict=True))


def _by_means(low: Ends, high: Ends) -> list[tuple[int, int]]:
    means = [a + b for a, b in zip(low, high, strict=True)]
    places = [1 + sum(other > mean for other in means) for mean in means]
    return [(place, place) for place in places]


def _tau(first: Ends, second: Ends, *, drop: bool = False, alone: bool = False) -> float:
    pairs = list(combinations(range(len(first)), 2))
    products = [(first[i] - first[j]) * (second[i] - second[j]) for i, j in pairs]
    same = sum(p > 0 for p in products)
    other = 0 if alone else sum(p < 0 for p in products)
    return (same - other) / (sum(p != 0 for p in products) if drop else len(pairs))


def _front(goods: Goods, *, strict: bool) -> list[int]:
    """Those that no other one exceeds in every entry, or that are best in some entry."""
    kept = []
    for place, mine in enumerate(goods):
        if strict:
            beaten = any(all(a > b for a, b in zip(o, mine, strict=True)) for o in goods)
        else:
            beaten = not any(mine[k] == max(o[k] for o in goods) for k in range(len(mine)))
        if not beaten:
            kept.append(place)
    return kept


def _seeds(spread: float, gap: float, cases: int, *, each: int = 2, side: float = 0.025) -> int:
    n = 2
    while True:
        reach = stats.t.ppf(1 - side / cases, each * (n - 1)) * spread * (2 / n) ** 0.5
        if reach < gap:
            return n
        n += 1


def _regret(used: Series, wanted: Series) -> float:
    return float(used.max() - wanted[used.idxmax()])


WRONG = {
    "open-ranks": [
        _ranks,
        _by_means,
        lambda low, high: [(1, len(low)) for _ in low],
        lambda low, high: [first for first, _ in _by_means(low, high)],
    ],
    "order-tau": [
        lambda first, second: _tau(first, second, drop=True),
        lambda first, second: _tau(first, second, alone=True),
        lambda first, second: -_tau(first, second),
        lambda first, second: float(stats.pearsonr(first, second).statistic),
    ],
    "not-beaten": [
        lambda goods: _front(goods, strict=True),
        lambda goods: [k for k, mine in enumerate(goods) if sum(mine) == max(map(sum, goods))],
        lambda goods: [goods[0]],
        lambda goods: list(range(len(goods))),
    ],
    "regret": [
        _regret,
        lambda used, wanted: float(wanted.max() - wanted[used.idxmin()]),
        lambda used, wanted: float(used.max() - used[wanted.idxmax()]),
        lambda used, wanted: float(wanted[used.idxmax()]),
    ],
    "seeds-needed": [
        lambda spread, gap, cases: _seeds(spread, gap, 1),
        lambda spread, gap, cases: _seeds(spread, gap, cases, each=1),
        lambda spread, gap, cases: _seeds(spread, gap, cases, side=0.05),
        lambda spread, gap, cases: _seeds(spread, gap, cases) - 1,
    ],
}
