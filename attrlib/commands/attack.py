"""`python -m attrlib attack`: change the explanations of images, and show and count what changed."""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from attrlib import _check, _pictures
from attrlib.commands import choice, network, outcome, pictures, rows
from attrlib.training import eval_mode
from attrlib.types import Attack, Attribution


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command.

    Args:
        parser: Where to declare them.
    """
    pictures.add_options(parser)
    choice.add_options(parser.add_argument_group("attack"))
    run = pictures.add_run_options(parser, command="attack", batch_size=16)
    run.add_argument(
        "--amplify", type=float, default=10.0, help="of the difference shown (default: 10)"
    )


def run(options: argparse.Namespace, *, device: torch.device) -> None:
    """Attack images in batches; write a row and a figure for each. A second call goes on.

    Args:
        options: As `add_options` declares them.
        device: Where to compute.

    Raises:
        ValueError: If an option, the model or an image is bad, or the folder holds another run.
        FileNotFoundError: If there are no images.
        OSError: If the folder cannot be written; this is tried first.
    """
    pictures.check(options)
    _check.positive(amplify=options.amplify)
    store = rows.Store(options.out, "attack", outcome.COLUMNS)
    with store.claimed():
        names, images = pictures.load(options)
        model = network.load(options).to(device)
        shape = images[:1].x.shape[1:]
        size = shape[1] * shape[2]
        k = choice.top(options, size)
        attribution = choice.attribution(options)
        target = None
        if options.target is not None:
            if options.objective != "target-map":
                raise ValueError(
                    f"Expected --objective target-map with --target, got {options.objective}"
                )
            target = _picture(options.target, height=shape[1], width=shape[2])
        attack = choice.attack(options, k, target=target)
        settings = {
            "attack": choice.settings(attack(attribution), options, k),
            **network.settings(model, shape, device, options),
            **pictures.settings(options),
            "amplify": options.amplify,
        }
        work = _Work(options, attribution, attack, model, device, k)
        maps = choice.maps(attack(attribution))  # for each batch
        with eval_mode(model):
            table = store.run(
                names,
                images,
                settings,
                size=options.batch_size,
                steps=lambda _: maps,
                unit="map",
                make=work,
            )
    outcome.summarize(table, store)


def _picture(path: Path, *, height: int, width: int) -> Tensor:
    """A picture as a heatmap: bright is important."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected --target to be a file, got {path}")
    try:
        grey = _pictures.read(path).convert("L").resize((width, height))
    except ValueError as error:
        raise ValueError(f"Expected --target to be an image that can be read; {error}") from error
    return torch.from_numpy(np.array(grey)).float() / 255


@dataclass(frozen=True)
class _Work:
    """What is done with each batch."""

    options: argparse.Namespace
    attribution: Attribution
    attack: Callable[[Attribution], Attack]
    model: nn.Module
    device: torch.device
    k: int

    def maps(self, x: Tensor, y: Tensor) -> Tensor:
        """Maps with noise that is the same for all calls."""
        noise = torch.Generator().manual_seed(self.options.seed)
        return self.attribution(self.model, x, y, generator=noise).detach()

    def __call__(
        self, part: rows.Part, bar: "tqdm[Any]"
    ) -> tuple[list[rows.Row], list[rows.Figure]]:
        """A row for each image of a batch, and what draws image, perturbed image and both maps."""
        names, images = part.names, part.images
        attack = self.attack(choice.counted(self.attribution, bar.update))
        noise = torch.Generator().manual_seed(self.options.seed + 1000003 * part.number)
        x, label = images.x.to(self.device), images.y.to(self.device)
        prediction = network.predict(self.model, x)
        y = prediction if self.options.explain == "predicted" else label
        before = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            z = attack(self.model, x, y, generator=noise)
        seconds = (time.perf_counter() - before) / len(names)
        for text in dict.fromkeys(outcome.said(warning.message, names) for warning in caught):
            tqdm.write(f"attrlib attack: {text}", file=sys.stderr)
        maps = [self.maps(q, y) for q in (x, z)]
        scores = outcome.scores(*maps, k=self.k)
        kept = network.predict(self.model, z) == prediction
        made, figures = [], []
        for j, name in enumerate(names):
            changed = not torch.equal(x[j], z[j])
            row = {
                "name": name,
                "label": rows.class_name(images, int(label[j])),
                "prediction": int(prediction[j]),
                "prediction_kept": bool(kept[j]),
                "changed": changed,
                **{score: f"{float(values[j]):.6f}" for score, values in scores.items()},
                "eps": self.options.eps,
                "largest_change": f"{float((z[j] - x[j]).abs().max()):.9g}",
                "note": "" if changed else outcome.why(maps[0][j]),
                "seconds": f"{seconds:.3f}",
            }
            made.append({key: str(value) for key, value in row.items()})
            figures.append(self._figure(x[j], z[j], [m[j] for m in maps], made[-1]))
        return made, figures

    def _figure(self, x: Tensor, z: Tensor, maps: Sequence[Tensor], row: rows.Row) -> rows.Figure:
        return lambda path: outcome.draw(path, x, z, maps, row, amplify=self.options.amplify)
