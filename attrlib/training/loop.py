"""The training loop."""

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attrlib import _check, _files, _model, _random
from attrlib.checkpoints import describe
from attrlib.data import Images, Texts, fingerprint
from attrlib.training import parallel, state
from attrlib.training.batches import inputs
from attrlib.training.loss import Loss
from attrlib.training.modes import eval_mode, mode

_SLICE = 256  # images at a time when the validation loss is computed


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the optimizer, AdamW.

    Attributes:
        epochs: Passes over the data, >= 1.
        batch_size: Samples per step, >= 1; the last batch of an epoch may be smaller.
        lr: Highest learning rate, > 0.
        weight_decay: Decoupled weight decay, >= 0.
        schedule: `one-cycle` (up over the first 30 % of the steps, then down to nearly 0) or `constant`.
        clip: Largest l2 norm of the gradient of the batch, > 0; a longer one is scaled down. None does
            not clip.
        precision: `full`, or `bf16`: forward passes in bfloat16 where torch's autocast finds it safe.
            Only for losses without derivatives in the input, which rounding would drown.
        patience: Epochs without a lower validation loss after which training stops and the best weights
            come back, >= 1; needs validation images. None trains to the end.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.01
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    clip: float | None = None
    precision: Literal["full", "bf16"] = "full"
    patience: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers when the settings are made, not an hour into a run."""
        _check.count(epochs=self.epochs, batch_size=self.batch_size)
        _check.positive(lr=self.lr)
        _check.nonnegative(weight_decay=self.weight_decay)
        _check.one_of(("one-cycle", "constant"), schedule=self.schedule)
        _check.one_of(("full", "bf16"), precision=self.precision)
        if self.clip is not None:
            _check.positive(clip=self.clip)
        if self.patience is not None:
            _check.count(patience=self.patience)


@dataclass(frozen=True)
class History:
    """What happened in a run.

    Attributes:
        epochs: One row per epoch: mean of the loss and of each term, with early stopping the validation
            loss, and seconds.
    """

    epochs: tuple[Mapping[str, float], ...]

    @property
    def seconds(self) -> float:
        """Time spent training, over all sittings."""
        return sum(row["seconds"] for row in self.epochs)


def train(
    model: nn.Module,
    data: Images | Texts,
    loss: Loss,
    *,
    config: TrainConfig,
    generator: torch.Generator,
    device: str | torch.device = "cpu",
    devices: int = 1,
    nodes: int = 1,
    validation: Images | Texts | None = None,
    checkpoint: str | Path | None = None,
    save_every: float = 60.0,
    log: str | Path | None = None,
    progress: bool = False,
) -> History:
    """Train a model in place.

    With equal seeds, and on one machine at one thread count, two runs give the same weights to the last
    bit; so does a run that was killed, at any step, and started again with the same `checkpoint`.

    With several devices, each step's batch is split over as many processes, noise is drawn for the
    whole batch and then split, and gradients are added up: the run differs from that of one process by
    rounding only. Needs the extra `cluster`; batch normalisation would see each process's rows alone.

    Args:
        model: The network; moved to `device`.
        data: Training images, or sentences for a network that embeds them.
        loss: What is minimised, averaged over each batch.
        config: Settings of the optimizer.
        generator: Source of the data order and of all noise; on the CPU.
        device: Where to train.
        devices: Processes on each machine, one for each device, >= 1.
        nodes: Machines, >= 1.
        validation: Images on which early stopping looks (`config.patience`), in eval mode and with noise
            that is the same after every epoch.
        checkpoint: File to which the state is written (whole or not at all) after each epoch and
            within an epoch every `save_every` seconds, and from which a run goes on if the file exists;
            None writes nothing. To go on, give the same model, generator and settings as at the first
            start.
        save_every: Seconds between two states within an epoch, >= 0.
        log: CSV file that gets a line for each epoch, with the columns of `History`; None writes none.
        progress: Show a progress bar with the value of each term.

    Returns:
        The history of the whole run, earlier sittings included.

    Raises:
        TypeError: If `generator` is none.
        ValueError: If the data are empty, all weights are frozen, a setting makes no sense with another,
            `checkpoint` is damaged, belongs to another run or is written by one just now, or the loss is
            no longer finite (the weights are then useless; the last checkpoint is kept).
        OSError: If `checkpoint` or `log` cannot be written; both are tried before training.
        ImportError: If several devices are asked for and Lightning Fabric is missing.
    """
    if len(data) == 0:
        raise ValueError("Expected data with at least one image, got 0")
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"Expected generator to be a torch.Generator, got {type(generator).__name__}; "
            "torch.Generator().manual_seed(0) makes one of a seed"
        )
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError("Expected model with weights to train, got none that requires a gradient")
    _check.nonnegative(save_every=save_every)
    if config.patience is not None and not validation:
        raise ValueError(f"Expected validation images for patience={config.patience}, got none")
    if config.precision == "bf16" and (exact := sorted(_exact(loss))):
        raise ValueError(
            f"Expected precision='full' for terms with derivatives in the input ({', '.join(exact)}), "
            "got 'bf16'"
        )
    team = parallel.gather(device, devices=devices, nodes=nodes)
    model.to(team.device)
    steps = math.ceil(len(data) / config.batch_size)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.lr, weight_decay=config.weight_decay
    )
    schedule = _schedule(optimizer, config, config.epochs * steps)
    parts = {"model": model, "optimizer": optimizer, "schedule": schedule}
    run = {
        "config": asdict(config),
        "loss": describe(loss),
        "data": fingerprint(data),
        "start": state.start(model, generator),
    }
    if validation:
        run["validation"] = fingerprint(validation)
    team.check_equal(**run)
    file = None if checkpoint is None else Path(checkpoint)
    record = None if log is None else Path(log)

    with ExitStack() as places, mode(model, training=True):
        if file is not None:
            team.first(lambda: places.enter_context(_files.claimed(file)))
        if record is not None:
            team.first(lambda: _files.ready(record))
        at = state.Position() if file is None else state.resume(file, parts, generator, run)
        at.sums = {name: value.to(team.device) for name, value in at.sums.items()}
        if team.leads and record and at.rows:
            state.write_log(record, at.rows)
        while len(at.rows) < config.epochs and not _stopped(at, config):
            start = saved = time.perf_counter()
            before, epoch = at.seconds, len(at.rows)
            if at.order is None:
                at.order = torch.randperm(len(data), generator=generator)
            batches = torch.split(at.order, config.batch_size)
            bar = tqdm(
                batches[at.step :],
                desc=f"epoch {epoch + 1}/{config.epochs}",
                initial=at.step,
                total=steps,
                disable=not (progress and team.leads),
            )
            for rows in bar:
                done = (epoch * steps + at.step) / (config.epochs * steps)
                sums = _step(model, data, rows, loss, config, done, generator, team, optimizer)
                schedule.step()
                at.sums = {name: at.sums.get(name, 0) + value for name, value in sums.items()}
                at.step += 1
                now = time.perf_counter()
                at.seconds = before + now - start
                if progress and at.step % 20 == 1:
                    seen = min(at.step * config.batch_size, len(data))
                    bar.set_postfix({k: f"{float(v) / seen:.4f}" for k, v in at.sums.items()})
                if file and team.leads and at.step < steps and now - saved >= save_every:
                    _check_loss(at, epoch)
                    state.store(file, parts, generator, run, at)
                    saved = now
            _check_loss(at, epoch)
            row = {name: float(value) / len(data) for name, value in at.sums.items()}
            if config.patience is not None and validation:
                row["validation_loss"] = _validate(model, validation, loss, team.device)
                if not at.best or row["validation_loss"] < at.best["loss"]:
                    weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
                    at.best = {"loss": row["validation_loss"], "epoch": epoch, "model": weights}
            at.rows.append({**row, "seconds": before + time.perf_counter() - start})
            at.order, at.step, at.sums, at.seconds = None, 0, {}, 0.0
            if team.leads and file:
                state.store(file, parts, generator, run, at)
            if team.leads and record:
                state.write_log(record, at.rows)
    if at.best:
        model.load_state_dict(at.best["model"])
    return History(tuple(at.rows))


def _step(
    model: nn.Module,
    data: Images | Texts,
    rows: Tensor,
    loss: Loss,
    config: TrainConfig,
    done: float,
    generator: torch.Generator,
    team: parallel.Team,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Tensor]:
    """One step of the optimizer; returns the sum over the batch of the loss and of each term."""
    mine, counts = team.share(len(rows))
    x, y = inputs(model, data[rows[mine]], team.device)
    whole = _random.part(mine, of=len(rows)) if team.size > 1 else nullcontext()
    with whole, _precision(config, team.device):
        total, values = loss(model, x, y, done=done, generator=generator)
    optimizer.zero_grad()
    with _model.second_derivative():
        (total.sum() * counts / len(rows)).backward()  # type: ignore[no-untyped-call]
    sums = torch.stack([v.detach().sum() * counts for v in (total, *values.values())])
    sums = team.add_up(model, sums)
    if config.clip is not None:
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    return dict(zip(["loss", *values], sums, strict=True))


def _check_loss(at: state.Position, epoch: int) -> None:
    if not math.isfinite(value := float(at.sums["loss"])):
        raise ValueError(f"Expected a finite loss, got {value} in epoch {epoch + 1}")


def _precision(config: TrainConfig, device: torch.device) -> AbstractContextManager[object]:
    if config.precision == "full":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _exact(loss: Loss) -> Iterator[str]:
    """Names of the terms that do not declare themselves safe in half precision."""
    for name, term in loss.terms.items():
        if not getattr(term, "half_safe", False):
            yield name


def _validate(model: nn.Module, data: Images | Texts, loss: Loss, device: torch.device) -> float:
    generator, total = torch.Generator().manual_seed(0), 0.0
    with eval_mode(model):
        for first in range(0, len(data), _SLICE):
            x, y = inputs(model, data[first : first + _SLICE], device)
            # A copy, since a model may work in place.
            values, _ = loss(model, x.detach().clone(), y, generator=generator)
            total += float(values.detach().sum())
    return total / len(data)


def _stopped(at: state.Position, config: TrainConfig) -> bool:
    waited = len(at.rows) - 1 - at.best["epoch"] if at.best else 0
    return config.patience is not None and waited >= config.patience


def _schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=config.lr, total_steps=steps)
