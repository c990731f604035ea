"""Where a run is, in a file: what a killed run needs to go on to the same weights."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attrlib import _files

Row = dict[str, float]


@dataclass
class Position:
    """Where a run is.

    Attributes:
        rows: One row for each epoch that is over.
        order: The order of the images in the running epoch; None before it begins.
        step: Steps of the running epoch that are done.
        sums: Sums of the loss and of each term over these steps.
        seconds: Time spent on them.
        best: With early stopping the lowest validation loss, its epoch and its weights.
    """

    rows: list[Row] = field(default_factory=list)
    order: Tensor | None = None
    step: int = 0
    sums: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    best: dict[str, Any] = field(default_factory=dict)


def start(model: nn.Module, generator: torch.Generator) -> str:
    """Digest of the architecture, the initial weights and the generator: another seed is another run."""
    return _files.digest(contents(model), generator.get_state())


def contents(model: nn.Module) -> str:
    """Digest of the architecture and the weights: what a name or a path does not say."""
    values = model.state_dict().values()
    return _files.digest(repr(model), *(v if isinstance(v, Tensor) else repr(v) for v in values))


def store(
    path: Path,
    parts: Mapping[str, Any],
    generator: torch.Generator,
    run: Mapping[str, Any],
    position: Position,
) -> None:
    """Write the state of a run, whole or not at all."""
    state = {name: part.state_dict() for name, part in parts.items()}
    where = {f.name: getattr(position, f.name) for f in fields(position)}
    state |= {"generator": generator.get_state(), "run": dict(run), "position": where}
    content = io.BytesIO()  # torch does not say why it could not write a file; writing bytes does
    torch.save(state, content)
    with _files.whole(path) as partial:
        partial.write_bytes(content.getbuffer())


def resume(
    path: Path, parts: Mapping[str, Any], generator: torch.Generator, run: dict[str, Any]
) -> Position:
    """Read the state of a run into its parts; the start if there is no file."""
    if not path.exists():
        return Position()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        stored, position = dict(state["run"]), Position(**state["position"])
    except Exception as error:  # torch.load raises a different error for each kind of damage
        raise ValueError(
            f"Expected checkpoint {path} to be an intact training state, got {error}"
        ) from error
    changed = [key for key in stored | run if stored.get(key) != run.get(key)]
    if changed:
        raise ValueError(
            f"Expected checkpoint {path} of the same run, got another {', '.join(changed)}; "
            "delete the file or choose another name"
        )
    try:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        generator.set_state(state["generator"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected checkpoint {path} to be an intact training state, got {error}"
        ) from error
    return position


def write_log(path: Path, rows: Sequence[Row]) -> None:
    """Write one line for each epoch as CSV, whole or not at all."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ["epoch", *rows[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({"epoch": epoch, **row} for epoch, row in enumerate(rows, 1))
    with _files.whole(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
