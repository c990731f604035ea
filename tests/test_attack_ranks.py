"""Soft ranks equal their formulas, turn hard in the limit, and find what moved mass misses."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attrlib import metrics
from attrlib.attacks import L2Ball, Order, Rank, TopK
from attrlib.maps import dilate, diverse_topk, to_heatmap, topk_mask
from tests.attack_oracles import Bowl, attack, zeros
from tests.oracles import seeded

SIDE = 6
OBJECTIVES = pytest.mark.parametrize(
    "objective",
    [
        Rank(k=5),
        Rank(k=5, temperature=1.0),
        Rank(k=4, window=1),
        Rank(k=3, window=1, diverse=True),
        Order(),
        Order(temperature=0.3, levels=7),
    ],
    ids=repr,
)


def pair(n: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    a, b = torch.randn(2, n, 2, SIDE, SIDE, generator=seeded(seed), dtype=torch.float64)
    return a, b


def sigmoid(u: float) -> float:
    return 1 / (1 + math.exp(-u)) if u > 0 else math.exp(u) / (1 + math.exp(u))


def log_heat(b: Tensor) -> list[float]:
    """Of one map (channels, h, w), in any unit: the objectives only see differences."""
    return [math.log(value) for value in b.abs().sum(0).flatten().tolist()]


def by_hand(inside: Tensor, b: Tensor, *, k: int, temperature: float) -> float:
    """`Rank` of one map, pixel by pixel."""
    heat = log_heat(b)
    threshold = sorted(heat, reverse=True)[k - 1]
    total = 0.0
    for value, own in zip(heat, inside.flatten().tolist(), strict=True):
        soft = sigmoid((value - threshold) / temperature)
        total += -soft if own else soft
    return total


def correlation(u: list[float], v: list[float]) -> float:
    mean_u, mean_v = sum(u) / len(u), sum(v) / len(v)
    products = sum((p - mean_u) * (q - mean_v) for p, q in zip(u, v, strict=True))
    squares = [sum((p - m) ** 2 for p in w) for w, m in ((u, mean_u), (v, mean_v))]
    return products / math.sqrt(squares[0] * squares[1])


# --- formulas -------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.02])
def test_rank_is_its_formula(temperature: float) -> None:
    a, b = pair()
    heat = to_heatmap(a)
    sets = {
        Rank(k=5, temperature=temperature): topk_mask(heat, k=5),
        Rank(k=5, temperature=temperature, window=1): dilate(topk_mask(heat, k=5), window=1),
        Rank(k=3, temperature=temperature, window=1, diverse=True): dilate(
            diverse_topk(heat, k=3, window=1), window=1
        ),
    }
    for objective, inside in sets.items():
        expected = [
            by_hand(own, row, k=objective.k, temperature=temperature)
            for own, row in zip(inside, b, strict=True)
        ]
        torch.testing.assert_close(objective(a, b), b.new_tensor(expected))
        assert torch.equal(objective.against(a)(b), objective(a, b))


@pytest.mark.parametrize(("temperature", "levels"), [(0.5, 32), (0.1, 5)])
def test_order_is_its_formula(temperature: float, levels: int) -> None:
    a, b = pair()
    a[0] = (4 * a[0].abs()).round()  # with ties, which share a rank
    expected = []
    for one, other in zip(a, b, strict=True):
        heat = one.abs().sum(0).flatten().tolist()
        ranks = [sum(v < value for v in heat) + sum(v == value for v in heat) / 2 for value in heat]
        logs = log_heat(other)
        ordered = sorted(logs)
        quantiles = [ordered[int((j + 0.5) / levels * len(ordered))] for j in range(levels)]
        soft = [sum(sigmoid((v - q) / temperature) for q in quantiles) / levels for v in logs]
        expected.append(-correlation(ranks, soft))
    objective = Order(temperature=temperature, levels=levels)
    torch.testing.assert_close(objective(a, b), b.new_tensor(expected))


def test_a_cold_rank_counts_pixels() -> None:
    """Those of the top k at z that are outside the set, minus those inside; the k-th counts half."""
    a, b = pair(20)
    k = 7
    inside, now = topk_mask(to_heatmap(a), k=k), topk_mask(to_heatmap(b), k=k)
    last = now & ~topk_mask(to_heatmap(b), k=k - 1)
    counts = [
        float(
            sum((now & ~inside)[i].flatten().tolist()) - sum((now & inside)[i].flatten().tolist())
        )
        for i in range(len(a))
    ]
    half = torch.where((last & inside).flatten(1).any(1), 0.5, -0.5)
    cold = Rank(k=k, temperature=1e-9)(a, b)
    torch.testing.assert_close(cold, b.new_tensor(counts) + half.to(b))
    shared = metrics.topk_intersection(to_heatmap(a), to_heatmap(b), k=k)
    assert len(set(shared.tolist())) > 1
    torch.testing.assert_close(k * (1 - 2 * shared), b.new_tensor(counts))


def test_a_cold_order_is_spearmans_coefficient() -> None:
    a, b = pair(20)
    exact = -metrics.spearman(to_heatmap(a), to_heatmap(b))
    assert (exact.abs() > 0.05).any()
    every = Order(temperature=1e-9, levels=SIDE**2)  # a level at each pixel
    torch.testing.assert_close(every(a, b), exact)
    some = Order(temperature=1e-9, levels=16)
    assert (some(a, b) - exact).abs().max() < 0.03
    torch.testing.assert_close(every(a, a), b.new_full((20,), -1.0))


@OBJECTIVES
@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e12])
def test_the_size_of_a_map_does_not_count(objective: Any, scale: float) -> None:
    a, b = pair()
    torch.testing.assert_close(objective(a, scale * b), objective(a, b))
    torch.testing.assert_close(objective(scale * a, b), objective(a, b))


@pytest.mark.parametrize("make", [partial(Rank, k=5), Order], ids=["Rank", "Order"])
def test_the_temperature_falls_geometrically(make: Callable[..., Any]) -> None:
    objective = make(temperature=(0.8, 0.05))
    assert objective.at(0.0).temperature == 0.8
    assert objective.at(1.0).temperature == pytest.approx(0.05)
    assert objective.at(0.5).temperature == pytest.approx(0.2)  # the geometric mean
    a, b = pair()
    for progress, temperature in ((0.0, 0.8), (0.5, 0.2), (1.0, 0.05)):
        expected = make(temperature=temperature)(a, b)
        torch.testing.assert_close(objective.at(progress)(a, b), expected)
        torch.testing.assert_close(objective.against(a).at(progress)(b), expected)
    torch.testing.assert_close(objective(a, b), make(temperature=0.05)(a, b))  # the last one
    assert make(temperature=0.3).at(0.0).temperature == 0.3


# --- derivatives ----------------------------------------------------------------------------------


@OBJECTIVES
@pytest.mark.parametrize("scale", [1e-34, 1.0, 1e25, 1e37])
def test_gradients_are_finite_in_float32(objective: Any, scale: float) -> None:
    a, b = (m.float() for m in pair(6))
    a[1] = b[2] = 0
    b[3] = a[3]
    b[4] = 1  # all tied
    b[5, :, 1:] = 0  # most tied, at zero
    b = (scale * b).requires_grad_()
    value = objective(a, b)
    (slope,) = torch.autograd.grad(value.sum(), b)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()
    assert value[2] == 0
    assert not slope[2].any()  # nothing to gain where there is no map
    if scale <= 1:  # else its slope is below the smallest number
        assert slope[0].any()


@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_the_threshold_of_ranks_is_a_constant_in_the_derivative(temperature: float) -> None:
    a, b = pair()
    inside = topk_mask(to_heatmap(a), k=5).flatten(1)
    start = b.abs().sum(1).flatten(1).log()
    threshold = start.topk(5, dim=1).values[:, -1:]
    middle = b.abs().sum(1).flatten(1).mean(1, keepdim=True).log()

    def frozen(z: Tensor) -> Tensor:
        heat = z.abs().sum(1).flatten(1)
        logs = (heat / heat.mean(1, keepdim=True)).log() + middle
        soft = torch.sigmoid((logs - threshold) / temperature)
        return torch.where(inside, -soft, soft).sum(1)

    b.requires_grad_()
    objective = Rank(k=5, temperature=temperature)
    torch.testing.assert_close(objective(a, b), frozen(b))
    (slope,) = torch.autograd.grad(objective(a, b).sum(), b)
    with torch.no_grad():
        for seed in range(3):
            way = torch.randn(b.shape, generator=seeded(seed), dtype=b.dtype)
            rise = (frozen(b + 1e-6 * way) - frozen(b - 1e-6 * way)) / 2e-6
            torch.testing.assert_close((slope * way).flatten(1).sum(1), rise, rtol=1e-5, atol=1e-5)


def test_the_levels_of_orders_are_constants_in_the_derivative() -> None:
    a, b = pair()
    m, temperature = 6, 0.4
    logs = b.abs().sum(1).flatten(1).log()
    ordered = logs.sort(dim=1).values
    levels = torch.stack([ordered[:, int((j + 0.5) / m * SIDE**2)] for j in range(m)], 1)
    middle = b.abs().sum(1).flatten(1).mean(1, keepdim=True).log()
    ranks = to_heatmap(a).flatten(1).argsort(1).argsort(1).double()

    def frozen(z: Tensor) -> Tensor:
        heat = z.abs().sum(1).flatten(1)
        logs = (heat / heat.mean(1, keepdim=True)).log() + middle
        soft = torch.sigmoid((logs[:, :, None] - levels[:, None]) / temperature).mean(2)
        pairs = zip(ranks, soft, strict=True)
        return -torch.stack([torch.corrcoef(torch.stack(both))[0, 1] for both in pairs])

    b.requires_grad_()
    objective = Order(temperature=temperature, levels=m)
    torch.testing.assert_close(objective(a, b), frozen(b))
    (slope,) = torch.autograd.grad(objective(a, b).sum(), b)
    with torch.no_grad():
        way = torch.randn(b.shape, generator=seeded(1), dtype=b.dtype)
        rise = (frozen(b + 1e-6 * way) - frozen(b - 1e-6 * way)) / 2e-6
        torch.testing.assert_close((slope * way).flatten(1).sum(1), rise, rtol=1e-5, atol=1e-6)


# --- attacks --------------------------------------------------------------------------------------


def test_ranks_swap_a_pixel_that_moved_mass_leaves(dtype: torch.dtype) -> None:
    """Mass is gained in all pixels at once; a swap takes two of them, and costs gap / √2 in l2."""
    x = torch.full((1, 1, 5, 5), 0.2, dtype=dtype)
    x[0, 0, 0, :3] = torch.tensor([0.9, 0.5, 0.45], dtype=dtype)
    usual: dict[str, Any] = {
        "score": partial(metrics.topk_intersection, k=2),
        "ball": L2Ball(eps=0.042),  # 0.05 / √2 = 0.0354; the first pixel is out of reach
        "steps": 60,
        "step_size": 0.005,
    }
    left = {}
    for objective in (TopK(k=2), Rank(k=2)):
        z = attack(**usual | {"objective": objective})(Bowl(), x, zeros(x), generator=seeded(0))
        left[type(objective)] = float(metrics.topk_intersection(x[:, 0], z[:, 0], k=2))
    assert left == {TopK: 1.0, Rank: 0.5}


def test_order_reverses_what_is_in_reach(dtype: torch.dtype) -> None:
    """Two groups of three values each: within a group all can be put the other way round."""
    x = torch.tensor([0.30, 0.32, 0.34, 0.80, 0.82, 0.84], dtype=dtype).view(1, 1, 2, 3)
    best = torch.tensor([0.34, 0.32, 0.30, 0.84, 0.82, 0.80], dtype=dtype).view(1, 1, 2, 3)
    found = attack(
        objective=Order(temperature=(0.2, 0.01), levels=6),
        score=metrics.kendall,
        steps=200,
        step_size=0.002,
    )
    z = found(Bowl(), x, zeros(x), generator=seeded(0))
    assert float(metrics.kendall(x[:, 0], z[:, 0])) <= float(metrics.kendall(x[:, 0], best[:, 0]))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Rank(k=0), "k to be an integer >= 1, got 0"),
        (lambda: Rank(k=5, window=-1), "window to be an integer >= 0, got -1"),
        (lambda: Rank(k=5, temperature=0.0), "temperature > 0, got 0.0"),
        (lambda: Rank(k=5, temperature=(0.1, 0.0)), "temperature > 0, got 0.0"),
        (lambda: Rank(k=5, temperature=(0.1, float("nan"))), "temperature > 0, got nan"),
        (lambda: Rank(k=5, temperature=(1.0, 0.5, 0.1)), "temperature to be one number or two"),
        (lambda: Order(temperature=-1.0), "temperature > 0, got -1.0"),
        (lambda: Order(temperature=()), r"temperature to be one number or two, got \(\)"),
        (lambda: Order(levels=1), "levels to be an integer >= 2, got 1"),
        (lambda: Rank(k=37)(*pair()), "k to be an integer from 1 to 36, got 37"),
        (lambda: Rank(k=5)(pair()[0], pair()[1][..., :-1]), "a and b to have one shape"),
        (lambda: Order()(pair()[0], pair()[1][..., :-1]), "a and b to have one shape"),
        (lambda: Order()(pair()[0][:, 0], pair()[1][:, 0]), "a to be"),
    ],
)
def test_bad_numbers_are_named(make: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=f"Expected {message}"):
        make()
