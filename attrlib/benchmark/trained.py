"""What each recipe does to accuracy, curvature and explanations: one table of all shipped checkpoints."""

import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from attrlib import _check, _files, attributions, checkpoints, data, training
from attrlib._random import seeded
from attrlib.attacks import SUITE
from attrlib.benchmark import _nets, _table, cells, seeds
from attrlib.benchmark.grid import FULL, Block
from attrlib.benchmark.seeds import Columns
from attrlib.benchmark.transferred import transfer_targets
from attrlib.recipes import RECIPES, Recipe
from attrlib.regularizers import loss_hessian_eigenvalue
from attrlib.training.state import contents
from attrlib.types import Attribution, Classifier

PER_CLASS, POOL = 10, 50
_DRAWS = 1000
_ORIGINS = ("other image", "other class", "blank image")  # rows of the part `clean`

_Nets = Mapping[int, checkpoints.Network]


def recipes(
    path: str | Path,
    *,
    blocks: Sequence[Block] | None = None,
    points: str | Path = "runs/points",
    only: Sequence[str] | None = None,
    maps: Sequence[str] | None = None,
    nets: str | Path | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
    runner: _table.Runner | None = None,
) -> None:
    """Measure the cells of a grid: networks of a recipe, all seeds at once, under an attack.

    `model`: accuracy, PGD-20 accuracy at ε = 0.1, confidence, calibration error and the largest
    eigenvalue of the loss Hessian, on the embedded test images; the cost of a training step beside an
    ordinary one. `clean`: scores of the clean maps with maps of another origin. An attack: scores of maps
    after it, on the first ten test images of each class, or fewer, whatever a network predicts for them;
    the explained class is the label. A suite of attacks (`attacks.standard`) goes for the map that is
    scored, or for the gradient where its name says so. Controls beside each score: identification among
    50 other images of the class, specific scores, and what one draw of random signs does.

    The list of images is fixed: a recipe that comes later adds rows and changes none. Rows of all seeds
    have intervals over seeds and images (`metrics.seed_interval`), rows of one seed over images. A sample
    that cannot be attacked stays in, unchanged, and is counted (`unchanged`).

    Args:
        path: Table to write, or to go on with.
        blocks: What is measured, and in which order; None takes `benchmark.FULL`.
        points: Folder of the points found, which later scores are read from.
        only: Recipes to measure; None takes all for Fashion-MNIST of which there is a checkpoint.
        maps: Maps to score; None takes all of the blocks.
        nets: Folder of your own checkpoints, see `checkpoints.names`; None takes the shipped ones.
        device: Where to compute.
        progress: Print a line when a cell is done.
        runner: Makes the cells, such as `benchmark.on_cluster` gives it; None makes them here. Blocks
            follow each other, so that points are found once.

    Raises:
        ValueError: If a recipe has no checkpoint or is for other data, no block has a map, or the table
            has rows of other checkpoints, of other images or of another version of the suite.
        ModuleNotFoundError: If Captum or zennit, which some maps need, is missing.
    """
    path = Path(path)
    nets = None if nets is None else Path(nets).absolute()
    names, wanted = chosen(FULL if blocks is None else blocks, only=only, maps=maps, nets=nets)
    images = cells.listed(data.fashion_mnist("test"), per_class=PER_CLASS)
    _table.check_constant(path, "list", data.fingerprint(images)[:8])
    _table.check_constant(path, "suite", SUITE, empty=True)
    for block in wanted:
        made = _cells(block, names, images, nets, Path(points).absolute(), device)
        _table.fill(path, made, device=device, progress=progress, runner=runner)


def chosen(
    blocks: Sequence[Block],
    *,
    only: Sequence[str] | None = None,
    maps: Sequence[str] | None = None,
    nets: str | Path | None = None,
) -> tuple[list[str], list[Block]]:
    """Recipes and blocks that are asked for.

    Args:
        blocks: All.
        only: Recipes; None for all.
        maps: Maps; None for all.
        nets: Folder of checkpoints; None for the shipped ones.

    Returns:
        Recipes for Fashion-MNIST of which there is a checkpoint, and blocks with no other maps.

    Raises:
        ValueError: If one is not there, no checkpoint is, a file of `nets` is not what its name says, or
            nothing would be measured.
        FileNotFoundError: If there is no folder.
    """
    plain = [name for name, recipe in RECIPES.items() if recipe.data is data.fashion_mnist]
    there = checkpoints.names(nets)
    names = [name for name in plain if name in there]
    if not names:
        raise ValueError(f"Expected checkpoints RECIPE-sSEED.safetensors in {nets}, got none")
    for name in only or ():
        _check.one_of(names, only=name)
    scored = [name for block in blocks for name in block.maps]
    for name in maps or ():
        _check.one_of(tuple(dict.fromkeys(scored)), maps=name)
    wanted = [
        replace(block, maps=tuple(name for name in block.maps if maps is None or name in maps))
        for block in blocks
    ]
    kept = [name for name in names if only is None or name in only]
    source = None if nets is None else Path(nets)
    idle = [name for name in kept if not any(_seeds(name, block, source) for block in wanted)]
    if blocks and idle and (only or idle == kept):
        raise ValueError(
            f"Expected recipes and seeds that the grid measures, got {idle[0]} with "
            f"{', '.join(f's{seed}' for seed in checkpoints.seeds(idle[0], source))}"
        )
    if source is not None:
        for name in kept:  # now, and not when hours of work are done
            _networks(name, checkpoints.seeds(name, source), source, "cpu")
    return kept, [block for block in wanted if block.maps]


def _cells(
    block: Block,
    names: Sequence[str],
    images: data.Images,
    source: Path | None,
    points: Path,
    device: str | torch.device,
) -> Iterator[_table.Cell]:
    """The cells of a block; each loads its networks itself, so that it can be made elsewhere."""
    for eps, scored, name in itertools.product(block.eps, block.maps, names):
        nets = _networks(name, _seeds(name, block, source), source, "cpu")
        if not nets:
            continue
        key = {
            "recipe": name,
            "map": scored,
            "attack": block.attack,
            "suite": _version(block.attack),
            "eps": f"{eps:.5f}",
            "list": data.fingerprint(images)[:8],
            "checkpoints": _files.digest(*map(contents, nets.values()))[:8],
        }
        rows = functools.partial(_rows, key, block, eps, source, points, device)
        yield _table.Cell(key, rows, made_of=("checkpoints",))


def _version(attack: str) -> str:
    return SUITE if attack.endswith(" suite") else ""


def _seeds(name: str, block: Block, source: Path | None) -> list[int]:
    """The seeds of a recipe that a block measures."""
    if block.recipes is not None and name not in block.recipes:
        return []
    there = checkpoints.seeds(name, source)
    return [seed for seed in there if block.seeds is None or seed in block.seeds]


def _networks(
    name: str, wanted: Sequence[int], source: Path | None, device: str | torch.device
) -> _Nets:
    """Networks by seed; raises where a file of the caller's own is of something else."""
    if source is None:
        return {s: checkpoints.load(f"{name}-s{s}").model.to(device) for s in wanted}
    found = {}
    for seed in wanted:
        path, own = _nets.named(source, name, seed)
        _check_takes(path, own.model)
        found[seed] = own.model.to(device)
    return found


def _check_takes(path: Path, net: checkpoints.Network) -> None:
    test = data.fashion_mnist("test")
    wanted = {"channels": 1, "size": test.x.shape[-1], "classes": len(test.classes)}
    found = {key: net.settings.get(key) for key in wanted}
    if found != wanted:
        raise ValueError(f"Expected {path} for Fashion-MNIST, {wanted}, got {found}")


def _rows(
    key: Mapping[str, str],
    block: Block,
    eps: float,
    source: Path | None,
    folder: Path,
    device: str | torch.device,
) -> Iterator[dict[str, str]]:
    """The rows of a cell."""
    nets = _networks(key["recipe"], _seeds(key["recipe"], block, source), source, device)
    test = data.fashion_mnist("test")
    if block.attack == "model":
        columns = {seed: _model(net, test, device) for seed, net in nets.items()}
        cost = step_ratios(RECIPES[key["recipe"]], test, device)
        ratio = seeds.row("all", "step_ratio", len(cost), median(cost))
        for row in (*seeds.summaries(columns), *_of_seeds(columns), ratio):
            yield {**key, **row}
    elif block.attack == "clean":
        images = cells.listed(test, per_class=PER_CLASS)
        found = {
            seed: cells.clean_controls(net, images, device=device) for seed, net in nets.items()
        }
        for origin in _ORIGINS:
            changed = {seed: controls[origin] for seed, controls in found.items()}
            for row in seeds.summaries(changed):
                yield {**key, "attack": origin, **row}
        # So that a second call finds these rows by their part.
        yield {**key, **seeds.row("all", "images", len(images), len(images))}
    else:
        yield from _attacked(key, block, eps, nets, folder, device)


def _attacked(
    key: Mapping[str, str],
    block: Block,
    eps: float,
    nets: _Nets,
    folder: Path,
    device: str | torch.device,
) -> Iterator[dict[str, str]]:
    """Scores of the maps after the attack, and after its controls."""
    test = data.fashion_mnist("test")
    pool = cells.listed(test, per_class=POOL, start=PER_CLASS)
    whole = cells.listed(test, per_class=PER_CLASS)
    some = cells.first(whole.y, per_class=block.per_class or PER_CLASS)
    images = whole[some]
    scored = attribution(key["map"])
    found: dict[str, dict[int, Columns]] = {
        attack: {} for attack in (block.attack, *block.controls)
    }
    for seed, net in nets.items():
        clean = cells.clean_maps(net, images, pool, device=device, attribution=scored)
        for attack, columns in found.items():
            z = changed_images(key["map"], attack, eps, net, some, folder=folder, device=device)
            columns[seed] = cells.scores_at(
                net,
                images,
                z,
                pool,
                quantities=block.quantities,
                device=device,
                attribution=scored,
                at_rest=clean,
            )
    for attack, columns in found.items():
        few = attack != block.attack and len(some) < len(whole)
        name = f"{attack} ({len(some)} images)" if few else attack
        for row in seeds.summaries(columns):
            yield {**key, "attack": name, "suite": _version(attack), **row}


def changed_images(
    scored: str,
    attack: str,
    eps: float,
    net: torch.nn.Module,
    some: Tensor,
    *,
    folder: Path,
    device: str | torch.device,
) -> Tensor:
    """The points of an attack, found now if they are not in the folder.

    Those of the whole suite on the top k of the gradient are found for the whole list, and serve any map.

    Args:
        scored: Name of the map that is scored.
        attack: See `cells.named`.
        eps: Budget.
        net: The network.
        some: Rows of the list that are wanted.
        folder: Where points are kept.
        device: Where to compute.
    """
    test = data.fashion_mnist("test")
    whole = cells.listed(test, per_class=PER_CLASS)
    pool = cells.listed(test, per_class=POOL, start=PER_CLASS)
    way = cells.named(attack)
    target = "gradient" if way.on_gradient else scored
    find = functools.partial(
        cells.points, net, attack=way, eps=eps, folder=folder, device=device, pool=pool, map=target
    )
    if (way.goal, way.effort, target) == ("top-k", "standard", "gradient"):
        return find(whole)[some.to(device)]
    return find(whole[some])


def attribution(name: str) -> Attribution:
    """The map of this name; only those of other libraries ask for these."""
    return attributions.gradient if name == "gradient" else transfer_targets()[name]


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
    generator = seeded(0)
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
        model = other.model(generator=seeded(0))
        config = training.TrainConfig(epochs=1, batch_size=other.config.batch_size)
        generator = seeded(0)
        return training.train(
            model, few, other.loss, config=config, generator=generator, device=device
        ).seconds

    natural = RECIPES["natural"]
    for warm in (natural, recipe):
        seconds(warm)
    return [seconds(recipe) / seconds(natural) for _ in range(7)]
