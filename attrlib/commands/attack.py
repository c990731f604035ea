"""`python -m attrlib attack`: change the explanations of images, and show and count what changed."""

import argparse
import csv
import functools
import importlib
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm.auto import tqdm

from attrlib import _check, attacks, attributions, checkpoints, data, metrics, models, plotting
from attrlib.maps import to_heatmap
from attrlib.training import eval_mode
from attrlib.types import Attribution, Objective

_SCORES = ("topk_intersection", "kendall", "cosine", "center_shift")
_COLUMNS = (
    "name",
    "label",
    "prediction",
    "prediction_kept",
    "changed",
    *_SCORES,
    "eps",
    "largest_change",
    "seconds",
)


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
    what.add_argument("--split", choices=("train", "val", "test"), default="test")
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
    how.add_argument("--attribution", choices=sorted(_ATTRIBUTIONS), default="gradient")
    how.add_argument("--samples", type=int, default=16, help="of IG's path, or noisy copies")
    how.add_argument("--sigma", type=float, default=0.1, help="noise of smooth_grad")
    how.add_argument("--radius", type=float, default=0.5, help="l2 radius of uni_grad")
    how.add_argument(
        "--objective", choices=("top-k", "mass-center", "cosine", "target-map"), default="top-k"
    )
    how.add_argument(
        "--k",
        type=int,
        help="pixels in the top set (default: 100; 2 %% of a large image, 25 %% of a tiny one)",
    )
    how.add_argument("--window", type=int, default=0, help="radius of the LENS window of top-k")
    how.add_argument("--target", type=Path, help="picture that target-map draws into the map")
    how.add_argument("--norm", choices=("linf", "l2"), default="linf")
    how.add_argument("--eps", type=float, default=8 / 255, help="budget, pixel units (8/255)")
    how.add_argument("--steps", type=int, default=100, help="for each start (default: 100)")
    how.add_argument("--step-size", type=float, help="pixel units (default: eps / 10)")
    how.add_argument("--restarts", type=int, default=5, help="number of starts (default: 5)")
    how.add_argument(
        "--beta",
        type=float,
        nargs="*",
        default=[5.0, 20.0, 80.0],
        help="sharpness of the softplus surrogates, in order; none attacks the model itself "
        "(default: 5 20 80)",
    )

    run = parser.add_argument_group("run")
    run.add_argument("--out", type=Path, default=Path("runs/attack"), help="folder to write")
    run.add_argument("--amplify", type=float, default=10.0, help="of the difference shown (10)")
    run.add_argument("--batch-size", type=int, default=16)
    run.add_argument("--seed", type=int, default=0)


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
    rows = _resume(options.out, settings, table)
    with eval_mode(model):
        starts = range(0, len(names), options.batch_size)
        for batch, start in enumerate(tqdm(starts, desc="attack", unit="batch")):
            chosen = list(range(start, min(start + options.batch_size, len(names))))
            if all(names[i] in rows for i in chosen):
                continue
            part = images[chosen]
            x, label = part.x.to(device), part.y.to(device)
            with torch.no_grad():
                prediction = model(x).argmax(1)
            y = prediction if options.explain == "predicted" else label
            before = time.perf_counter()
            z = attack(
                model, x, y, generator=torch.Generator().manual_seed(options.seed + 1000003 * batch)
            )
            seconds = (time.perf_counter() - before) / len(chosen)
            maps = [_maps(attack.attribution, model, q, y, seed=options.seed) for q in (x, z)]
            scores = _scores(*maps, k=k)
            with torch.no_grad():
                kept = model(z).argmax(1) == prediction
            for j, i in enumerate(chosen):
                row = {
                    "name": names[i],
                    "label": _class(part.classes, int(label[j])),
                    "prediction": int(prediction[j]),
                    "prediction_kept": bool(kept[j]),
                    "changed": not torch.equal(x[j], z[j]),
                    **{name: f"{float(values[j]):.6f}" for name, values in scores.items()},
                    "eps": options.eps,
                    "largest_change": f"{float((z[j] - x[j]).abs().max()):.8f}",
                    "seconds": f"{seconds:.3f}",
                }
                figure = options.out / "figures" / f"{i:04d}-{Path(names[i]).stem}.png"
                _draw(figure, x[j], z[j], [m[j] for m in maps], row, amplify=options.amplify)
                rows[names[i]] = {key: str(value) for key, value in row.items()}
            _write(table, _as_csv(rows[name] for name in names if name in rows))
    _summarize(rows, table)


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
        surrogates=tuple(
            functools.partial(models.with_softplus, beta=beta) for beta in options.beta
        ),
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


def _maps(attribution: Attribution, model: nn.Module, x: Tensor, y: Tensor, *, seed: int) -> Tensor:
    """Maps with noise that is the same for all calls."""
    return attribution(model, x, y, generator=torch.Generator().manual_seed(seed)).detach()


def _scores(a: Tensor, b: Tensor, *, k: int) -> dict[str, Tensor]:
    heat, other = to_heatmap(a), to_heatmap(b)
    values = (
        metrics.topk_intersection(heat, other, k=k),
        metrics.kendall(heat, other),
        metrics.cosine(a, b),
        metrics.center_shift(heat, other),
    )
    return dict(zip(_SCORES, values, strict=True))


def _resume(out: Path, settings: Mapping[str, Any], table: Path) -> dict[str, dict[str, str]]:
    """The rows that are already there, by name; starts the folder if it is new."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    note = out / "settings.json"
    text = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False)
    if not note.exists():
        _write(note, text.encode())
    stored = json.loads(note.read_text())
    changed = [name for name, value in json.loads(text).items() if stored.get(name) != value]
    if changed:
        raise ValueError(
            f"Expected --out {out} to be new or of the same run, got another "
            f"{', '.join(changed)}; choose another folder"
        )
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def _as_csv(rows: Iterable[Mapping[str, str]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _write(path: Path, content: bytes) -> None:
    """The file appears complete or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _draw(
    path: Path,
    x: Tensor,
    z: Tensor,
    maps: Sequence[Tensor],
    row: Mapping[str, object],
    *,
    amplify: float,
) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 5)
    plotting.show_image(x, ax=axes[0], title="image")
    plotting.show_image(z, ax=axes[1], title="perturbed")
    grey = (0.5 + amplify * (z - x)).clamp(0, 1)
    plotting.show_image(grey, ax=axes[2], title=f"difference × {amplify:g}")
    # One scale for both maps.
    heat = [to_heatmap(m[None])[0] for m in maps]
    limit = plotting.shared_limit(*heat)
    plotting.show_heatmap(heat[0], ax=axes[3], limit=limit, title="map before")
    plotting.show_heatmap(heat[1], ax=axes[4], limit=limit, title="map after")
    kept = "kept" if row["prediction_kept"] else "changed"
    scores = ", ".join(f"{name} {float(str(row[name])):.2f}" for name in _SCORES)
    figure.suptitle(f"{row['name']}, {row['label']}: prediction {kept}; {scores}", fontsize=9)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    _write(path, content.getvalue())


def _class(names: Sequence[str], label: int) -> str:
    return names[label] if label < len(names) else str(label)


def _summarize(rows: Mapping[str, Mapping[str, str]], table: Path) -> None:
    n = len(rows)
    kept = sum(row["prediction_kept"] == "True" for row in rows.values())
    changed = sum(row["changed"] == "True" for row in rows.values())
    print(f"{n} images; prediction kept on {kept}, image changed on {changed}")
    for name in _SCORES:
        values = torch.tensor([float(row[name]) for row in rows.values()], dtype=torch.float64)
        print(f"  {name:18s} mean {float(values.nanmean()):.3f}")
    print(f"{table} and {table.parent / 'figures'}")
