"""One training method at many strengths: short runs, judged on validation images.

The weights of `lga` and `igr` in `recipes` were chosen in this table; older recipes were chosen earlier.
A run is short (20,000 images, six passes), the same for all methods, and its weights are not kept. The
shipped checkpoints come from full runs.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import nn

from attrlib import _check, attributions, checkpoints, data, metrics, training
from attrlib._random import seeded
from attrlib.attacks import SUITE, LinfBall, standard
from attrlib.benchmark import _table, cells, proved
from attrlib.benchmark.ablation import (
    Contrast,
    MapAttack,
    MapDistance,
    l2_distance,
    pearson_distance,
)
from attrlib.benchmark.attack_strength import K
from attrlib.benchmark.trained import step_ratios
from attrlib.models import SmallCNN
from attrlib.recipes import RECIPES, Recipe
from attrlib.regularizers import (
    AdversarialCrossEntropy,
    AlignmentAttack,
    CrossEntropy,
    IntegratedGradientRegularizer,
    IntervalBounds,
    LocalGradientAlignment,
)
from attrlib.training import Loss
from attrlib.types import Attack, Attribution, Term

IMAGES, EPOCHS = 20_000, 6
PER_CLASS, POOL = 10, 50
BUDGETS = (8 / 255, 0.1)
MAPS: dict[str, Attribution] = {
    "gradient": attributions.gradient,
    "integrated gradients": functools.partial(attributions.integrated_gradients, steps=8),
}
_BALL = LinfBall(eps=0.1)
_FEW = functools.partial(attributions.integrated_gradients, steps=3)
_PATHS = ("natural", "softplus", "madry", "trades", "igr", "igr-trades", "igr-mart", "aligned",
          "aat")  # fmt: skip
_QUANTITIES = ("topk", "kendall", "cosine", "identification_topk", "specific_topk", "kept")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One run of the study.

    Attributes:
        family: The method.
        setting: What is varied, in words; unique in the family.
        recipe: How to train, epochs and start aside.
        seed: Of weights, or of the checkpoint it starts from, and of data order and noise.
    """

    family: str
    setting: str
    recipe: Recipe
    seed: int = 0


def variants() -> Iterator[Variant]:
    """Yield every run of the study, family by family.

    Yields:
        Runs, each with a name of its own in its family.
    """
    yield from _lga()
    yield from _aligned()
    yield from _igr()
    yield from _igr_elsewhere()
    yield from _lga_parts()
    yield from _interval()
    yield from _aat()
    for name in ("natural", "softplus", "madry", "trades", "mart"):
        yield Variant(family=name, setting="as shipped", recipe=RECIPES[name])
    for name, weights in {
        "input-gradient": (0.01, 0.1, 1.0),
        "cure": (0.01, 0.1, 1.0),
        "hessian": (0.001, 0.01, 0.1),
    }.items():
        for weight in weights:
            recipe = RECIPES[name]
            loss = replace(recipe.loss, weights=dict(recipe.loss.weights) | {"penalty": weight})
            yield Variant(
                family=name, setting=f"weight {weight:g}", recipe=replace(recipe, loss=loss)
            )
    for decay in (0.1, 1.0, 3.0):
        recipe = RECIPES["weight-decay"]
        config = replace(recipe.config, weight_decay=decay)
        yield Variant(
            family="weight-decay", setting=f"decay {decay:g}", recipe=replace(recipe, config=config)
        )


def _lga() -> Iterator[Variant]:
    """Weights of both parts."""
    for l2, cosine in (
        (0.0, 1.0), (0.0, 3.0), (0.0, 10.0), (0.01, 10.0), (0.1, 10.0), (0.1, 0.0), (0.01, 0.0),
    ):  # fmt: skip
        term = LocalGradientAlignment(l2=l2, cosine=cosine, ball=_BALL)
        yield _made("lga", f"l2 {l2:g}, cosine {cosine:g}", term)


def _lga_parts() -> Iterator[Variant]:
    """What else the method is made of, one thing changed at a time."""
    term = LocalGradientAlignment(l2=0.01, cosine=10.0, ball=_BALL)
    yield _made("lga", "l2 0.01, cosine 10, ReLU", term, beta=None)
    yield _made("lga", "l2 0.01, cosine 10, β 3", term, beta=3)
    yield _made("lga", "l2 0.01, cosine 10, detached", replace(term, detach=True))
    yield _made("lga", "l2 0.01, cosine 10, eps 4/255", replace(term, ball=LinfBall(eps=4 / 255)))


def _igr() -> Iterator[Variant]:
    """Two passes from `madry`, as of the other recipes that start there; weight 0 is the control."""
    madry, few = RECIPES["madry"], MapDistance(attribution=_FEW, distance=l2_distance)
    penalties: list[tuple[str, Term, float]] = [
        *((f"weight {weight:g}", IntegratedGradientRegularizer(steps=3), weight)
          for weight in (0.0, 3.0, 10.0, 30.0)),
        *((f"l2 distance of IG, weight {weight:g}", few, weight) for weight in (0.3, 1.0)),
        ("Pearson, weight 20", replace(few, distance=pearson_distance), 20.0),
    ]  # fmt: skip
    for setting, term, weight in penalties:
        loss = replace(
            madry.loss,
            terms=dict(madry.loss.terms) | {"penalty": term},
            weights=dict(madry.loss.weights) | {"penalty": weight},
        )
        recipe = replace(madry, loss=loss, config=RECIPES["art"].config, start="madry")
        yield Variant(family="igr", setting=setting, recipe=recipe)


def _igr_elsewhere() -> Iterator[Variant]:
    """IGR on the other two adversarial losses of Wang and Kong 2022, from networks trained with them.

    Two passes, with the weight of the recipe `igr` and, as a control, without the term; three seeds, as
    a published claim hangs on the difference.
    """
    term = IntegratedGradientRegularizer(steps=3)
    for seed, base, weight in itertools.product(range(3), ("trades", "mart"), (0.0, 10.0)):
        loss = RECIPES[base].loss
        loss = replace(
            loss,
            terms=dict(loss.terms) | {"penalty": term},
            weights=dict(loss.weights) | {"penalty": weight},
        )
        recipe = replace(RECIPES[base], loss=loss, config=RECIPES["art"].config, start=base)
        setting = f"weight {weight:g}, seed {seed}"
        yield Variant(family=f"igr-{base}", setting=setting, recipe=recipe, seed=seed)


def _aligned() -> Iterator[Variant]:
    """The search for a recipe of our own: neighbour, map, bounds, softplus, and a contrast of maps."""
    once = AlignmentAttack(ball=_BALL, steps=1, step_size=0.1)
    twice = replace(once, steps=2)
    igr = IntegratedGradientRegularizer(steps=3)
    contrast = Contrast(attribution=attributions.gradient)

    def lga(cosine: float) -> LocalGradientAlignment:
        return LocalGradientAlignment(l2=0, cosine=cosine, ball=_BALL, neighbour="adversarial")

    drawn = replace(lga(3), neighbour="uniform")

    def bounds(maps: float) -> tuple[Term, float]:
        return IntervalBounds(eps=0.1, prediction=0.0, maps=maps), 1.0

    made = functools.partial(_made, "aligned", attack=once, beta=3)
    yield made("gradient 10, β 3", lga(10))
    yield made("gradient 10, β 10", lga(10), beta=10)
    yield made("gradient 10, two steps, β 3", lga(10), attack=twice)
    yield made("gradient 10, IG 10, β 3", lga(10), more={"ig": (igr, 10)})
    yield made("gradient 10, bounds 0.05, β 3", lga(10), more={"bounds": bounds(0.05)})
    yield made("gradient 3, bounds 0.1, β 3", lga(3), more={"bounds": bounds(0.1)})
    yield made("gradient 3, bounds 0.2, β 3", lga(3), more={"bounds": bounds(0.2)})
    yield made("gradient 3, bounds 0.1, β 10", lga(3), more={"bounds": bounds(0.1)}, beta=10)
    yield made("bounds 0.1, β 3", bounds(0.1)[0], attack=None)
    yield made("gradient 10, contrast 1, β 3", lga(10), more={"contrast": (contrast, 1)})
    yield made(
        "likeness 1, bounds 0.1, β 3",
        replace(contrast, clean=True), more={"bounds": bounds(0.1)}, attack=None,
    )  # fmt: skip
    yield made(
        "gradient 3, drawn, bounds 0.1, β 3", drawn, more={"bounds": bounds(0.1)}, attack=None
    )


def _aat() -> Iterator[Variant]:
    """AAT and AdvAAT of Ivankay et al. 2020, as others report them, with settings of ours.

    The paper was not at hand. Reported are the form of the losses, the distance (Pearson's, with a half)
    and a search on a softplus copy of a ReLU network. Ours are the map (the gradient), the weight, which
    the search has from the first step on, the budget and three steps, near to the families `lga` and
    `aligned`. With softplus in the network itself, as elsewhere in the book, no copy is needed.
    """
    distance = MapDistance(attribution=attributions.gradient, distance=pearson_distance)
    search = MapAttack(
        attribution=distance.attribution,
        distance=distance.distance,
        ball=_BALL,
        steps=3,
        step_size=0.05,
        weight=10.0,
    )
    made = functools.partial(_made, "aat", term=distance, weight=10.0)
    yield made("AAT, Pearson 10, softplus copy", attack=replace(search, beta=10.0), beta=None)
    yield made("AAT, Pearson 10, β 10", attack=search)
    yield made(
        "AdvAAT, Pearson 10, β 10",
        attack=replace(search, prediction=True),
        base=AdversarialCrossEntropy(),
    )


def _interval() -> Iterator[Variant]:
    """Budget, weights, activation and the map that is bounded: one thing changed at a time, or two."""
    shipped = IntervalBounds(eps=8 / 255, prediction=0.0, maps=0.5)
    terms = [
        shipped,
        *(replace(shipped, maps=maps) for maps in (0.0, 0.25, 1.0)),
        replace(shipped, eps=0.1, maps=0.2),
        replace(shipped, prediction=1.0),
        replace(shipped, prediction=1.0, maps=0.0),
        replace(shipped, of="input_x_gradient"),
    ]
    runs = [("interval-maps", term) for term in terms]
    runs += [("interval", shipped), ("interval", replace(shipped, prediction=1.0, maps=0.0))]
    for name, term in runs:
        eps = f"{term.eps:g}" if term.eps == 0.1 else f"{term.eps * 255:g}/255"
        words = [f"eps {eps}", f"κ {term.prediction:g}", f"γ {term.maps:g}"]
        words += ["input × gradient"] * (term.of == "input_x_gradient")
        words += ["ReLU"] * (name == "interval")
        recipe = RECIPES[name]
        loss = replace(recipe.loss, terms=dict(recipe.loss.terms) | {"bounds": term})
        yield Variant(
            family="interval", setting=", ".join(words), recipe=replace(recipe, loss=loss)
        )


def _made(
    family: str,
    setting: str,
    term: Term,
    *,
    weight: float = 1.0,
    attack: Attack | None = None,
    beta: float | None = 10,
    more: dict[str, tuple[Term, float]] | None = None,
    base: Term | None = None,
) -> Variant:
    """Cross-entropy, or another base, and penalties, which rise over the first fifth of the steps."""
    penalties = {"penalty": (term, weight)} | (more or {})
    loss = Loss(
        terms={"cross_entropy": base or CrossEntropy()}
        | {name: term for name, (term, _) in penalties.items()},
        weights={"cross_entropy": 1.0}
        | {name: float(weight) for name, (_, weight) in penalties.items()},
        ramps=dict.fromkeys(penalties, 0.2),
        attack=attack,
    )
    model: Callable[..., SmallCNN] = SmallCNN
    if beta is not None:
        softplus = functools.partial(nn.Softplus, beta=beta)
        model = functools.partial(SmallCNN, activation=softplus)
    name = f"{family}: {setting}"
    return Variant(
        family=family,
        setting=setting,
        recipe=Recipe(name=name, loss=loss, source="", model=model),
    )


def frontier(
    path: str | Path,
    *,
    only: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Train every variant shortly, and measure it on validation images.

    Accuracy on the 5,000 validation images; under the suite in its quick form, on the first ten of them
    of each class: the scores of gradient maps at both budgets; of integrated gradients (8 points) at the
    larger one, for the methods that are about them. Time of a training step beside a natural one.

    Of the family `interval`, too, what bounds prove at both budgets: the scores of three maps of the same
    hundred images (`certified_…`), and the label of each of the 5,000; the top k that the maps of two
    images of a class share (`likeness`), and the share of it on black pixels (`bright_on_black`).

    Args:
        path: Table to write, or to go on with.
        only: Families to measure; None takes all.
        device: Where to compute.
        progress: Print each run as it is done.

    Raises:
        ValueError: If a family is unknown or the table is of other images.
        FileNotFoundError: If the full Fashion-MNIST is not at hand.
    """
    chosen = list(variants())
    families = list(dict.fromkeys(variant.family for variant in chosen))
    for family in only or ():
        _check.one_of(families, only=family)
    train = data.fashion_mnist("train", full=True)[:IMAGES]
    val = data.fashion_mnist("val", full=True)
    images = cells.listed(val, per_class=PER_CLASS)
    pool = cells.listed(val, per_class=POOL, start=PER_CLASS)
    mark = data.fingerprint(images)[:8]
    _table.check_constant(Path(path), "list", mark)

    def cell(variant: Variant) -> _table.Cell:
        key = {"family": variant.family, "setting": variant.setting, "list": mark, "suite": SUITE}
        lists = images, pool
        return _table.Cell(key, functools.partial(_rows, key, variant, train, val, lists, device))

    wanted = [variant for variant in chosen if not only or variant.family in only]
    _table.fill(path, map(cell, wanted), device=device, progress=progress)


def _rows(
    key: dict[str, str],
    variant: Variant,
    train: data.Images,
    val: data.Images,
    lists: tuple[data.Images, data.Images],
    device: str | torch.device,
) -> Iterator[dict[str, str]]:
    recipe, seed = variant.recipe, variant.seed
    weights, order = (seeded(2 * seed + i) for i in range(2))
    net = recipe.model(generator=weights)
    config = recipe.config
    if recipe.start is None:
        config = replace(config, epochs=EPOCHS)
    else:
        net.load_state_dict(checkpoints.load(f"{recipe.start}-s{seed}").model.state_dict())
    training.train(net, train, recipe.loss, config=config, generator=order, device=device)
    with training.eval_mode(net):
        yield from _measured(key, recipe, net, val, lists, device)


def _measured(
    key: dict[str, str],
    recipe: Recipe,
    net: checkpoints.Network,
    val: data.Images,
    lists: tuple[data.Images, data.Images],
    device: str | torch.device,
) -> Iterator[dict[str, str]]:
    images, pool = lists
    hits = training.evaluate(net, val, {"right": training.correct}, device=device)["right"]
    yield key | _row("none", 0.0, "accuracy", hits)
    cost = step_ratios(recipe, images, device)
    yield key | _row("none", 0.0, "step_ratio", torch.tensor([median(cost)]))
    if key["family"] == "interval":
        yield from _proved(key, net, val, images, device)
    kinds = [("gradient", eps) for eps in BUDGETS]
    if key["family"] in _PATHS:
        kinds.append(("integrated gradients", BUDGETS[-1]))
    for name, eps in kinds:
        attribution = MAPS[name]
        attack = standard(eps=eps, attribution=attribution, k=K, effort="quick")
        x, y = images.x.to(device), images.y.to(device)
        z = attack(net, x, y, generator=seeded(0))
        found = cells.scores_at(
            net,
            images,
            z,
            pool,
            quantities=_QUANTITIES,
            device=device,
            attribution=attribution,
        )
        for quantity, values in found.items():
            yield key | _row(name, eps, quantity, values)


def _proved(
    key: dict[str, str],
    net: checkpoints.Network,
    val: data.Images,
    images: data.Images,
    device: str | torch.device,
) -> Iterator[dict[str, str]]:
    x, y = images.x.to(device), images.y.to(device)
    for quantity, values in proved.shown(net, x, y).items():
        yield key | _row("gradient", 0.0, quantity, values)
    for eps in BUDGETS:
        sure = proved.sure_of_label(net, val, eps=eps)
        yield key | _row("none", eps, "certified_accuracy", sure)
        for name, (attribution, bounds) in proved.MAPS.items():
            found = proved.least(*bounds(net, x, y, eps=eps), attribution(net, x, y))
            for quantity, values in found.items():
                yield key | _row(name, eps, f"certified_{quantity}", values)


def _row(name: str, eps: float, quantity: str, values: torch.Tensor) -> dict[str, str]:
    """The mean over images and its interval; of ratios of means they are there already."""
    value, ends = float(values.double().mean()), None
    if quantity.startswith("specific"):
        value, low, high = values.tolist()
        ends = low, high
    elif len(values) > 1:
        ends = metrics.interval(values.cpu(), generator=seeded(0))
    row = _table.measured(quantity, len(values), value, ends)
    return {"map": name, "eps": f"{eps:.5f}"} | row
