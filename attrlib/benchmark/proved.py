"""What intervals prove of the maps of a network near each image of a list, and what these maps show."""

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

from attrlib import attributions, certificates, data, metrics
from attrlib.benchmark.attack_strength import K, following
from attrlib.benchmark.cells import WINDOW
from attrlib.benchmark.seeds import Columns
from attrlib.maps import to_heatmap, topk_mask
from attrlib.types import Attribution, Classifier

DARK = 0.05
"""Pixels below this value count as black."""

_STEPS = 8


class Bounded(NamedTuple):
    """A map and its bounds.

    Attributes:
        attribution: The map.
        bounds: Called like it, with the budget `eps` besides; returns lower and upper bounds.
    """

    attribution: Attribution
    bounds: Callable[..., tuple[Tensor, Tensor]]


MAPS: Mapping[str, Bounded] = {
    "gradient": Bounded(attributions.gradient, certificates.gradient_bounds),
    "input × gradient": Bounded(
        attributions.input_x_gradient, certificates.input_x_gradient_bounds
    ),
    "integrated gradients": Bounded(
        functools.partial(attributions.integrated_gradients, steps=_STEPS),
        functools.partial(certificates.integrated_gradients_bounds, steps=_STEPS),
    ),
}
"""Maps that intervals bound; integrated gradients with 8 points."""


def least(lower: Tensor, upper: Tensor, a: Tensor, *, k: int = K) -> Columns:
    """Return what is certified of each score of the study of recipes, by its name there.

    Args:
        lower: Lower bounds of the maps (n, channels, h, w).
        upper: Upper bounds.
        a: Clean maps.
        k: Pixels in the top set.
    """
    return {
        "topk": certificates.certified_topk(lower, upper, a, k=k),
        "lens_recall": certificates.lens_in_box(lower, upper, a, k=k, window=WINDOW),
        "kendall": certificates.kendall_in_box(lower, upper, a),
        "cosine": certificates.cosine_in_box(lower, upper, a),
    }


def shown(net: Classifier, x: Tensor, y: Tensor) -> Columns:
    """Return what no score of robustness tells of gradient maps.

    Args:
        net: The network.
        x: Images.
        y: Classes to explain.

    Returns:
        `likeness`, the top k that a map shares with that of the next image of its class, and
        `bright_on_black`, the share of its top k that lies on black pixels.
    """
    heat = to_heatmap(attributions.gradient(net, x, y))
    bright = topk_mask(heat, k=K)
    black = (x < DARK).all(1)
    return {
        "likeness": metrics.topk_intersection(heat, heat[following(y)], k=K),
        "bright_on_black": (bright & black).flatten(1).sum(1).to(x) / K,
    }


def sure_of_label(net: Classifier, images: data.Images, *, eps: float) -> Tensor:
    """Return for each image whether no change within `eps` is classified wrongly, 1 or 0 if not proved.

    Args:
        net: The network.
        images: Images and true classes, on the device.
        eps: Budget in every pixel.
    """
    found = certificates.logit_bounds(net, images.x, eps=eps)
    return certificates.accuracy_in_box(*found, images.y)
