"""Attack against certificate: does any attack get below what was proved, and is the confidence right?"""

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from attrlib import _check, attributions, certificates, checkpoints, data, metrics
from attrlib._random import seeded
from attrlib.attacks import LinfBall, standard
from attrlib.benchmark import _table, recorded
from attrlib.benchmark.adversaries import gap_row, places, shared_and_alone, shares
from attrlib.benchmark.attack_strength import K
from attrlib.benchmark.cells import listed
from attrlib.certificates import Bounded, Certificate
from attrlib.maps import to_heatmap
from attrlib.training.state import contents
from attrlib.types import Classifier, Inputs, Labels

RADIUS = 4.0
"""Of the noise, in pixel units."""

ADVERSARIES = 100_000
"""Random adversaries of each certificate."""

_NETS = ("natural-s0", "madry-s0", "softplus-s0", "hessian-s0")
_TRAINED = {"interval": 8 / 255, "interval-maps": 8 / 255, "interval-wide": 0.1}  # with the budget
_SAMPLES, _ALPHA = 2000, 0.001
_ATTACKED = 16  # noisy copies in the maps that the suite attacks
_INTERVALS = (certificates.betting, certificates.bernstein, certificates.hoeffding)

Rows = list[dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class SoundnessSetting:
    """One row, or a few that share their work.

    Attributes:
        net: A checkpoint; `coin` is a map whose smoothed version is known.
        kind: `smoothed cosine`, `smoothed top-k`, `interval` or `coverage`; rows of the kind `recorded`
            have no settings, see `soundness`.
        eps: Budget in pixel units: l2 for smoothing, in every pixel for intervals.
    """

    net: str
    kind: str
    eps: float


def soundness_settings() -> Iterator[SoundnessSetting]:
    """Yield the settings of the study, the cheap ones first.

    Yields:
        Settings; networks trained for narrow boxes only if they are shipped.
    """
    for net in ("coin", "natural-s0"):
        yield SoundnessSetting(net=net, kind="coverage", eps=0.1)
    for net in _NETS:
        yield SoundnessSetting(net=net, kind="interval", eps=1e-4)
    for name, eps in _TRAINED.items():
        if name in checkpoints.names():
            yield SoundnessSetting(net=f"{name}-s0", kind="interval", eps=eps)
    for net in _NETS:
        yield SoundnessSetting(net=net, kind="smoothed cosine", eps=0.1)
        yield SoundnessSetting(net=net, kind="smoothed cosine", eps=0.5)
        yield SoundnessSetting(net=net, kind="smoothed top-k", eps=0.1)


def soundness(
    path: str | Path,
    *,
    images: int = 8,
    points: str | Path = "runs/points",
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Set the suite of attacks and random adversaries against each kind of certificate.

    On the first test images, one of each class. Each row holds the means of what is certified and of what
    the quick suite leaves, their smallest difference over the images, how many images are below their
    certificate, and how many `alpha` allows; then how many random adversaries were tried, how close they
    came, and how many got below.

    *Smoothing*: the suite attacks the mean of 16 noisy maps within an l2 budget; the points found are
    judged by fresh means of 2,000, for the ideal map without the bias of their noise. Random adversaries
    are what certificates of smoothing see of a network: random maps for what two balls of noise share and
    for what each has alone; for sets of pixels, random maps between the bounds. *Intervals*: suites for
    the top k and the cosine, and random points of the box, half of them corners; in float64. *Coverage*:
    the same image certified again and again; `attacked` is the length of the ideal map, known or from
    100,000 samples, and `violations` counts the bounds above it. *Recorded*: bounds of every shipped
    network for Fashion-MNIST at each budget of the grid, and the points that the whole suite found there
    on 100 images, as far as the grid has them.

    Args:
        path: Table to write, or to go on with.
        images: Number of images, 1 to 10; of the part *recorded* it is 100.
        points: Folder of the points that the grid found; nothing is added to it.
        device: Where to compute.
        progress: Print each row as it is done.

    Raises:
        ValueError: If a number is out of range, or the table is another one.
    """
    _check.count(images=images, high=10)
    chosen = listed(data.fashion_mnist("test"), per_class=1)[:images]
    x, y = chosen.x.to(device), chosen.y.to(device)

    def cell(setting: SoundnessSetting) -> _table.Cell:
        head = {"net": setting.net, "kind": setting.kind, "eps": f"{setting.eps:.5f}"}
        model = nn.Identity() if setting.net == "coin" else checkpoints.load(setting.net).model
        key = head | {"weights": contents(model), "images": str(images)}

        def rows() -> Rows:
            found = _KINDS[setting.kind](model.to(device), x, y, eps=setting.eps)
            return [key | row for row in found]

        return _table.Cell(key, rows)

    _table.fill(path, map(cell, soundness_settings()), device=device, progress=progress)
    found, missing = recorded.found(Path(points), device=device)
    _table.fill(path, found, device=device, progress=progress)
    if progress and missing:
        print(
            f"{missing} networks and budgets without points in {points}, see bench --grid",
            flush=True,
        )


def smoothed_cosine(
    model: nn.Module,
    x: Inputs,
    y: Labels,
    *,
    eps: float,
    samples: int = _SAMPLES,
    adversaries: int = ADVERSARIES,
) -> Rows:
    """Set the suite against certified cosines, of the ideal map and of the map that is shown.

    Args:
        model: Maps a batch to logits.
        x: Images.
        y: Classes to explain.
        eps: l2 budget.
        samples: Noisy copies of each image, for the certificate and for each map that is judged.
        adversaries: Number of random ones.

    Returns:
        Two rows.
    """
    g = certificates.normalized(attributions.gradient)
    found, there = _attacked(g, model, x, y, eps=eps, samples=samples, goal="cosine")
    here, there = (mean.flatten(1) for mean in (found.mean, there))
    product = (here * there).sum(1)
    lengths = [_unbiased(mean, samples) for mean in (here, there)]
    ideal = product / (lengths[0] * lengths[1])
    shown = product / (here.norm(dim=1) * there.norm(dim=1))
    random = shared_and_alone(g, found.law.lost(eps, found.dim), adversaries, generator=seeded(5))
    none = torch.empty(0)
    return [
        gap_row("cosine of ideal maps", found.cosine(eps), ideal, alpha=_ALPHA, random=random),
        gap_row("cosine of shown maps", found.released(eps), shown, alpha=3 * _ALPHA, random=none),
    ]


def smoothed_topk(
    model: nn.Module,
    x: Inputs,
    y: Labels,
    *,
    eps: float,
    k: int = K,
    samples: int = _SAMPLES,
    adversaries: int = ADVERSARIES,
) -> Rows:
    """Set the suite against the certified overlap of smoothed sets of pixels.

    Args:
        model: Maps a batch to logits.
        x: Images.
        y: Classes to explain.
        eps: l2 budget.
        k: Pixels in a set.
        samples: Noisy copies of each image, for the certificate and for each map that is judged.
        adversaries: Number of random ones.

    Returns:
        One row.
    """
    g = certificates.sparsified(attributions.gradient, k=k)
    found, there = _attacked(g, model, x, y, eps=eps, samples=samples, goal="top-k", k=k)
    lower, upper = found.entries(eps)
    certified = certificates.certified_topk_overlap(lower, upper, found.mean, k=k)
    score = functools.partial(metrics.topk_intersection, k=k)
    gaps = []
    noise = seeded(3)
    for i, count in shares(adversaries, len(x)):
        between = lower[i] + (upper[i] - lower[i]) * places(count, lower[i], noise)
        gaps.append(score(found.mean[i].expand_as(between), between) - certified[i])
    attacked = score(found.mean, there)
    return [gap_row(f"top {k}", certified, attacked, alpha=_ALPHA, random=torch.cat(gaps))]


def intervals(
    model: nn.Module,
    x: Inputs,
    y: Labels,
    *,
    eps: float,
    k: int = K,
    adversaries: int = ADVERSARIES,
) -> Rows:
    """Set suites and random points against the box of maps, and against the scores that follow from it.

    Args:
        model: Maps a batch to logits; is put in float64, in which the bounds are proved.
        x: Images.
        y: Classes to explain.
        eps: Budget in each entry.
        k: Pixels in the top set.
        adversaries: Number of random ones.

    Returns:
        A row for the entries, of which -1 times the largest excess over a bound is the gap, one for the
        top k and one for the cosine.
    """
    model, x = model.double(), x.double()
    maps = attributions.gradient
    a = maps(model, x, y)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=eps)
    certified = {
        f"top {k}": certificates.certified_topk(lower, upper, a, k=k),
        "cosine": certificates.cosine_in_box(lower, upper, a),
    }

    def scores(i: int | slice, b: Tensor) -> dict[str, Tensor]:
        clean = a[i].expand_as(b)
        heat, other = to_heatmap(clean), to_heatmap(b)
        return {
            "entries": torch.minimum(b - lower[i], upper[i] - b).flatten(1).amin(1).clamp(max=0),
            f"top {k}": metrics.topk_intersection(heat, other, k=k),
            "cosine": metrics.cosine(clean, b),
        }

    promised = {"entries": torch.zeros(len(x)).to(a)} | certified
    least = {name: torch.full_like(value, math.inf) for name, value in promised.items()}
    for goal in ("top-k", "cosine"):
        attack = standard(eps=eps, attribution=maps, k=k, effort="quick", goal=goal)
        b = maps(model, attack(model, x, y, generator=seeded(1)), y)
        for name, value in scores(slice(None), b).items():
            least[name] = torch.fmin(least[name], value)
    gaps: dict[str, list[Tensor]] = {name: [] for name in promised}
    noise, ball = seeded(2), LinfBall(eps=eps)
    for i, count in shares(adversaries, len(x)):
        centre = x[i : i + 1].expand(count, *x.shape[1:])
        z = ball.project(centre + eps * (2 * places(count, x[i], noise) - 1), centre)
        for name, value in scores(i, maps(model, z, y[i].expand(count))).items():
            gaps[name].append(value - promised[name][i])
    return [
        gap_row(name, value, least[name], alpha=0.0, random=torch.cat(gaps[name]))
        for name, value in promised.items()
    ]


def coverage(
    model: nn.Module,
    x: Inputs,
    y: Labels,
    *,
    eps: float,
    samples: int = 400,
    alpha: float = 0.05,
    repetitions: int = 400,
    reference: int = 100_000,
) -> Rows:
    """Certify one image again and again, and count how often its length is overestimated.

    Args:
        model: Maps a batch to logits; the identity stands for a map that is known: one of two unit
            vectors by the sign of the first entry, at 0, whose mean has length √½.
        x: Images, of which the first one counts.
        y: Classes to explain.
        eps: l2 budget; the length does not depend on it.
        samples: Noisy copies of each certificate.
        alpha: Failure probability, strictly between 0 and 1.
        repetitions: Number of certificates for each way to bound a mean.
        reference: Samples for the length where it is not known.

    Returns:
        A row for each way to bound a mean.
    """
    if isinstance(model, nn.Identity):
        g = Bounded(attribution=_coin, reduce=_same, bound=1.0, nonnegative=True, clamp=False)
        x, truth = torch.zeros(1, 3), math.sqrt(0.5)
    else:
        g = certificates.normalized(attributions.gradient)
        means = _certify(g, model, x[:1], y[:1], eps=eps, samples=reference).mean
        truth = float(_unbiased(means.flatten(1), reference))
    many = x[:1].expand(repetitions, *x.shape[1:])
    rows = []
    for interval in _INTERVALS:
        found = certificates.certify(
            g,
            model,
            many,
            y[:1].expand(repetitions),
            radius=RADIUS,
            eps=eps,
            samples=samples,
            alpha=alpha,
            interval=interval,
            generator=seeded(4),
        ).norm
        lengths = torch.full_like(found, truth)
        name = f"length, {interval.__name__}"
        rows.append(gap_row(name, found, lengths, alpha=alpha, random=torch.empty(0)))
    return rows


_KINDS: Mapping[str, Callable[..., Rows]] = {
    "smoothed cosine": smoothed_cosine,
    "smoothed top-k": smoothed_topk,
    "interval": intervals,
    "coverage": coverage,
}


def _certify(
    g: Bounded,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    samples: int,
    seed: int = 0,
) -> Certificate:
    return certificates.certify(
        g,
        model,
        x,
        y,
        radius=RADIUS,
        eps=eps,
        samples=samples,
        alpha=_ALPHA,
        generator=seeded(seed),
    )


def _attacked(
    g: Bounded,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    samples: int,
    **options: object,
) -> tuple[Certificate, Tensor]:
    """A certificate, and means of fresh maps at the points that a suite finds.

    The suite attacks the mean of maps of length 1, whatever g is: sets of pixels have no slope.
    """
    smooth = certificates.smoothed(
        certificates.normalized(attributions.gradient), radius=RADIUS, samples=_ATTACKED
    )
    suite = standard(eps=eps, attribution=smooth, norm="l2", effort="quick", **options)  # type: ignore[arg-type]
    z = suite(model, x, y, generator=seeded(1))
    found = _certify(g, model, x, y, eps=eps, samples=samples)
    return found, _certify(g, model, z, y, eps=eps, samples=samples, seed=2).mean


def _unbiased(mean: Tensor, samples: int) -> Tensor:
    """Lengths of the ideal maps, from means (n, entries) of maps of length 1."""
    squared = (samples * mean.square().sum(1) - 1) / (samples - 1)
    return squared.clamp(min=0).sqrt()


def _coin(
    model: Classifier, x: Tensor, y: Tensor, /, *, generator: torch.Generator | None = None
) -> Tensor:
    """One of two unit vectors."""
    result = torch.zeros_like(x.flatten(1))
    result[:, 0] = x.flatten(1)[:, 0] > 0
    result[:, 1] = 1 - result[:, 0]
    return result.view_as(x)


def _same(a: Tensor) -> Tensor:
    return a
