"""What the ImageNet network and its explanations do on photographs of ImageNet."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attrlib import attributions, data, metrics, models, training
from attrlib._random import seeded
from attrlib.attacks import AttributionAttack, LinfBall, RandomSign, TopK
from attrlib.benchmark import _table
from attrlib.maps import to_heatmap
from attrlib.types import Attack, Attribution, Classifier, Metric

LENS_K = 1000
"""Pixels in a top-k set, 2 % of a 224×224 image: as on ImageNet in Kamath et al. 2024."""

_MAPS: Mapping[str, Attribution] = {
    "gradient": attributions.gradient,
    "input x gradient": attributions.input_x_gradient,
    "SmoothGrad": functools.partial(attributions.smooth_grad, sigma=0.1, samples=8),
    "integrated gradients": functools.partial(attributions.integrated_gradients, steps=8),
}
_WINDOWS = (1, 2, 3, 4, 8)
_DIVERSE_WINDOW = 3
_BATCH = 20

_Scores = dict[tuple[str, int], Tensor]  # by name and window; columns value and level by chance
_FATE = ("kept", "unchanged")


@dataclass(frozen=True, kw_only=True)
class LensSetting:
    """One comparison of maps in the study of LENS on photographs.

    Attributes:
        attribution: `gradient`, `input x gradient`, `SmoothGrad` (σ = 0.1, 8 samples) or
            `integrated gradients` (8 steps).
        eps: Budget in every pixel.
        images: Number of images, evenly spaced in the folder.
        steps: Steps of an attack, on images that are classified correctly; 0 for none.
    """

    attribution: str
    eps: float
    images: int
    steps: int = 0

    def attack(self) -> Attack:
        """Return the attack on the k highest pixels: one start, steps of eps / 10, smooth twins."""
        return AttributionAttack(
            attribution=_MAPS[self.attribution],
            objective=TopK(k=LENS_K),
            ball=LinfBall(eps=self.eps),
            steps=self.steps,
            step_size=self.eps / 10,
            surrogates=tuple(
                functools.partial(models.smoothed, beta=beta) for beta in (5.0, 10.0, 30.0)
            ),
            score=functools.partial(metrics.topk_intersection, k=LENS_K),
        )

    def row(self) -> dict[str, str]:
        """Return the fields as they stand in the table."""
        return {
            "attribution": self.attribution,
            "eps": f"{self.eps:.5f}",
            "images": str(self.images),
            "steps": str(self.steps),
        }


def lens_settings() -> Iterator[LensSetting]:
    """Yield the parts of the study, in the order in which they are made.

    Yields:
        Settings without an attack, over all images or 100, and with one, over 64.
    """
    large, small = 8 / 255, 2 / 255
    yield LensSetting(attribution="gradient", eps=large, images=700)
    yield LensSetting(attribution="gradient", eps=large, images=64, steps=15)
    yield LensSetting(attribution="input x gradient", eps=large, images=64, steps=15)
    yield LensSetting(attribution="gradient", eps=small, images=64, steps=15)
    for attribution in ("SmoothGrad", "integrated gradients"):
        yield LensSetting(attribution=attribution, eps=large, images=100)
    yield LensSetting(attribution="input x gradient", eps=large, images=700)
    yield LensSetting(attribution="gradient", eps=small, images=700)


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
    photographs, classes = _labelled(folder, wnids)
    key = {"model": "efficientnet-lite0", "images": str(len(photographs))}

    def rows() -> Iterator[dict[str, str]]:
        hits = _hits(models.imagenet(), photographs, classes, device, progress=progress)
        low, high = metrics.interval(hits, generator=seeded(0))
        yield key | _table.rounded({"accuracy": float(hits.mean()), "low": low, "high": high})

    made = _table.Cell(key, rows).made(device)
    Path(path).unlink(missing_ok=True)
    _table.append(Path(path), made)


def imagenet_lens(
    path: str | Path,
    folder: str | Path,
    wnids: str | Path,
    *,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Compare maps of `models.imagenet()` before and after random noise and attacks, by every metric.

    The true class is explained. Every score has a row for each `change`:

    - `random`: one draw of random signs.
    - `another image`: no change; the map of another photograph, for its own class. In parts without an
      attack.
    - `attack`: `LensSetting.attack`; images that keep their prediction nowhere on the way count as they
      are. Only in parts with an attack, as the following.
    - `difference`: attack less random, in pairs.
    - `ratio`: (1 - mean under random) / (1 - mean under attack), the damage of noise as a share of that
      of the attack.
    - `ratio - topk`: that less the same for top-k intersection.

    Args:
        path: Table to write, or to go on with.
        folder: Photographs as <wnid>/<image>.
        wnids: Text file with the 1,000 WordNet identifiers in the order of the classes, one a line.
        device: Where to compute.
        progress: Print each part as it is done.

    Raises:
        ValueError: If `wnids` has not 1,000 lines, a subfolder is not among them, or there are fewer
            images than a part needs.
        FileNotFoundError: If the folder or the file does not exist.
    """
    photographs, classes = _labelled(folder, wnids)
    model = models.imagenet().to(device)
    hits = functools.cache(functools.partial(_hits, model, photographs, classes, device))

    def rows(setting: LensSetting) -> Iterator[dict[str, str]]:
        pool = torch.arange(len(photographs))
        if setting.steps:
            pool = pool[hits().bool()]
        if len(pool) < setting.images:
            raise ValueError(f"Expected folder with {setting.images} images, got {len(pool)}")
        chosen = pool[torch.arange(setting.images) * len(pool) // setting.images]
        found = _compare(setting, model, photographs[chosen], classes, device)
        for row in _rows(found):
            yield setting.row() | row

    made = (
        _table.Cell(setting.row(), functools.partial(rows, setting)) for setting in lens_settings()
    )
    _table.fill(path, made, device=device, progress=progress)


def _labelled(folder: str | Path, wnids: str | Path) -> tuple[data.FolderImages, Tensor]:
    """The photographs, and which class of the network each of their classes is."""
    order = Path(wnids).read_text(encoding="utf-8").split()
    if len(order) != 1000:
        raise ValueError(f"Expected wnids to list 1000 identifiers, got {len(order)} in {wnids}")
    photographs = data.image_folder(folder, size=224)
    unknown = sorted(set(photographs.classes) - set(order))
    if unknown:
        raise ValueError(f"Expected folder with subfolders listed in wnids, got {unknown[0]}")
    return photographs, torch.tensor([order.index(name) for name in photographs.classes])


def _hits(
    model: torch.nn.Module,
    photographs: data.FolderImages,
    classes: Tensor,
    device: str | torch.device,
    *,
    progress: bool = False,
) -> Tensor:
    """1 for each photograph that is classified correctly, else 0."""
    classes = classes.to(device)
    return training.evaluate(
        model,
        photographs,
        {"correct": lambda model, x, y: training.correct(model, x, classes[y])},
        batch_size=50,
        device=device,
        progress=progress,
    )["correct"]


def _compare(
    setting: LensSetting,
    model: torch.nn.Module,
    photographs: data.Images,
    classes: Tensor,
    device: str | torch.device,
) -> dict[str, _Scores]:
    """For each change the scores of each image, with what became of the prediction."""
    noise = seeded(0)
    parts: dict[str, list[_Scores]] = {}
    for rows in torch.tensor_split(
        torch.arange(len(photographs)), math.ceil(len(photographs) / _BATCH)
    ):
        batch = photographs[rows]
        x, y = batch.x.to(device), classes[batch.y].to(device)
        changed = {"random": RandomSign(eps=setting.eps)(model, x, y, generator=noise)}
        if setting.steps:
            changed["attack"] = setting.attack()(model, x, y, generator=noise)
        before = _maps(setting, model, x, y)
        for change, z in changed.items():
            after = _maps(setting, model, z, y)
            found = _scores(before, after) | _fate(model, x, z)
            parts.setdefault(change, []).append(found)
        if not setting.steps:
            found = _scores(before, before.roll(1, 0))
            parts.setdefault("another image", []).append(found)
    return {
        change: {key: torch.cat([scores[key] for scores in found]) for key in found[0]}
        for change, found in parts.items()
    }


def _maps(setting: LensSetting, model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Maps, always with the same noise."""
    return _MAPS[setting.attribution](model, x, y, generator=seeded(1))


def _scores(a: Tensor, b: Tensor) -> _Scores:
    heat = to_heatmap(a), to_heatmap(b)
    found = {}
    for (name, window), metric in _compared().items():
        value = metric(*heat)
        chance = metrics.chance_level(metric, *heat)
        found[name, window] = torch.stack([value, chance], dim=1)
    for name, value in {
        "cosine": metrics.cosine(a, b),
        "center_shift": metrics.center_shift(*heat),
    }.items():
        found[name, 0] = torch.stack([value, torch.full_like(value, torch.nan)], dim=1)
    return {key: columns.double().cpu() for key, columns in found.items()}


def _compared() -> dict[tuple[str, int], Metric]:
    """Metrics of heatmaps whose level by chance is known, by name and window."""
    lens = {"recall": metrics.lens_recall, "precision": metrics.lens_precision}
    table: dict[tuple[str, int], Metric] = {}
    table["topk", 0] = functools.partial(metrics.topk_intersection, k=LENS_K)
    for end, metric in lens.items():
        for window in _WINDOWS:
            table[f"lens_{end}", window] = functools.partial(metric, k=LENS_K, window=window)
        table[f"diverse_{end}", _DIVERSE_WINDOW] = functools.partial(
            metric, k=LENS_K, window=_DIVERSE_WINDOW, diverse=True
        )
    table["kendall", 0], table["spearman", 0] = metrics.kendall, metrics.spearman
    return table


@torch.no_grad()
def _fate(model: Classifier, x: Tensor, z: Tensor) -> _Scores:
    """Whether each image keeps its prediction, and whether it is as it was."""
    kept = model(x).argmax(1) == model(z).argmax(1)
    unchanged = (x == z).flatten(1).all(1)
    return {("kept", 0): kept.double().cpu(), ("unchanged", 0): unchanged.double().cpu()}


def _rows(found: Mapping[str, _Scores]) -> Iterator[dict[str, str]]:
    """All rows of one part of the study."""
    for change, scores in found.items():
        fate = {name: float(scores[name, 0].mean()) for name in _FATE if (name, 0) in scores}
        for key in _keys(scores):
            yield _row(change, key, [scores[key]], lambda m: m[..., 0], fate)
    if "attack" not in found:
        return
    random, attack = found["random"], found["attack"]
    top = [random["topk", 0], attack["topk", 0]]
    for key in _keys(random):
        pair = [random[key], attack[key]]
        yield _row("difference", key, pair, lambda m: m[..., 1] - m[..., 0])
        if key[0] == "center_shift":
            continue
        yield _row("ratio", key, pair, _ratio)
        if key[0] != "topk":
            yield _row("ratio - topk", key, pair + top, lambda m: _ratio(m) - _ratio(m[..., 2:]))


def _keys(scores: _Scores) -> list[tuple[str, int]]:
    return [key for key in scores if key[0] not in _FATE]


def _ratio(means: Tensor) -> Tensor:
    return (1 - means[..., 0]) / (1 - means[..., 1])


def _row(
    change: str,
    key: tuple[str, int],
    scores: list[Tensor],
    statistic: Callable[[Tensor], Tensor],
    fate: Mapping[str, float] | None = None,
) -> dict[str, str]:
    """A number made of the means of scores, and the same after correction for chance."""
    values = torch.stack([columns[:, 0] for columns in scores], dim=1)
    chances = torch.stack([columns[:, 1] for columns in scores], dim=1)
    known = ~values.isnan().any(1)
    row = dict(zip(("mean", "low", "high"), _estimate(values, statistic), strict=True))
    row["chance"] = float(chances[:, 0].nanmean()) if len(scores) == 1 else math.nan
    above = torch.stack([metrics.corrected(*columns.T) for columns in scores], dim=1)
    names = ("corrected", "corrected_low", "corrected_high")
    row |= zip(names, _estimate(above, statistic), strict=True)
    row |= {name: math.nan for name in _FATE} | dict(fate or {})
    numbers = {name: f"{v:.4f}" if math.isfinite(v) else "" for name, v in row.items()}
    undefined = {"undefined": str(int((~known).sum()))}
    return {"change": change, "score": key[0], "window": str(key[1])} | undefined | numbers


def _estimate(values: Tensor, statistic: Callable[[Tensor], Tensor]) -> tuple[float, float, float]:
    """The statistic of the means, and its bootstrap interval over images; NaN without two images."""
    known = values[~values.isnan().any(1)]
    if len(known) < 2:
        return math.nan, math.nan, math.nan
    generator = seeded(0)
    draws = torch.randint(len(known), (2000, len(known)), generator=generator)
    spread = statistic(known[draws].mean(1))
    low, high = spread.quantile(torch.tensor([0.025, 0.975], dtype=spread.dtype))
    return float(statistic(known.mean(0))), float(low), float(high)
