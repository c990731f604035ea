"""The attack beside the suite: its map is the network's, its points are allowed, its rows add up."""

import csv
from pathlib import Path

import pytest
import torch

from attrlib import attributions, checkpoints, data, metrics
from attrlib.attacks.suite import SUITE, Goal
from attrlib.benchmark.cells import listed
from attrlib.maps import to_heatmap
from attrlib.models import SmallCNN
from tests import crossing, masks, oracles, refute
from tests.crossing import Crossing
from tests.masks import Masks, Task, Written
from tests.refute import Cell, compared, judged

EPS = 8 / 255


@pytest.fixture(scope="module")
def images() -> data.Images:
    return listed(data.fashion_mnist("test"), per_class=1)[:4]


def network(name: str, device: torch.device, dtype: torch.dtype) -> SmallCNN:
    return checkpoints.load(name).model.requires_grad_(False).to(device, dtype)


@pytest.mark.parametrize("name", ["natural-s0", "hessian-s0"])
def test_map_is_the_networks_own(
    name: str, images: data.Images, device: torch.device, dtype: torch.dtype
) -> None:
    model, x, y = network(name, device, dtype), images.x.to(device, dtype), images.y.to(device)
    logits, g = Written(model).real(x, y)
    assert torch.allclose(logits, model(x))
    assert torch.allclose(g, attributions.gradient(model, x, y), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["natural-s0", "hessian-s0"])
def test_sharp_masks_are_the_real_derivatives(
    name: str, images: data.Images, device: torch.device, dtype: torch.dtype
) -> None:
    model, x, y = network(name, device, dtype), images.x.to(device, dtype), images.y.to(device)
    task = Task(Written(model), x, y, EPS, "top-k")
    real = task.net.real(x, y)[1]
    errors = [
        float((task.net.masked(x, y, x.new_tensor([sharp]), task.spread)[1] - real).abs().max())
        for sharp in (1.0, 100.0, 1e7)
    ]
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 1e-3 * float(real.abs().max())


def test_slope_is_that_of_the_soft_score_and_of_short_leads(images: data.Images) -> None:
    model = network("hessian-s0", torch.device("cpu"), torch.float64)
    x, y = images.x.double(), images.y
    task = Task(Written(model), x, y, EPS, "top-k")
    settings = [x.new_tensor([value]) for value in (0.5, 3.0, 1.0)]  # heat, sharp, relative
    for short, label in ((False, task.label), (True, model(x).argmin(1))):
        task.label = label
        leaf = x.clone().requires_grad_()
        logits, g = task.net.masked(leaf, y, settings[1], task.spread)
        lead = task.lead(logits)
        assert ((lead < masks.LEAD) == short).all()
        value = task.goal.soft(g.flatten(1), settings[0], settings[2])
        parts = [torch.autograd.grad(t.sum(), leaf, retain_graph=True)[0] for t in (value, lead)]
        rise, ahead = (t / t.abs().mean((1, 2, 3), keepdim=True) for t in parts)
        assert torch.allclose(task.slope(x, *settings), rise - ahead if short else rise)


def test_overlap_is_the_packages(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 5, 1, 28, 28, generator=generator)
    value, fine = masks.Overlap(a.flatten(1)).score(b.flatten(1))
    expected = metrics.topk_intersection(to_heatmap(a), to_heatmap(b), k=masks.K)
    assert torch.allclose(value, expected)
    same, least = masks.Overlap(a.flatten(1)).score(a.flatten(1))
    assert (same == 1).all()
    assert (least > fine).all()


@pytest.mark.parametrize(("name", "goal"), [("natural-s0", "top-k"), ("hessian-s0", "cosine")])
def test_points_are_allowed_and_lower(
    name: str, goal: Goal, images: data.Images, device: torch.device, dtype: torch.dtype
) -> None:
    model, x, y = network(name, device, dtype), images.x.to(device, dtype), images.y.to(device)
    cell = Cell(name, EPS, goal)
    attack = Masks(EPS, goal, steps=6, cold=3, tries=9)
    z = attack(model, x, y, generator=oracles.seeded(0))
    assert z.dtype == dtype
    value = judged(cell, model, x, y, z)  # raises unless all are allowed
    assert (value < 1).all()
    assert torch.equal(z, attack(model, x, y, generator=oracles.seeded(0)))


@pytest.mark.parametrize("name", ["natural-s0", "hessian-s0"])
def test_crossing_gives_allowed_and_lower_points(
    name: str, images: data.Images, device: torch.device, dtype: torch.dtype
) -> None:
    model, x, y = network(name, device, dtype), images.x.to(device, dtype), images.y.to(device)
    attack = Crossing(EPS, steps=6, cold=3, tries=9)
    z = attack(model, x, y, generator=oracles.seeded(0))
    assert z.dtype == dtype
    assert (judged(Cell(name, EPS), model, x, y, z) < 1).all()
    assert torch.equal(z, attack(model, x, y, generator=oracles.seeded(0)))


def test_narrow_slopes_of_a_smooth_network_are_nearly_the_true_ones(
    images: data.Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = network("hessian-s0", torch.device("cpu"), torch.float64)
    x, y, beta = images.x.double(), images.y, 10.0
    task = Task(Written(model), x, y, EPS, "top-k")
    push = crossing.Push((1, 1), (1, 1), (1, 1), 0.0, relative=True)
    heat, one = x.new_tensor([0.5]), x.new_ones(1)
    leaf = x.clone().requires_grad_()
    _, pre = task.net.forward(leaf)
    g = task.net.back([(beta * u).sigmoid() for u in pre], y)
    (exact,) = torch.autograd.grad(task.goal.soft(g.flatten(1), heat, one).sum(), leaf)
    rise = crossing.slope(task, x, 0.5, 1e-6, push)
    assert (torch.nn.functional.cosine_similarity(rise.flatten(1), exact.flatten(1)) > 0.9).all()


def test_slopes_look_at_the_side_a_unit_is_on() -> None:
    model = network("natural-s0", torch.device("cpu"), torch.float64)
    images = listed(data.fashion_mnist("test"), per_class=1)[:1]
    x, y = images.x.double(), images.y
    task = Task(Written(model), x, y, EPS, "top-k")
    push = crossing.PUSHES[0]
    first = crossing.slope(task, x, 0.3, 1.0, push)
    task.goal.soft = lambda *args: (
        -masks.Overlap.soft(task.goal, *args)
    )  # now all sides are swapped
    assert not torch.allclose(first, -crossing.slope(task, x, 0.3, 1.0, push), rtol=0.1)


def test_crossing_takes_blocks_of_the_better_of_two_points(images: data.Images) -> None:
    model = network("madry-s0", torch.device("cpu"), torch.float32)
    x, y = images.x, images.y
    task = Task(Written(model), x, y, EPS, "top-k")
    pool = [task.corner(oracles.seeded(seed)) for seed in (1, 2)]
    best = crossing.cross(task, pool, 40, oracles.seeded(0))
    single = torch.stack([task.score(z)[0] for z in pool]).amin(0)
    assert (best.value <= single).all()
    assert (best.value < single).any()
    assert ((best.z == pool[0]) | (best.z == pool[1])).all()


def test_blocks_lie_on_a_grid() -> None:
    for side in crossing.SIDES:
        blocks = crossing._blocks(torch.zeros(5, 1, 28, 28), side, oracles.seeded(side))
        corners = blocks[:, :, ::side, ::side]
        assert torch.equal(corners.repeat_interleave(side, 2).repeat_interleave(side, 3), blocks)
        assert blocks.any()
        assert not blocks.all()


def test_what_is_not_allowed_is_not_judged(images: data.Images) -> None:
    model = network("natural-s0", torch.device("cpu"), torch.float32)
    x, y = images.x, images.y
    cell = Cell("natural-s0", EPS)
    assert (judged(cell, model, x, y, x) == 1).all()
    far, negative = x.clone(), x.clone()
    far[1, 0, 14, 14] += (-1 if x[1, 0, 14, 14] > 0.5 else 1) * 1.01 * EPS
    negative[2, 0, 0, 0] = -0.001
    for z in (far, negative):
        with pytest.raises(ValueError, match="Expected allowed points, got 1 others"):
            judged(cell, model, x, y, z)
    other = Cell("natural-s0", 1.0)
    with pytest.raises(ValueError, match="others on natural-s0"):
        judged(other, model, x, y, torch.zeros_like(x))  # the prediction changes


def test_squares_are_squares() -> None:
    for seed in range(8):
        square = masks._square(torch.zeros(3, 1, 28, 28), oracles.seeded(seed))
        side = square.sum((2, 3)).sqrt()
        assert (side == side[0]).all()
        assert 1 <= float(side[0]) <= 5
        assert (square.amax(3).sum(2) == side).all()
        assert (square.amax(2).sum(2) == side).all()


def test_row_is_what_one_would_compute() -> None:
    found = {"standard": torch.tensor([0.5, 0.7, 0.9]), "own": torch.tensor([0.6, 0.4, 0.5])}
    row = compared(found)
    means = {"standard": "0.7000", "strong": "", "own": "0.5000", "both": "0.4667"}
    assert list(row)[:4] == list(means)
    assert row.items() >= means.items()
    assert (row["gain"], row["own_gain"]) == ("0.2333", "0.2000")
    assert (row["gain_low"], row["gain_high"]) == ("0.0000", "0.4000")
    assert (row["own_gain_low"], row["own_gain_high"]) == ("-0.1000", "0.4000")
    assert compared(found | {"strong": found["own"]})["strong"] == "0.5000"


def test_table_is_added_to_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, table = Cell("natural-s0", EPS), tmp_path / "table.csv"
    settings = ({"steps": 1, "cold": 1, "tries": 1}, {"steps": 6, "cold": 1, "tries": 9})
    attacks = {n: Masks(EPS, **s) for n, s in zip(("standard", "own"), settings, strict=True)}
    monkeypatch.setattr(refute, "PER_CLASS", 1)
    monkeypatch.setattr(refute, "CELLS", (cell,))
    monkeypatch.setattr(refute, "attacks_of", lambda *_: attacks)
    monkeypatch.setattr("sys.argv", ["refute", "--out", str(table)])
    refute.main()
    before = table.read_bytes()
    refute.main()
    assert table.read_bytes() == before
    (row,) = csv.DictReader(before.decode().splitlines())
    key = {"net": cell.net, "eps": "0.03137", "goal": "top-k", "images": "10", "suite": SUITE}
    assert row.items() >= key.items()
    images = listed(data.fashion_mnist("test"), per_class=1)
    x, y = images.x, images.y
    model = checkpoints.load(cell.net).model
    heat = to_heatmap(attributions.gradient(model, x, y))
    values = []
    for attack in attacks.values():
        z = attack(model, x, y, generator=oracles.seeded(0))
        after = to_heatmap(attributions.gradient(model, z, y))
        values.append(metrics.topk_intersection(heat, after, k=100))
    means = [float(v.mean()) for v in (*values, torch.minimum(*values))]
    written = [float(row[name]) for name in ("standard", "own", "both")]
    assert written == pytest.approx(means, abs=1e-4)


def test_suite_and_attack_have_the_cells_goal_and_budget() -> None:
    for cell in refute.CELLS:
        attacks = refute.attacks_of(cell)
        assert ("strong" in attacks) == cell.strong
        assert attacks["own"] == Masks(cell.eps, cell.goal)
    for cell in refute.cells_of("crossing"):
        attacks = refute.attacks_of(cell, "crossing")
        assert list(attacks) == ["standard", "own"]
        assert attacks["own"] == Crossing(cell.eps)
    with pytest.raises(TypeError, match="Expected model to be a SmallCNN, got Linear"):
        Masks(EPS)(torch.nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1))
    with pytest.raises(TypeError, match="Expected model to be a SmallCNN, got Linear"):
        Crossing(EPS)(torch.nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1))
