"""What each recipe does to accuracy, curvature and explanations: one table of all shipped checkpoints."""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor, nn

from attrlib import _check, attributions, checkpoints, data, metrics, models, training
from attrlib.attacks import PGD, LinfBall
from attrlib.benchmark import _table
from attrlib.benchmark.attack_strength import K, Setting
from attrlib.maps import to_heatmap
from attrlib.recipes import RECIPES, Recipe
from attrlib.regularizers import loss_hessian_eigenvalue
from attrlib.types import Attack, Classifier, Metric

TRAINED_WINDOW = 1
BUDGETS = (8 / 255, 0.09, 0.1)  # the last two lie inside and on the edge of the ball of `madry`
STEPS, RESTARTS = 60, 3
_PGD = PGD(ball=LinfBall(eps=0.1), steps=20, step_size=2.5 * 0.1 / 20, random_start=True)
_SCORES: Mapping[str, Metric] = {
    "topk": functools.partial(metrics.topk_intersection, k=K),
    "lens_recall": functools.partial(metrics.lens_recall, k=K, window=TRAINED_WINDOW),
    "lens_precision": functools.partial(metrics.lens_precision, k=K, window=TRAINED_WINDOW),
    "kendall": metrics.kendall,
}
_DRAWS = 1000

_Columns = dict[str, tuple[Tensor, Tensor | None]]  # per quantity: values and levels by chance


def recipes(
    path: str | Path,
    *,
    images: int = 200,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure every recipe of which checkpoints are shipped, all its seeds at once.

    Accuracy, PGD-20 accuracy at ε = 0.1, confidence, calibration error and the largest eigenvalue of
    the loss Hessian, on the embedded test images; the cost of a training step beside an ordinary one; and
    the gradient maps before and after an attack on their highest pixels, adapted to each network, on
    the first test images that every one of the shipped networks classifies correctly. The controls are
    one draw of random signs, the best of as many draws as the attack has steps, and no attack at all, but
    another image of the same class: a map that is the same for every coat is robust, and says little.

    Intervals resample images and, in the rows of all seeds, seeds. If a checkpoint is added, the list of
    common images changes; write a new table then.

    Args:
        path: Table to write, or to go on with.
        images: Number of images whose maps are attacked, >= 2.
        device: Where to compute.
        progress: Print each recipe as it is done.

    Raises:
        ValueError: If `images` is out of range, or the table was made on other common images.
    """
    _check.count(images=images, low=2)
    path = Path(path)
    nets = {
        name: {seed: checkpoints.load(f"{name}-s{seed}").model.to(device) for seed in seeds}
        for name in RECIPES
        if name in checkpoints.names() and (seeds := checkpoints.seeds(name))
    }
    test = data.fashion_mnist("test")
    chosen = _common(nets, test, images, device)
    _table.check_constant(path, "list", _digest(chosen))
    for name, twins in nets.items():
        for part, eps in [("model", 0.0), *(("maps", budget) for budget in (0.0, *BUDGETS))]:
            key = {"recipe": name, "part": part, "eps": f"{eps:.5f}", "list": _digest(chosen)}
            if _table.in_table(path, key):
                continue
            start = time.perf_counter()
            if part == "model":
                columns = {"none": [_model(net, test, device) for net in twins.values()]}
                rows = list(_summaries(key, tuple(twins), columns))
                cost = _cost(RECIPES[name], test, device)
                rows.append(key | _row("all", "none", "step_ratio", len(cost), median(cost)))
            else:
                changed = [_maps(net, chosen, eps, device) for net in twins.values()]
                columns = {change: [c[change] for c in changed] for change in changed[0]}
                rows = list(_summaries(key, tuple(twins), columns))
            seconds = time.perf_counter() - start
            source = _table.provenance(device, seconds=seconds)
            _table.append(path, [row | source for row in rows])
            if progress:
                print(f"{name}, {part}, eps {eps:.4f}: {seconds:.0f} s", flush=True)


def _common(
    nets: Mapping[str, Mapping[int, nn.Module]],
    test: data.Images,
    images: int,
    device: str | torch.device,
) -> data.Images:
    """The first images that all networks classify correctly."""
    right = torch.ones(len(test), dtype=torch.bool)
    for twins in nets.values():
        for net in twins.values():
            hits = training.evaluate(net, test, {"hit": training.correct}, device=device)["hit"]
            right &= hits.bool()
    rows = right.nonzero()[:images, 0]
    if len(rows) < images:
        raise ValueError(
            f"Expected images <= {len(rows)}, those that all networks classify correctly, got {images}"
        )
    return test[rows]


def _digest(chosen: data.Images) -> str:
    return hashlib.sha256(data.fingerprint(chosen).encode()).hexdigest()[:8]


def _model(net: nn.Module, test: data.Images, device: str | torch.device) -> _Columns:
    """Values of each test image that need no second map."""

    def attacked(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
        z = _PGD(model, x, y, generator=torch.Generator().manual_seed(0))
        return training.correct(model, z, y)

    values = training.evaluate(
        net,
        test,
        {
            "accuracy": training.correct,
            "pgd20_accuracy": attacked,
            "confidence": _confidence,
            "lambda_max": lambda model, x, _: loss_hessian_eigenvalue(model, x),
        },
        device=device,
    )
    return {name: (value.double(), None) for name, value in values.items()}


@torch.no_grad()
def _confidence(model: Classifier, x: Tensor, _: Tensor) -> Tensor:
    highest: Tensor = model(x).softmax(1).amax(1)
    return highest


def _maps(
    net: models.SmallCNN, chosen: data.Images, eps: float, device: str | torch.device
) -> dict[str, _Columns]:
    """Scores of the gradient maps of each image, for the attack and its controls.

    At eps 0, where no attack can move, those of pairs of images of one class.
    """
    x, y = chosen.x.to(device), chosen.y.to(device)
    a = attributions.gradient(net, x, y)
    if eps == 0:
        other = _others(y)
        pairs = other != torch.arange(len(y), device=y.device)
        return {"other image": _scores(a[pairs], a[other[pairs]])}
    found: dict[str, _Columns] = {}
    for change, attack in _attacks(net, eps).items():
        z = attack(net, x, y, generator=torch.Generator().manual_seed(0))
        columns = _scores(a, attributions.gradient(net, z, y))
        with torch.no_grad():
            kept = net(z).argmax(1) == net(x).argmax(1)
        columns["kept"] = (kept.cpu().double(), None)
        columns["unchanged"] = ((z == x).flatten(1).all(1).cpu().double(), None)
        found[change] = columns
    return found


def _scores(a: Tensor, b: Tensor) -> _Columns:
    """Each score of pairs of maps, and its level by chance."""
    before, after = to_heatmap(a), to_heatmap(b)
    columns: _Columns = {
        name: (
            score(before, after).cpu().double(),
            metrics.chance_level(score, before, after).cpu().double(),
        )
        for name, score in _SCORES.items()
    }
    return columns | {"cosine": (metrics.cosine(a, b).cpu().double(), None)}


def _others(y: Tensor) -> Tensor:
    """For each image the next one of its class; the last one gets the first."""
    other = torch.arange(len(y), device=y.device)
    for label in set(y.tolist()):
        rows = (y == label).nonzero()[:, 0]
        other[rows] = rows.roll(-1)
    return other


def _attacks(net: models.SmallCNN, eps: float) -> dict[str, Attack]:
    """The attack, adapted to the network, and its controls."""
    base = Setting(study="", eps=eps, steps=STEPS, restarts=RESTARTS)
    flat = any(isinstance(module, nn.ReLU) for module in net.modules())
    settings = {
        "attack": base if flat else replace(base, sharpness=()),
        "random": replace(base, objective="random", steps=1),
        "best random": replace(base, objective="random", steps=STEPS * RESTARTS),
    }
    return {change: setting.attack() for change, setting in settings.items()}


def _summaries(
    key: Mapping[str, str], seeds: tuple[int, ...], columns: Mapping[str, list[_Columns]]
) -> Iterator[dict[str, str]]:
    """Rows of each seed and of all seeds together."""
    for change, of_seeds in columns.items():
        for quantity, (_, chance) in of_seeds[0].items():
            values = torch.stack([c[quantity][0] for c in of_seeds])
            levels = None
            if chance is not None:
                known = [level for c in of_seeds if (level := c[quantity][1]) is not None]
                levels = torch.stack(known)
            every = list(range(len(seeds)))
            for name, chosen in [*((str(s), [i]) for i, s in enumerate(seeds)), ("all", every)]:
                here = values[chosen]
                level = None if levels is None else levels[chosen]
                count = here.shape[1]
                yield dict(key) | _row(
                    name, change, quantity, count, _mean(here), _bootstrap(here), level, here
                )
                if quantity == "lambda_max":
                    yield dict(key) | _row(
                        name,
                        change,
                        "lambda_median",
                        count,
                        _median(here),
                        _bootstrap(here, _median),
                    )
        if "confidence" in of_seeds[0]:
            for seed, one in zip(seeds, of_seeds, strict=True):
                error = calibration_error(one["confidence"][0], one["accuracy"][0])
                count = len(one["accuracy"][0])
                yield dict(key) | _row(str(seed), change, "calibration_error", count, error)


def _row(
    seed: str,
    change: str,
    quantity: str,
    count: int,
    value: float,
    ends: tuple[float, float] | None = None,
    chance: Tensor | None = None,
    values: Tensor | None = None,
) -> dict[str, str]:
    level = corrected = ""
    if chance is not None and values is not None:
        level = f"{float(chance.nanmean()):.4f}"
        fair = metrics.corrected(values.flatten(), chance.flatten())
        corrected = f"{float(fair.nanmean()):.4f}"
    low, high = (f"{end:.4f}" for end in ends) if ends else ("", "")
    return {
        "seed": seed,
        "change": change,
        "quantity": quantity,
        "images": str(count),
        "value": f"{value:.4f}",
        "low": low,
        "high": high,
        "chance": level,
        "corrected": corrected,
    }


def _mean(values: Tensor) -> float:
    return float(values.nanmean())


def _median(values: Tensor) -> float:
    return float(values.nanmedian())


def _bootstrap(values: Tensor, statistic: Callable[[Tensor], float] = _mean) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic of (seeds, images), both drawn anew."""
    generator = torch.Generator().manual_seed(0)
    seeds, count = values.shape
    found = []
    for _ in range(_DRAWS):
        rows = torch.randint(seeds, (seeds, 1), generator=generator)
        found.append(statistic(values[rows, torch.randint(count, (count,), generator=generator)]))
    low, high = torch.tensor(found, dtype=torch.float64).quantile(
        torch.tensor([0.025, 0.975], dtype=torch.float64)
    )
    return float(low), float(high)


def calibration_error(confidence: Tensor, hits: Tensor, *, bins: int = 15) -> float:
    r"""Return the expected calibration error: how far confidence is from accuracy.

    $$\sum_b \frac{n_b}{n} \, \big| \mathrm{acc}_b - \mathrm{conf}_b \big|$$

    over bins of equal width in the confidence.

    Args:
        confidence: Highest probability of each image (n,), in [0, 1].
        hits: 1 where the prediction is right, else 0 (n,).
        bins: Number of bins, >= 1.

    Returns:
        The error, in [0, 1]; lower is better.

    Raises:
        ValueError: If the shapes differ, `bins` is below 1 or a confidence lies outside [0, 1].

    Source: Guo et al. 2017, equation 3.

    >>> calibration_error(torch.tensor([0.9, 0.9]), torch.tensor([1.0, 0.0]))  # right half the time
    0.4
    """
    _check.count(bins=bins)
    _check.same_shape(confidence=confidence, hits=hits)
    if not bool(((confidence >= 0) & (confidence <= 1)).all()):
        raise ValueError("Expected confidence in [0, 1], got a value outside")
    place = (confidence * bins).long().clamp(max=bins - 1)
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, place.cpu(), (hits.double() - confidence.double()).cpu())
    return float(gap.abs().sum()) / len(hits)


def _cost(recipe: Recipe, images: data.Images, device: str | torch.device) -> list[float]:
    """Time of training steps of the recipe, over that of ordinary ones, in turns."""
    few = images[: 4 * recipe.config.batch_size]

    def seconds(other: Recipe) -> float:
        model = other.model(generator=torch.Generator().manual_seed(0))
        config = training.TrainConfig(epochs=1, batch_size=other.config.batch_size)
        generator = torch.Generator().manual_seed(0)
        return training.train(
            model, few, other.loss, config=config, generator=generator, device=device
        ).seconds

    natural = RECIPES["natural"]
    for warm in (natural, recipe):
        seconds(warm)
    return [seconds(recipe) / seconds(natural) for _ in range(7)]
