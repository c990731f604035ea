"""What the speed tables compare is the same, and what they count is right."""

from pathlib import Path

import numpy as np
import pytest
import torch

from attrlib import metrics
from tests import lens_oracles, oracles
from tests.speed import PARTS, average_cases, cases_of
from tests.speed_certificates import certificate_cases
from tests.speed_measure import Case, Row, fastest, measure, merged, write
from tests.speed_sensitivity import sensitivity_cases
from tests.speed_terms import Multiplications, passes, steps


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


def test_a_case_must_hold_both_limits() -> None:
    row = Row("a", 1, 1.0, "bare", 1.05, 1.1, "theirs", 0.9, 1.0)
    assert row.verdict == "pass"
    assert row._replace(ratio_bare=1.2).verdict == "FAIL"
    assert row._replace(ratio_theirs=1.1).verdict == "FAIL"
    assert row._replace(ratio_theirs=1.1, theirs_limit=None).verdict == "pass"
    assert row._replace(limit=None, theirs_limit=None).verdict == "–"


def test_a_part_that_is_measured_again_replaces_its_rows_alone(tmp_path: Path) -> None:
    path, parts = tmp_path / "speed.csv", ("maps", "sets", "attacks")

    def row(part: str, case: str, milliseconds: float) -> dict[str, object]:
        return {"part": part, "case": case, "milliseconds": milliseconds}

    first = [row("maps", "a", 1.0), row("maps", "b", 2.0), row("attacks", "c", 3.0)]
    assert merged(path, first, parts=parts) == first
    write(path, first)
    write(path, merged(path, [row("maps", "a", 5.0)], parts=parts))  # b is measured no more
    write(path, merged(path, [row("sets", "d", 4.0)], parts=parts))
    assert path.read_text().split() == (
        ["part,case,milliseconds", "maps,a,5.0", "sets,d,4.0", "attacks,c,3.0"]
    )
    other = [{"part": "sets", "case": "d", "seconds": 1.0}]
    with pytest.raises(ValueError, match=r"Expected .* to have the columns of today"):
        merged(path, other, parts=parts)


def test_every_part_has_cases() -> None:
    x = oracles.images(2).float()
    nets = {"28×28": (oracles.softplus_net().float(), x, oracles.labels(2))}
    works = cases_of(nets, batch=2)
    assert list(works) == list(PARTS)
    for case in works["maps"]():
        assert measure(case, device=x.device, repeats=3).batch == 2


def test_the_fastest_is_found() -> None:
    works = {n: lambda n=n: torch.ones(n, n).cumsum(0).sum() for n in (2000, 10, 1000)}
    assert fastest(works, device=torch.device("cpu")) == 10


def test_means_over_points_are_compared_with_the_same_number_of_rows() -> None:
    seen: list[int] = []
    model = oracles.softplus_net()
    model.register_forward_hook(lambda net, args, out: seen.append(len(args[0])))
    x, y = oracles.images(3), oracles.labels(3)
    for case in average_cases(model, x, y, size="28×28"):
        assert case.batch == 3
        for work in (case.ours, case.bare[1], case.theirs[1]):
            seen.clear()
            work()
            assert sum(seen) == 3 * 32


def test_certificates_are_compared_with_the_same_passes() -> None:
    seen: list[int] = []
    model = oracles.softplus_net()
    model.register_forward_hook(lambda net, args, out: seen.append(len(args[0])))
    cases = [*certificate_cases(model, oracles.images(4), oracles.labels(4), rows=(64,))]
    assert [case.name.partition(",")[0] for case in cases] == [
        *("gradient_bounds", "gradient_bounds", "certify", "certify")
    ]
    for case in cases[2:]:
        assert case.limit == 1.1
        for work in (case.ours, case.bare[1]):
            seen.clear()
            work()
            assert sum(seen) == 4 * 512


def test_scores_of_change_are_compared_with_the_same_images() -> None:
    seen: list[int] = []
    model = oracles.softplus_net().eval()
    model.register_forward_hook(lambda net, args, out: seen.append(len(args[0])))
    cases = [*sensitivity_cases(model, oracles.images(3), oracles.labels(3))]
    assert [case.name.partition(",")[0] for case in cases] == [
        *("max_sensitivity", "local_lipschitz", "relative_input_stability", "continuity")
    ]
    for case in cases:
        count = int(case.bare[0].split()[0])
        forward = 2 if case.name.startswith("relative") else 1  # for the prediction
        for work, rows in ((case.ours, forward), (case.bare[1], 1)):
            seen.clear()
            work()
            assert sum(seen) == 3 * count * rows
        if case.theirs is not None:
            seen.clear()
            case.theirs[1]()
            assert sum(seen) >= 3 * count


def test_multiplications_of_a_linear_layer_are_counted() -> None:
    layer = torch.nn.Linear(7, 3)
    x = torch.ones(5, 7, requires_grad=True)
    with Multiplications() as forward:
        out = layer(x)
    assert forward.total == 2 * 5 * 7 * 3
    with Multiplications() as backward:
        out.sum().backward()
    assert backward.total == 2 * forward.total  # in the input and in the weights


def test_terms_cost_the_passes_that_they_state() -> None:
    x, y = oracles.images(2, size=28), torch.tensor([0, 1])
    cost = {
        step.name: passes(step, x, y)
        for step in steps()
        if not step.name.startswith(("IGN", "IGS", "At"))
    }
    natural = cost["CrossEntropy"]
    # Forward, and backward in the weights; the derivative in the image is not needed.
    assert 2.5 < natural <= 3
    # Forward and backward in each of seven steps, and no more.
    assert 13 <= cost["AdversarialCrossEntropy, PGD-7"] - natural <= 16
    gradient = cost["InputGradientNorm"] - natural
    assert cost["LocalGradientAlignment"] - natural == pytest.approx(2 * gradient, abs=0.1)
    assert cost["LocalGradientAlignment, detached"] - natural == pytest.approx(
        gradient + 2, abs=0.1
    )
    base = cost["AdversarialCrossEntropy, PGD-7"]
    assert cost["IntegratedGradientRegularizer, PGD-7"] - base == pytest.approx(
        6 * gradient, abs=0.3
    )
    # Two forward passes and their backward passes; for the maps as many again.
    for maps, times in (("0", 1), ("0.5", 2)):
        extra = cost[f"IntervalBounds, maps {maps}"] - natural
        assert extra == pytest.approx(times * gradient, abs=0.1)
    assert 2 <= cost["Mart, PGD-7"] - base <= 3  # a forward pass, and a backward pass through it
    exact, difference, projection = (
        cost[f"MarginalDensitySmoothing, {name}"] - natural
        for name in ("DoubleBackward", "FiniteDifference", "RandomProjection")
    )
    assert exact == pytest.approx(gradient)
    # Two points, forward and backward in the weights; one more gradient, which is not differentiated.
    assert projection == pytest.approx(2 * natural, abs=0.1)
    assert 1.8 < difference - projection <= 2.1
    lower, first, third = (cost[f"SmoothSurface, matrix-free, {i} it."] for i in (0, 1, 3))
    assert lower == pytest.approx(cost["InputGradientNorm"])  # one gradient
    assert 3.5 < first - lower < 4.5  # a pass more, and two for the iteration, with their products
    assert 5 < third - first < 6
