"""Wrong answers to the exercises of the chapter on the ledger of claims."""

from scipy import stats
from torch import Tensor

Ends = tuple[float, float]


def _interval(values: Tensor, level: float, freedom: int) -> Ends:
    reach = stats.t.ppf(level, freedom) * values.std().item() / len(values) ** 0.5
    return values.mean().item() - reach, values.mean().item() + reach


WRONG = {
    "count-cases": [
        lambda low, high, level: (sum(a > level for a in low), sum(a <= level for a in low), 0),
        lambda low, high, level: (sum(b > level for b in high), sum(b <= level for b in high), 0),
        lambda low, high, level: (
            sum(a >= level for a in low),
            sum(b < level for b in high),
            sum(a < level <= b for a, b in zip(low, high, strict=True)),
        ),
        lambda low, high, level: len(low),
    ],
    "holds-at": [
        lambda lows, levels: [sum(max(ends) > k for ends in lows) for k in levels],
        lambda lows, levels: [sum(min(ends) >= k for ends in lows) for k in levels],
        lambda lows, levels: [sum(end > k for ends in lows for end in ends) for k in levels],
        lambda lows, levels: sum(min(ends) > levels[0] for ends in lows),
    ],
    "all-at-once": [
        lambda values, cases: _interval(values, 1 - 0.025, len(values) - 1),
        lambda values, cases: _interval(values, 1 - 0.05 / cases, len(values) - 1),
        lambda values, cases: _interval(values, 1 - 0.025 / cases, len(values)),
        lambda values, cases: _interval(values, 1 - 0.025 / cases, len(values) - 1)[0],
    ],
    "true-lead": [
        lambda attacked, certified: (certified[0] - certified[1], attacked[0] - attacked[1]),
        lambda attacked, certified: (attacked[0] - certified[1], certified[0] - attacked[1]),
        lambda attacked, certified: (attacked[1] - certified[0], certified[1] - attacked[0]),
    ],
}
