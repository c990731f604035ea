"""How far attacks on attributions go on Fashion-MNIST, by their effort."""

import functools
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attrlib import _check, attributions, checkpoints, data, metrics, models, training
from attrlib._random import seeded
from attrlib.attacks import (
    SUITE,
    AttributionAttack,
    Cosine,
    LinfBall,
    MassCenter,
    RandomSign,
    Rank,
    TopK,
    standard,
)
from attrlib.benchmark import _table
from attrlib.maps import to_heatmap
from attrlib.types import Attack, Attribution, Classifier, Objective

K = 100
"""Pixels in a top-k set, 13 % of a 28×28 image: as in the Fashion-MNIST setting of Chen et al. 2019."""

SIGMA = 0.2
"""Standard deviation of the noise in each pixel, for SmoothGrad and UniGrad."""


def noise_radius(dim: int = 784) -> float:
    """Return the radius of UniGrad's ball that has the noise of SmoothGrad in each entry.

    Points uniform in the l2 ball of radius R have variance R² / (d + 2) in each of d entries.

    Args:
        dim: Entries of an image.
    """
    return float(SIGMA * (dim + 2) ** 0.5)


ATTRIBUTIONS: Mapping[str, Attribution] = {
    "gradient": attributions.gradient,
    "integrated gradients": functools.partial(attributions.integrated_gradients, steps=16),
    "SmoothGrad": functools.partial(attributions.smooth_grad, sigma=SIGMA, samples=16),
    "UniGrad": functools.partial(attributions.uni_grad, radius=noise_radius(), samples=16),
}
OBJECTIVES: Mapping[str, Objective] = {
    "top-k": TopK(k=K),
    "mass centre": MassCenter(),
    "cosine": Cosine(),
    "rank": Rank(k=K),
}
FAMILIES = ("natural", "madry", "trades", "hessian", "ssr-medium", "cure", "weight-decay")
"""Networks on which the strength of the suite is measured."""

_EFFORTS = {"quick": 60, "standard": 400, "strong": 1200}  # steps an image


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One attack of the strength study; the defaults are those the book uses.

    Attributes:
        study: What this row is part of; not a property of the attack.
        net: A checkpoint.
        attribution: A name of `ATTRIBUTIONS`.
        objective: A name of `OBJECTIVES`; `suite quick`, `suite standard` or `suite strong`; `random`; or
            a control that changes no pixel, `another image` (of the same class) or `random weights`
            (the same image, an untrained network).
        eps: Budget in every pixel.
        steps: Steps per start; for `random` the number of draws, of which the best is kept.
        restarts: Number of starts.
        sharpness: β of the softplus surrogates, one after the other; of networks with kinks only.
        most: Number of images, at most.
    """

    study: str
    net: str = "natural-s0"
    attribution: str = "gradient"
    objective: str = "top-k"
    eps: float = 8 / 255
    steps: int = 100
    restarts: int = 10
    sharpness: tuple[float, ...] = (10.0, 30.0, 100.0)
    most: int = 300

    def attack(self) -> Attack:
        """Return the attack; points are compared by top-k intersection, mass centres by their shift."""
        attribution = ATTRIBUTIONS[self.attribution]
        score = functools.partial(metrics.topk_intersection, k=K)
        if self.objective == "random":
            if self.steps == 1:
                return RandomSign(eps=self.eps)
            return RandomSign(eps=self.eps, draws=self.steps, score=score, attribution=attribution)
        if self.objective.startswith("suite "):
            effort: Any = self.objective.removeprefix("suite ")
            return standard(eps=self.eps, attribution=attribution, k=K, effort=effort)
        return AttributionAttack(
            attribution=attribution,
            objective=OBJECTIVES[self.objective],
            ball=LinfBall(eps=self.eps),
            steps=self.steps,
            step_size=self.eps / 10,
            restarts=self.restarts,
            surrogates=tuple(
                functools.partial(models.smoothed, beta=beta, required=False)
                for beta in self.sharpness
            ),
            score=None if self.objective == "mass centre" else score,
        )

    def row(self) -> dict[str, str]:
        """Return the fields as they stand in the table."""
        fields = asdict(self) | {
            "eps": f"{self.eps:.5f}",
            "sharpness": "-".join(f"{beta:g}" for beta in self.sharpness),
            "suite": SUITE if self.objective.startswith("suite ") else "",
        }
        del fields["most"]
        return {name: str(value) for name, value in fields.items()}


def strength_settings() -> Iterator[Setting]:
    """Yield the rows of the strength study: one thing is varied at a time, at two budgets.

    Yields:
        Settings, the cheap ones first.
    """
    budgets = (8 / 255, 0.1)
    for eps in budgets:
        base = Setting(study="", eps=eps)
        for draws in (1, 500):
            yield replace(base, study="random", objective="random", steps=draws, restarts=1)
        for sharpness in ((1.0,), (10.0,), (30.0,), (100.0,), (10.0, 30.0, 100.0)):
            yield replace(base, study="sharpness", restarts=1, sharpness=sharpness)
        for steps in (10, 20, 50, 100, 200):
            yield replace(base, study="steps", restarts=1, steps=steps)
        for objective in ("top-k", "cosine", "mass centre"):
            yield replace(base, study="objective", restarts=1, objective=objective)
        for restarts in (1, 2, 5, 10, 20):
            yield replace(base, study="restarts", restarts=restarts)
    for level in (1, 2, 4, 8, 16, 25.5):
        yield Setting(study="eps", eps=level / 255, restarts=1)
        yield Setting(study="eps", eps=level / 255, objective="random", steps=1, restarts=1)
    for name in ("gradient", "integrated gradients", "SmoothGrad"):
        for eps in budgets:
            base = Setting(study="attribution", attribution=name, eps=eps, steps=51, restarts=1)
            yield base
            yield replace(base, objective="random", steps=1)
            for control in ("another image", "random weights"):
                yield replace(base, objective=control, steps=0, restarts=0, sharpness=())
    yield from _families()


def _families() -> Iterator[Setting]:
    """The suite at each effort beside what peers would use, on networks of each kind.

    Peers: one random draw; the mass of the top k on one blunt copy (β = 1), as in the first attack of its
    kind; the first attack of this book; soft ranks alone with as many steps as the suite.
    """
    cases = ((0, 8 / 255), (1, 8 / 255), (0, 0.09))
    for (seed, eps), name in itertools.product(cases, FAMILIES):
        base = Setting(study="family", net=f"{name}-s{seed}", eps=eps, restarts=1, most=30)
        yield replace(base, objective="random", steps=1, sharpness=())
        yield replace(base, sharpness=(1.0,))
        yield replace(base, steps=60, restarts=3)
        yield replace(
            base, objective="rank", steps=_EFFORTS["standard"], sharpness=(100.0, 300.0, 1000.0)
        )
        for effort, steps in _EFFORTS.items():
            yield replace(base, objective=f"suite {effort}", steps=steps, sharpness=())
    for name in ("natural-s0", "madry-s0", "hessian-s0"):
        for attribution in ("integrated gradients", "SmoothGrad"):
            base = Setting(study="family", net=name, attribution=attribution, restarts=1, most=30)
            yield replace(base, objective="random", steps=1, sharpness=())
            yield replace(base, steps=51)
            for effort in ("quick", "standard"):
                steps = _EFFORTS[effort]
                yield replace(base, objective=f"suite {effort}", steps=steps, sharpness=())


def strength(
    path: str | Path,
    *,
    images: int = 300,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure how far attacks on attributions go, as a function of their effort.

    The natural network (seed 0) in detail; then the suite on networks of each kind, beside what peers
    would use. On the first validation images of the full set that a network classifies correctly: 300;
    30 for the suite. Each row holds the mean scores of the heatmaps before and after, with bootstrap
    intervals.

    Args:
        path: Table to write, or to go on with.
        images: Number of images at most, >= 2.
        device: Where to compute.
        progress: Print each row as it is done.

    Raises:
        ValueError: If a number is out of range.
        FileNotFoundError: If the full Fashion-MNIST set is not found.
    """
    _check.count(images=images, low=2)
    _table.fill(path, _strength_cells(images, device), device=device, progress=progress)


def _strength_cells(images: int, device: str | torch.device) -> Iterator[_table.Cell]:
    pool = data.fashion_mnist("val", full=True)
    right: dict[str, data.Images] = {}
    for setting in strength_settings():
        model = checkpoints.load(setting.net).model.to(device)
        if setting.net not in right:
            right[setting.net] = training.only_correct(model, pool, device=device)
        chosen = right[setting.net][: min(images, setting.most)]
        key = setting.row() | {"images": str(len(chosen))}
        yield _table.Cell(key, functools.partial(_attacked, key, setting, model, chosen, device))


def _attacked(
    key: Mapping[str, str],
    setting: Setting,
    model: nn.Module,
    chosen: data.Images,
    device: str | torch.device,
) -> Iterator[Mapping[str, str]]:
    """The row of a setting."""
    x, y = chosen.x.to(device), chosen.y.to(device)
    z, other = x, model
    if setting.objective == "another image":
        z = x[following(y)]
    elif setting.objective == "random weights":
        weights = seeded(1)
        other = models.SmallCNN(generator=weights).to(device)
    else:
        z = setting.attack()(model, x, y, generator=seeded(0))
    yield {**key, **_compare(ATTRIBUTIONS[setting.attribution], (model, x), (other, z), y)}


def following(y: Tensor, *, same: bool = True) -> Tensor:
    """For each row the next one, in a circle, of the same class (itself if alone), or of another."""
    order = torch.arange(len(y), device=y.device)
    found = []
    for i in range(len(y)):
        circle = torch.cat([order[i + 1 :], order[: i + 1]])
        found.append(circle[(y[circle] == y[i]) == same][0])
    return torch.stack(found)


def _compare(
    attribution: Attribution,
    before: tuple[Classifier, Tensor],
    after: tuple[Classifier, Tensor],
    y: Tensor,
) -> dict[str, str]:
    """Scores of two batches of maps, made with the same noise, and what became of the predictions."""
    (model, x), (other, z) = before, after
    a = attribution(model, x, y, generator=seeded(1))
    b = attribution(other, z, y, generator=seeded(1))
    heat_a, heat_b = to_heatmap(a), to_heatmap(b)
    columns = {
        "topk": metrics.topk_intersection(heat_a, heat_b, k=K),
        "kendall": metrics.kendall(heat_a, heat_b),
        "cosine": metrics.cosine(a, b),
        "center_shift": metrics.center_shift(heat_a, heat_b),
    }
    row: dict[str, float] = {}
    for name, values in columns.items():
        low, high = metrics.interval(values, generator=seeded(0))
        row |= {name: float(values.nanmean()), f"{name}_low": low, f"{name}_high": high}
    with torch.no_grad():
        row["kept"] = float((other(z).argmax(1) == model(x).argmax(1)).double().mean())
    row["unchanged"] = float((z == x).flatten(1).all(1).double().mean())
    return _table.rounded(row)
