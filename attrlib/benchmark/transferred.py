"""Do attacks on one explanation break the others? Attacked maps against scored maps."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import _check, attributions, checkpoints, data, metrics, models, training
from attrlib._random import seeded
from attrlib.attacks import SUITE, RandomSign, standard
from attrlib.benchmark import _table
from attrlib.benchmark.attack_strength import ATTRIBUTIONS, SIGMA, K, following, noise_radius
from attrlib.maps import to_heatmap
from attrlib.types import Attribution, Classifier, Inputs, Labels

BETA = 10.0
"""Sharpness of the smooth copy."""

TRANSFER_NETS = tuple(
    f"{name}-s{seed}"
    for seed, name in itertools.product(range(3), ("natural", "ssr-medium", "hessian", "madry"))
)
SOURCES = ("gradient", "integrated gradients", "SmoothGrad", "smooth copy")
"""Maps that are attacked."""

CONTROLS = ("random", "nothing", "another image")
"""One draw of full size; the same image with fresh noise in the map; a clean image of the class."""


def smooth_copy(
    model: Classifier, x: Inputs, y: Labels, *, generator: torch.Generator | None = None
) -> Inputs:
    """The gradient of the network with softplus in place of ReLU; of a smooth network, its own."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected model to be a torch.nn.Module, got {type(model).__name__}")
    return attributions.gradient(models.smoothed(model, beta=BETA, required=False), x, y)


def transfer_targets(dim: int = 784) -> Mapping[str, Attribution]:
    """Return the maps that are scored; three of them are those of Captum and zennit.

    Args:
        dim: Entries of an image; the ball of UniGrad has the noise of SmoothGrad in each.

    Returns:
        Name to attribution.

    Raises:
        ModuleNotFoundError: If Captum or zennit is missing: the extra `explainers`.
    """
    radius = noise_radius(dim)
    return {
        "gradient": attributions.gradient,
        "input × gradient": attributions.input_x_gradient,
        "integrated gradients": functools.partial(attributions.integrated_gradients, steps=32),
        "SmoothGrad": functools.partial(attributions.smooth_grad, sigma=SIGMA, samples=32),
        "UniGrad": functools.partial(attributions.uni_grad, radius=radius, samples=32),
        "smooth copy": smooth_copy,
        **{name: attributions.wrap(method) for name, method in _others().items()},
    }


def _others() -> Mapping[str, Callable[[nn.Module, Tensor, Tensor], Tensor]]:
    from captum import attr  # of the extra `explainers`
    from zennit import attribution, composites

    def grad_cam(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        last = [m for m in model.modules() if isinstance(m, nn.ReLU | nn.Softplus)][1]
        heat = attr.LayerGradCam(model, last).attribute(x, target=y)
        return functional.interpolate(heat, x.shape[2:], mode="bilinear")

    def lrp(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with attribution.Gradient(model, composites.EpsilonPlusFlat()) as explain:
            shares = explain(x, functional.one_hot(y, model(x).shape[1]).to(x))[1]
        return torch.as_tensor(shares)

    def deep_lift(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.as_tensor(attr.DeepLift(model).attribute(x, target=y))

    return {"Grad-CAM": grad_cam, "LRP": lrp, "DeepLIFT": deep_lift}


def transfer(
    path: str | Path,
    *,
    images: int = 30,
    others: int = 150,
    eps: float = 8 / 255,
    nets: tuple[str, ...] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Attack one explanation by the quick suite, and score all of them on the points found.

    On the first validation images of the full set that a network classifies correctly. Both maps of a
    score are made with the same noise, which the attack has not seen. A point at which the network
    itself changes its answer (possible for the source `smooth copy`, attacked on the copy) is put back.

    Args:
        path: Table to write, or to go on with.
        images: Number of images at most, >= 2.
        others: Number of further images, whose clean maps an attacked one is told from, >= 2.
        eps: Budget in each pixel, >= 0.
        nets: Checkpoints; None is `TRANSFER_NETS`.
        device: Where to compute.
        progress: Print each row as it is done.

    Raises:
        ValueError: If a number is out of range.
        ModuleNotFoundError: If Captum or zennit is missing.
        FileNotFoundError: If the full Fashion-MNIST set is not found.
    """
    _check.count(images=images, low=2)
    _check.count(others=others, low=2)
    _check.nonnegative(eps=eps)
    validation = data.fashion_mnist("val", full=True)[: 2 * (images + others)]

    def cells() -> Iterator[_table.Cell]:
        for net in nets or TRANSFER_NETS:
            model = checkpoints.load(net).model.to(device)
            right = training.only_correct(model, validation, device=device)
            rest = right[images : images + others]
            for source in (*CONTROLS, *SOURCES):
                key = {"net": net, "source": source, "eps": f"{eps:.5f}", "images": str(images)}
                key |= {"effort": "quick", "suite": SUITE} if source in SOURCES else _UNATTACKED
                yield from _cells(key, model, right[:images], rest, eps=eps, device=device)

    _table.fill(path, cells(), device=device, progress=progress)


_UNATTACKED = {"effort": "", "suite": ""}


def _cells(
    head: Mapping[str, str],
    model: nn.Module,
    images: data.Images,
    rest: data.Images,
    *,
    eps: float,
    device: str | torch.device,
) -> Iterator[_table.Cell]:
    """The maps scored at the points of one attack, which the first of them has to find."""
    x, y = images.x.to(device), images.y.to(device)
    point = functools.cache(functools.partial(_point, model, x, y, head["source"], eps=eps))

    def rows(key: Mapping[str, str], target: Attribution) -> Iterator[dict[str, str]]:
        points, explain = (x, point(), y), functools.partial(target, model)
        found = _scores(explain, points, rest.x.to(device), rest.y.to(device), head["source"])
        yield {**key, **found, **_kept(model, x, point())}

    for name, target in transfer_targets().items():
        key = {**head, "target": name}
        yield _table.Cell(key, functools.partial(rows, key, target))


def _point(model: nn.Module, x: Tensor, y: Tensor, source: str, *, eps: float) -> Tensor:
    """The images whose maps are scored."""
    if source == "nothing":
        return x
    if source == "another image":
        return x[following(y)]
    if source == "random":
        return RandomSign(eps=eps)(model, x, y, generator=seeded(0))
    if source == "smooth copy":
        attack = standard(eps=eps, attribution=attributions.gradient, k=K, effort="quick")
        copy = models.smoothed(model, beta=BETA, required=False)
        z = attack(copy, x, y, generator=seeded(0))
    else:
        attack = standard(eps=eps, attribution=ATTRIBUTIONS[source], k=K, effort="quick")
        z = attack(model, x, y, generator=seeded(0))
    with torch.no_grad():
        same = model(z).argmax(1) == model(x).argmax(1)
    return torch.where(same.view(-1, *[1] * (x.ndim - 1)), z, x)


def _scores(
    explain: Callable[..., Tensor],
    points: tuple[Tensor, Tensor, Tensor],
    others: Tensor,
    others_y: Tensor,
    source: str,
) -> dict[str, str]:
    """Scores of the maps at x and z, and whether those at z are still told from those of others."""
    x, z, y = points
    a = explain(x, y, generator=seeded(1))
    b = explain(z, y, generator=seeded(2 if source == "nothing" else 1))
    pool = to_heatmap(explain(others, others_y, generator=seeded(3)))
    heat_a, heat_b = to_heatmap(a), to_heatmap(b)
    overlap = functools.partial(metrics.topk_intersection, k=K)
    columns = {
        "topk": overlap(heat_a, heat_b),
        "cosine": metrics.cosine(a, b),
        "identified": metrics.identification(
            heat_a, heat_b, y, score=overlap, pool=pool, pool_y=others_y
        ),
    }
    row: dict[str, float] = {}
    for name, values in columns.items():
        low, high = metrics.interval(values, generator=seeded(0))
        row |= {name: float(values.nanmean()), f"{name}_low": low, f"{name}_high": high}
    return _table.rounded(row)


def _kept(model: nn.Module, x: Tensor, z: Tensor) -> dict[str, str]:
    """Shares of images that keep the prediction, and that are not changed."""
    with torch.no_grad():
        kept = (model(z).argmax(1) == model(x).argmax(1)).double().mean()
    unchanged = (z == x).flatten(1).all(1).double().mean()
    return _table.rounded({"kept": float(kept), "unchanged": float(unchanged)})
