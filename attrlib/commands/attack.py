"""`python -m attrlib attack`: change the explanations of images, and show and count what changed."""

import argparse
import functools
import importlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm

from attrlib import _check, attacks, attributions, checkpoints, data, models
from attrlib._model import logits
from attrlib.benchmark import Setting
from attrlib.commands import report
from attrlib.training import eval_mode
from attrlib.types import Attribution, Classifier, Objective

_BOOK = Setting(study="")  # the effort that the strength study of the book found to be enough


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command.

    Args:
        parser: Where to declare them.
    """
    what = parser.add_argument_group("images and model")
    source = what.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        choices=("fashion-mnist", "fashion-mnist-full"),
        default="fashion-mnist",
        help="the embedded or the full Fashion-MNIST (default: fashion-mnist)",
    )
    source.add_argument("--image-folder", type=Path, help="your images, as DIR/CLASS/IMAGE")
    what.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="test",
        help="of Fashion-MNIST (default: test)",
    )
    what.add_argument("--count", type=int, default=8, help="number of images (default: 8)")
    what.add_argument("--size", type=int, help="scale and cut folder images to SIZE × SIZE")
    what.add_argument(
        "--skip-bad", action="store_true", help="leave out images that cannot be read"
    )
    which = what.add_mutually_exclusive_group()
    which.add_argument("--checkpoint", default="natural", help="name or path (default: natural)")
    which.add_argument(
        "--model",
        help="your own, as module:function; the function takes nothing and returns a torch.nn.Module "
        "from pixels in [0, 1] to logits, such as attrlib.models:imagenet",
    )
    what.add_argument(
        "--explain",
        choices=("predicted", "label"),
        default="predicted",
        help="class whose logit is explained (default: predicted)",
    )

    how = parser.add_argument_group("attack")
    how.add_argument(
        "--attribution",
        choices=sorted(_ATTRIBUTIONS),
        default="gradient",
        help="whose maps are changed (default: gradient)",
    )
    how.add_argument(
        "--samples", type=int, default=16, help="points on IG's path, or noisy copies (default: 16)"
    )
    how.add_argument(
        "--sigma", type=float, default=0.1, help="noise of smooth_grad, pixel units (default: 0.1)"
    )
    how.add_argument(
        "--radius",
        type=float,
        default=0.5,
        help="l2 radius of uni_grad, pixel units (default: 0.5)",
    )
    how.add_argument(
        "--objective",
        choices=("top-k", "mass-center", "cosine", "target-map"),
        default="top-k",
        help="what the attack goes for (default: top-k)",
    )
    how.add_argument(
        "--k",
        type=int,
        help="pixels in the top set (default: 100; 2 %% of a large image, 25 %% of a tiny one)",
    )
    how.add_argument(
        "--window", type=int, default=0, help="radius of the LENS window of top-k (default: 0)"
    )
    how.add_argument("--target", type=Path, help="picture that target-map draws into the map")
    how.add_argument(
        "--norm",
        choices=("linf", "l2"),
        default="linf",
        help="in which the budget is counted (default: linf)",
    )
    how.add_argument(
        "--eps", type=float, default=8 / 255, help="budget, pixel units (default: 8/255)"
    )
    how.add_argument(
        "--steps", type=int, default=_BOOK.steps, help=f"for each start (default: {_BOOK.steps})"
    )
    how.add_argument("--step-size", type=float, help="pixel units (default: eps / 10)")
    how.add_argument(
        "--restarts",
        type=int,
        default=_BOOK.restarts,
        help=f"number of starts (default: {_BOOK.restarts})",
    )
    how.add_argument(
        "--beta",
        type=float,
        nargs="*",
        default=list(_BOOK.sharpness),
        help="sharpness of the softplus surrogates, in order; none attacks the model itself "
        f"(default: {' '.join(f'{beta:g}' for beta in _BOOK.sharpness)})",
    )

    run = parser.add_argument_group("run")
    run.add_argument(
        "--out",
        type=Path,
        default=Path("runs/attack"),
        help="folder to write (default: runs/attack)",
    )
    run.add_argument(
        "--amplify", type=float, default=10.0, help="of the difference shown (default: 10)"
    )
    run.add_argument(
        "--batch-size",
        type=int,
        default=16,
        help="images at a time (default: 16); rows are kept "
        "batch by batch, and large images need much memory",
    )
    run.add_argument("--seed", type=int, default=0, help="of starts and noise (default: 0)")


def run(options: argparse.Namespace, *, device: torch.device) -> None:
    """Attack images in batches; write a row and a figure for each. A second call goes on.

    Args:
        options: As `add_options` declares them.
        device: Where to compute.

    Raises:
        ValueError: If an option or an image is bad, or the folder holds another run.
        FileNotFoundError: If there are no images.
    """
    _check.count(count=options.count, batch_size=options.batch_size)
    _check.count(seed=options.seed, low=0)
    _check.positive(amplify=options.amplify)
    names, images = _images(options)
    model = _model(options).to(device)
    shape = images[:1].x.shape[1:]
    size = shape[1] * shape[2]
    k = max(min(100, size // 4), size // 50) if options.k is None else options.k
    _check.count(k=k, high=size)
    attack = _attack(options, shape, k)
    settings = {
        "attack": _settings(attack, options),
        "model": options.model or str(options.checkpoint),
        "data": [str(options.image_folder or options.data), options.split, options.size],
        "explain": options.explain,
        "seed": options.seed,
        "batch_size": options.batch_size,
    }
    table = options.out / "attack.csv"
    rows = report.resume(options.out, settings, table)
    batches = [
        list(range(start, min(start + options.batch_size, len(names))))
        for start in range(0, len(names), options.batch_size)
    ]
    maps_each = 2 * (1 + attack.steps * attack.restarts)  # for each batch
    with eval_mode(model), tqdm(total=maps_each * len(batches), desc="attack", unit="map") as bar:
        counted = replace(attack, attribution=_counted(attack.attribution, bar))
        for batch, chosen in enumerate(batches):
            if all(names[i] in rows for i in chosen):
                bar.update(maps_each)
                continue
            part = images[chosen]
            x, label = part.x.to(device), part.y.to(device)
            with torch.no_grad():
                prediction = logits(model, x, classes=2).argmax(1)
            y = prediction if options.explain == "predicted" else label
            before = time.perf_counter()
            z = counted(
                model, x, y, generator=torch.Generator().manual_seed(options.seed + 1000003 * batch)
            )
            seconds = (time.perf_counter() - before) / len(chosen)
            maps = [_maps(attack.attribution, model, q, y, seed=options.seed) for q in (x, z)]
            scores = report.scores(*maps, k=k)
            with torch.no_grad():
                kept = logits(model, z).argmax(1) == prediction
            for j, i in enumerate(chosen):
                row = {
                    "name": names[i],
                    "label": _class(part.classes, int(label[j])),
                    "prediction": int(prediction[j]),
                    "prediction_kept": bool(kept[j]),
                    "changed": not torch.equal(x[j], z[j]),
                    **{name: f"{float(values[j]):.6f}" for name, values in scores.items()},
                    "eps": options.eps,
                    "largest_change": f"{float((z[j] - x[j]).abs().max()):.9g}",
                    "seconds": f"{seconds:.3f}",
                }
                figure = options.out / "figures" / f"{i:04d}-{Path(names[i]).stem}.png"
                report.draw(figure, x[j], z[j], [m[j] for m in maps], row, amplify=options.amplify)
                rows[names[i]] = {key: str(value) for key, value in row.items()}
            report.write_table(table, (rows[name] for name in names if name in rows))
    report.summarize(rows, table)


_ATTRIBUTIONS: Mapping[str, Callable[[argparse.Namespace], Attribution]] = {
    "gradient": lambda o: attributions.gradient,
    "input_x_gradient": lambda o: attributions.input_x_gradient,
    "integrated_gradients": lambda o: functools.partial(
        attributions.integrated_gradients, steps=o.samples
    ),
    "smooth_grad": lambda o: functools.partial(
        attributions.smooth_grad, sigma=o.sigma, samples=o.samples
    ),
    "uni_grad": lambda o: functools.partial(
        attributions.uni_grad, radius=o.radius, samples=o.samples
    ),
}


def _images(options: argparse.Namespace) -> tuple[list[str], data.Images]:
    """Names and images, in order; those that cannot be read are reported."""
    if options.image_folder is None:
        images = data.fashion_mnist(options.split, full=options.data == "fashion-mnist-full")
        count = min(options.count, len(images))
        return [f"{options.split}-{i:05d}" for i in range(count)], images[:count]
    folder = data.image_folder(options.image_folder, size=options.size)
    good: list[int] = []
    for i in range(len(folder)):
        if len(good) == options.count:
            break
        try:
            _ = folder[[i]].x
        except ValueError as error:
            if not options.skip_bad:
                raise ValueError(f"{error}; --skip-bad leaves such images out") from error
            print(f"attrlib attack: left out: {error}", file=sys.stderr)
            continue
        good.append(i)
    if not good:
        raise ValueError(f"Expected an image that can be read in {options.image_folder}, got none")
    names = [str(folder.paths[i].relative_to(options.image_folder)) for i in good]
    paths = [folder.paths[i] for i in good]
    return names, data.FolderImages(paths, folder.y[good], folder.classes, folder.size)


def _model(options: argparse.Namespace) -> nn.Module:
    if options.model is None:
        return checkpoints.load(options.checkpoint).model
    module, colon, name = options.model.partition(":")
    if not (module and colon and name):
        raise ValueError(f"Expected --model as module:function, got {options.model!r}")
    make = getattr(importlib.import_module(module), name, None)
    model = make() if callable(make) else None
    if not isinstance(model, nn.Module):
        found = "no such function" if make is None else type(model).__name__
        raise ValueError(f"Expected --model {options.model} to give a torch.nn.Module, got {found}")
    return model


def _attack(options: argparse.Namespace, shape: Sequence[int], k: int) -> attacks.AttributionAttack:
    ball = (attacks.LinfBall if options.norm == "linf" else attacks.L2Ball)(eps=options.eps)
    step_size = options.eps / 10 if options.step_size is None else options.step_size
    return attacks.AttributionAttack(
        attribution=_ATTRIBUTIONS[options.attribution](options),
        objective=_objective(options, shape, k),
        ball=ball,
        steps=options.steps,
        step_size=step_size,
        restarts=options.restarts,
        surrogates=tuple(functools.partial(models.smoothed, beta=beta) for beta in options.beta),
    )


def _objective(options: argparse.Namespace, shape: Sequence[int], k: int) -> Objective:
    if options.objective == "mass-center":
        return attacks.MassCenter()
    if options.objective == "cosine":
        return attacks.Cosine()
    if options.objective == "top-k":
        return attacks.TopK(k=k, window=options.window)
    if options.target is None:
        raise ValueError("Expected --target with a picture for the objective target-map, got none")
    return attacks.TargetMap(target=_picture(options.target, height=shape[1], width=shape[2]))


def _picture(path: Path, *, height: int, width: int) -> Tensor:
    """A picture as a heatmap: bright is important."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected --target to be a file, got {path}")
    try:
        with Image.open(path) as file:
            grey = file.convert("L").resize((width, height))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"Expected --target to be an image, got {path}: {error}") from error
    return torch.from_numpy(np.asarray(grey).copy()).float() / 255


def _settings(attack: attacks.AttributionAttack, options: argparse.Namespace) -> dict[str, Any]:
    """All that decides the result, ready for JSON."""
    parts = vars(attack) | {"objective": [options.objective, options.k, options.window]}
    return {name: checkpoints.describe(part) for name, part in parts.items()} | {
        "target": str(options.target)
    }


def _counted(attribution: Attribution, bar: "tqdm[Any]") -> Attribution:
    """The same attribution; each call moves the bar."""

    def counted(
        model: Classifier, x: Tensor, y: Tensor, /, *, generator: torch.Generator | None = None
    ) -> Tensor:
        bar.update()
        return attribution(model, x, y, generator=generator)

    return counted


def _maps(attribution: Attribution, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
    """Maps with noise that is the same for all calls."""
    return attribution(model, x, y, generator=torch.Generator().manual_seed(seed)).detach()


def _class(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)
