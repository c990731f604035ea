"""Training: repeatable to the last bit, resumable, and clear about what went wrong."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attrlib import _files
from attrlib.data import Images
from attrlib.models import SmallCNN
from attrlib.regularizers import CrossEntropy
from attrlib.training import (
    History,
    Loss,
    TrainConfig,
    correct,
    evaluate,
    train,
)
from tests import oracles

CONFIG = TrainConfig(epochs=4, batch_size=8)
PLAIN = Loss(terms={"ce": CrossEntropy()}, weights={"ce": 1.0})


@pytest.fixture(scope="module")
def images() -> Images:
    return Images(oracles.images(30).float(), oracles.labels(30), ("a", "b", "c"))


def _net(seed: int = 0, activation: Callable[[], nn.Module] = nn.ReLU) -> SmallCNN:
    model = SmallCNN(size=8, classes=3, activation=activation, generator=oracles.seeded(seed))
    return model.float()


def _run(
    data: Images,
    *,
    loss: Loss = PLAIN,
    config: TrainConfig = CONFIG,
    checkpoint: Path | None = None,
    seed: int = 0,
    net: SmallCNN | None = None,
    **options: object,
) -> tuple[SmallCNN, History]:
    model = net or _net()
    history = train(
        model,
        data,
        loss,
        config=config,
        generator=oracles.seeded(seed),
        checkpoint=checkpoint,
        **options,
    )
    return model, history


def _equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def _without_seconds(history: History) -> list[dict[str, float]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history.epochs]


@dataclass(frozen=True, kw_only=True)
class Noisy:
    """Cross-entropy at a noisy input: uses the generator, and fails at the calls named."""

    fail_at: int | None = field(default=None, compare=False, repr=False)
    calls: list[int] = field(default_factory=list, compare=False, repr=False)

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        x: Tensor,
        y: Tensor,
        /,
        *,
        z: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        self.calls.append(len(self.calls))
        if self.fail_at is not None and len(self.calls) > self.fail_at:
            raise KeyboardInterrupt
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        return nn.functional.cross_entropy(model(x + 0.1 * noise), y, reduction="none")


def _noisy(fail_at: int | None = None) -> Loss:
    return Loss(terms={"noisy": Noisy(fail_at=fail_at)}, weights={"noisy": 1.0})


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> None:
    """Describe a term without what only tests need, so that a failing twin is the same run."""
    monkeypatch.setattr("attrlib.training.loop.describe", lambda loss: sorted(loss.terms))


# --- runs -----------------------------------------------------------------------------------------


def test_training_learns_and_repeats_bit_for_bit(images: Images) -> None:
    (one, first), (other, second) = (_run(images, config=TrainConfig(epochs=30)) for _ in range(2))
    assert _equal(one, other)
    assert _without_seconds(first) == _without_seconds(second)
    assert first.epochs[-1]["loss"] < 0.9 * first.epochs[0]["loss"]
    assert first.seconds == sum(row["seconds"] for row in first.epochs) > 0
    assert not _equal(one, _run(images, config=TrainConfig(epochs=30, batch_size=8), seed=1)[0])


def test_the_global_random_state_and_the_mode_stay(images: Images) -> None:
    model, before = _net(), torch.get_rng_state()
    model.train()
    model.layers[0].eval()
    modes = [m.training for m in model.modules()]
    _run(images, net=model, loss=_noisy())
    assert torch.equal(torch.get_rng_state(), before)
    assert [m.training for m in model.modules()] == modes


@pytest.mark.parametrize("schedule", ["one-cycle", "constant"])
@pytest.mark.parametrize("batch_size", [8, 30, 64])
def test_schedules_and_batch_sizes(images: Images, schedule: str, batch_size: int) -> None:
    config = TrainConfig(epochs=1, batch_size=batch_size, schedule=schedule, lr=0.01)
    model, history = _run(images, config=config)
    assert not _equal(model, _net())
    assert len(history.epochs) == 1


def test_history_is_the_mean_over_all_samples(images: Images) -> None:
    config = TrainConfig(epochs=1, batch_size=8, lr=1e-12, weight_decay=0.0)
    history = _run(images, config=config)[1]
    with torch.no_grad():
        expected = nn.functional.cross_entropy(_net()(images.x), images.y)
    assert history.epochs[0]["ce"] == pytest.approx(float(expected), rel=1e-5)
    assert history.epochs[0]["loss"] == history.epochs[0]["ce"]


def test_a_progress_bar_shows_each_term(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    train(_net(), images, PLAIN, config=CONFIG, generator=oracles.seeded(0), progress=True)
    shown = capsys.readouterr().err
    assert "epoch 4/4" in shown
    assert "ce=" in shown


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize("fail_at", [1, 3, 4, 5, 10])  # 4 steps an epoch
def test_a_run_killed_within_an_epoch_goes_on_from_the_last_state(
    images: Images, tmp_path: Path, fail_at: int
) -> None:
    whole, history = _run(images, loss=_noisy())
    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        _run(images, loss=_noisy(fail_at), checkpoint=file, save_every=0)
    stored = torch.load(file, weights_only=True)["position"]
    assert 4 * len(stored["rows"]) + stored["step"] == fail_at
    term = Noisy()
    loss = Loss(terms={"noisy": term}, weights={"noisy": 1.0})
    resumed, later = _run(images, loss=loss, checkpoint=file, save_every=0)
    assert len(term.calls) == 16 - fail_at
    assert _equal(resumed, whole)
    assert _without_seconds(later) == _without_seconds(history)


@pytest.mark.usefixtures("described")
@pytest.mark.parametrize("fail_at", [3, 4, 5, 10])  # 4 steps an epoch
def test_a_killed_run_goes_on_bit_for_bit(images: Images, tmp_path: Path, fail_at: int) -> None:
    whole, history = _run(images, loss=_noisy())
    file = tmp_path / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        _run(images, loss=_noisy(fail_at), checkpoint=file)
    assert file.exists() == (fail_at >= 4)
    resumed, later = _run(images, loss=_noisy(), checkpoint=file)
    assert _equal(resumed, whole)
    assert _without_seconds(later) == _without_seconds(history)
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    # A finished run is not trained again.
    silent = _noisy(fail_at=0)
    again, last = _run(images, loss=silent, checkpoint=file)
    assert _equal(again, whole)
    assert last == later


def test_the_state_of_another_run_is_refused(images: Images, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    _run(images, checkpoint=file)
    content = file.read_bytes()
    others = {
        "config": {"config": TrainConfig(epochs=5, batch_size=8)},
        "loss": {"loss": Loss(terms={"ce": CrossEntropy()}, weights={"ce": 2.0})},
        "start": {"seed": 1},
    }
    for what, options in others.items():
        with pytest.raises(ValueError, match=f"Expected checkpoint .* got another {what}; delete"):
            _run(images, checkpoint=file, **options)
    with pytest.raises(ValueError, match="got another data; delete"):
        _run(images[:29], checkpoint=file)
    for net in (_net(seed=1), _net(activation=nn.Softplus)):
        with pytest.raises(ValueError, match="got another start; delete"):
            _run(images, checkpoint=file, net=net)
    assert file.read_bytes() == content


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "not a state"])
def test_a_damaged_state_is_refused(images: Images, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "state.pt"
    _run(images, config=TrainConfig(epochs=1), checkpoint=file)
    raw = file.read_bytes()
    if damage == "not a state":
        torch.save([1, 2], file)
    else:
        file.write_bytes({"empty": b"", "text": b"hello", "cut": raw[: len(raw) // 2]}[damage])
    with pytest.raises(
        ValueError, match=r"Expected checkpoint .*state\.pt to be an intact training"
    ):
        _run(images, config=TrainConfig(epochs=1), checkpoint=file)


def test_a_failed_write_leaves_the_old_state(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "state.pt"
    full = oracles.full_disk(Path.write_bytes, after=1)
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match=r"No space left.*state\.pt"):
        _run(images, checkpoint=file)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    assert _equal(_run(images, checkpoint=file)[0], _run(images)[0])


@pytest.mark.parametrize("what", ["checkpoint", "log"])
def test_places_are_tried_before_training(images: Images, tmp_path: Path, what: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        _run(images, loss=_noisy(fail_at=0), **{what: tmp_path / "file" / "a"})
    with pytest.raises(ValueError, match="to be a file or new, got a folder"):
        _run(images, loss=_noisy(fail_at=0), **{what: tmp_path})
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.usefixtures("described")
def test_a_run_that_stops_before_its_first_state_claims_nothing(
    images: Images, tmp_path: Path
) -> None:
    file = tmp_path / "new" / "state.pt"
    with pytest.raises(KeyboardInterrupt):
        _run(images, loss=_noisy(fail_at=2), checkpoint=file)
    assert list(tmp_path.iterdir()) == []
    with (
        _files.claimed(file),
        pytest.raises(ValueError, match=r"Expected .*state\.pt to be free, got another run"),
    ):
        _run(images, checkpoint=file)
    _run(images, checkpoint=file, seed=1)


def test_a_log_is_whole_after_a_run_that_had_nothing_left_to_do(
    images: Images, tmp_path: Path
) -> None:
    file, log = tmp_path / "state.pt", tmp_path / "new" / "log.csv"
    _run(images, checkpoint=file)
    _run(images, checkpoint=file, log=log)
    assert len(log.read_text().splitlines()) == 1 + CONFIG.epochs


def test_other_validation_images_are_another_run(images: Images, tmp_path: Path) -> None:
    file, config = tmp_path / "state.pt", TrainConfig(epochs=1, patience=1)
    _run(images, config=config, checkpoint=file, validation=images[:5])
    with pytest.raises(ValueError, match="got another validation; delete"):
        _run(images, config=config, checkpoint=file, validation=images[5:10])


def test_a_state_that_lacks_a_part_is_refused(images: Images, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    _run(images, config=TrainConfig(epochs=1), checkpoint=file)
    stored = torch.load(file, weights_only=True)
    for broken in ({"model": {}}, {"run": 3}, {"generator": torch.zeros(3, dtype=torch.uint8)}):
        torch.save(stored | broken, file)
        with pytest.raises(ValueError, match="to be an intact training state, got"):
            _run(images, config=TrainConfig(epochs=1), checkpoint=file)


def test_a_loss_that_is_not_finite_stops_the_run(images: Images, tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Exploding:
        calls: list[int] = field(default_factory=list)

        def __call__(self, model: nn.Module, x: Tensor, y: Tensor, /, **_: object) -> Tensor:
            self.calls.append(1)
            value = CrossEntropy()(model, x, y)
            return value * (math.inf if len(self.calls) == 6 else 1.0)

    file = tmp_path / "state.pt"
    loss = Loss(terms={"bad": Exploding()}, weights={"bad": 1.0})
    with pytest.raises(ValueError, match=r"Expected a finite loss, got (inf|nan) in epoch 2"):
        _run(images, loss=loss, checkpoint=file)
    kept = torch.load(file, weights_only=True)
    assert len(kept["position"]["rows"]) == 1
    assert all(torch.isfinite(v).all() for v in kept["model"].values())


def test_no_data_is_an_error(images: Images) -> None:
    with pytest.raises(ValueError, match="Expected data with at least one image, got 0"):
        _run(images[:0])
    with pytest.raises(ValueError, match="Expected data with at least one image, got 0"):
        evaluate(_net(), images[:0], {"correct": correct})


@pytest.mark.usefixtures("unchecked_shapes")
def test_frozen_weights_and_a_seed_in_place_of_a_generator_are_named(images: Images) -> None:
    model, loss = _net(), Loss(terms={"ce": CrossEntropy()}, weights={"ce": 1.0})
    for generator in (0, None):
        with pytest.raises(
            TypeError, match=r"Expected generator to be a torch.Generator, got [iN]"
        ):
            train(model, images, loss, config=TrainConfig(epochs=1), generator=generator)
    for weight in model.parameters():
        weight.requires_grad_(False)
    with pytest.raises(ValueError, match="Expected model with weights to train, got none that"):
        train(model, images, loss, config=TrainConfig(epochs=1), generator=oracles.seeded(0))


# --- Loss -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Gives a constant, and remembers what it was called with."""

    value: float
    seen: list[Tensor | None] = field(default_factory=list)

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
        self.seen.append(z)
        assert model.training
        return torch.full((len(x),), self.value, dtype=x.dtype)


@dataclass(frozen=True, kw_only=True)
class Shift:
    """An attack that notes the mode it was called in; its result has a graph."""

    modes: list[bool] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        self.modes.extend(m.training for m in model.modules())
        noise = torch.rand(x.shape, generator=generator, dtype=x.dtype)
        return x + noise * model(x).sum()


def test_weights_and_ramps(images: Images) -> None:
    one, other = Recorded(value=2.0), Recorded(value=5.0)
    loss = Loss(
        terms={"one": one, "other": other},
        weights={"one": 3.0, "other": 0.5},
        ramps={"other": 0.4},
    )
    model = _net().train()
    x, y = images.x[:4], images.y[:4]
    for done, ramp in [(0.0, 0.0), (0.1, 0.25), (0.4, 1.0), (0.9, 1.0)]:
        total, values = loss(model, x, y, done=done)
        torch.testing.assert_close(total, torch.full((4,), 6 + 2.5 * ramp, dtype=x.dtype))
        assert values["one"].tolist() == [2.0] * 4
        assert values["other"].tolist() == [5.0] * 4
    assert one.seen == [None] * 4


def test_ramps_follow_the_steps_of_the_run(images: Images) -> None:
    loss = Loss(
        terms={"ce": CrossEntropy(), "five": Recorded(value=5.0)},
        weights={"ce": 1e-9, "five": 1.0},
        ramps={"five": 1.0},
    )
    history = _run(images[:16], loss=loss, config=TrainConfig(epochs=2, batch_size=8))[1]
    shares = [row["loss"] / 5 for row in history.epochs]  # two steps an epoch: 0, ¼ | ½, ¾
    assert shares == pytest.approx([0.125, 0.625], abs=1e-6)


def test_one_adversarial_example_for_all_terms(images: Images) -> None:
    attack, one, other = Shift(), Recorded(value=1.0), Recorded(value=1.0)
    loss = Loss(
        terms={"one": one, "other": other}, weights={"one": 1.0, "other": 1.0}, attack=attack
    )
    model = _net().train()
    model.layers[1].eval()
    modes = [m.training for m in model.modules()]
    loss(model, images.x[:3], images.y[:3], generator=oracles.seeded(0))
    assert not any(attack.modes)
    assert len(attack.modes) == len(modes)  # called once
    assert [m.training for m in model.modules()] == modes
    assert one.seen[0] is other.seen[0]
    assert not one.seen[0].requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"terms": {}, "weights": {}}, r"Expected weights for the terms \[\], got \[\]"),
        ({"weights": {"b": 1.0}}, r"Expected weights for the terms \['a'\], got \['b'\]"),
        ({"ramps": {"b": 0.5}}, r"Expected ramps for some of \['a'\], got \['b'\]"),
        ({"weights": {"a": -1.0}}, r"Expected weights\['a'\] >= 0, got -1.0"),
        ({"weights": {"a": math.nan}}, r"Expected weights\['a'\] >= 0, got nan"),
        ({"ramps": {"a": 0.0}}, r"Expected ramps\['a'\] > 0, got 0.0"),
        ({"ramps": {"a": 1.5}}, r"Expected ramps\['a'\] <= 1, got 1.5"),
    ],
)
def test_bad_losses_are_named(options: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"terms": {"a": CrossEntropy()}, "weights": {"a": 1.0}}
    with pytest.raises(ValueError, match=message):
        Loss(**(good | options))
