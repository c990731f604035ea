"""Scores of random images near each image: the largest, or the mean, of a quotient."""

import torch
from torch import Tensor

from attrlib.sensitivity._points import sampled
from attrlib.sensitivity.quotients import lipschitz_quotient, relative_change
from attrlib.types import Attribution, Classifier, Inputs, Labels, Norm, PerSample


def max_sensitivity(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radius: float,
    samples: int = 50,
    norm: Norm = "linf",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return the largest relative change of a map that some random images near the image cause.

    $$\max_{k \le m} \; \|a(z_k) - a(x)\|_2 \,/\, \|a(x)\|_2$$

    with $z_k$ uniform within the radius, clipped to [0, 1]. `samples` + 1 attributions for each image.

    Args:
        attribution: Maps that are compared.
        model: Maps a batch to logits (n, classes).
        x: Images (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        radius: r > 0 in pixel units.
        samples: Random images near each, m >= 1.
        norm: `linf`, the cube; `l2`, the Euclidean ball.
        batch_size: Rows of one pass, >= 1; None chooses. Sets speed and memory, not the points.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Values (n,), >= 0, smaller is more stable; NaN where the map of the image is zero everywhere. A
        lower bound on the largest change within the radius, which grows with `samples`.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], a number is out of range, `norm` is
            unknown, or a map holds NaN.

    Source: Yeh et al. 2019, SENS_MAX; `sensitivity_max` of Captum 0.9 and
    `MaxSensitivity` of Quantus 0.6 give the same at the same points. Differs: relative to the length of
    the map, as in both libraries and the authors' code, where the paper takes the change as it is (the
    code divides anew after each sample, so that only the last one counts in full); points are clipped
    to [0, 1]; a map of zeros has no score, where Captum divides by 1.

    >>> model, x = torch.nn.Linear(4, 2), torch.rand(3, 4)
    >>> from attrlib.attributions import gradient
    >>> max_sensitivity(gradient, model, x, torch.zeros(3, dtype=torch.int64), radius=0.1)
    tensor([0., 0., 0.])
    """
    maps = sampled(
        attribution,
        model,
        x,
        y,
        radius=radius,
        samples=samples,
        norm=norm,
        batch_size=batch_size,
        generator=generator,
    )
    changes = maps.values(lambda z, b, i: relative_change(maps.clean[i], b))
    return changes.amax(0).to(x)


def average_sensitivity(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radius: float,
    samples: int = 50,
    norm: Norm = "linf",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return the mean relative change of a map that random images near the image cause.

    $$\frac1m \sum_{k=1}^{m} \|a(z_k) - a(x)\|_2 \,/\, \|a(x)\|_2$$

    with $z_k$ uniform within the radius, clipped to [0, 1]. `samples` + 1 attributions for each image.

    Args:
        attribution: Maps that are compared.
        model: Maps a batch to logits (n, classes).
        x: Images (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        radius: r > 0 in pixel units.
        samples: Random images near each, m >= 1.
        norm: `linf`, the cube; `l2`, the Euclidean ball.
        batch_size: Rows of one pass, >= 1; None chooses. Sets speed and memory, not the points.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Values (n,), >= 0, smaller is more stable; NaN where the map of the image is zero everywhere. An
        unbiased estimate; it says nothing about the worst image within the radius.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], a number is out of range, `norm` is
            unknown, or a map holds NaN.

    Source: Bhatt et al. 2020, average sensitivity, on the quotient of Yeh et al. 2019; `AvgSensitivity`
    of Quantus 0.6 gives the same at the same points. Differs: points are clipped to [0, 1].
    """
    maps = sampled(
        attribution,
        model,
        x,
        y,
        radius=radius,
        samples=samples,
        norm=norm,
        batch_size=batch_size,
        generator=generator,
    )
    changes = maps.values(lambda z, b, i: relative_change(maps.clean[i], b))
    return changes.mean(0).to(x)


def local_lipschitz(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radius: float,
    samples: int = 50,
    norm: Norm = "linf",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return an estimate of the Lipschitz constant of a map near the image, the largest of some samples.

    $$\max_{k \le m} \; \|a(z_k) - a(x)\|_2 \,/\, \|z_k - x\|_2$$

    with $z_k$ uniform within the radius, clipped to [0, 1]. `samples` + 1 attributions for each image.

    Args:
        attribution: Maps that are compared.
        model: Maps a batch to logits (n, classes).
        x: Images (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        radius: r > 0 in pixel units.
        samples: Random images near each, m >= 1.
        norm: Of the ball: `linf` or `l2`. Both lengths in the quotient are Euclidean.
        batch_size: Rows of one pass, >= 1; None chooses. Sets speed and memory, not the points.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Values (n,), >= 0, smaller is more stable, in units of the map per unit of pixel: a map that is
        twice as large has twice the value. A lower bound on the constant.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], a number is out of range, `norm` is
            unknown, or a map holds NaN.

    Source: Alvarez-Melis and Jaakkola 2018, the continuous local estimate; `LocalLipschitzEstimate` of
    Quantus 0.6 gives the same at the same points, with `normalise=False`. Differs: random points, as in
    Quantus, where the paper searches the ball by Bayesian optimisation; the map as it is, where Quantus
    by default divides all maps of a batch by the largest entry among them, so that an image's score
    depends on its neighbours; uniform points in [0, 1], where Quantus draws normal ones.
    """
    maps = sampled(
        attribution,
        model,
        x,
        y,
        radius=radius,
        samples=samples,
        norm=norm,
        batch_size=batch_size,
        generator=generator,
    )

    def quotient(z: Tensor, b: Tensor, i: Tensor) -> Tensor:
        return lipschitz_quotient(maps.clean[i], b, maps.x[i], z)

    return maps.values(quotient).amax(0).to(x)
