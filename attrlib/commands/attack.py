"""`python -m attrlib attack`: change the explanations of images, and show and count what changed."""

import argparse
import functools
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from attrlib import _check, _files, _pictures, attacks, attributions, checkpoints, data, models
from attrlib._model import logits
from attrlib.benchmark import Setting
from attrlib.commands import network, report
from attrlib.training import eval_mode
from attrlib.training.state import contents
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
        ValueError: If an option, the model or an image is bad, or the folder holds another run.
        FileNotFoundError: If there are no images.
        OSError: If the folder cannot be written; this is tried first.
    """
    _check.count(count=options.count, batch_size=options.batch_size)
    _check.count(seed=options.seed, low=0)
    _check.positive(amplify=options.amplify)
    figures = options.out / "figures"
    with _files.claimed(options.out / report.TABLE), _files.claimed(figures / "all"):
        for folder in (options.out, figures):
            _files.sweep(folder)
        names, images = _images(options)
        model = network.load(options).to(device)
        shape = images[:1].x.shape[1:]
        size = shape[1] * shape[2]
        k = max(min(100, size // 4), size // 50) if options.k is None else options.k
        _check.count(k=k, high=size)
        attack = _attack(options, shape, k)
        settings = {
            "attack": _settings(attack, options, k),
            "model": options.model or str(options.checkpoint),
            "weights": contents(model),
            "outputs": network.outputs(model, shape, device, options),
            "data": [str(options.image_folder or options.data), options.split, options.size],
            "explain": options.explain,
            "seed": options.seed,
            "batch_size": options.batch_size,
            "amplify": options.amplify,
        }
        work = _Work(options, attack, model, device, k)
        rows = _run(work, settings, names, images)
    report.summarize(rows, options.out / report.TABLE)


@dataclass(frozen=True)
class _Work:
    """What is done with each batch."""

    options: argparse.Namespace
    attack: attacks.AttributionAttack
    model: nn.Module
    device: torch.device
    k: int

    def maps(self, x: Tensor, y: Tensor) -> Tensor:
        """Maps with noise that is the same for all calls."""
        noise = torch.Generator().manual_seed(self.options.seed)
        return self.attack.attribution(self.model, x, y, generator=noise).detach()

    @torch.no_grad()
    def predict(self, x: Tensor) -> Tensor:
        """Classes."""
        return logits(self.model, x, classes=2).argmax(1)


def _run(
    work: _Work, settings: Mapping[str, Any], names: Sequence[str], images: data.Images
) -> list[report.Row]:
    """The rows of all images; batches whose contents are those of an earlier call come from there."""
    out, size = work.options.out, work.options.batch_size
    done = report.resume(out, settings)
    rows: list[report.Row] = []
    batches = [range(i, min(i + size, len(names))) for i in range(0, len(names), size)]
    maps_each = 2 * (1 + work.attack.steps * work.attack.restarts)  # for each batch
    total = maps_each * len(batches)
    with eval_mode(work.model), tqdm(total=total, desc="attack", unit="map") as bar:
        for number, chosen in enumerate(batches):
            part = images[list(chosen)]
            named = [names[i] for i in chosen]
            labels = [_class(part.classes, label) for label in part.y.tolist()]
            made_of = _files.digest(part.x, part.y, *named, *labels)
            figures = [out / "figures" / _figure(i, names[i]) for i in chosen]
            batch = done.get(str(number))
            if batch and batch["digest"] == made_of and all(map(Path.exists, figures)):
                bar.update(maps_each)
            else:
                if done.pop(str(number), None):  # its figures are written over
                    report.keep(out, settings, done)
                made, pictures = _attacked(work, part, named, bar, number)
                for figure, row, shown in zip(figures, made, pictures, strict=True):
                    _draw(figure, shown, row, amplify=work.options.amplify)
                batch = {"digest": made_of, "rows": made}
                done[str(number)] = batch
                report.keep(out, settings, done)
            rows += batch["rows"]
            report.write_table(out / report.TABLE, rows)
    return rows


def _attacked(
    work: _Work, part: data.Images, names: Sequence[str], bar: "tqdm[Any]", number: int
) -> tuple[list[report.Row], list[tuple[Tensor, ...]]]:
    """A row for each image of a batch, and what its figure shows: image, perturbed image, both maps."""
    attack = replace(work.attack, attribution=_counted(work.attack.attribution, bar))
    noise = torch.Generator().manual_seed(work.options.seed + 1000003 * number)
    x, label = part.x.to(work.device), part.y.to(work.device)
    prediction = work.predict(x)
    y = prediction if work.options.explain == "predicted" else label
    before = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        z = attack(work.model, x, y, generator=noise)
    seconds = (time.perf_counter() - before) / len(names)
    for text in dict.fromkeys(" ".join(str(warning.message).split()) for warning in caught):
        tqdm.write(f"attrlib attack: {names[0]} to {names[-1]}: {text}", file=sys.stderr)
    maps = [work.maps(q, y) for q in (x, z)]
    scores = report.scores(*maps, k=work.k)
    kept = work.predict(z) == prediction
    rows = []
    for j, name in enumerate(names):
        changed = not torch.equal(x[j], z[j])
        row = {
            "name": name,
            "label": _class(part.classes, int(label[j])),
            "prediction": int(prediction[j]),
            "prediction_kept": bool(kept[j]),
            "changed": changed,
            **{score: f"{float(values[j]):.6f}" for score, values in scores.items()},
            "eps": work.options.eps,
            "largest_change": f"{float((z[j] - x[j]).abs().max()):.9g}",
            "note": "" if changed else _why(maps[0][j]),
            "seconds": f"{seconds:.3f}",
        }
        rows.append({key: str(value) for key, value in row.items()})
    return rows, list(zip(x, z, *maps, strict=True))


def _why(a: Tensor) -> str:
    """Why an image came back unchanged, as far as its own map says."""
    if not bool(a.isfinite().all()):
        return "its map is not finite"
    return "no better point found" if bool(a.any()) else "its map is zero everywhere"


def _draw(path: Path, pictures: Sequence[Tensor], row: report.Row, *, amplify: float) -> None:
    """Draw a figure; one that cannot be drawn is named, and the run goes on. A full disk ends it."""
    x, z, *maps = pictures
    try:
        report.draw(path, x, z, maps, row, amplify=amplify)
    except OSError:
        raise
    except Exception as error:  # of fonts and formulas: the numbers do not depend on them
        tqdm.write(f"attrlib attack: no figure {path}: {report.line(error)}", file=sys.stderr)


def _figure(number: int, name: str) -> str:
    return f"{number:04d}-{_files.short(Path(name).stem, limit=120)}.png"


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
    shape = None
    for i in range(len(folder)):
        if len(good) == options.count:
            break
        try:
            found = folder[[i]].x.shape
        except ValueError as error:
            if not options.skip_bad:
                raise ValueError(f"{error}; --skip-bad leaves such images out") from error
            print(f"attrlib attack: left out: {report.line(error)}", file=sys.stderr)
            continue
        shape = shape or found
        if found != shape:
            raise ValueError(
                f"Expected images of one size (or a value for --size), got {tuple(shape[1:])} "
                f"{folder.paths[good[0]]} and {tuple(found[1:])} {folder.paths[i]}"
            )
        good.append(i)
    if not good:
        raise ValueError(f"Expected an image that can be read in {options.image_folder}, got none")
    paths = [folder.paths[i] for i in good]
    names = [_files.shown(str(path.relative_to(options.image_folder))) for path in paths]
    return names, data.FolderImages(paths, folder.y[good], folder.classes, folder.size)


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
        grey = _pictures.read(path).convert("L").resize((width, height))
    except ValueError as error:
        raise ValueError(f"Expected --target to be an image that can be read; {error}") from error
    return torch.from_numpy(np.array(grey)).float() / 255


def _settings(
    attack: attacks.AttributionAttack, options: argparse.Namespace, k: int
) -> dict[str, Any]:
    """All that decides the result, ready for JSON; a picture by its contents."""
    target = getattr(attack.objective, "target", None)
    parts = vars(attack) | {"objective": [options.objective, k, options.window]}
    return {name: checkpoints.describe(part) for name, part in parts.items()} | {
        "target": None if target is None else _files.digest(target)
    }


def _counted(attribution: Attribution, bar: "tqdm[Any]") -> Attribution:
    """The same attribution; each call moves the bar."""

    def counted(
        model: Classifier, x: Tensor, y: Tensor, /, *, generator: torch.Generator | None = None
    ) -> Tensor:
        bar.update()
        return attribution(model, x, y, generator=generator)

    return counted


def _class(names: Sequence[str], label: int) -> str:
    return _files.shown(names[label]) if label < len(names) else str(label)
