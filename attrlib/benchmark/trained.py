"""What each recipe does to accuracy, curvature and explanations: one table of all shipped checkpoints."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from attrlib import _check, _files, checkpoints, data, metrics, training
from attrlib.attacks import PGD, SUITE, LinfBall
from attrlib.attacks.suite import GOALS
from attrlib.benchmark import _table, cells
from attrlib.recipes import RECIPES, Recipe
from attrlib.regularizers import loss_hessian_eigenvalue
from attrlib.training.state import contents
from attrlib.types import Classifier

BUDGETS = (8 / 255, 0.09, 0.1)  # the last two lie inside and on the edge of the ball of `madry`
PER_CLASS, POOL = 10, 50
_PGD = PGD(ball=LinfBall(eps=0.1), steps=20, step_size=2.5 * 0.1 / 20, random_start=True)
_DRAWS = 1000

_Nets = Mapping[int, checkpoints.Network]


def recipes(
    path: str | Path,
    *,
    points: str | Path = "runs/points",
    only: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure every recipe for Fashion-MNIST of which checkpoints are shipped, all its seeds at once.

    Of each network: accuracy, PGD-20 accuracy at ε = 0.1, confidence, calibration error and the largest
    eigenvalue of the loss Hessian, on the embedded test images; the cost of a training step beside an
    ordinary one. Of its gradient maps: the scores after the suite of attacks on the top k
    (`attacks.standard`), on the first ten test images of each class, whatever a network predicts for
    them; the explained class is the label. On seed 0 also suites that go for each other score, on the
    first five of each class; one and many draws of random signs; the first attack of the book. Controls
    beside each: identification among 50 other images of the class, specific scores, and maps of another
    origin.

    The list of images is fixed: a recipe that comes later adds rows and changes none. Rows of all seeds
    have intervals over seeds and images (`metrics.seed_interval`), rows of one seed over images.

    Args:
        path: Table to write, or to go on with.
        points: Folder of the points found, which later scores are read from.
        only: Recipes to measure; None takes all for Fashion-MNIST that are shipped.
        device: Where to compute.
        progress: Print each part as it is done.

    Raises:
        ValueError: If a recipe is not shipped or for other data, or the table has rows of other
            checkpoints or images.
    """
    path = Path(path)
    plain = [name for name, recipe in RECIPES.items() if recipe.data is data.fashion_mnist]
    names = [name for name in plain if name in checkpoints.names()]
    if only is not None:
        for name in only:
            _check.one_of(names, only=name)
        names = [name for name in names if name in only]
    test = data.fashion_mnist("test")
    images, few, pool = _lists(test)
    _table.check_constant(path, "list", data.fingerprint(images)[:8])
    for part in _parts():
        for name in names:
            nets = _nets(name, part, device)
            if not nets:
                continue
            digest = _files.digest(*(contents(net) for net in nets.values()))[:8]
            key = {
                "recipe": name,
                "map": "none" if part[0] == "model" else "gradient",
                "attack": part[0],
                "suite": SUITE if part[0].endswith(" suite") else "",
                "eps": f"{part[1]:.5f}",
                "list": data.fingerprint(images)[:8],
                "checkpoints": digest,
            }
            if _done(path, key):
                continue
            start = time.perf_counter()
            rows = list(_rows(key, part, nets, (test, images, few, pool), Path(points), device))
            seconds = time.perf_counter() - start
            source = _table.provenance(device, seconds=seconds)
            _table.append(path, [row | source for row in rows])
            if progress:
                print(f"{name}, {part[0]}, eps {part[1]:.4f}: {seconds:.0f} s", flush=True)


def _parts() -> Iterator[tuple[str, float]]:
    """What is measured, and at which budget; what matters most comes first."""
    yield "model", 0.0
    yield "clean", 0.0
    for eps in BUDGETS:
        yield "top-k suite", eps
    for eps in (BUDGETS[0], BUDGETS[-1]):
        for goal in GOALS[1:]:
            yield f"{goal} suite", eps
    for eps in BUDGETS:
        for control in cells.CONTROLS:
            yield control, eps


def _lists(test: data.Images) -> tuple[data.Images, data.Images, data.Images]:
    """Images for the top-k suite, the first half of them for all else, and a pool of others."""
    return (
        cells.listed(test, per_class=PER_CLASS),
        cells.listed(test, per_class=PER_CLASS // 2),
        cells.listed(test, per_class=POOL, start=PER_CLASS),
    )


def _nets(name: str, part: tuple[str, float], device: str | torch.device) -> _Nets:
    """All seeds, or the first one for what is measured on one seed."""
    every = part[0] in ("model", "clean", "top-k suite", "random")
    return {
        seed: checkpoints.load(f"{name}-s{seed}").model.to(device)
        for seed in checkpoints.seeds(name)
        if every or seed == 0
    }


def _done(path: Path, key: Mapping[str, str]) -> bool:
    """Whether the table has these rows; raise if it has them of other checkpoints."""
    if _table.in_table(path, key):
        return True
    other = {name: value for name, value in key.items() if name != "checkpoints"}
    if _table.in_table(path, other):
        raise ValueError(
            f"Expected {path} with rows of {key['recipe']} made from the checkpoints "
            f"{key['checkpoints']}, got others; take these rows out, or write a new table"
        )
    return False


def _rows(
    key: Mapping[str, str],
    part: tuple[str, float],
    nets: _Nets,
    lists: tuple[data.Images, data.Images, data.Images, data.Images],
    folder: Path,
    device: str | torch.device,
) -> Iterator[dict[str, str]]:
    attack, eps = part
    test, images, few, pool = lists
    if attack == "model":
        columns = {seed: _model(net, test, device) for seed, net in nets.items()}
        yield from _summaries(key, columns)
        cost = step_ratios(RECIPES[key["recipe"]], test, device)
        yield dict(key) | _row("all", "step_ratio", len(cost), median(cost))
    elif attack == "clean":
        found = {
            seed: cells.clean_controls(net, images, device=device) for seed, net in nets.items()
        }
        for origin in next(iter(found.values())):
            changed = {seed: controls[origin] for seed, controls in found.items()}
            yield from _summaries(dict(key) | {"attack": origin}, changed)
        # So that a second call finds these rows by their part.
        yield dict(key) | _row("all", "images", len(images), len(images))
    else:
        whole = len(nets) > 1 or attack == "top-k suite"
        chosen = images if whole else few
        columns = {}
        for seed, net in nets.items():
            z = cells.points(
                net,
                chosen,
                attack.removesuffix(" suite"),
                eps,
                folder=folder,
                device=device,
                pool=pool,
            )
            columns[seed] = cells.scores_at(net, chosen, z, pool, device=device)
        yield from _summaries(key, columns)


def _model(
    net: checkpoints.Network, test: data.Images, device: str | torch.device
) -> cells.Columns:
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
    return {name: value.cpu().double() for name, value in values.items()}


@torch.no_grad()
def _confidence(model: Classifier, x: Tensor, _: Tensor) -> Tensor:
    highest: Tensor = model(x).softmax(1).amax(1)
    return highest


def _summaries(
    key: Mapping[str, str], columns: Mapping[int, cells.Columns]
) -> Iterator[dict[str, str]]:
    """Rows of each seed and of all seeds together."""
    for quantity in next(iter(columns.values())):
        values = torch.stack([found[quantity] for found in columns.values()])
        if quantity.startswith("specific_"):  # value and interval of a ratio of means
            for seed, (value, low, high) in zip(columns, values.tolist(), strict=True):
                yield dict(key) | _row(str(seed), quantity, 0, value, (low, high))
            yield dict(key) | _over_seeds(quantity, values[:, 0])
            continue
        for seed, one in zip(columns, values, strict=True):
            yield dict(key) | _row(str(seed), quantity, len(one), _mean(one), _bootstrap(one))
        yield dict(key) | _over_seeds(quantity, values)
        if quantity == "lambda_max":
            medians = [_median(one) for one in values]
            for seed, one, value in zip(columns, values, medians, strict=True):
                ends = _bootstrap(one, _median)
                yield dict(key) | _row(str(seed), "lambda_max_median", len(one), value, ends)
            yield dict(key) | _over_seeds("lambda_max_median", torch.tensor(medians))
        if quantity == "confidence":
            errors = [
                calibration_error(found["confidence"], found["accuracy"])
                for found in columns.values()
            ]
            for seed, value in zip(columns, errors, strict=True):
                yield dict(key) | _row(str(seed), "calibration_error", values.shape[1], value)
            yield dict(key) | _over_seeds("calibration_error", torch.tensor(errors))


def _over_seeds(quantity: str, values: Tensor) -> dict[str, str]:
    """The row of all seeds: of values (seeds, images), or one a seed (seeds,)."""
    known = values.double()
    means = known if known.ndim == 1 else known.nanmean(1)
    images = 0 if known.ndim == 1 else known.shape[1]
    ends = None
    if len(means) > 1 and not means.isnan().any():
        ends = metrics.seed_interval(known)
    return _row("all", quantity, images, float(means.mean()), ends)


def _row(
    seed: str, quantity: str, count: int, value: float, ends: tuple[float, float] | None = None
) -> dict[str, str]:
    return {"seed": seed} | _table.measured(quantity, count, value, ends)


def _mean(values: Tensor) -> float:
    return float(values.nanmean())


def _median(values: Tensor) -> float:
    return float(values.nanmedian())


def _bootstrap(values: Tensor, statistic: Callable[[Tensor], float] = _mean) -> tuple[float, float]:
    """The 95 % percentile interval of a statistic of images (n,), drawn anew."""
    generator = torch.Generator().manual_seed(0)
    draws = (torch.randint(len(values), values.shape, generator=generator) for _ in range(_DRAWS))
    found = torch.tensor([statistic(values[rows]) for rows in draws], dtype=torch.float64)
    low, high = found.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
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


def step_ratios(recipe: Recipe, images: data.Images, device: str | torch.device) -> list[float]:
    """Time of training steps of a recipe, over that of ordinary ones, in turns."""
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
