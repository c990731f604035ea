"""Studies that are too long for a chapter: each writes one table to `results/`, row by row.

A study that is stopped goes on where it was: rows that are in the table already are not made again.
"""

import csv
import datetime
import functools
import os
import platform
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from attrlib import _check, attributions, checkpoints, data, metrics, models, training
from attrlib.attacks import AttributionAttack, Cosine, LinfBall, MassCenter, RandomSign, TopK
from attrlib.maps import to_heatmap
from attrlib.types import Attack, Attribution, Classifier, Objective

K = 100
"""Pixels in a top-k set, 13 % of a 28×28 image: as in the Fashion-MNIST setting of Chen et al. 2019."""

ATTRIBUTIONS: Mapping[str, Attribution] = {
    "gradient": attributions.gradient,
    "integrated gradients": functools.partial(attributions.integrated_gradients, steps=16),
    "SmoothGrad": functools.partial(attributions.smooth_grad, sigma=0.2, samples=16),
}
OBJECTIVES: Mapping[str, Objective] = {
    "top-k": TopK(k=K),
    "mass centre": MassCenter(),
    "cosine": Cosine(),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One attack of the strength study; the defaults are those the book uses.

    Attributes:
        study: What this row is part of; not a property of the attack.
        attribution: A name of `ATTRIBUTIONS`.
        objective: A name of `OBJECTIVES`; `random`; or a control that changes no pixel, `another image`
            (of the same class) or `random weights` (the same image, an untrained network).
        eps: Budget in every pixel.
        steps: Steps per start; for `random` the number of draws, of which the best is kept.
        restarts: Number of starts.
        sharpness: β of the softplus surrogates, one after the other.
    """

    study: str
    attribution: str = "gradient"
    objective: str = "top-k"
    eps: float = 8 / 255
    steps: int = 100
    restarts: int = 10
    sharpness: tuple[float, ...] = (10.0, 30.0, 100.0)

    def attack(self) -> Attack:
        """Return the attack; points are compared by top-k intersection, mass centres by their shift."""
        attribution = ATTRIBUTIONS[self.attribution]
        score = functools.partial(metrics.topk_intersection, k=K)
        if self.objective == "random":
            if self.steps == 1:
                return RandomSign(eps=self.eps)
            return RandomSign(eps=self.eps, draws=self.steps, score=score, attribution=attribution)
        return AttributionAttack(
            attribution=attribution,
            objective=OBJECTIVES[self.objective],
            ball=LinfBall(eps=self.eps),
            steps=self.steps,
            step_size=self.eps / 10,
            restarts=self.restarts,
            surrogates=tuple(
                functools.partial(models.with_softplus, beta=beta) for beta in self.sharpness
            ),
            score=None if self.objective == "mass centre" else score,
        )

    def row(self) -> dict[str, str]:
        """Return the fields as they stand in the table."""
        fields = asdict(self) | {
            "eps": f"{self.eps:.5f}",
            "sharpness": "-".join(f"{beta:g}" for beta in self.sharpness),
        }
        return {name: str(value) for name, value in fields.items()}


def strength_settings() -> Iterator[Setting]:
    """Yield the rows of the strength study: one thing is varied at a time, at two budgets.

    Yields:
        Settings, the cheap ones first.
    """
    budgets = (8 / 255, 0.1)
    for eps in budgets:
        base = Setting(study="", eps=eps)
        for draws in (1, 500):
            yield replace(base, study="random", objective="random", steps=draws, restarts=1)
        for sharpness in ((1.0,), (10.0,), (30.0,), (100.0,), (10.0, 30.0, 100.0)):
            yield replace(base, study="sharpness", restarts=1, sharpness=sharpness)
        for steps in (10, 20, 50, 100, 200):
            yield replace(base, study="steps", restarts=1, steps=steps)
        for objective in ("top-k", "cosine", "mass centre"):
            yield replace(base, study="objective", restarts=1, objective=objective)
        for restarts in (1, 2, 5, 10, 20):
            yield replace(base, study="restarts", restarts=restarts)
    for level in (1, 2, 4, 8, 16, 25.5):
        yield Setting(study="eps", eps=level / 255, restarts=1)
        yield Setting(study="eps", eps=level / 255, objective="random", steps=1, restarts=1)
    for name in ATTRIBUTIONS:
        for eps in budgets:
            base = Setting(study="attribution", attribution=name, eps=eps, steps=51, restarts=1)
            yield base
            yield replace(base, objective="random", steps=1)
            for control in ("another image", "random weights"):
                yield replace(base, objective=control, steps=0, restarts=0, sharpness=())


def strength(
    path: str | Path,
    *,
    images: int = 300,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure how far attacks on attributions go, as a function of their effort.

    The natural network (seed 0), on the first validation images of the full set that it classifies
    correctly. Each row holds the mean scores of the heatmaps before and after, with bootstrap intervals.

    Args:
        path: Table to write, or to go on with.
        images: Number of images, >= 2.
        device: Where to compute.
        progress: Print each row as it is done.

    Raises:
        ValueError: If a number is out of range.
        FileNotFoundError: If the full Fashion-MNIST set is not found.
    """
    _check.count(images=images, low=2)
    model = checkpoints.load("natural").model.to(device)
    pool = data.fashion_mnist("val", full=True)
    chosen = training.only_correct(model, pool, device=device)[:images]
    x, y = chosen.x.to(device), chosen.y.to(device)
    for setting in strength_settings():
        key = setting.row() | {"images": str(len(chosen))}
        if _in_table(Path(path), key):
            continue
        start = time.perf_counter()
        z, other = x, model
        if setting.objective == "another image":
            z = x[_another(y)]
        elif setting.objective == "random weights":
            weights = torch.Generator().manual_seed(1)
            other = models.SmallCNN(generator=weights).to(device)
        else:
            z = setting.attack()(model, x, y, generator=torch.Generator().manual_seed(0))
        seconds = time.perf_counter() - start
        scores = _compare(ATTRIBUTIONS[setting.attribution], (model, x), (other, z), y)
        row = key | scores | provenance(device, seconds=seconds)
        _append(Path(path), row)
        if progress:
            print(", ".join(f"{k} {v}" for k, v in row.items() if k in (*key, "topk", "seconds")))


def imagenet_accuracy(
    path: str | Path,
    folder: str | Path,
    wnids: str | Path,
    *,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure the accuracy of `models.imagenet()` on a folder of ImageNet photographs.

    Args:
        path: Table to write.
        folder: Photographs as <wnid>/<image>.
        wnids: Text file with the 1,000 WordNet identifiers in the order of the classes, one a line.
        device: Where to compute.
        progress: Show a progress bar.

    Raises:
        ValueError: If `wnids` has not 1,000 lines, or a subfolder is not among them.
        FileNotFoundError: If the folder or the file does not exist.
    """
    order = Path(wnids).read_text(encoding="utf-8").split()
    if len(order) != 1000:
        raise ValueError(f"Expected wnids to list 1000 identifiers, got {len(order)} in {wnids}")
    photographs = data.image_folder(folder, size=224)
    unknown = sorted(set(photographs.classes) - set(order))
    if unknown:
        raise ValueError(f"Expected folder with subfolders listed in wnids, got {unknown[0]}")
    index = torch.tensor([order.index(name) for name in photographs.classes], device=device)
    start = time.perf_counter()
    hits = training.evaluate(
        models.imagenet(),
        photographs,
        {"correct": lambda model, x, y: training.correct(model, x, index[y])},
        batch_size=50,
        device=device,
        progress=progress,
    )["correct"]
    seconds = time.perf_counter() - start
    low, high = metrics.interval(hits, generator=torch.Generator().manual_seed(0))
    Path(path).unlink(missing_ok=True)
    row = {"model": "efficientnet-lite0", "images": str(len(hits))}
    row |= _rounded({"accuracy": float(hits.mean()), "low": low, "high": high})
    _append(Path(path), row | provenance(device, seconds=seconds))


def provenance(device: str | torch.device, *, seconds: float) -> dict[str, str]:
    """Return the columns that every table in `results/` has.

    Args:
        device: Where the row was computed.
        seconds: How long it took.

    Returns:
        The commit (with a plus sign if the tree has changes), the day, the device, versions, seconds.
    """
    root = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError):
            return ""
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD") or "unknown"
    changed = "+" if git("status", "--porcelain", "--", "attrlib") else ""
    device = torch.device(device)
    cuda = device.type == "cuda"
    threads = f"{torch.get_num_threads()} threads"
    return {
        "commit": commit + changed,
        "date": datetime.date.today().isoformat(),
        "device": torch.cuda.get_device_name(device) if cuda else f"{device.type}, {threads}",
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "seconds": f"{seconds:.1f}",
    }


def _another(y: Tensor) -> Tensor:
    """For each row the next row of the same class; the last of a class takes the first."""
    other = torch.arange(len(y), device=y.device)
    for label in torch.unique(y):
        rows = (y == label).nonzero()[:, 0]
        other[rows] = rows.roll(-1)
    return other


def _compare(
    attribution: Attribution,
    before: tuple[Classifier, Tensor],
    after: tuple[Classifier, Tensor],
    y: Tensor,
) -> dict[str, str]:
    """Scores of two batches of maps, made with the same noise, and what became of the predictions."""
    (model, x), (other, z) = before, after
    a = attribution(model, x, y, generator=torch.Generator().manual_seed(1))
    b = attribution(other, z, y, generator=torch.Generator().manual_seed(1))
    heat_a, heat_b = to_heatmap(a), to_heatmap(b)
    columns = {
        "topk": metrics.topk_intersection(heat_a, heat_b, k=K),
        "kendall": metrics.kendall(heat_a, heat_b),
        "cosine": metrics.cosine(a, b),
        "center_shift": metrics.center_shift(heat_a, heat_b),
    }
    row: dict[str, float] = {}
    for name, values in columns.items():
        low, high = metrics.interval(values, generator=torch.Generator().manual_seed(0))
        row |= {name: float(values.nanmean()), f"{name}_low": low, f"{name}_high": high}
    with torch.no_grad():
        row["kept"] = float((other(z).argmax(1) == model(x).argmax(1)).double().mean())
    row["unchanged"] = float((z == x).flatten(1).all(1).double().mean())
    return _rounded(row)


def _rounded(row: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in row.items()}


def _in_table(path: Path, key: Mapping[str, str]) -> bool:
    if not path.exists():
        return False
    with path.open(newline="", encoding="utf-8") as file:
        return any(key.items() <= row.items() for row in csv.DictReader(file))


def _append(path: Path, row: Mapping[str, str]) -> None:
    """Add a row; the table is written anew under another name and renamed."""
    old = path.read_text(encoding="utf-8") if path.exists() else ",".join(row) + "\n"
    if old.splitlines()[0].split(",") != list(row):
        raise ValueError(f"Expected {path} with the columns {', '.join(row)}, got another table")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", newline="", encoding="utf-8") as file:
            file.write(old)
            csv.DictWriter(file, list(row), lineterminator="\n").writerow(row)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
