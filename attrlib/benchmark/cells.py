"""One attacked network at a time: the points an attack found, kept in a folder, and the scores at them.

A cell is a network, an attack and a list of images. Its points are stored under a name that holds a
digest of all three, so that a run that was stopped goes on where it was, whatever is scored later is read
from the same points, and nothing stale is taken for a result.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from attrlib import _check, _files, attributions, data, metrics, training
from attrlib._random import seeded
from attrlib.attacks import PGD, SUITE, LinfBall, RandomSign, standard
from attrlib.attacks.suite import GOALS, Effort
from attrlib.benchmark.attack_strength import ATTRIBUTIONS, K, Setting, following
from attrlib.benchmark.seeds import Columns
from attrlib.maps import to_heatmap
from attrlib.training.state import contents
from attrlib.types import Attack, Attribution, Classifier, Metric

WINDOW = 1
"""Radius of the LENS windows of the table."""

QUANTITIES = (
    "topk", "topk_chance", "lens_recall", "lens_recall_chance", "lens_precision",
    "lens_precision_chance", "kendall", "kendall_chance", "cosine", "identification_topk",
    "rank_one_topk", "identification_cosine", "rank_one_cosine", "specific_topk",
    "specific_kendall", "specific_cosine", "outside_template", "right", "kept", "unchanged",
)  # fmt: skip
"""What can be read at changed images. `specific_kendall`, which compares all pairs of a class, takes
longer than all the rest."""

CONTROLS = ("random", "best random", "mass")
_DRAWS = 700  # as many points as the suite looks at
_OTHERS = 20  # images whose maps the attack on identification goes for
_SCORES: Mapping[str, Metric] = {
    "topk": functools.partial(metrics.topk_intersection, k=K),
    "lens_recall": functools.partial(metrics.lens_recall, k=K, window=WINDOW),
    "lens_precision": functools.partial(metrics.lens_precision, k=K, window=WINDOW),
    "kendall": metrics.kendall,
}

_PGD = PGD(ball=LinfBall(eps=0.1), steps=20, step_size=2.5 * 0.1 / 20, random_start=True)


class Named(NamedTuple):
    """What the name of an attack says.

    Attributes:
        goal: A goal of the suite, or a control.
        effort: Of the suite.
        on_gradient: Whether the gradient is attacked, whatever map is scored.
    """

    goal: str
    effort: Effort = "standard"
    on_gradient: bool = True


def named(attack: str) -> Named:
    """Read the name of an attack: a control, or `[quick] [gradient] GOAL suite`.

    Without the word `gradient` a suite goes for the map that is scored.

    Raises:
        ValueError: If the name is unknown.
    """
    if attack in CONTROLS:
        return Named(attack)
    words = attack.split(" ")
    effort: Effort = "quick" if words[0] == "quick" else "standard"
    words = words[effort == "quick" :]
    on_gradient = words[:1] == ["gradient"]
    words = words[on_gradient:]
    if len(words) != 2 or words[0] not in GOALS or words[1] != "suite":
        raise ValueError(
            f"Expected attack to be one of {', '.join(CONTROLS)} or [quick] [gradient] GOAL suite with "
            f"one of the goals {', '.join(GOALS)}, got {attack!r}"
        )
    return Named(words[0], effort, on_gradient)


def first(y: Tensor, *, per_class: int, start: int = 0) -> Tensor:
    """Rows of some images of each class, by their order.

    Args:
        y: Labels.
        per_class: Images of each class, >= 1.
        start: How many of each class to pass over.
    """
    rows = [
        (y == label).nonzero()[start : start + per_class, 0] for label in sorted(set(y.tolist()))
    ]
    return torch.cat(rows).sort().values


def listed(test: data.Images, *, per_class: int, start: int = 0) -> data.Images:
    """The images of the fixed lists: some of each class, by their order in the test set.

    Args:
        test: The test set.
        per_class: Images of each class, >= 1.
        start: How many of each class to pass over.

    Returns:
        The images, in the order of the set. Which network does what plays no part.
    """
    return test[first(test.y, per_class=per_class, start=start)]


def attack_of(
    name: str,
    eps: float,
    others: Tensor | None = None,
    *,
    effort: Effort = "standard",
    attribution: Attribution = attributions.gradient,
) -> Attack:
    """The attack of a cell.

    Args:
        name: A goal of the suite; `random`, one draw of signs; `best random`, for each image the best of
            as many draws as the suite looks at points; `mass`, the book's first attack: 60 steps from
            three starts on the mass of the top k, blunt copies only.
        eps: Budget in every pixel.
        others: Signed maps of other images of the class, for `identification`.
        effort: Of the suite.
        attribution: Whose maps the suite attacks.

    Raises:
        ValueError: If the name is unknown.
    """
    for goal in GOALS:
        if name == goal:
            return standard(
                eps=eps,
                attribution=attribution,
                k=K,
                effort=effort,
                goal=goal,
                window=WINDOW,
                others=others,
            )
    if name == "random":
        return RandomSign(eps=eps)
    if name == "best random":
        score = functools.partial(metrics.topk_intersection, k=K)
        return RandomSign(eps=eps, draws=_DRAWS, score=score, attribution=attributions.gradient)
    if name == "mass":
        return Setting(study="", eps=eps, steps=60, restarts=3).attack()
    raise ValueError(f"Expected name to be one of {', '.join((*GOALS, *CONTROLS))}, got {name!r}")


def points(
    net: torch.nn.Module,
    images: data.Images,
    attack: Named,
    eps: float,
    *,
    folder: Path,
    device: str | torch.device,
    pool: data.Images,
    map: str = "gradient",
) -> Tensor:
    """The changed images that an attack finds, on the device; from the folder if they are there.

    Args:
        net: The network.
        images: Images and the classes that are explained.
        attack: Which one.
        eps: Budget in every pixel.
        folder: Where points are kept.
        device: Where to compute.
        pool: Other images, for the attack on identification.
        map: The map that is attacked, by its name in `ATTRIBUTIONS`.

    Raises:
        ValueError: If a file of the folder is damaged.
    """
    path = place(net, images, attack, eps, folder=folder, map=map)
    if path.exists():
        try:
            z = safetensors.torch.load_file(path)["z"].to(device)
        except (KeyError, safetensors.SafetensorError) as error:
            raise ValueError(f"Expected {path} to hold points, got {error}; delete it") from error
        return z
    x, y = images.x.to(device), images.y.to(device)
    needed = attack.goal == "identification"
    others = _competitors(net, images, pool, device=device) if needed else None
    goes = attack_of(attack.goal, eps, others, effort=attack.effort, attribution=ATTRIBUTIONS[map])
    z = goes(net, x, y, generator=seeded(0))
    folder.mkdir(parents=True, exist_ok=True)
    with _files.whole(path) as partial:
        partial.write_bytes(safetensors.torch.save({"z": z.cpu()}))
    return z


def place(
    net: torch.nn.Module,
    images: data.Images,
    attack: Named,
    eps: float,
    *,
    folder: Path,
    map: str = "gradient",
) -> Path:
    """Where `points` keeps what it finds; the file may not be there yet.

    Args:
        net: The network.
        images: Images and the classes that are explained.
        attack: Which one.
        eps: Budget in every pixel.
        folder: Where points are kept.
        map: The map that is attacked.
    """
    name, effort, _ = attack
    version = SUITE if name in GOALS else "0"
    words = [f"{eps:.6f}", version]
    kind = []
    if name in GOALS:
        kind = [word for word, usual in ((effort, "standard"), (map, "gradient")) if word != usual]
    key = _files.digest(contents(net), data.fingerprint(images), name, *words, *kind)
    stem = "-".join([name, *kind]).replace(" ", "-")
    return folder / f"{stem}-{eps:.4f}-{key[:16]}.safetensors"


def map_at(attribution: Attribution, net: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """The map at clean or changed images, with noise that is the same for both and that no attack saw."""
    return attribution(net, x, y, generator=seeded(1))


class Clean(NamedTuple):
    """Signed maps of the unchanged images, and of those they compete with."""

    images: Tensor
    pool: Tensor


def clean_maps(
    net: Classifier,
    images: data.Images,
    pool: data.Images,
    *,
    device: str | torch.device,
    attribution: Attribution = attributions.gradient,
) -> Clean:
    """The maps that all points of these images are compared with, each with noise of its own kind."""
    a = map_at(attribution, net, images.x.to(device), images.y.to(device))
    rest = attribution(net, pool.x.to(device), pool.y.to(device), generator=seeded(3))
    return Clean(a, rest)


def scores_at(
    net: Classifier,
    images: data.Images,
    z: Tensor,
    pool: data.Images,
    *,
    device: str | torch.device,
    quantities: Sequence[str] = QUANTITIES,
    attribution: Attribution = attributions.gradient,
    at_rest: Clean | None = None,
) -> Columns:
    """Own scores, controls and what became of the predictions, for each image.

    Both maps of a score are made with the same noise, which no attack has seen.

    Args:
        net: The network.
        images: Clean images and labels.
        z: Changed images.
        pool: Other images, whose clean maps an image competes with.
        device: Where to compute.
        quantities: What is wanted; nothing else is computed.
        attribution: The maps.
        at_rest: What `clean_maps` returns, if it is at hand.

    Raises:
        ValueError: If a quantity is unknown.
    """
    for name in quantities:
        _check.one_of(QUANTITIES, quantities=name)
    x, y, pool_y = images.x.to(device), images.y.to(device), pool.y.to(device)
    if at_rest is None:
        at_rest = clean_maps(net, images, pool, device=device, attribution=attribution)
    a, rest = at_rest
    b = map_at(attribution, net, z, y)
    before, after, rest_heat = map(to_heatmap, (a, b, rest))
    makers: dict[str, Callable[[], Tensor]] = {
        "cosine": lambda: metrics.cosine(a, b),
        "outside_template": lambda: metrics.outside_template(
            before, after, y, k=K, pool=rest_heat, pool_y=pool_y
        ),
        "right": lambda: _label(net, x) == y,
        "kept": lambda: _label(net, z) == _label(net, x),
        "unchanged": lambda: (z == x).flatten(1).all(1),
    }
    for name, score in _SCORES.items():
        makers[name] = functools.partial(score, before, after)
        makers[f"{name}_chance"] = functools.partial(metrics.chance_level, score, before, after)
    signed, heat = (a, b), (before, after)
    for name, score, maps, others in (
        ("topk", _SCORES["topk"], heat, rest_heat),
        ("cosine", metrics.cosine, signed, rest),
    ):
        for control in (metrics.identification, metrics.rank_one):
            makers[f"{control.__name__}_{name}"] = functools.partial(
                control, *maps, y, score=score, pool=others, pool_y=pool_y
            )
    for name, score, maps in (
        ("topk", _SCORES["topk"], heat),
        ("kendall", metrics.kendall, heat),
        ("cosine", metrics.cosine, signed),
    ):
        makers[f"specific_{name}"] = functools.partial(_specific, *maps, y, score=score)
    return {name: makers[name]().cpu().double() for name in quantities}


def _specific(clean: Tensor, changed: Tensor, y: Tensor, *, score: Metric) -> Tensor:
    """The specific score with its interval (3,)."""
    return torch.tensor(metrics.specific(clean, changed, y, score=score, generator=seeded(0)))


@torch.no_grad()
def _label(net: Classifier, x: Tensor) -> Tensor:
    """What the network predicts."""
    return net(x).argmax(1)


def pgd20_accuracy(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Whether each prediction is right after 20 steps of PGD from a random point, at ε = 0.1."""
    z = _PGD(model, x, y, generator=seeded(0))
    return training.correct(model, z, y)


def clean_controls(
    net: Classifier, images: data.Images, *, device: str | torch.device
) -> dict[str, Columns]:
    """Scores of the clean maps with maps that have another origin, by what was exchanged.

    `other image`: another image of the class. `other class`: the same logit at an image of another
    class. `blank image`: the same logit at a grey image. A map that these hardly change shows the class,
    or the logit, and not the image.
    """
    x, y = images.x.to(device), images.y.to(device)
    a = attributions.gradient(net, x, y)
    same = following(y)
    changed = {
        "other image": a[same],
        "other class": attributions.gradient(net, x[following(y, same=False)], y),
        "blank image": attributions.gradient(net, torch.full_like(x, 0.5), y),
    }
    found = {}
    for name, b in changed.items():
        before, after = to_heatmap(a), to_heatmap(b)
        columns = {quantity: score(before, after) for quantity, score in _SCORES.items()}
        columns["cosine"] = metrics.cosine(a, b)
        found[name] = {quantity: values.cpu().double() for quantity, values in columns.items()}
    return found


def _competitors(
    net: Classifier, images: data.Images, pool: data.Images, *, device: str | torch.device
) -> Tensor:
    """For each image the signed maps of the first other images of its class (n, m, channels, h, w)."""
    few = min(_OTHERS, int(torch.bincount(pool.y).min()))
    maps = attributions.gradient(net, pool.x.to(device), pool.y.to(device))
    rows = torch.stack([(pool.y == label).nonzero()[:few, 0] for label in images.y])
    return maps[rows.to(device)]
