"""`python -m attrlib attack`: change the explanations of images, and show and count what changed."""

import argparse
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attrlib import _check, _files, attacks, data
from attrlib._model import logits
from attrlib.commands import choice, network, report
from attrlib.training import eval_mode
from attrlib.training.state import contents
from attrlib.types import Attack, Attribution, Classifier


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

    choice.add_options(parser.add_argument_group("attack"))
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
        attribution = choice.attribution(options)
        attack = choice.attack(options, shape, k)
        settings = {
            "attack": choice.settings(attack(attribution), options, k),
            "model": options.model or str(options.checkpoint),
            "weights": contents(model),
            "outputs": network.outputs(model, shape, device, options),
            "data": [str(options.image_folder or options.data), options.split, options.size],
            "explain": options.explain,
            "seed": options.seed,
            "batch_size": options.batch_size,
            "amplify": options.amplify,
        }
        work = _Work(options, attribution, attack, model, device, k)
        rows = _run(work, settings, names, images)
    report.summarize(rows, options.out / report.TABLE)


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
    maps_each = choice.maps(work.attack(work.attribution))  # for each batch
    total = maps_each * len(batches)
    with eval_mode(work.model), tqdm(total=total, desc="attack", unit="map") as bar:
        for number, chosen in enumerate(batches):
            part = images[list(chosen)]
            named = [names[i] for i in chosen]
            labels = [_class(part.classes, label) for label in part.y.tolist()]
            made_of = _files.digest(part.x, part.y, *named, *labels)
            figures = [out / "figures" / _figure(i, names[i]) for i in chosen]
            batch = done.get(str(number))
            if not (batch and batch["digest"] == made_of and all(map(Path.exists, figures))):
                if done.pop(str(number), None):  # its figures are written over
                    report.keep(out, settings, done)
                made, pictures = _attacked(work, part, named, bar, number)
                for figure, row, shown in zip(figures, made, pictures, strict=True):
                    _draw(figure, shown, row, amplify=work.options.amplify)
                batch = {"digest": made_of, "rows": made}
                done[str(number)] = batch
                report.keep(out, settings, done)
            bar.update(maps_each * (number + 1) - bar.n)  # from an earlier call, or not needed
            rows += batch["rows"]
            report.write_table(out / report.TABLE, rows)
    return rows


def _attacked(
    work: _Work, part: data.Images, names: Sequence[str], bar: "tqdm[Any]", number: int
) -> tuple[list[report.Row], list[tuple[Tensor, ...]]]:
    """A row for each image of a batch, and what its figure shows: image, perturbed image, both maps."""
    attack = work.attack(_counted(work.attribution, bar))
    noise = torch.Generator().manual_seed(work.options.seed + 1000003 * number)
    x, label = part.x.to(work.device), part.y.to(work.device)
    prediction = work.predict(x)
    y = prediction if work.options.explain == "predicted" else label
    before = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        z = attack(work.model, x, y, generator=noise)
    seconds = (time.perf_counter() - before) / len(names)
    for text in dict.fromkeys(_said(warning.message, names) for warning in caught):
        tqdm.write(f"attrlib attack: {text}", file=sys.stderr)
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


def _said(warning: Warning | str, names: Sequence[str]) -> str:
    """A warning on one line, with the images that it is about."""
    if isinstance(warning, attacks.UnattackedWarning):
        named = [names[row] for row in warning.rows]
        more = f" and {len(named) - 8} more" if len(named) > 8 else ""
        return f"{', '.join(named[:8])}{more}: left unchanged: {warning.reason}"
    return f"{names[0]} to {names[-1]}: {' '.join(str(warning).split())}"


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
