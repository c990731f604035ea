"""What the speed table compares is the same: the sets in NumPy are those of the package."""

import numpy as np
import pytest
import torch

from attrlib import metrics
from tests import lens_oracles, oracles
from tests.speed import Case, measure


@pytest.mark.parametrize("window", [0, 1, 3])
@pytest.mark.parametrize("k", [1, 10, 144])
def test_numpy_finds_the_same_sets(k: int, window: int) -> None:
    a, b = (oracles.images(2, size=12, seed=seed)[:, 0] for seed in (1, 2))
    a[1] = (3 * a[1]).round()  # with ties
    diverse = metrics.diverse_topk(a, k=k, window=window).numpy()
    recall = metrics.lens_recall(a, b, k=k, window=window)
    for heat, other, mask, value in zip(a.numpy(), b.numpy(), diverse, recall, strict=True):
        for way in (lens_oracles.numpy_diverse_topk, lens_oracles.sorted_diverse_topk):
            np.testing.assert_array_equal(way(heat, k, window), mask)
        assert lens_oracles.numpy_lens_recall(heat, other, k, window) == pytest.approx(float(value))


def test_half_the_work_takes_half_the_time() -> None:
    def work(times: int) -> float:
        return sum(float(torch.ones(300, 300).cumsum(0).sum()) for _ in range(times))

    case = Case("half", 1, lambda: work(20), ("whole", lambda: work(40)), limit=0.75)
    row = measure(case, device=torch.device("cpu"), repeats=7)
    assert 0.3 < row.ratio_bare < 0.7
    assert row.verdict == "pass"
    assert row._replace(limit=0.1).verdict == "FAIL"
