"""Every shipped checkpoint as a frozen value: the setting, and the function that turns it into a file."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from attrlib import __version__, _check
from attrlib.attacks import PGD, LinfBall
from attrlib.checkpoints import Checkpoint, describe, round_to_half, save
from attrlib.data import Images, fingerprint
from attrlib.models import SmallCNN
from attrlib.regularizers import AdversarialCrossEntropy, CrossEntropy
from attrlib.training import Loss, TrainConfig, correct, evaluate, train


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train one kind of model.

    Attributes:
        name: Name of the checkpoint.
        model: Makes the network, given `size`, `channels`, `classes` and `generator`.
        loss: What is minimised.
        config: Settings of the optimizer.
        source: Where the setting is from.
    """

    name: str
    model: Callable[..., SmallCNN]
    loss: Loss
    config: TrainConfig
    source: str


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in [
            Recipe(
                name="natural",
                model=SmallCNN,
                loss=Loss(terms={"cross_entropy": CrossEntropy()}, weights={"cross_entropy": 1.0}),
                config=TrainConfig(epochs=10, batch_size=64, lr=3e-3),
                source="Ordinary training; learning rate and batch size were chosen on the "
                "validation split.",
            ),
            Recipe(
                name="madry",
                model=SmallCNN,
                loss=Loss(
                    terms={"adversarial": AdversarialCrossEntropy()},
                    weights={"adversarial": 1.0},
                    attack=PGD(
                        ball=LinfBall(eps=0.1), steps=7, step_size=2.5 * 0.1 / 7, random_start=True
                    ),
                ),
                config=TrainConfig(epochs=10, batch_size=64, lr=3e-3),
                source="Adversarial training, Madry et al. 2018, with their seven steps; eps and step "
                "size as usual for Fashion-MNIST.",
            ),
        ]
    }
)


def fit(
    recipe: Recipe,
    path: str | Path,
    *,
    data: Mapping[str, Images],
    seed: int,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> Checkpoint:
    """Train a recipe, round its weights to half precision, measure it, and write the checkpoint.

    The seed gives two generators, one for the initial weights and one for data order and noise. A run
    that is stopped goes on from `<path>.resume` when it is called again.

    Args:
        recipe: What to train.
        path: Where to write, ending in `.safetensors`; its folder must exist.
        data: Images named `train` and, to be measured, `val` and `test`.
        seed: Any integer >= 0.
        device: Where to train.
        progress: Show progress bars.

    Returns:
        The checkpoint as it was written.

    Raises:
        ValueError: If the seed is negative, `path` has another ending, `train` is missing, another
            split has other classes, or as `training.train`.
        FileNotFoundError: If the folder of `path` does not exist.
    """
    _check.count(seed=seed, low=0, high=2**62)
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"Expected path to end in .safetensors, got {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"Expected path in an existing folder, got {path}")
    if "train" not in data:
        raise ValueError(f"Expected data to have a split named train, got {sorted(data)}")
    for split, images in data.items():
        if images.classes != data["train"].classes:
            raise ValueError(
                f"Expected split {split} to have the classes of train, {data['train'].classes}, "
                f"got {images.classes}"
            )
    channels, size = data["train"][:1].x.shape[1:3]
    weights, order = (torch.Generator().manual_seed(2 * seed + i) for i in range(2))
    classes = len(data["train"].classes)
    model = recipe.model(size=size, channels=channels, classes=classes, generator=weights)
    resume = path.with_suffix(".resume")
    history = train(
        model,
        data["train"],
        recipe.loss,
        config=recipe.config,
        generator=order,
        device=device,
        checkpoint=resume,
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
        "loss": describe(recipe.loss),
        "config": asdict(recipe.config),
        "data": {split: [len(images), fingerprint(images)] for split, images in data.items()},
        "seconds": round(history.seconds, 1),
        "device": _device_name(device),
        "threads": torch.get_num_threads(),
        "versions": {"attrlib": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    save(path, model, recipe=provenance, metrics=metrics)
    resume.unlink(missing_ok=True)
    return Checkpoint(model, provenance, metrics)


def _device_name(device: str | torch.device) -> str:
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()})"
