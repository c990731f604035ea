"""Clipping, half precision, early stopping, logs; several processes."""

import csv
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attrlib import _random
from attrlib.certificates import UniformBall
from attrlib.data import Images
from attrlib.regularizers import CrossEntropy
from attrlib.training import Loss, TrainConfig, eval_mode, train
from attrlib.training.parallel import Team, gather
from tests import oracles

PLAIN = Loss(terms={"ce": CrossEntropy()}, weights={"ce": 1.0})
CONFIG = TrainConfig(epochs=2, batch_size=8)


@pytest.fixture
def images() -> Images:
    return Images(oracles.images(30), oracles.labels(30), ("a", "b", "c"))


@dataclass(frozen=True)
class Constant:
    """The sum of the weights times a constant: its gradient is known; values are listed one a call."""

    slope: float = 1.0
    levels: tuple[float, ...] = ()
    calls: list[bool] = field(default_factory=list)

    def __call__(self, model: nn.Module, x: Tensor, y: Tensor, /, **_: object) -> Tensor:
        self.calls.append(model.training)
        total = sum(p.sum() for p in model.parameters())
        asked = self.calls.count(False) - 1
        level = self.levels[asked] if self.levels and not model.training else 0.0
        return x.new_zeros(len(x)) + self.slope * (total - total.detach()) + level


def _loss(term: Constant) -> Loss:
    return Loss(terms={"it": term}, weights={"it": 1.0})


def _run(
    data: Images, loss: Loss = PLAIN, config: TrainConfig = CONFIG, **options: object
) -> nn.Module:
    model = oracles.linear_net()
    train(model, data, loss, config=config, generator=oracles.seeded(0), **options)
    return model


def test_clipping_limits_the_gradient_of_the_batch(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    real = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *args: object, **options: object) -> object:
        grads = [p.grad.flatten() for group in self.param_groups for p in group["params"]]
        seen.append(torch.cat(grads).norm().item())
        return real(self, *args, **options)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    count = sum(p.numel() for p in oracles.linear_net().parameters())
    for clip, expected in [(None, 3 * math.sqrt(count)), (0.5, 0.5), (1e6, 3 * math.sqrt(count))]:
        seen.clear()
        _run(images, _loss(Constant(slope=3.0)), replace(CONFIG, clip=clip))
        assert seen == pytest.approx([expected] * 8, rel=1e-5)


def test_early_stopping_brings_the_best_weights_back(images: Images, tmp_path: Path) -> None:
    levels = (3.0, 1.0, 2.0, 2.0, 0.0)
    config = TrainConfig(epochs=5, batch_size=8, patience=2)
    term, log = Constant(levels=levels), tmp_path / "log.csv"
    stopped = _run(images, _loss(term), config, validation=images[:10], log=log)
    with log.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["validation_loss"]) for row in rows] == pytest.approx(levels[:4])
    # Two epochs of the same run: their weights were the best.
    states: list[dict[str, Tensor]] = []
    real = Constant.__call__

    def spy(self: Constant, model: nn.Module, *args: object, **options: object) -> Tensor:
        if not model.training:
            states.append({k: v.detach().clone() for k, v in model.state_dict().items()})
        return real(self, model, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Constant, "__call__", spy)
        _run(images, _loss(Constant(levels=levels)), config, validation=images[:10])
    assert all(torch.equal(v, states[1][k]) for k, v in stopped.state_dict().items())
    # A run that was stopped and is called again stays stopped.
    state = tmp_path / "state.pt"
    for calls in (20, 0):
        again = Constant(levels=levels)
        model = oracles.linear_net()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("attrlib.training.loop.describe", lambda _: "the same")
            history = train(
                model,
                images,
                _loss(again),
                config=config,
                generator=oracles.seeded(0),
                validation=images[:10],
                checkpoint=state,
            )
        assert len(history.epochs) == 4
        assert len(again.calls) == calls  # 4 epochs of 4 steps and one look each
        assert all(torch.equal(v, stopped.state_dict()[k]) for k, v in model.state_dict().items())


def test_the_log_has_a_line_for_each_epoch_and_survives_a_second_sitting(
    images: Images, tmp_path: Path
) -> None:
    log, state = tmp_path / "log.csv", tmp_path / "state.pt"
    _run(images, log=log, checkpoint=state)
    first = log.read_text()
    rows = list(csv.DictReader(first.splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert list(rows[0]) == ["epoch", "loss", "ce", "seconds"]
    assert float(rows[1]["loss"]) < float(rows[0]["loss"])
    assert all(row["loss"] == row["ce"] for row in rows)
    _run(images, log=log, checkpoint=state)
    assert log.read_text() == first


def test_half_precision_is_for_terms_that_say_so(images: Images, device: torch.device) -> None:
    single = Images(images.x.float(), images.y, images.classes)
    dtypes: list[torch.dtype] = []

    @dataclass(frozen=True)
    class Seeing:
        half_safe = True

        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, /, **_: object) -> Tensor:
            dtypes.append(model(x).dtype)
            return CrossEntropy()(model, x, y)

    def run(precision: str) -> nn.Module:
        model = oracles.linear_net().float()
        loss = Loss(terms={"seeing": Seeing()}, weights={"seeing": 1.0})
        config = TrainConfig(epochs=3, batch_size=8, precision=precision)
        generator = oracles.seeded(0)
        train(model, single, loss, config=config, generator=generator, device=device)
        return model

    half, full = run("bf16"), run("full")
    assert dtypes == [torch.bfloat16] * 12 + [torch.float32] * 12
    for p, q in zip(half.parameters(), full.parameters(), strict=True):
        assert p.dtype == torch.float32
        assert not torch.equal(p, q)
        torch.testing.assert_close(p, q, atol=0.01, rtol=0.1)
    with pytest.raises(
        ValueError, match=r"Expected precision='full' for terms .* \(it\), got 'bf16'"
    ):
        _run(images, _loss(Constant()), replace(CONFIG, precision="bf16"))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": 0.0}, "Expected clip > 0, got 0.0"),
        ({"clip": math.nan}, "Expected clip > 0, got nan"),
        ({"patience": 0}, "Expected patience to be an integer >= 1, got 0"),
        ({"precision": "half"}, "Expected precision to be one of full, bf16, got 'half'"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **options)


@pytest.mark.usefixtures("unchecked_shapes")
def test_settings_that_make_no_sense_together_are_named(images: Images) -> None:
    with pytest.raises(ValueError, match="Expected validation images for patience=3, got none"):
        _run(images, config=replace(CONFIG, patience=3))
    with pytest.raises(ValueError, match="Expected save_every >= 0, got -1"):
        _run(images, save_every=-1)
    with pytest.raises(ValueError, match="Expected devices to be an integer >= 1, got 0"):
        _run(images, devices=0)
    with pytest.raises(ValueError, match="Expected nodes to be an integer >= 1, got 0"):
        _run(images, nodes=0)


# --- several processes ----------------------------------------------------------------------------

SCRIPT = """
import sys
import torch
from pathlib import Path
from attrlib.certificates import UniformBall
from attrlib.data import Images
from attrlib.training import Loss, TrainConfig, eval_mode, train
from attrlib.training.parallel import leads
from tests import oracles
from tests.test_training_options import shared_loss

torch.set_default_dtype(torch.float64)
devices, folder = int(sys.argv[1]), Path(sys.argv[2])
data = Images(oracles.images(30), oracles.labels(30), ("a", "b", "c"))
model = oracles.linear_net()
history = train(
    model, data, shared_loss(), config=TrainConfig(epochs=5, batch_size=9, lr=0.01, clip=1.0),
    generator=oracles.seeded(0), devices=devices, checkpoint=folder / "state.pt",
    log=folder / "log.csv",
)
if leads():
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.epochs]
    torch.save({"model": model.state_dict(), "rows": rows}, folder / "end.pt")
"""


@dataclass(frozen=True, kw_only=True)
class NoisySlope:
    """Squared input gradient at a noisy point: noise, and a second derivative in the weights."""

    draw: Callable[..., Tensor]

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        /,
        *,
        z: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        point = (z + 0.1 * self.draw(x, generator=generator)).requires_grad_()
        loss = nn.functional.cross_entropy(model(point), y, reduction="sum")
        (grad,) = torch.autograd.grad(loss, point, create_graph=True)
        return grad.flatten(1).square().sum(1)


def shared_loss() -> Loss:
    from attrlib.attacks import PGD, L2Ball

    attack = PGD(ball=L2Ball(eps=0.3), steps=2, step_size=0.1, random_start=True)
    terms = {
        "ce": CrossEntropy(),
        "normal": NoisySlope(draw=_random.normal_like),
        "ball": NoisySlope(draw=_random.ball_like),
    }
    return Loss(terms=terms, weights=dict.fromkeys(terms, 1.0), ramps={"ball": 0.5}, attack=attack)


def _launch(folder: Path, devices: int) -> dict[str, object]:
    folder.mkdir()
    script = folder / "script.py"
    script.write_text(SCRIPT)
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, str(script), str(devices), str(folder)],
        env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in folder.iterdir()) == [
        "end.pt",
        "log.csv",
        "script.py",
        "state.pt",
    ]
    return torch.load(folder / "end.pt", weights_only=True)


def test_two_processes_reach_the_weights_of_one(tmp_path: Path) -> None:
    """20 steps with noise, attack and second derivatives; batches of 9 and 3 do not split evenly."""
    one, two = _launch(tmp_path / "one", 1), _launch(tmp_path / "two", 2)
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, atol=1e-5, rtol=0)
        assert (value - oracles.linear_net().state_dict()[name]).abs().max() > 0.01
    assert len(one["rows"]) == 5
    for alone, shared in zip(one["rows"], two["rows"], strict=True):
        assert shared == pytest.approx(alone, abs=1e-8)


def test_noise_of_a_part_is_a_part_of_the_noise() -> None:
    x = oracles.images(7)
    draws = _random.normal_like, _random.uniform_like, _random.sign_like, _random.ball_like
    for draw in (*draws, UniformBall(radius=2.0).noise):
        generator = oracles.seeded(3)
        whole, state = draw(x, generator=generator), generator.get_state()
        for rows in (slice(0, 3), slice(3, 7)):
            generator = oracles.seeded(3)
            with _random.part(rows, of=7):
                assert torch.equal(draw(x[rows], generator=generator), whole[rows])
                with pytest.raises(ValueError, match="Expected noise for"):
                    draw(x, generator=generator)
            generator = oracles.seeded(3)
            with _random.part(rows, of=7):
                draw(x[rows], generator=generator)
            assert torch.equal(generator.get_state(), state)


def test_shares_cover_a_batch_once() -> None:
    @dataclass(frozen=True)
    class Rank:
        global_rank: int
        world_size: int

    assert Team(torch.device("cpu")).share(5) == (slice(0, 5), True)
    for size in (2, 3, 4):
        for count in (1, 2, 3, 5, 64):
            shares = [Team(torch.device("cpu"), Rank(r, size)).share(count) for r in range(size)]
            rows = [i for share, counts in shares if counts for i in range(count)[share]]
            assert rows == list(range(count))
            assert all(len(range(count)[share]) >= 1 for share, _ in shares)


def test_a_missing_fabric_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.fabric", None)
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(ImportError, match="Expected Lightning Fabric for devices × nodes = 4"):
        gather("cpu", devices=2, nodes=2)


def test_processes_that_were_called_differently_stop() -> None:
    class Other:
        world_size = 2

        def broadcast(self, _: object) -> str:
            return "another"

    with pytest.raises(ValueError, match="Expected loss as in the first process, another, got one"):
        Team(torch.device("cpu"), Other()).check_equal(loss="one")
    Team(torch.device("cpu")).check_equal(loss="one")


# --- bad settings ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, r"Expected epochs .* got 0"),
        ({"batch_size": 0}, r"Expected batch_size .* got 0"),
        ({"lr": 0.0}, r"Expected lr > 0, got 0\.0"),
        ({"weight_decay": -1.0}, r"Expected weight_decay >= 0, got -1\.0"),
        (
            {"schedule": "cosine"},
            r"Expected schedule to be one of one-cycle, constant, got 'cosine'",
        ),
    ],
)
def test_bad_settings_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"epochs": 1} | options))


# --- eval_mode, evaluate --------------------------------------------------------------------------


def test_eval_mode_gives_every_module_its_own_mode_back() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm2d(1), nn.ReLU()))
    model[1][0].eval()
    modes = [m.training for m in model.modules()]
    with eval_mode(model):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(KeyError), eval_mode(model):
        raise KeyError
    assert [m.training for m in model.modules()] == modes
