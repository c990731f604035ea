"""Trained models in files: safetensors for the weights, one JSON string for where they come from."""

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import nn

from attrlib import _files
from attrlib.models import LeNet, SmallCNN, TextCNN

Json: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None

Network: TypeAlias = SmallCNN | LeNet | TextCNN

_ARCHITECTURES: Mapping[str, Callable[..., Network]] = {
    "SmallCNN": SmallCNN,
    "LeNet": LeNet,
    "TextCNN": TextCNN,
}
_ACTIVATIONS: Mapping[str, Callable[..., nn.Module]] = {"ReLU": nn.ReLU, "Softplus": nn.Softplus}
_SHIPPED = Path(str(files("attrlib"))) / "_assets" / "checkpoints"


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and its provenance.

    Attributes:
        model: The network on the CPU, float32.
        recipe: How it was made: name, seed, data and their hash, settings, versions, seconds.
        metrics: What was measured after training, on the stored weights.
    """

    model: Network
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]


def save(
    path: str | Path, model: Network, *, recipe: Mapping[str, Any], metrics: Mapping[str, Any]
) -> Path:
    """Write a model to a file; half precision when that loses nothing (see `round_to_half`).

    The file appears complete or not at all: it is written under another name and renamed.

    Args:
        path: Target, ending in `.safetensors`; its folder must exist.
        model: One of the package's architectures.
        recipe: Provenance, ready for JSON (`describe`).
        metrics: Measured values, ready for JSON.

    Returns:
        The path.

    Raises:
        ValueError: If the ending or the architecture is another, a layer was changed after the model
            was made (`models.smoothed`), or a weight is not finite.
        TypeError: If `recipe` or `metrics` cannot be written as JSON.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Expected path to end in .safetensors, got {path}")
    header = {"model": _describe_model(model), "recipe": dict(recipe), "metrics": dict(metrics)}
    text = json.dumps(header, sort_keys=True)
    weights = {
        name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()
    }
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"Expected finite weights, got NaN or infinity in {name}")
    if all(torch.equal(value, value.half().to(value)) for value in weights.values()):
        weights = {name: value.half() for name, value in weights.items()}
    content = serialize(weights, metadata={"attrlib": text})
    with _files.whole(path) as partial:
        partial.write_bytes(content)
    return path


def load(name_or_path: str | Path) -> Checkpoint:
    """Load a shipped checkpoint by name, or any checkpoint by path.

    Args:
        name_or_path: `"natural"` (seed 0), `"natural-s1"` (seed 1), or a path ending in
            `.safetensors`.

    Returns:
        The model on the CPU in float32, with its provenance. The shipped networks have no layer that
        depends on the mode.

    Raises:
        ValueError: If the name is unknown or the file damaged or not one of this package's.
        FileNotFoundError: If a path does not exist.

    >>> round(load("natural").metrics["test_accuracy"], 2) > 0.9
    True
    """
    path = _locate(name_or_path)
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})["attrlib"])
            weights = {name: file.get_tensor(name).float() for name in file.keys()}
        model = _build(header["model"])
        model.load_state_dict(weights)
        return Checkpoint(model.float(), header["recipe"], header["metrics"])
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise ValueError(
            f"Expected {path} to be an intact attrlib checkpoint, got {type(error).__name__}: {error}"
        ) from error


def names(folder: str | Path | None = None) -> list[str]:
    """Return the recipes of which a checkpoint is there; `seeds` says how many each has.

    Args:
        folder: Where `python -m attrlib train` wrote files `RECIPE-sSEED.safetensors`; None takes the
            shipped ones.

    Returns:
        Names in alphabetical order. Files of other names are passed over.

    Raises:
        FileNotFoundError: If there is no folder.
    """
    return sorted({stem.rpartition("-s")[0] for stem in _stems(folder)})


def seeds(name: str, folder: str | Path | None = None) -> list[int]:
    """Return the seeds of which a checkpoint of this recipe is there.

    Args:
        name: A recipe of `names(folder)`.
        folder: As for `names`.

    Returns:
        Seeds in increasing order.

    Raises:
        ValueError: If there is none.
        FileNotFoundError: If there is no folder.
    """
    found = [stem.rpartition("-s") for stem in _stems(folder)]
    numbers = sorted(int(seed) for recipe, _, seed in found if recipe == name)
    if not numbers:
        known = ", ".join(names(folder)) or f"a checkpoint in {folder}"
        raise ValueError(f"Expected name to be one of {known}, got {name!r}")
    return numbers


def round_to_half(model: nn.Module) -> None:
    """Round every weight to the nearest float16 value, in place; the dtype stays.

    Done at the end of training and before any measurement, so that a stored file is the model measured.

    Args:
        model: Any network.
    """
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(value.half())


def describe(part: object) -> Json:
    """Return the name and settings of a function, partial, class or dataclass, ready for JSON.

    Args:
        part: The part, or a number, string, mapping or sequence of parts. A partial binds its
            options by keyword.

    Returns:
        Numbers, strings, lists and dictionaries.

    Raises:
        TypeError: If the part has no description.

    >>> describe(functools.partial(round, ndigits=2))
    {'name': 'round', 'ndigits': 2}
    """
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, Mapping):
        return {str(key): describe(value) for key, value in part.items()}
    if isinstance(part, list | tuple):
        return [describe(value) for value in part]
    if isinstance(part, functools.partial) and not part.args:
        bound = {key: describe(value) for key, value in part.keywords.items()}
        return {"name": part.func.__name__, **bound}
    if is_dataclass(part) and not isinstance(part, type):
        settings = {f.name: describe(getattr(part, f.name)) for f in fields(part)}
        return {"name": type(part).__name__, **settings}
    if callable(part) and hasattr(part, "__name__"):
        return {"name": part.__name__}
    raise TypeError(f"Expected a function, partial, class, dataclass or plain value, got {part!r}")


def _describe_model(model: Network) -> dict[str, Any]:
    kind = type(model).__name__
    if kind not in _ARCHITECTURES:
        raise ValueError(f"Expected model to be one of {', '.join(_ARCHITECTURES)}, got {kind}")
    activation = describe(model.activation)
    description = {"name": kind, "activation": activation, **model.settings}
    if not isinstance(activation, dict) or activation["name"] not in _ACTIVATIONS:
        raise ValueError(
            f"Expected activation to be one of {', '.join(_ACTIVATIONS)}, got {model.activation!r}"
        )
    if repr(_build(description)) != repr(model):
        raise ValueError(f"Expected model with the layers {kind} gave it, got {model!r}")
    return description


def _build(description: Mapping[str, Any]) -> Network:
    settings = dict(description)
    architecture = _ARCHITECTURES[settings.pop("name")]
    activation = dict(settings.pop("activation"))
    kind = _ACTIVATIONS[activation.pop("name")]
    # The weights are overwritten; a generator of its own keeps the global random state as it is.
    return architecture(
        activation=functools.partial(kind, **activation), generator=torch.Generator(), **settings
    )


def _locate(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if text.endswith(".safetensors") or isinstance(name_or_path, Path):
        if not Path(text).is_file():
            raise FileNotFoundError(f"Expected a checkpoint file, got {text}")
        return Path(text)
    stem = text if re.search(r"-s\d+$", text) else f"{text}-s0"
    if stem not in _stems():
        known = ", ".join(names()) or "none"
        raise ValueError(
            f"Expected a path or one of the shipped checkpoints ({known}), got {text!r}"
        )
    return _SHIPPED / f"{stem}.safetensors"


def _stems(folder: str | Path | None = None) -> list[str]:
    here = _SHIPPED if folder is None else Path(folder)
    if not here.is_dir():
        raise FileNotFoundError(f"Expected a folder of checkpoints, got {here}")
    files = (path.stem for path in here.iterdir() if path.suffix == ".safetensors")
    return sorted(stem for stem in files if re.fullmatch(r".+-s(0|[1-9][0-9]*)", stem))
