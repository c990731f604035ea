"""Which density to smooth, and how strongly: many runs on garments with something planted beside them.

Short runs (12,000 images, two passes) of every term at many strengths are compared on validation images;
full runs (all images, two passes; all of Fashion-MNIST as in `recipes`) show whether the short ones tell
the truth. The weights of `density` and `density-block` in `recipes` were chosen in this table. There are
also a control, in which the garment is always on top, and networks with kinks, on which the slope and a
difference along it are not the same penalty.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from attrlib import _check, attributions, checkpoints, data, energy, maps, metrics, training
from attrlib._random import seeded
from attrlib.attacks import PGD, DensityAttack, L2Ball, LinfBall, MarginPGD, RandomSign, Square
from attrlib.attributions import wrap
from attrlib.benchmark import _table, cells
from attrlib.checkpoints import Network
from attrlib.recipes import RECIPES, Recipe, planted_blocks
from attrlib.regularizers import (
    AdversarialCrossEntropy,
    CrossEntropy,
    DoubleBackward,
    FiniteDifference,
    MarginalDensitySmoothing,
)
from attrlib.training import Loss
from attrlib.types import Attack, Attribution, Classifier

IMAGES, EPOCHS, FULL_EPOCHS = 12_000, 2, 2
PER_CLASS = 10
EPS = 0.1
QUERIES = 300
AMPLITUDES = (0.15, 0.5, 1.0)
DENSITIES: Mapping[str, energy.Density] = {
    "marginal": energy.marginal,
    "joint": energy.joint,
    "conditional": energy.conditional,
    "centered": energy.centered,
}
_CELL = 4


@dataclass(frozen=True, kw_only=True)
class DensityRun:
    """One run of the study.

    Attributes:
        images: `block`; `top`, blocks with every garment on top; `fashion`; or `spurious` and the
            amplitude of the mark.
        length: `short` or `full`.
        term: `none`, a density of `DENSITIES` whose slope is penalised, `noise` or `adversarial`. Words
            after it: `relu` for units with kinks in place of smooth ones, `difference` for a penalty by
            `FiniteDifference` in place of the exact one.
        strength: Weight of the penalty, or budget of noise and attack; 0 for `none`.
        seed: Of weights, data order and noise.
    """

    images: str
    length: str = "short"
    term: str = "none"
    strength: float = 0.0
    seed: int = 0


_GRIDS: Mapping[str, Sequence[float]] = {
    "none": (0.0,),
    "marginal": (0.1, 0.3, 1.0, 3.0),
    "joint": (0.1, 0.3, 1.0, 3.0),
    "centered": (0.1, 0.3, 1.0, 3.0),
    "conditional": (0.1, 0.3, 1.0, 3.0),
    "noise": (0.1, 0.2),
    "adversarial": (0.01, 0.02, 0.05, 0.1),
}
_KINKS: Mapping[str, float] = {
    "none relu": 0.0, "marginal relu": 1.0, "marginal relu difference": 1.0,
}  # fmt: skip
_SMOOTH_DIFFERENCE = "marginal difference"  # the control: on smooth units both ways agree
_TERMS = (*_GRIDS, *_KINKS, _SMOOTH_DIFFERENCE)
BLOCK_PAIR = ("natural-block", "density-block")
"""Recipes for blocks, ordinary and smoothed, with the same units and the same training."""

_SHIPPED: Mapping[tuple[str, float], str] = dict(
    zip((("none", 0.0), ("marginal", 0.3)), BLOCK_PAIR, strict=True)
)
_MATCHED: Mapping[str, float] = {  # weights that cost about one point of accuracy
    "none": 0.0, "marginal": 1.0, "joint": 0.3, "centered": 1.0, "conditional": 0.3,
}  # fmt: skip


def density_runs() -> Iterator[DensityRun]:
    """Yield every run of the study; what matters most comes first.

    Yields:
        Runs, no two the same.
    """
    for term, strengths in _GRIDS.items():
        for strength in strengths:
            yield DensityRun(images="block", term=term, strength=strength)
    for term in ("none", "marginal"):
        for strength in _GRIDS[term]:
            yield DensityRun(images="fashion", term=term, strength=strength)
    yield from _marked(seed=0)
    for seed in (1, 2):
        for term, strength in _MATCHED.items():
            yield DensityRun(images="block", term=term, strength=strength, seed=seed)
    yield from _marked(seed=1)
    for seed in range(3):
        yield DensityRun(images="top", seed=seed)
    for seed in range(3):
        for term, strength in _SHIPPED:
            yield DensityRun(images="block", length="full", term=term, strength=strength, seed=seed)
    for seed in range(3):
        for term, strength in _KINKS.items():
            yield DensityRun(images="block", term=term, strength=strength, seed=seed)
    yield DensityRun(images="block", term=_SMOOTH_DIFFERENCE, strength=1.0)


def _marked(*, seed: int) -> Iterator[DensityRun]:
    for amplitude in AMPLITUDES:
        for term, strength in _MATCHED.items():
            images = f"spurious {amplitude:g}"
            yield DensityRun(images=images, term=term, strength=strength, seed=seed)


def density(
    path: str | Path,
    *,
    only: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Train every run, and measure it on validation images.

    Accuracy on the 5,000 validation images, with spurious marks in groups of aligned and of conflicting
    marks. On the first ten of each class: confidence, slopes of the marginal and the centred density,
    and their ratio; without marks also accuracy under attacks on the prediction (upper bounds), the shift
    under an attack on the density, and how well the density tells crops of photographs from the images;
    with blocks, leakage of the maps of `maps_of`, also of the gauge-fixed network. Full runs on blocks
    are those that ship, rounded to half precision as they are: where a seed ships, its checkpoint is
    measured and nothing is trained.

    Args:
        path: Table to write, or to go on with.
        only: Sets of images whose runs are made; None takes all.
        device: Where to compute.
        progress: Print each run as it is done.

    Raises:
        ValueError: If a set is unknown.
        FileNotFoundError: If the full Fashion-MNIST is not at hand.
    """
    runs = list(density_runs())
    sets = list(dict.fromkeys(run.images for run in runs))
    for name in only or ():
        _check.one_of(sets, only=name)
    made = (_cell(run, device) for run in runs if not only or run.images in only)
    _table.fill(path, made, device=device, progress=progress)


def _cell(run: DensityRun, device: str | torch.device) -> _table.Cell:
    key = {name: str(value) for name, value in vars(run).items()}

    def rows() -> Iterator[dict[str, str]]:
        net = _trained(run, device)
        with training.eval_mode(net):
            for row in _measured(net, _images(run.images, "val"), device, maps_of(run)):
                yield key | row

    return _table.Cell(key, rows)


def density_recipe(run: DensityRun) -> Recipe:
    """Return how a run is trained: a network with smooth activations, or with kinks, and one term.

    Args:
        run: Any run.

    Returns:
        The recipe, under the name of its term.

    Raises:
        ValueError: If the term or the length is unknown.
    """
    _check.one_of(_TERMS, term=run.term)
    _check.one_of(("short", "full"), length=run.length)
    plain = RECIPES["natural" if "relu" in run.term.split() else "softplus"]
    config = replace(plain.config, epochs=EPOCHS)
    if run.length == "full":
        whole = plain.config.epochs if run.images == "fashion" else FULL_EPOCHS
        config = replace(plain.config, epochs=whole)
    return replace(plain, name=run.term, loss=_loss(run), config=config, source="")


def _loss(run: DensityRun) -> Loss:
    weights = {"cross_entropy": 1.0}
    term, *ways = run.term.split()
    if term in DENSITIES:
        estimator = FiniteDifference() if "difference" in ways else DoubleBackward()
        penalty = MarginalDensitySmoothing(density=DENSITIES[term], estimator=estimator)
        return Loss(
            terms={"cross_entropy": CrossEntropy(), "penalty": penalty},
            weights=weights | {"penalty": run.strength},
            ramps={"penalty": 0.2},
        )
    if term == "none":
        return Loss(terms={"cross_entropy": CrossEntropy()}, weights=weights)
    attack: Attack = RandomSign(eps=run.strength)
    if term == "adversarial":
        attack = _pgd(run.strength, steps=7)
    return Loss(terms={"cross_entropy": AdversarialCrossEntropy()}, weights=weights, attack=attack)


def _pgd(eps: float, *, steps: int) -> PGD:
    return PGD(ball=LinfBall(eps=eps), steps=steps, step_size=2.5 * eps / steps, random_start=True)


def _trained(run: DensityRun, device: str | torch.device) -> Network:
    """A network with weights and order of its seed, as `recipes.fit` trains it; if it ships, that one."""
    recipe = density_recipe(run)
    shipped = _shipped(run)
    if shipped and run.seed in checkpoints.seeds(shipped):
        return checkpoints.load(f"{shipped}-s{run.seed}").model.to(device)
    train = _images(run.images, "train")
    if run.length == "short":
        train = train[:IMAGES]
    weights, order = (seeded(2 * run.seed + i) for i in range(2))
    height, width = train.x.shape[2:]
    net = recipe.model(size=(height, width), generator=weights)
    training.train(net, train, recipe.loss, config=recipe.config, generator=order, device=device)
    if shipped:
        checkpoints.round_to_half(net)
    return net


def _shipped(run: DensityRun) -> str:
    """The recipe of `recipes` that a run is, if it is one; else nothing."""
    full = run.images == "block" and run.length == "full"
    return _SHIPPED.get((run.term, run.strength), "") if full else ""


@functools.cache
def _images(name: str, split: data.Split) -> data.Images:
    """The whole set; marks are right for nine in ten training images and for half of the others."""
    if name == "block":
        return planted_blocks(split, full=True)
    if name == "top":
        return data.block_fashion(split, top_only=True, full=True, generator=seeded(0))
    if name == "fashion":
        return data.fashion_mnist(split, full=True)
    return data.spurious_fashion(
        split,
        amplitude=float(name.removeprefix("spurious ")),
        alignment=0.9 if split == "train" else 0.5,
        full=True,
        generator=seeded(0),
    )


def _measured(
    net: Network,
    val: data.Images,
    device: str | torch.device,
    maps_used: Mapping[str, Attribution],
) -> Iterator[dict[str, str]]:
    hits = training.evaluate(net, val, {"right": training.correct}, device=device)["right"]
    yield _row("none", "accuracy", hits)
    if isinstance(val, data.Shortcuts):
        yield _row("none", "aligned_accuracy", hits[val.aligned])
        yield _row("none", "conflict_accuracy", hits[~val.aligned])
        groups = metrics.group_means(hits, val.groups, count=2 * len(val.classes))
        yield _row("none", "worst_group_accuracy", groups.amin()[None])
    images = cells.listed(val, per_class=PER_CLASS)
    x, y = images.x.to(device), images.y.to(device)
    with torch.no_grad():
        yield _row("none", "confidence", net(x).softmax(1).amax(1))
    for name, kind in {"marginal": energy.marginal, "centered": energy.centered}.items():
        slopes = energy.gradient(net, x, y, density=kind).flatten(1).norm(dim=1)
        yield _row("none", f"{name}_slope", slopes)
    yield _row("none", "gauge_ratio", energy.gauge_ratio(net, x))
    if isinstance(images, data.Blocks):
        yield from _leakage(net, images, device, maps_used)
    if not isinstance(images, data.Shortcuts):
        yield from _attacked(net, images, device)
        yield from _unknown(net, images, device)


@wrap
def occlusion(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """How far the logit falls as a cell of 4 × 4 pixels is blackened, for each cell."""
    rows, columns = (side // _CELL for side in x.shape[2:])
    with torch.no_grad():
        whole = attributions.target_logit(model, x, y)
        falls = torch.zeros(len(x), 1, rows, columns, dtype=x.dtype, device=x.device)
        for cell in range(rows * columns):
            row, column = divmod(cell, columns)
            hidden = x.clone()
            hidden[:, :, row * _CELL : (row + 1) * _CELL, column * _CELL : (column + 1) * _CELL] = 0
            falls[:, 0, row, column] = whole - attributions.target_logit(model, hidden, y)
    return falls.repeat_interleave(_CELL, 2).repeat_interleave(_CELL, 3)


MAPS: Mapping[str, Attribution] = {
    "gradient": attributions.gradient,
    "input x gradient": attributions.input_x_gradient,
    "integrated gradients": functools.partial(attributions.integrated_gradients, steps=20),
    "occlusion": occlusion,
}


def maps_of(run: DensityRun) -> Mapping[str, Attribution]:
    """Return the maps whose leakage is measured.

    Args:
        run: Any run.

    Returns:
        The maps by their names: all in the runs that compare terms, gradient and integrated gradients in
        full runs and in the control, the gradient alone where units or estimators are compared.
    """
    if run.term not in _GRIDS:
        return {"gradient": MAPS["gradient"]}
    if run.images == "top" or run.length == "full":
        return {name: MAPS[name] for name in ("gradient", "integrated gradients")}
    return MAPS


def _leakage(
    net: Network,
    images: data.Blocks,
    device: str | torch.device,
    maps_used: Mapping[str, Attribution],
) -> Iterator[dict[str, str]]:
    """Share of mass, and of as many top pixels as the garment has lit ones, in the null block."""
    x, y, null = (part.to(device) for part in (images.x, images.y, images.null))
    lit = ((x[:, 0] > 0) & ~null).flatten(1).sum(1)
    for gauge, model in {"": net, ", gauge fixed": energy.GaugeFixed(net)}.items():
        for name, attribution in maps_used.items():
            heat = maps.to_heatmap(attribution(model, x, y))
            yield _row(name + gauge, "leakage", metrics.leakage(heat, region=null))
            yield _row(name + gauge, "topk_leakage", metrics.topk_leakage(heat, region=null, k=lit))


def _attacked(
    net: Network, images: data.Images, device: str | torch.device
) -> Iterator[dict[str, str]]:
    x, y = images.x.to(device), images.y.to(device)
    margin = MarginPGD(ball=LinfBall(eps=EPS), steps=20, step_size=EPS / 8, restarts=2)
    opponents: dict[str, Attack] = {
        "pgd": _pgd(EPS, steps=20),
        "margin_pgd": margin,
        "square": Square(eps=EPS, queries=QUERIES),
    }
    for name, attack in opponents.items():
        z = attack(net, x, y, generator=seeded(0))
        yield _row("none", f"{name}_accuracy", training.correct(net, z, y))
    moved = DensityAttack(ball=L2Ball(eps=0.5), steps=20, step_size=0.0625)(net, x, y)
    yield _row("none", "density_shift", energy.density_shift(net, x, moved))


@torch.no_grad()
def _unknown(
    net: Network, images: data.Images, device: str | torch.device
) -> Iterator[dict[str, str]]:
    """How well a score tells the images from grey crops of photographs, by its area under the ROC."""
    known, unknown = images.x.to(device), crops(known_size=images.x.shape[2:]).to(device)
    scores: dict[str, Callable[[Tensor], Tensor]] = {
        "ood_marginal": lambda x: energy.marginal(net, x),
        "ood_confidence": lambda x: net(x).softmax(1).amax(1),
    }
    for name, score in scores.items():
        yield _row("none", name, metrics.auroc(score(known), score(unknown)))


def crops(*, known_size: Sequence[int]) -> Tensor:
    """Return grey crops of the embedded photographs, side by side without overlap.

    Args:
        known_size: Height and width of the crops, at most 224.

    Returns:
        Images (n, 1, height, width) in [0, 1].
    """
    height, width = known_size
    grey = data.photographs(size=224).x.mean(1)
    tiles = grey.unfold(1, height, height).unfold(2, width, width)
    return tiles.reshape(-1, 1, height, width)


def _row(name: str, quantity: str, values: Tensor) -> dict[str, str]:
    """The mean over images and its interval."""
    values = values.detach().cpu().double()
    low, high = "", ""
    if len(values) > 1:
        ends = metrics.interval(values, generator=seeded(0))
        low, high = (f"{end:.4f}" for end in ends)
    return {
        "map": name,
        "quantity": quantity,
        "count": str(len(values)),
        "value": f"{values.mean():.4f}",
        "low": low,
        "high": high,
    }
