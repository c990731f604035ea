"""One attacked network at a time: the points an attack found, kept in a folder, and the scores at them.

A cell is a network, an attack and a list of images. Its points are stored under a name that holds a
digest of all three, so that a run that was stopped goes on where it was, whatever is scored later is read
from the same points, and nothing stale is taken for a result.
"""

import functools
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from attrlib import _files, attributions, data, metrics, training
from attrlib.attacks import PGD, SUITE, LinfBall, RandomSign, standard
from attrlib.attacks.suite import GOALS
from attrlib.benchmark.attack_strength import K, Setting, following
from attrlib.benchmark.seeds import Columns
from attrlib.maps import to_heatmap
from attrlib.training.state import contents
from attrlib.types import Attack, Attribution, Classifier, Metric

WINDOW = 1
"""Radius of the LENS windows of the table."""

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


def listed(test: data.Images, *, per_class: int, start: int = 0) -> data.Images:
    """The images of the fixed lists: some of each class, by their order in the test set.

    Args:
        test: The test set.
        per_class: Images of each class, >= 1.
        start: How many of each class to pass over.

    Returns:
        The images, in the order of the set. Which network does what plays no part.
    """
    rows = [
        (test.y == label).nonzero()[start : start + per_class, 0]
        for label in sorted(set(test.y.tolist()))
    ]
    return test[torch.cat(rows).sort().values]


def attack_of(name: str, eps: float, others: Tensor | None = None) -> Attack:
    """The attack of a cell.

    Args:
        name: A goal of the suite; `random`, one draw of signs; `best random`, for each image the best of
            as many draws as the suite looks at points; `mass`, the book's first attack: 60 steps from
            three starts on the mass of the top k, blunt copies only.
        eps: Budget in every pixel.
        others: Signed maps of other images of the class, for `identification`.

    Raises:
        ValueError: If the name is unknown.
    """
    gradient = attributions.gradient
    for goal in GOALS:
        if name == goal:
            return standard(
                eps=eps, attribution=gradient, k=K, goal=goal, window=WINDOW, others=others
            )
    if name == "random":
        return RandomSign(eps=eps)
    if name == "best random":
        score = functools.partial(metrics.topk_intersection, k=K)
        return RandomSign(eps=eps, draws=_DRAWS, score=score, attribution=gradient)
    if name == "mass":
        return Setting(study="", eps=eps, steps=60, restarts=3).attack()
    raise ValueError(f"Expected name to be one of {', '.join((*GOALS, *CONTROLS))}, got {name!r}")


def points(
    net: torch.nn.Module,
    images: data.Images,
    name: str,
    eps: float,
    *,
    folder: Path,
    device: str | torch.device,
    pool: data.Images,
) -> Tensor:
    """The changed images that an attack finds, on the device; from the folder if they are there."""
    version = SUITE if name in GOALS else "0"
    key = _files.digest(contents(net), data.fingerprint(images), name, f"{eps:.6f}", version)
    path = folder / f"{name.replace(' ', '-')}-{eps:.4f}-{key[:16]}.safetensors"
    if path.exists():
        try:
            z = safetensors.torch.load_file(path)["z"].to(device)
        except (KeyError, safetensors.SafetensorError) as error:
            raise ValueError(f"Expected {path} to hold points, got {error}; delete it") from error
        return z
    x, y = images.x.to(device), images.y.to(device)
    needed = name == "identification"
    others = _competitors(net, images, pool, device=device) if needed else None
    attack = attack_of(name, eps, others)
    z = attack(net, x, y, generator=torch.Generator().manual_seed(0))
    folder.mkdir(parents=True, exist_ok=True)
    with _files.whole(path) as partial:
        partial.write_bytes(safetensors.torch.save({"z": z.cpu()}))
    return z


def scores_at(
    net: Classifier,
    images: data.Images,
    z: Tensor,
    pool: data.Images,
    *,
    device: str | torch.device,
    attribution: Attribution = attributions.gradient,
) -> Columns:
    """Own scores, controls and what became of the predictions, for each image.

    Args:
        net: The network.
        images: Clean images and labels.
        z: Changed images.
        pool: Other images, whose clean maps an image competes with.
        device: Where to compute.
        attribution: The maps.
    """
    x, y = images.x.to(device), images.y.to(device)
    a, b = attribution(net, x, y), attribution(net, z, y)
    pool_y = pool.y.to(device)
    rest = attribution(net, pool.x.to(device), pool_y)
    before, after, rest_heat = map(to_heatmap, (a, b, rest))
    found: Columns = {}
    for name, score in _SCORES.items():
        found[name] = score(before, after)
        found[f"{name}_chance"] = metrics.chance_level(score, before, after)
    found["cosine"] = metrics.cosine(a, b)
    compared: tuple[tuple[str, Metric, Tensor, Tensor, Tensor], ...] = (
        ("topk", _SCORES["topk"], before, after, rest_heat),
        ("cosine", metrics.cosine, a, b, rest),
    )
    for name, score, clean, changed, others in compared:
        for control in (metrics.identification, metrics.rank_one):
            values = control(clean, changed, y, score=score, pool=others, pool_y=pool_y)
            found[f"{control.__name__}_{name}"] = values
    for name, score, clean, changed in (
        ("topk", _SCORES["topk"], before, after),
        ("kendall", metrics.kendall, before, after),
        ("cosine", metrics.cosine, a, b),
    ):
        estimate = metrics.specific(
            clean, changed, y, score=score, generator=torch.Generator().manual_seed(0)
        )
        found[f"specific_{name}"] = torch.tensor(estimate)
    found["outside_template"] = metrics.outside_template(
        before, after, y, k=K, pool=rest_heat, pool_y=pool_y
    )
    with torch.no_grad():
        label, now = net(x).argmax(1), net(z).argmax(1)
    found["right"] = label == y
    found["kept"] = now == label
    found["unchanged"] = (z == x).flatten(1).all(1)
    return {name: values.cpu().double() for name, values in found.items()}


def pgd20_accuracy(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Whether each prediction is right after 20 steps of PGD from a random point, at ε = 0.1."""
    z = _PGD(model, x, y, generator=torch.Generator().manual_seed(0))
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
