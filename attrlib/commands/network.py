"""The network that a command works on: a checkpoint, or what a user's own code makes."""

import argparse
import importlib
import math
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from attrlib import _check, checkpoints
from attrlib._model import logits
from attrlib.commands import rows
from attrlib.training import eval_mode
from attrlib.training.state import contents


def load(options: argparse.Namespace) -> nn.Module:
    """Load the checkpoint, or call the user's function.

    Raises:
        ValueError: If there is none, or the user's code fails; the message says where.
        FileNotFoundError: If the checkpoint does not exist.
    """
    if options.model is None:
        return checkpoints.load(options.checkpoint).model
    module, colon, name = options.model.partition(":")
    if not (module and colon and name):
        raise ValueError(f"Expected --model as module:function, got {options.model!r}")
    try:
        make = getattr(importlib.import_module(module), name, None)
        model = make() if callable(make) else None
    except (Exception, SystemExit) as error:  # of code that is not ours, such as a script
        raise ValueError(
            f"Expected --model {options.model} to give a torch.nn.Module, got {_reason(error)}"
        ) from error
    if not isinstance(model, nn.Module):
        found = "no such function" if make is None else type(model).__name__
        raise ValueError(f"Expected --model {options.model} to give a torch.nn.Module, got {found}")
    return model


def settings(
    model: nn.Module, shape: Sequence[int], device: torch.device, options: argparse.Namespace
) -> dict[str, object]:
    """The network by its name, its weights and what it does, ready for JSON.

    Args:
        model: The network.
        shape: Of an image (channels, h, w).
        device: Where the network is.
        options: As `pictures.add_options` declares them.

    Raises:
        ValueError: If it does not take such images, or gives no logits.
    """
    return {
        "model": options.model or str(options.checkpoint),
        "weights": contents(model),
        "outputs": _outputs(model, shape, device, options),
    }


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    """Classes."""
    return logits(model, x, classes=2).argmax(1)


def _outputs(
    model: nn.Module, shape: Sequence[int], device: torch.device, options: argparse.Namespace
) -> list[float]:
    """Logits of a ramp: they tell changed code apart, and show that the model takes such images."""
    ramp = torch.linspace(0, 1, math.prod(shape), device=device).reshape(1, *shape)
    try:
        with torch.no_grad(), eval_mode(model):
            scores = model(ramp)
    except Exception as error:  # of code that is not ours
        name = f"--model {options.model}" if options.model else f"--checkpoint {options.checkpoint}"
        size = " × ".join(map(str, shape))
        raise ValueError(f"Expected {name} to take images {size}, got {_reason(error)}") from error
    _check.logits(scores, 1, classes=2)
    return [float(f"{value:.6g}") for value in scores[0].tolist()]


def _reason(error: BaseException) -> str:
    """What went wrong in a user's own code, and where."""
    calls = [c for c in traceback.extract_tb(error.__traceback__) if c.filename != __file__]
    where = f" ({Path(calls[-1].filename).name}, line {calls[-1].lineno})" if calls else ""
    return f"{type(error).__name__}: {rows.line(error)}{where}"
