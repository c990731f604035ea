"""One training loop for every method: a loss is a sum of named terms, a run can be killed and resumed.

The only module that calls `backward`, steps an optimizer or changes a model's mode.
"""

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attrlib import _check
from attrlib.checkpoints import describe
from attrlib.data import Images, fingerprint
from attrlib.types import Attack, Classifier, Inputs, Labels, PerSample, Term

Score = Callable[[Classifier, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    r"""A weighted sum of terms.

    $$\ell = \sum_t w_t \, r_t(s) \, \ell_t(x, y, z)$$

    with the weight $w_t$, and the ramp $r_t(s) = \min(1, s / \rho_t)$ at the share $s$ of the training
    steps done.

    Attributes:
        terms: Name to term; each gives one value per sample.
        weights: Name to weight, for the same names.
        ramps: Name to the share of the steps, in (0, 1], over which a weight rises from 0; others are
            on from the start.
        attack: Makes the adversarial example `z`, once per step and in eval mode, for all terms.
    """

    terms: Mapping[str, Term]
    weights: Mapping[str, float]
    ramps: Mapping[str, float] = field(default_factory=dict)
    attack: Attack | None = None

    def __post_init__(self) -> None:
        """Check that the names agree and the numbers make sense."""
        if not self.terms or set(self.terms) != set(self.weights):
            raise ValueError(
                f"Expected weights for the terms {sorted(self.terms)}, got {sorted(self.weights)}"
            )
        if not set(self.ramps) <= set(self.terms):
            raise ValueError(
                f"Expected ramps for some of {sorted(self.terms)}, got {sorted(self.ramps)}"
            )
        for name, weight in self.weights.items():
            _check.nonnegative(**{f"weights[{name!r}]": weight})
        for name, share in self.ramps.items():
            _check.positive(**{f"ramps[{name!r}]": share})
            if share > 1:
                raise ValueError(f"Expected ramps[{name!r}] <= 1, got {share!r}")

    def __call__(
        self,
        model: nn.Module,
        x: Inputs,
        y: Labels,
        *,
        done: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[PerSample, dict[str, PerSample]]:
        """Return the weighted sum and each unweighted term, one value per sample.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            done: Share of the training steps done, in [0, 1].
            generator: Source of all noise.

        Returns:
            The sum (n,), and name to values (n,). Differentiable in the weights.
        """
        z = None
        if self.attack is not None:
            with eval_mode(model):
                z = self.attack(model, x, y, generator=generator).detach()
        values = {
            name: term(model, x, y, z=z, generator=generator) for name, term in self.terms.items()
        }
        total = x.new_zeros(len(x))
        for name, value in values.items():
            ramp = min(1.0, done / self.ramps[name]) if name in self.ramps else 1.0
            total = total + self.weights[name] * ramp * value
        return total, values


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of the optimizer, AdamW.

    Attributes:
        epochs: Passes over the data, >= 1.
        batch_size: Samples per step, >= 1; the last batch of an epoch may be smaller.
        lr: Highest learning rate, > 0.
        weight_decay: Decoupled weight decay, >= 0.
        schedule: `one-cycle` (up over the first 30 % of the steps, then down to nearly 0) or `constant`.
    """

    epochs: int
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.01
    schedule: Literal["one-cycle", "constant"] = "one-cycle"

    def __post_init__(self) -> None:
        """Check the numbers when the settings are made, not an hour into a run."""
        _check.count(epochs=self.epochs, batch_size=self.batch_size)
        _check.positive(lr=self.lr)
        _check.nonnegative(weight_decay=self.weight_decay)
        _check.one_of(("one-cycle", "constant"), schedule=self.schedule)


@dataclass(frozen=True)
class History:
    """What happened in a run.

    Attributes:
        epochs: One row per epoch: mean of the loss and of each term, and seconds.
    """

    epochs: tuple[Mapping[str, float], ...]

    @property
    def seconds(self) -> float:
        """Time spent training, over all sittings."""
        return sum(row["seconds"] for row in self.epochs)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode for the block; every submodule gets its own mode back.

    Args:
        model: Any network.

    Returns:
        A context manager.
    """
    with _mode(model, training=False):
        yield


def train(
    model: nn.Module,
    data: Images,
    loss: Loss,
    *,
    config: TrainConfig,
    generator: torch.Generator,
    device: str | torch.device = "cpu",
    checkpoint: str | Path | None = None,
    progress: bool = False,
) -> History:
    """Train a model in place.

    With equal seeds, and on one machine at one thread count, two runs give the same weights to the last
    bit; so does a run that was killed and started again with the same `checkpoint`.

    Args:
        model: The network; moved to `device`.
        data: Training images.
        loss: What is minimised, averaged over each batch.
        config: Settings of the optimizer.
        generator: Source of the data order and of all noise; on the CPU.
        device: Where to train.
        checkpoint: File to which the state is written after each epoch (whole or not at all), and from
            which a run goes on if the file exists; None writes nothing. To go on, give the same model,
            generator and settings as at the first start.
        progress: Show a progress bar with the value of each term.

    Returns:
        The history of the whole run, earlier sittings included.

    Raises:
        ValueError: If the data are empty, `checkpoint` is damaged or belongs to another run, or the
            loss is no longer finite (the weights are then useless; the last checkpoint is kept).
    """
    if len(data) == 0:
        raise ValueError("Expected data with at least one image, got 0")
    model.to(device)
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
        "start": _start(model, generator),
    }
    rows = [] if checkpoint is None else _resume(Path(checkpoint), parts, generator, run)

    with _mode(model, training=True):
        for epoch in range(len(rows), config.epochs):
            start = time.perf_counter()
            shuffled = torch.randperm(len(data), generator=generator)
            order = torch.split(shuffled, config.batch_size)
            sums: dict[str, Tensor] = {}
            bar = tqdm(order, desc=f"epoch {epoch + 1}/{config.epochs}", disable=not progress)
            for step, rows_of_batch in enumerate(bar):
                batch = data[rows_of_batch]
                x, y = batch.x.to(device), batch.y.to(device)
                done = (epoch * steps + step) / (config.epochs * steps)
                total, values = loss(model, x, y, done=done, generator=generator)
                optimizer.zero_grad()
                total.mean().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                for name, value in {"loss": total, **values}.items():
                    sums[name] = sums.get(name, 0) + value.detach().sum()
                if progress and step % 20 == 0:
                    seen = min((step + 1) * config.batch_size, len(data))
                    bar.set_postfix({k: f"{float(v) / seen:.4f}" for k, v in sums.items()})
            row = {name: float(value) / len(data) for name, value in sums.items()}
            if not math.isfinite(row["loss"]):
                raise ValueError(f"Expected a finite loss, got {row['loss']} in epoch {epoch + 1}")
            rows.append({**row, "seconds": time.perf_counter() - start})
            if checkpoint is not None:
                _store(Path(checkpoint), parts, generator, run, rows)
    return History(tuple(rows))


def evaluate(
    model: nn.Module,
    data: Images,
    scores: Mapping[str, Score],
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> dict[str, Tensor]:
    """Return each score of each image, computed in eval mode, batch by batch.

    Args:
        model: The network; moved to `device`.
        data: Images.
        scores: Name to score, `(model, x, y) -> (n,)`, such as `correct`.
        batch_size: Images at a time, >= 1.
        device: Where to compute.
        progress: Show a progress bar.

    Returns:
        Name to values (n,) on the CPU; not averaged.

    Raises:
        ValueError: If the data or the scores are empty, `batch_size` is below 1, or a score does not
            give one value per image.
    """
    _check.count(batch_size=batch_size)
    if len(data) == 0:
        raise ValueError("Expected data with at least one image, got 0")
    if not scores:
        raise ValueError("Expected at least one score, got none")
    model.to(device)
    columns: dict[str, list[Tensor]] = {name: [] for name in scores}
    with eval_mode(model):
        for start in tqdm(range(0, len(data), batch_size), desc="evaluate", disable=not progress):
            batch = data[start : start + batch_size]
            x, y = batch.x.to(device), batch.y.to(device)
            for name, score in scores.items():
                values = score(model, x, y)
                if values.shape != y.shape:
                    raise ValueError(
                        f"Expected scores[{name!r}] to give shape {tuple(y.shape)}, "
                        f"got {tuple(values.shape)}"
                    )
                columns[name].append(values.detach().cpu())
    return {name: torch.cat(column) for name, column in columns.items()}


@torch.no_grad()
def correct(model: Classifier, x: Inputs, y: Labels) -> PerSample:
    """Return 1 where the highest logit is the label's, else 0; the mean is the accuracy.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: True classes, int64 (n,).

    Returns:
        Zeros and ones (n,). Not differentiable.

    Raises:
        ValueError: If a label is not a class of the model.
    """
    logits = model(x)
    _check.logits(logits, y)
    return (logits.argmax(1) == y).to(x.dtype)


def only_correct(model: nn.Module, data: Images, *, device: str | torch.device = "cpu") -> Images:
    """Return the images that a model classifies correctly, in their order.

    Explanations are compared on these: a wrong prediction raises other questions.

    Args:
        model: The network; moved to `device`.
        data: Images.
        device: Where to compute.

    Returns:
        The rows of `data` whose highest logit is the label's.

    Raises:
        ValueError: If the data are empty or none is classified correctly.
    """
    hits = evaluate(model, data, {"correct": correct}, device=device)["correct"]
    if not hits.any():
        raise ValueError(f"Expected data with a correctly classified image, got 0 of {len(data)}")
    return data[hits.nonzero()[:, 0]]


@contextmanager
def _mode(model: nn.Module, *, training: bool) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, mode in before.items():
            module.training = mode


def _schedule(
    optimizer: torch.optim.Optimizer, config: TrainConfig, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if config.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=config.lr, total_steps=steps)


def _start(model: nn.Module, generator: torch.Generator) -> str:
    """Digest of the architecture, the initial weights and the generator: another seed is another run."""
    digest = hashlib.sha256(repr(model).encode())
    for value in (*model.state_dict().values(), generator.get_state()):
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _store(
    path: Path,
    parts: Mapping[str, Any],
    generator: torch.Generator,
    run: Mapping[str, Any],
    rows: list[dict[str, float]],
) -> None:
    state = {name: part.state_dict() for name, part in parts.items()}
    state |= {"generator": generator.get_state(), "run": dict(run), "rows": rows}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        torch.save(state, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _resume(
    path: Path, parts: Mapping[str, Any], generator: torch.Generator, run: Mapping[str, Any]
) -> list[dict[str, float]]:
    if not path.exists():
        return []
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored = state["run"]
    except Exception as error:  # torch.load raises a different error for each kind of damage
        raise ValueError(
            f"Expected checkpoint {path} to be an intact training state, got {error}"
        ) from error
    changed = [key for key in run if stored.get(key) != run[key]]
    if changed:
        raise ValueError(
            f"Expected checkpoint {path} of the same run, got another {', '.join(changed)}; "
            "delete the file or choose another name"
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    generator.set_state(state["generator"])
    return list(state["rows"])
