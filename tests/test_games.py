"""Games with pixels on pairs of networks: linear networks with a known answer, and rows as computed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attrlib import attributions, checkpoints, data, energy, faithfulness, maps, training
from attrlib.__main__ import main
from attrlib.benchmark import games
from attrlib.benchmark import played as study
from attrlib.recipes import RECIPES, planted_blocks
from tests import oracles
from tests.tables import number, rows


def _linear(weight: Tensor) -> nn.Module:
    """Logits without intercept, one row of weights for each class, images of one channel."""
    layer = nn.Linear(weight.shape[1], len(weight), bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return nn.Sequential(nn.Flatten(), layer).eval()


# --- insertion ------------------------------------------------------------------------------------


@pytest.fixture
def positive() -> tuple[nn.Module, data.Images]:
    """A network whose logit of class 0 rises with each pixel, and images without a black pixel."""
    weight = torch.rand(2, 20, generator=oracles.seeded(0)) * torch.tensor([[1.0], [0.0]])
    x = 0.1 + 0.9 * torch.rand(30, 1, 4, 5, generator=oracles.seeded(1))
    return _linear(weight), data.Images(x, torch.zeros(30, dtype=torch.long), ("a", "b"))


def test_of_a_linear_network_the_best_order_is_input_times_gradient(
    positive: tuple[nn.Module, data.Images],
) -> None:
    net, images = positive
    found = study.inserted(net, images)
    best = found["input x gradient"]["logit"]
    torch.testing.assert_close(best, found["integrated gradients"]["logit"])
    for order in ("gradient", "random", "random, lit first"):
        assert (found[order]["logit"] <= best + 1e-9).all()
    # The gauge-fixed logit of two classes is half the difference, its rise the whole sum.
    parts = images.x.flatten(1) * net[1].weight[0]  # type: ignore[index]
    areas = parts.sort(dim=1, descending=True).values.cumsum(1) - parts.sort(1).values.flip(1) / 2
    expected = areas.sum(1) / 20 / parts.sum(1).mean()
    torch.testing.assert_close(best, expected.detach())
    assert torch.equal(
        found["gradient"]["probability"],
        faithfulness.insertion(
            net, images.x, images.y, maps.to_heatmap(attributions.gradient(net, images.x, images.y))
        ),
    )


def test_a_random_order_gives_half_of_the_rise(positive: tuple[nn.Module, data.Images]) -> None:
    net, images = positive
    values = study.inserted(net, images)["random"]["logit"]
    assert abs(float(values.mean()) - 0.5) < 0.05


def test_a_logit_that_does_not_rise_has_no_unit(positive: tuple[nn.Module, data.Images]) -> None:
    net, images = positive
    other = replace(images, y=torch.ones(30, dtype=torch.long))
    columns = study.inserted(net, other)["gradient"]
    assert columns["logit"].isnan().all()
    assert not columns["probability"].isnan().any()


def test_the_controls_put_first_what_they_say() -> None:
    images = planted_blocks("test")[:6]
    images = replace(images, x=images.x.double())
    fixed = energy.GaugeFixed(_linear(torch.rand(10, 56 * 28, generator=oracles.seeded(0))))
    orders = study._orders(fixed, images, images.x, images.y)
    assert list(orders) == [*study.ORDERS, "random", "random, lit first", "garment first"]
    lit = images.x[:, 0] > 0
    garment = lit & ~images.null
    for i in range(6):
        for order, first in (("random, lit first", lit[i]), ("garment first", garment[i])):
            heat = orders[order][i]
            assert heat[first].min() >= heat[~first].max()
        assert orders["garment first"][i][lit[i]].min() >= orders["garment first"][i][~lit[i]].max()
    assert "garment first" not in study._orders(
        fixed, data.Images(images.x, images.y, images.classes), images.x, images.y
    )


# --- DiffROAR -------------------------------------------------------------------------------------


def test_maps_are_of_the_predicted_class_and_free_of_shifts() -> None:
    weight = torch.randn(3, 20, generator=oracles.seeded(0))
    x = torch.rand(700, 1, 4, 5, generator=oracles.seeded(1))
    found = study.predicted(_linear(weight), x)
    fixed = weight - weight.mean(0)
    chosen = fixed[(x.flatten(1) @ weight.T).argmax(1)]
    torch.testing.assert_close(found.flatten(1), chosen)
    shifted = study.predicted(_linear(weight + torch.randn(1, 20, generator=oracles.seeded(2))), x)
    torch.testing.assert_close(found, shifted)


# --- the table ------------------------------------------------------------------------------------


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Few images, one pass."""
    for name, value in {"PER_CLASS": 1, "STUDENT_IMAGES": 120, "STUDENT_EPOCHS": 1}.items():
        monkeypatch.setattr(study, name, value)
    monkeypatch.setattr(study, "SHARES", (0.3,))
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("_small")
def test_rows_are_what_one_would_compute(tmp_path: Path) -> None:
    path = tmp_path / "games.csv"
    games(path, only=["blocks"])
    net = checkpoints.load("density-block-s0").model
    train, test = planted_blocks("train")[:120], planted_blocks("test")
    few = test[torch.tensor([int((test.y == k).nonzero()[0]) for k in range(10)]).sort().values]
    heat = maps.to_heatmap(
        attributions.integrated_gradients(energy.GaugeFixed(net), few.x, few.y, steps=20)
    )
    area = faithfulness.insertion(net, few.x, few.y, heat).mean().item()
    where = {"recipe": "density-block", "order": "integrated gradients"}
    assert number(path, quantity="probability", **where) == pytest.approx(area, abs=1e-4)

    def student(seen: data.Images) -> nn.Module:
        recipe = RECIPES["natural-block"]
        new = recipe.model(size=(56, 28), generator=oracles.seeded(0))
        config = replace(recipe.config, epochs=1)
        training.train(new, seen, recipe.loss, config=config, generator=oracles.seeded(1))
        return new

    a, b = (study.predicted(net, part.x) for part in (train, test))
    score = faithfulness.diffroar(train, test, a, b, fit=student, share=0.3).mean().item()
    found = number(path, recipe="density-block", game="DiffROAR, 0.3")
    assert found == pytest.approx(score, abs=1e-4)
    (control,) = rows(path, recipe="none")
    assert (control["order"], control["checkpoints"], control["images"]) == ("random", "", "2000")
    assert len(rows(path)) == 2 * 6 * 2 + 3


@pytest.mark.usefixtures("_small")
def test_the_command_goes_on_and_has_a_row_of_each_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "games.csv"
    main(["bench", "games", "--only", "garments", "--out", str(path)])
    assert [row["seed"] for row in rows(path, recipe="none")] == ["0", "1", "2", "all"]
    inserted = rows(path, recipe="density", game="insertion")
    assert [row["seed"] for row in inserted] == ["all"] * 5 * 2
    assert capsys.readouterr().out.count("set garments") == 5
    first = path.read_bytes()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(training, "train", never)
    main(["bench", "games", "--only", "garments", "--out", str(path)])
    assert path.read_bytes() == first
    with pytest.raises(
        ValueError, match="Expected only to be one of blocks, garments, got 'block'"
    ):
        games(path, only=["block"])
    monkeypatch.setattr(study, "PER_CLASS", 2)
    with pytest.raises(ValueError, match="got some with other list and checkpoints"):
        games(path, only=["garments"])
