"""Promises of single words in docstrings: detached, constant, at this rate, safe in half precision."""

import copy
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import attacks, maps, metrics, regularizers, training
from attrlib.data import Images
from tests import oracles, term_oracles

BALLS = [attacks.LinfBall(eps=0.1), attacks.L2Ball(eps=0.5)]
PLAIN = training.Loss(terms={"ce": regularizers.CrossEntropy()}, weights={"ce": 1.0})
CONFIG = training.TrainConfig(epochs=1, batch_size=8, schedule="constant")


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(oracles.images(8).float(), oracles.labels(8), ("a", "b", "c"))


# --- detached -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("start", [False, True])
def test_points_of_an_ascent_carry_no_graph(ball: attacks.Ball, start: bool) -> None:
    x = oracles.images().requires_grad_()
    first = (x * 0.9).clamp(0, 1) if start else None
    z = attacks.ascend(
        lambda z: z.flatten(1).square().sum(1),
        x,
        ball=ball,
        steps=2,
        step_size=0.05,
        start=first,
        generator=oracles.seeded(0),
    )
    assert not z.requires_grad


@pytest.mark.parametrize("metric", [metrics.cosine, metrics.center_shift])
@pytest.mark.parametrize("leaves", [(True, False), (False, True), (True, True)])
def test_a_drawn_chance_level_carries_no_graph(
    metric: Callable[[Tensor, Tensor], Tensor], leaves: tuple[bool, bool]
) -> None:
    a, b = (
        oracles.images(seed=s)[:, 0].requires_grad_(leaf)
        for s, leaf in zip((1, 2), leaves, strict=True)
    )
    assert not metrics.chance_level(metric, a, b, draws=2).requires_grad


@pytest.mark.parametrize("make", [regularizers.IGNorm, regularizers.IGSumNorm])
@pytest.mark.parametrize("ball", BALLS)
def test_a_term_that_searches_is_differentiable_in_the_weights_alone(
    make: Callable[..., Any], ball: attacks.Ball
) -> None:
    model, y = term_oracles.net(), oracles.labels()
    x = oracles.images().requires_grad_()
    term = make(ball=ball, steps=2, step_size=0.05)
    value = term(model, x, y, generator=oracles.seeded(0))
    of_x, of_weight = torch.autograd.grad(
        value.sum(), [x, model.layers[0].weight], allow_unused=True
    )
    assert of_x is None
    assert of_weight.any()
    assert torch.equal(value, term(model, x.detach(), y, generator=oracles.seeded(0)))


def test_the_adversarial_example_of_a_loss_is_a_constant() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()

    def attack(model: Any, x: Tensor, y: Tensor, /, *, generator: Any = None) -> Tensor:
        return (x + model(x).mean()).clamp(0, 1)  # with a graph to the weights

    loss = training.Loss(
        terms={"ce": regularizers.AdversarialCrossEntropy()}, weights={"ce": 1.0}, attack=attack
    )
    total, _ = loss(model, x, y)
    z = attack(model, x, y).detach()
    by_hand = functional.cross_entropy(model(z), y, reduction="none")
    weight = model.layers[0].weight
    grads = [torch.autograd.grad(v.sum(), weight)[0] for v in (total, by_hand)]
    assert torch.equal(*grads)


def test_scores_of_an_evaluation_carry_no_graph(images: Images) -> None:
    def score(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return model(x).amax(1)

    values = training.evaluate(oracles.softplus_net().float(), images, {"top": score})["top"]
    assert not values.requires_grad


@pytest.mark.parametrize("diverse", [False, True])
def test_the_set_of_an_objective_is_a_constant(diverse: bool) -> None:
    a, b = (oracles.images(seed=s) - 0.5 for s in (1, 2))
    objective = attacks.TopK(k=5, window=1, diverse=diverse)
    assert not objective(a.requires_grad_(), b).requires_grad
    # signs do not count: the set is that of the absolute values
    assert torch.equal(objective(-a, b), objective(a, b))
    assert torch.equal(objective(a, -b), objective(a, b))


def test_each_mode_of_a_heatmap_treats_signs_as_it_says() -> None:
    a = oracles.images(channels=3) - 0.5
    assert torch.equal(maps.to_heatmap(-a), maps.to_heatmap(a))
    assert torch.equal(maps.to_heatmap(-a, mode="max_abs"), maps.to_heatmap(a, mode="max_abs"))
    assert torch.equal(maps.to_heatmap(-a, mode="sum"), -maps.to_heatmap(a, mode="sum"))


# --- numbers that are stated ----------------------------------------------------------------------


def test_an_interval_resamples_two_thousand_times() -> None:
    values = torch.rand(50, generator=oracles.seeded(0), dtype=torch.float64)
    rows = torch.randint(50, (2000, 50), generator=oracles.seeded(3))
    ends = values[rows].mean(1).quantile(torch.tensor([0.05, 0.95], dtype=torch.float64))
    got = metrics.interval(values, level=0.9, generator=oracles.seeded(3))
    assert got == pytest.approx(tuple(ends.tolist()), abs=1e-12)
    # as many numbers are drawn from the generator, and no more
    drawn, left = oracles.seeded(3), oracles.seeded(3)
    metrics.interval(values, generator=drawn)
    torch.randint(50, (2000, 50), generator=left)
    assert torch.equal(drawn.get_state(), left.get_state())


@pytest.mark.parametrize("lr", [1e-3, 3e-2])
@pytest.mark.parametrize("weight_decay", [0.0, 0.5])
def test_a_step_at_a_constant_rate_is_one_of_adamw(
    images: Images, lr: float, weight_decay: float
) -> None:
    model = oracles.softplus_net().float()
    by_hand = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=lr, weight_decay=weight_decay)
    functional.cross_entropy(by_hand(images.x), images.y).backward()
    optimizer.step()
    config = replace(CONFIG, lr=lr, weight_decay=weight_decay)
    training.train(model, images, PLAIN, config=config, generator=oracles.seeded(0))
    for one, other in zip(model.parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_one_cycle_ends_near_zero_and_peaks_at_the_rate(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object, **options: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return real(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    config = training.TrainConfig(epochs=10, batch_size=8, lr=0.02)
    training.train(
        oracles.softplus_net().float(), images, PLAIN, config=config, generator=oracles.seeded(0)
    )
    assert max(rates) == pytest.approx(0.02)
    assert rates.index(max(rates)) == 2  # 30 % of ten steps
    assert rates[-1] < 0.02 / 1000


# --- half precision -------------------------------------------------------------------------------


def test_terms_that_are_safe_in_half_precision_are_known(images: Images) -> None:
    safe = {
        name
        for name in regularizers.__all__
        if getattr(getattr(regularizers, name), "half_safe", False)
    }
    assert safe == {"CrossEntropy", "AdversarialCrossEntropy"}
    for name in safe:
        loss = training.Loss(
            terms={"it": getattr(regularizers, name)()},
            weights={"it": 1.0},
            attack=attacks.RandomSign(eps=0.1),
        )
        model = oracles.softplus_net().float()
        history = training.train(
            model,
            images,
            loss,
            config=replace(CONFIG, epochs=20, precision="bf16", lr=1e-2),
            generator=oracles.seeded(0),
        )
        assert history.epochs[-1]["it"] < history.epochs[0]["it"]


@pytest.mark.parametrize(
    "term",
    [
        regularizers.InputGradientNorm(),
        regularizers.HessianNorm(),
        regularizers.SmoothSurface(),
        regularizers.Trades(),
        regularizers.Mart(),
        regularizers.IntegratedGradientRegularizer(),
    ],
)
def test_other_terms_are_refused_in_half_precision(images: Images, term: Any) -> None:
    loss = training.Loss(terms={"it": term}, weights={"it": 1.0})
    with pytest.raises(ValueError, match=r"Expected precision='full' .* \(it\), got 'bf16'"):
        training.train(
            oracles.softplus_net().float(),
            images,
            loss,
            config=replace(CONFIG, precision="bf16"),
            generator=oracles.seeded(0),
        )


# --- files that are not ours ----------------------------------------------------------------------


class Hostile:
    """Unpickled by Python itself, it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("hide", [lambda evil: evil, lambda evil: {"run": {}, "position": evil}])
@pytest.mark.parametrize(
    "write", [torch.save, lambda state, path: path.write_bytes(pickle.dumps(state))]
)
def test_a_state_that_runs_code_is_refused_and_runs_nothing(
    images: Images,
    tmp_path: Path,
    hide: Callable[[Hostile], Any],
    write: Callable[[Any, Path], None],
) -> None:
    file, folder = tmp_path / "state.pt", tmp_path / "made"
    write(hide(Hostile(folder)), file)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).float()
    run = partial(training.train, model, images, PLAIN, config=CONFIG)
    with pytest.raises(ValueError, match="to be an intact training state"):
        run(generator=oracles.seeded(0), checkpoint=file)
    assert not folder.exists()
