"""What a recipe is, and the function that turns one into the file of a checkpoint."""

import inspect
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attrlib import __version__, _check, _files
from attrlib.checkpoints import Checkpoint, Network, describe, load, round_to_half, save
from attrlib.data import Images, Texts, fashion_mnist, fingerprint
from attrlib.models import SmallCNN
from attrlib.training import Loss, TrainConfig, correct, evaluate, train
from attrlib.training.parallel import leads

CONFIG = TrainConfig(epochs=10, batch_size=64, lr=3e-3)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one kind of model.

    Attributes:
        name: Name of the checkpoint.
        loss: What is minimised.
        source: Where the setting is from.
        config: Settings of the optimizer.
        model: Makes the network, given `classes`, `generator`, and `size` and `channels` for images or
            `vocabulary` for sentences.
        start: Recipe whose checkpoint of the same seed gives the first weights; None starts at random.
        data: Gives the images or sentences, called as `fashion_mnist` is: with a split and, by keyword,
            `full`.
        frozen: Names of the weights that stay as they are at the start.
    """

    name: str
    loss: Loss
    source: str
    config: TrainConfig = CONFIG
    model: Callable[..., Network] = field(default_factory=lambda: SmallCNN)
    start: str | None = None
    data: Callable[..., Images | Texts] = field(default_factory=lambda: fashion_mnist)
    frozen: tuple[str, ...] = ()


def fit(
    recipe: Recipe,
    path: str | Path,
    *,
    data: Mapping[str, Images | Texts],
    seed: int,
    device: str | torch.device = "cpu",
    devices: int = 1,
    nodes: int = 1,
    start: str | Path | None = None,
    log: str | Path | None = None,
    progress: bool = False,
) -> Checkpoint:
    """Train a recipe, round its weights to half precision, measure it, and write the checkpoint.

    The seed gives two generators, one for the initial weights and one for data order and noise. A run
    that is stopped goes on from `<path>.resume` when it is called again. With several devices, the
    first process writes and the others return what it wrote.

    Args:
        recipe: What to train.
        path: Where to write, ending in `.safetensors`; its folder must exist.
        data: Images or sentences named `train` and, to be measured, `val` and `test`.
        seed: Any integer >= 0.
        device: Where to train.
        devices: Processes on each machine, see `training.train`.
        nodes: Machines.
        start: Checkpoint, name or path, whose weights come first; None takes that of the recipe.
        log: CSV file with a line for each epoch; None writes none.
        progress: Show progress bars.

    Returns:
        The checkpoint as it was written.

    Raises:
        ValueError: If the seed is negative, `path` has another ending, `train` is missing, another
            split has other classes, the data are not of the kind that the recipe is for, the first
            weights are of another network, or as `training.train`.
        FileNotFoundError: If the folder of `path` does not exist.
    """
    _check.count(seed=seed, low=0, high=2**62)
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Expected path to end in .safetensors, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected path in an existing folder, got {path}")
    _files.ready(path)
    resume = path.with_suffix(".resume")
    if log is not None and Path(log).resolve() in (path.resolve(), resume.resolve()):
        raise ValueError(f"Expected log to be another file than path and its state, got {log}")
    if "train" not in data:
        raise ValueError(f"Expected data to have a split named train, got {sorted(data)}")
    for split, images in data.items():
        if images.classes != data["train"].classes:
            raise ValueError(
                f"Expected split {split} to have the classes of train, {data['train'].classes}, "
                f"got {images.classes}"
            )
    weights, order = (torch.Generator().manual_seed(2 * seed + i) for i in range(2))
    classes = len(data["train"].classes)
    shape = _shape(recipe, data["train"])
    model = recipe.model(**shape, classes=classes, generator=weights)
    first = start if start is not None or recipe.start is None else f"{recipe.start}-s{seed}"
    if first is not None:
        _begin(model, first)
    for name in recipe.frozen:
        model.get_parameter(name).requires_grad_(False)
    history = train(
        model,
        data["train"],
        recipe.loss,
        config=recipe.config,
        generator=order,
        device=device,
        devices=devices,
        nodes=nodes,
        checkpoint=resume,
        log=log,
        progress=progress,
    )
    round_to_half(model)
    metrics: dict[str, float] = {"train_loss": history.epochs[-1]["loss"]}
    for split in ("val", "test"):
        if split in data:
            hits = evaluate(model, data[split], {"correct": correct}, device=device)["correct"]
            metrics[f"{split}_accuracy"] = round(float(hits.double().mean()), 6)
    provenance = {
        "name": recipe.name,
        "seed": seed,
        "start": None if first is None else str(first),
        "loss": describe(recipe.loss),
        "config": asdict(recipe.config),
        "data": {split: [len(images), fingerprint(images)] for split, images in data.items()},
        "seconds": round(history.seconds, 1),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "processes": devices * nodes,
        "versions": {"attrlib": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    if leads():
        save(path, model, recipe=provenance, metrics=metrics)
        resume.unlink(missing_ok=True)
    return Checkpoint(model, provenance, metrics)


def _shape(recipe: Recipe, data: Images | Texts) -> dict[str, Any]:
    """What the network of a recipe must know of the data."""
    kinds = "images", "sentences"
    for_texts = "vocabulary" in inspect.signature(recipe.model).parameters
    if isinstance(data, Texts) != for_texts:
        raise ValueError(
            f"Expected data with {kinds[for_texts]} for recipe {recipe.name}, "
            f"got {kinds[not for_texts]}"
        )
    if isinstance(data, Texts):
        return {"vocabulary": len(data.vocabulary)}
    channels, height, width = data[:1].x.shape[1:]
    return {"size": height if height == width else (height, width), "channels": channels}


def _begin(model: Network, first: str | Path) -> None:
    """Give a network the weights of a checkpoint of the same architecture."""
    found = load(first).model
    if found.settings != model.settings:
        raise ValueError(
            f"Expected start to be a network with {model.settings}, got {first} with {found.settings}"
        )
    model.load_state_dict(found.state_dict())


def _device_name(device: str | torch.device) -> str:
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"
