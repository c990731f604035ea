"""`python -m attrlib certify`: what no small change of an image can do to its explanation, proved."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from attrlib.commands import drawing, network, pictures, proofs, rows
from attrlib.training import eval_mode

_COLUMNS = ("name", "label", "explained", "eps", "abstained", *proofs.SCORES, "note", "seconds")
_SAID = {
    "cosine": "cosine",
    "released": "cosine of shown maps",
    "topk": "top-k",
    "kendall": "Kendall's τ",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command.

    Args:
        parser: Where to declare them.
    """
    pictures.add_options(parser)
    how = parser.add_argument_group("certificate")
    how.add_argument(
        "--method",
        choices=("smoothing", "interval"),
        default="smoothing",
        help="of maps averaged over noise, within an l2 budget and with a failure probability; or of "
        "the network's own maps, within a budget in each entry (default: smoothing)",
    )
    how.add_argument(
        "--attribution",
        choices=("gradient", "input_x_gradient", "integrated_gradients"),
        default="gradient",
        help="whose maps are certified (default: gradient)",
    )
    how.add_argument("--steps", type=int, default=16, help="points on the path of IG (default: 16)")
    how.add_argument(
        "--eps",
        type=float,
        nargs="+",
        help="budgets, pixel units (default: 0.1 for smoothing, 2/255 for intervals)",
    )
    how.add_argument(
        "--k",
        type=int,
        help="pixels in the top set; with smoothing the maps are then sets of so many pixels, and "
        "their order is certified, too (default: none; for intervals as in attack)",
    )
    usual = proofs.SMOOTHING
    how.add_argument(
        "--radius",
        type=float,
        help=f"l2 radius of the noise, pixel units (default: {usual['radius']:g})",
    )
    how.add_argument(
        "--samples", type=int, help=f"noisy copies of each image (default: {usual['samples']})"
    )
    how.add_argument(
        "--alpha",
        type=float,
        help=f"probability for each image that its bound is wrong (default: {usual['alpha']:g}; for "
        "shown maps three times that)",
    )
    pictures.add_run_options(parser, command="certify", batch_size=4)


def run(options: argparse.Namespace, *, device: torch.device) -> None:
    """Certify images in batches; write rows and a figure for each. A second call goes on.

    Args:
        options: As `add_options` declares them.
        device: Where to compute.

    Raises:
        ValueError: If an option, the model or an image is bad, or the folder holds another run.
        FileNotFoundError: If there are no images.
        OSError: If the folder cannot be written; this is tried first.
    """
    pictures.check(options)
    store = rows.Store(options.out, "certify", _COLUMNS)
    with store.claimed():
        names, images = pictures.load(options)
        model = network.load(options).to(device)
        size = images[:1].x.shape[1:]
        method = proofs.method(options, size)
        settings = {
            "certificate": method.settings(),
            **network.settings(model, size, device, options),
            **pictures.settings(options),
        }
        with eval_mode(model):
            table = store.run(
                names,
                images,
                settings,
                size=options.batch_size,
                steps=method.steps,
                unit="pass",
                make=_Work(options, method, model, device),
            )
    _summarize(table, options, store)


@dataclass(frozen=True)
class _Work:
    """What is done with each batch."""

    options: argparse.Namespace
    method: proofs.Method
    model: nn.Module
    device: torch.device

    def __call__(
        self, part: rows.Part, bar: "tqdm[Any]"
    ) -> tuple[list[rows.Row], list[rows.Figure]]:
        """A row for each image and budget, and what draws the figure of each image."""
        x, y = part.images.x.to(self.device), part.images.y.to(self.device)
        if self.options.explain == "predicted":
            y = network.predict(self.model, x)
        before = time.perf_counter()
        found = self.method.proved(self.model, x, y, part.places, bar.update)
        seconds = (time.perf_counter() - before) / len(x)
        made, figures = [], []
        for j, name in enumerate(part.names):
            first = {
                "name": name,
                "label": rows.class_name(part.images, int(part.images.y[j])),
                "explained": str(int(y[j])),
            }
            for i, eps in enumerate(self.method.budgets):
                scores = {n: proofs.down(float(v[j, i])) for n, v in found.scores.items()}
                made.append(
                    first
                    | dict.fromkeys(proofs.SCORES, "")
                    | scores
                    | {
                        "eps": f"{eps:.9g}",
                        "abstained": str(bool(found.abstained[j, i])),
                        "note": "its map is zero everywhere" if bool(found.empty[j]) else "",
                        "seconds": f"{seconds:.3f}",
                    }
                )
            figures.append(self._figure(found, j, f"{drawing.brief(name)} ({first['label']})"))
        return made, figures

    def _figure(self, found: proofs.Proved, j: int, title: str) -> rows.Figure:
        def draw(path: Path) -> None:
            drawing.save(found.figure(j), path, title=title)

        return draw


def _summarize(table: list[rows.Row], options: argparse.Namespace, store: rows.Store) -> None:
    """Print for each budget how many abstained, the mean and median bound, and where everything is."""
    sure = "without any probability"
    if options.method == "smoothing":
        alpha = options.alpha or proofs.SMOOTHING["alpha"]
        sure = f"each with probability {1 - alpha:g}; shown maps {1 - 3 * alpha:g}"
    print(f"{len({row['name'] for row in table})} images; lower bounds, {sure}")
    for eps in dict.fromkeys(row["eps"] for row in table):
        part = [row for row in table if row["eps"] == eps]
        left = sum(row["abstained"] == "True" for row in part)
        print(f"  eps {eps}: abstained on {left} of {len(part)}")
        for name, text in _SAID.items():
            values = torch.tensor([float(row[name]) for row in part if row[name]]).double()
            if len(values):
                mean, median = float(values.nanmean()), float(values.nanmedian())
                print(f"    {text:20s} mean {mean:.3f}, median {median:.3f}")
        safe = [float(row["prediction_certified"]) for row in part if row["prediction_certified"]]
        if safe:
            print(f"    prediction certified on {int(sum(safe))}")
    print(f"{store.table} and {store.figures}")
