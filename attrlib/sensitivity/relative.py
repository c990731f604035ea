"""Relative stability: the change of a map, entry by entry, against that of the image or of the logits."""

import torch
from torch import Tensor

from attrlib import _check, _model
from attrlib.sensitivity._points import sampled
from attrlib.sensitivity.quotients import (
    FLOOR,
    relative_input_quotient,
    relative_output_quotient,
)
from attrlib.types import Attribution, Classifier, Inputs, Labels, Norm, PerSample


def relative_input_stability(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radius: float,
    samples: int = 50,
    norm: Norm = "linf",
    floor: float = FLOOR,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return the largest relative change of a map against that of the image, entry by entry.

    $$\max_{k \le m,\; \hat y(z_k) = \hat y(x)} \;
      \Big\|\frac{a(z_k) - a(x)}{a(x)}\Big\|_2 \Big/
      \max\Big(\Big\|\frac{z_k - x}{x}\Big\|_2, \epsilon\Big)$$

    with $z_k$ uniform within the radius, clipped to [0, 1]. `samples` + 1 attributions and forward passes
    for each image.

    Args:
        attribution: Maps that are compared.
        model: Maps a batch to logits (n, classes).
        x: Images (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        radius: r > 0 in pixel units.
        samples: Random images near each, m >= 1.
        norm: Of the ball: `linf` or `l2`. All lengths in the quotient are Euclidean.
        floor: ε > 0, see `relative_input_quotient`.
        batch_size: Rows of one pass, >= 1; None chooses. Sets speed and memory, not the points.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Values (n,), >= 0, smaller is more stable; NaN where every sample changes the prediction. Where
        pixels are black or entries of the map zero, ε decides the value: on such images it cannot be
        compared.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], a number is out of range, `norm` is
            unknown, or a map holds NaN.

    Source: Agarwal et al. 2022, section 3.3, RIS with p = 2; `RelativeInputStability` of Quantus 0.6
    gives the same at the same points where no prediction changes. Differs: samples that change the
    prediction are left out, as in the paper, where Quantus then has no value for the image; points are
    clipped to [0, 1] (Quantus draws them from [0.02, 0.2] above the image by default); entries below ε
    are raised to it, where Quantus raises those that are zero, and the paper divides by them.
    """
    _check.positive(floor=floor)
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
    label = _model.decided(_logits(model, maps.x))

    def quotient(z: Tensor, b: Tensor, i: Tensor) -> Tensor:
        same = _model.decided(_logits(model, z)) == label[i]
        value = relative_input_quotient(maps.clean[i], b, maps.x[i], z, floor=floor)
        return torch.where(same, value, -torch.inf)

    return _largest(maps.values(quotient)).to(x)


def relative_output_stability(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radius: float,
    samples: int = 50,
    norm: Norm = "linf",
    floor: float = FLOOR,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return the largest relative change of a map against the change of the logits $f$.

    $$\max_{k \le m,\; \hat y(z_k) = \hat y(x)} \;
      \Big\|\frac{a(z_k) - a(x)}{a(x)}\Big\|_2 \Big/
      \max\big(\|f(z_k) - f(x)\|_2, \epsilon\big)$$

    with $z_k$ uniform within the radius, clipped to [0, 1]. `samples` + 1 attributions and forward passes
    for each image.

    Args:
        attribution: Maps that are compared.
        model: Maps a batch to logits (n, classes).
        x: Images (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        radius: r > 0 in pixel units.
        samples: Random images near each, m >= 1.
        norm: Of the ball: `linf` or `l2`. All lengths in the quotient are Euclidean.
        floor: ε > 0, see `relative_output_quotient`.
        batch_size: Rows of one pass, >= 1; None chooses. Sets speed and memory, not the points.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Values (n,), >= 0, smaller is more stable; NaN where every sample changes the prediction. A model
        whose logits hardly move has large values, whatever its maps do.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], a number is out of range, `norm` is
            unknown, or a map holds NaN.

    Source: Agarwal et al. 2022, section 3.3, ROS with p = 2; `RelativeOutputStability` of Quantus 0.6
    gives the same at the same points where no prediction changes. Differs: as `relative_input_stability`.
    """
    _check.positive(floor=floor)
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
    clean = _logits(model, maps.x)
    label = _model.decided(clean)

    def quotient(z: Tensor, b: Tensor, i: Tensor) -> Tensor:
        scores = _logits(model, z)
        value = relative_output_quotient(maps.clean[i], b, clean[i], scores, floor=floor)
        return torch.where(_model.decided(scores) == label[i], value, -torch.inf)

    return _largest(maps.values(quotient)).to(x)


@torch.no_grad()
def _logits(model: Classifier, x: Tensor) -> Tensor:
    return _model.logits(model, x)


def _largest(values: Tensor) -> Tensor:
    """The largest of the samples that keep the prediction (the others are minus infinity), or NaN."""
    largest = values.amax(0)
    return torch.where(largest == -torch.inf, torch.nan, largest)
