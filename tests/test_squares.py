"""The attack without slopes: its squares, its points, and what it finds where all can be listed."""

import csv
import itertools
from pathlib import Path

import pytest
import torch

from attrlib import checkpoints, data
from attrlib.attacks import SUITE, RandomSign
from attrlib.benchmark.cells import listed
from attrlib.models import SmallCNN
from tests import masks, oracles, squares
from tests.masks import Best, Task, Written
from tests.refute import Cell, judged
from tests.squares import Squares

EPS = 8 / 255


@pytest.fixture(scope="module")
def images() -> data.Images:
    return listed(data.fashion_mnist("test"), per_class=1)[:4]


def test_squares_have_their_side_and_may_be_cut_off() -> None:
    for side in (1, 3, 14):
        cut = False
        for seed in range(8):
            inside = squares.square(torch.zeros(3, 1, 28, 28), side, oracles.seeded(seed))[:, 0]
            down, across = inside.any(2).sum(1), inside.any(1).sum(1)
            assert (inside.sum((1, 2)) == down * across).all()
            assert (down.minimum(across) >= 1).all()
            assert (down.maximum(across) <= side).all()
            cut |= bool((down < side).any())
        assert cut == (side > 1)


def test_tries_change_what_they_say() -> None:
    model = SmallCNN(generator=oracles.seeded(0)).double().requires_grad_(False)
    x = 0.3 + 0.4 * torch.rand((3, 1, 28, 28), generator=oracles.seeded(1), dtype=torch.float64)
    task = Task(Written(model), x, torch.zeros(3, dtype=torch.int64), 0.1, "top-k")
    z = x + 0.05
    for kind in range(4):
        new = squares.changed(task, z, 9, kind, oracles.seeded(2))
        moved = new != z
        assert moved.flatten(1).any(1).all()
        up, down = (torch.isclose(new, end) & moved for end in (task.high, task.low))
        if kind == 2:
            assert torch.allclose(new[moved], (x - 0.05)[moved])
        else:
            assert ((up | down) == moved).all()
            one_end = ~(up.flatten(1).any(1) & down.flatten(1).any(1))
            assert one_end.all() == (kind == 0)
        rows = moved.any(3).sum(2)
        assert (rows > 9).any() == (kind == 3)


@pytest.mark.parametrize("name", ["natural-s0", "hessian-s0"])
def test_points_are_allowed_and_lower_than_chance(
    name: str, images: data.Images, device: torch.device, dtype: torch.dtype
) -> None:
    model = checkpoints.load(name).model.requires_grad_(False).to(device, dtype)
    x, y, cell = images.x.to(device, dtype), images.y.to(device), Cell(name, EPS)
    attack = Squares(EPS, tries=60)
    z = attack(model, x, y, generator=oracles.seeded(0))
    assert z.dtype == dtype
    value = judged(cell, model, x, y, z)  # raises unless all are allowed
    noise = RandomSign(eps=EPS)(model, x, y, generator=oracles.seeded(0))
    assert value.mean() < judged(cell, model, x, y, noise).mean() - 0.01
    assert torch.equal(z, attack(model, x, y, generator=oracles.seeded(0)))
    again = attack(model, x, y, start=z, generator=oracles.seeded(1))
    assert (judged(cell, model, x, y, again) <= value).all()


def test_the_lowest_of_all_corners_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten pixels of an image of 16 may change: 1,024 corners."""
    monkeypatch.setattr(masks, "K", 4)
    found, lowest, noisy = [], [], []
    up = torch.zeros(1024, 16, dtype=torch.bool)
    up[:, 3:13] = torch.tensor([*itertools.product((False, True), repeat=10)])
    up = up.view(-1, 1, 4, 4)
    for seed in range(2):
        model = SmallCNN(size=4, classes=2, generator=oracles.seeded(seed)).requires_grad_(False)
        x = 0.3 + 0.4 * torch.rand((1, 1, 4, 4), generator=oracles.seeded(seed))
        task = Task(Written(model), x, model(x).argmax(1), 0.3, "top-k")
        fixed = ~up.any(0)
        task.low[0, fixed], task.high[0, fixed] = x[0, fixed], x[0, fixed]
        values = task.score(torch.where(up, task.high, task.low))[0]
        lowest.append(float(values.min()))
        noisy.append(float(values[values.isfinite()].mean()))
        best = Best(task, x)
        squares.search(best, 1500, 4, oracles.seeded(0))
        found.append(float(best.value))
    assert found == lowest
    assert max(found) < 1
    assert all(value < mean for value, mean in zip(found, noisy, strict=True))


def test_search_keeps_the_better_point(images: data.Images) -> None:
    model = checkpoints.load("madry-s0").model.requires_grad_(False)
    assert isinstance(model, SmallCNN)
    task = Task(Written(model), images.x, images.y, EPS, "top-k")
    best = Best(task, images.x)
    best.see(task.corner(oracles.seeded(1)))
    before = best.value.clone()
    squares.search(best, 40, 6, oracles.seeded(0))
    assert (best.value <= before).all()
    assert (best.value < before).any()
    assert torch.equal(task.score(best.z)[0], best.value)
    with pytest.raises(TypeError, match="Expected model to be a SmallCNN, got Linear"):
        Squares(EPS)(torch.nn.Linear(2, 2), torch.zeros(1, 2), torch.zeros(1))


def test_table_is_added_to_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell, table = Cell("madry-s0", EPS), tmp_path / "table.csv"
    corner = []

    def points(model: SmallCNN, images: data.Images, *_: object, **__: object) -> torch.Tensor:
        corner.append(RandomSign(eps=EPS)(model, images.x, images.y, generator=oracles.seeded(0)))
        return corner[-1]

    for name, value in {"CELLS": (cell,), "TRIES": 40, "MORE": 40, "PER_CLASS": 1}.items():
        monkeypatch.setattr(squares, name, value)
    monkeypatch.setattr(squares, "points", points)
    monkeypatch.setattr("sys.argv", ["squares", "--out", str(table)])
    squares.main()
    before = table.read_bytes()
    squares.main()
    assert table.read_bytes() == before
    assert len(corner) == 1
    (row,) = csv.DictReader(before.decode().splitlines())
    key = {"net": cell.net, "eps": "0.03137", "goal": "top-k", "images": "10", "suite": SUITE}
    assert row.items() >= key.items()
    images = listed(data.fashion_mnist("test"), per_class=squares.LISTED)
    rows = torch.cat([(images.y == label).nonzero()[5] for label in range(10)]).sort().values
    model = checkpoints.load(cell.net).model
    x, y, z = images.x[rows], images.y[rows], corner[0][rows]
    polished = Squares(EPS, 40)(model, x, y, start=z, generator=oracles.seeded(0))
    means = [float(judged(cell, model, x, y, points).mean()) for points in (z, polished)]
    assert [float(row[name]) for name in ("standard", "polished")] == pytest.approx(means, abs=1e-4)
    assert float(row["polished_gain"]) == pytest.approx(means[0] - means[1], abs=2e-4)
    assert float(row["polished_gain"]) > 0.02
