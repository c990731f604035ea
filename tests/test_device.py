"""What takes several steps gives on `--device` what it gives on the CPU; see test_contract.py, too."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attrlib import attacks, metrics, training
from attrlib.attributions import gradient
from attrlib.data import Images
from attrlib.regularizers import CrossEntropy, InputGradientNorm
from tests import oracles

CPU = torch.device("cpu")
CLOSE = {torch.float64: 1e-9, torch.float32: 1e-3}


def _maps(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Clean maps, changed maps and classes."""
    a, b = (oracles.images(9, seed=seed)[:, 0].to(device) for seed in (1, 2))
    return a, 0.7 * a + 0.3 * b, oracles.labels(9).to(device)


def _images() -> Images:
    return Images(oracles.images(16), oracles.labels(16), ("a", "b", "c"))


@pytest.mark.parametrize(
    "control",
    [
        partial(metrics.identification, score=metrics.cosine),
        partial(metrics.rank_one, score=metrics.cosine),
        partial(metrics.outside_template, k=9),
    ],
    ids=["identification", "rank_one", "outside_template"],
)
def test_controls_of_identity(control: Callable[..., Tensor], device: torch.device) -> None:
    pool, pool_y = oracles.images(12, seed=5)[:, 0], oracles.labels(12, seed=6)
    for options in ({}, {"pool": pool, "pool_y": pool_y}):  # a pool may stay on the CPU
        here, there = control(*_maps(device), **options), control(*_maps(CPU), **options)
        assert here.device.type == device.type
        torch.testing.assert_close(here.cpu(), there, equal_nan=True)


def test_summaries(device: torch.device) -> None:
    values = oracles.images(1)[0, 0]
    a, b, y = _maps(device)
    for summary in (
        lambda place: metrics.interval(values[0].to(place), generator=oracles.seeded(0)),
        lambda place: metrics.seed_interval(values.to(place)),
    ):
        assert summary(device) == summary(CPU)
    seeded = partial(metrics.specific, score=metrics.cosine, generator=oracles.seeded(0))
    assert 0 < seeded(a, b, y).low <= seeded(a, b, y).value <= 1


@pytest.mark.parametrize("goal", ["top-k", "lens", "kendall", "cosine", "identification"])
def test_the_suite(goal: str, device: torch.device, dtype: torch.dtype) -> None:
    others = (
        oracles.images(6, seed=7).view(2, 3, 1, 8, 8) - 0.5 if goal == "identification" else None
    )
    attack = attacks.standard(
        eps=0.3, attribution=gradient, k=9, effort="quick", goal=goal, others=others
    )
    model = oracles.softplus_net().to(device)
    x, y = oracles.images(2).to(device), oracles.labels(2).to(device)
    z = attack(model, x, y, generator=oracles.seeded(0))
    assert (z.device, z.dtype) == (x.device, dtype)
    assert (z - x).abs().max() <= 0.3 + 1e-6
    assert not torch.equal(z, x)
    with torch.no_grad():
        assert torch.equal(model(z).argmax(1), model(x).argmax(1))


def test_what_is_kept_for_each_sample_is_cut(device: torch.device) -> None:
    index = torch.tensor([2, 0], device=device)
    target = attacks.TargetMap(target=oracles.images(3)[:, 0])
    others = attacks.Identification(others=oracles.images(6).view(3, 2, 1, 8, 8))
    assert torch.equal(target.rows(index).target, target.target[[2, 0]])
    assert torch.equal(others.rows(index).others, others.others[[2, 0]])


def test_training_and_evaluation(device: torch.device, dtype: torch.dtype) -> None:
    loss = training.Loss(
        terms={"ce": CrossEntropy(), "norm": InputGradientNorm()}, weights={"ce": 1.0, "norm": 0.1}
    )
    config = training.TrainConfig(epochs=2, batch_size=8)

    def run(place: torch.device) -> tuple[nn.Module, Tensor]:
        model = oracles.softplus_net()
        training.train(
            model, _images(), loss, config=config, generator=oracles.seeded(0), device=place
        )
        scores = {"logit": lambda net, x, _: net(x).amax(1)}
        return model, training.evaluate(model, _images(), scores, device=place)["logit"]

    (model, here), (_, there) = run(device), run(CPU)
    assert {p.device.type for p in model.parameters()} <= {"cpu", device.type}
    torch.testing.assert_close(here, there, rtol=CLOSE[dtype], atol=CLOSE[dtype])
    assert len(training.only_correct(model, _images(), device=device)) > 0
