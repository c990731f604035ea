"""What each recipe does to accuracy, curvature and explanations: one table of all shipped checkpoints."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from attrlib import _check, _files, checkpoints, data, training
from attrlib.attacks import SUITE
from attrlib.attacks.suite import GOALS
from attrlib.benchmark import _table, cells, seeds
from attrlib.benchmark.seeds import Columns
from attrlib.recipes import RECIPES, Recipe
from attrlib.regularizers import loss_hessian_eigenvalue
from attrlib.training.state import contents
from attrlib.types import Classifier

BUDGETS = (8 / 255, 0.09, 0.1)  # the last two lie inside and on the edge of the ball of `madry`
PER_CLASS, POOL = 10, 50
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
    lists = _lists(data.fashion_mnist("test"))
    _table.check_constant(path, "list", data.fingerprint(lists[1])[:8])
    made = _cells(path, names, lists, Path(points), device)
    _table.fill(path, made, device=device, progress=progress)


def _cells(
    path: Path,
    names: Sequence[str],
    lists: tuple[data.Images, data.Images, data.Images, data.Images],
    points: Path,
    device: str | torch.device,
) -> Iterator[_table.Cell]:
    for part in _parts():
        for name in names:
            nets = _nets(name, part, device)
            if not nets:
                continue
            key = {
                "recipe": name,
                "map": "none" if part[0] == "model" else "gradient",
                "attack": part[0],
                "suite": SUITE if part[0].endswith(" suite") else "",
                "eps": f"{part[1]:.5f}",
                "list": data.fingerprint(lists[1])[:8],
                "checkpoints": _files.digest(*(contents(net) for net in nets.values()))[:8],
            }
            _check_checkpoints(path, key)
            work = functools.partial(_rows, key, part, nets, lists, points, device)
            yield _table.Cell(key, work)


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


def _lists(
    test: data.Images,
) -> tuple[data.Images, data.Images, data.Images, data.Images]:
    """All, images for the top-k suite, the first half of them for all else, and a pool of others."""
    return (
        test,
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


def _check_checkpoints(path: Path, key: Mapping[str, str]) -> None:
    """Raise if the table has these rows, made from other checkpoints."""
    other = {name: value for name, value in key.items() if name != "checkpoints"}
    if not _table.in_table(path, key) and _table.in_table(path, other):
        raise ValueError(
            f"Expected {path} with rows of {key['recipe']} made from the checkpoints "
            f"{key['checkpoints']}, got others; take these rows out, or write a new table"
        )


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
        cost = step_ratios(RECIPES[key["recipe"]], test, device)
        ratio = seeds.row("all", "step_ratio", len(cost), median(cost))
        for row in (*seeds.summaries(columns), *_of_seeds(columns), ratio):
            yield {**key, **row}
    elif attack == "clean":
        found = {
            seed: cells.clean_controls(net, images, device=device) for seed, net in nets.items()
        }
        for origin in next(iter(found.values())):
            changed = {seed: controls[origin] for seed, controls in found.items()}
            for row in seeds.summaries(changed):
                yield {**key, "attack": origin, **row}
        # So that a second call finds these rows by their part.
        yield {**key, **seeds.row("all", "images", len(images), len(images))}
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
        for row in seeds.summaries(columns):
            yield {**key, **row}


def _model(net: checkpoints.Network, test: data.Images, device: str | torch.device) -> Columns:
    """Values of each test image that need no second map."""
    values = training.evaluate(
        net,
        test,
        {
            "accuracy": training.correct,
            "pgd20_accuracy": cells.pgd20_accuracy,
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


def _of_seeds(found: Mapping[int, Columns]) -> Iterator[dict[str, str]]:
    """What is no mean over images: the median of an eigenvalue and the error of calibration."""
    medians = {seed: columns["lambda_max"] for seed, columns in found.items()}
    for seed, one in medians.items():
        yield seeds.row(str(seed), "lambda_max_median", len(one), _median(one), _bootstrap(one))
    values = torch.tensor([_median(one) for one in medians.values()])
    yield seeds.over_seeds("lambda_max_median", values)
    errors = {
        seed: calibration_error(columns["confidence"], columns["accuracy"])
        for seed, columns in found.items()
    }
    for seed, error in errors.items():
        yield seeds.row(str(seed), "calibration_error", len(medians[seed]), error)
    yield seeds.over_seeds("calibration_error", torch.tensor(list(errors.values())))


def _median(values: Tensor) -> float:
    return float(values.nanmedian())


def _bootstrap(values: Tensor) -> tuple[float, float]:
    """The 95 % percentile interval of the median of images (n,), drawn anew."""
    generator = torch.Generator().manual_seed(0)
    draws = (torch.randint(len(values), values.shape, generator=generator) for _ in range(_DRAWS))
    found = torch.tensor([_median(values[rows]) for rows in draws], dtype=torch.float64)
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
