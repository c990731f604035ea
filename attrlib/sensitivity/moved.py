"""Continuity: how much a map changes when the image is moved."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attrlib import _check, _random
from attrlib.sensitivity._points import Maps, checked
from attrlib.sensitivity.quotients import lipschitz_quotient
from attrlib.types import Attribution, Classifier, Inputs, Labels, PerSample


def continuity(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    shifts: Sequence[int] = (-2, -1, 1, 2),
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return the strongest variation of a map while the image is moved left and right.

    $$\max_{s} \; \|a(T_s x) - a(x)\|_1 \,/\, \|T_s x - x\|_2$$

    where $T_s$ moves the image by $s$ columns and leaves black behind. One attribution more than there
    are shifts, for each image. The map stays where it is: one that moves along with the image, as it
    should, counts as changed.

    Args:
        attribution: Maps that are compared.
        model: Maps a batch to logits (n, classes).
        x: Images (n, channels, h, w), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        shifts: Columns to move by, from -w to w, not 0; to the right if positive.
        batch_size: Rows of one pass, >= 1; None chooses. Sets speed and memory only.
        generator: Source of the noise of a stochastic attribution; None is torch's global generator.

    Returns:
        Values (n,), >= 0, smaller is more stable, in units of the map per unit of pixel, and larger for
        larger images; NaN where a shift does not change the image.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], a shift is out of range, or a map
            holds NaN.

    Source: Montavon et al. 2018, explanation continuity: the quotient, there over all pairs of inputs,
    and images that are moved, as an illustration; `Continuity` of Quantus 0.6 joins the two. It gives
    the same with `abs=False, normalise=False` at its shifts. Differs: short moves by default, where
    Quantus moves the image by up to its width, out of sight; signed maps as they are, where Quantus by
    default takes absolute values, divided by the largest entry of all maps of a batch, so that an
    image's score depends on its neighbours; black is 0, where Quantus takes the smallest pixel of the
    image.
    """
    x = checked(model, x, y, batch_size=batch_size)
    if x.ndim != 4:
        raise ValueError(f"Expected x to be images (n, channels, h, w), got {tuple(x.shape)}")
    width = x.shape[3]
    if not shifts or 0 in shifts:
        raise ValueError(f"Expected shifts to be numbers other than 0, got {tuple(shifts)}")
    for shift in shifts:
        _check.count(low=-width, high=width, shifts=shift)

    def points(part: range) -> Tensor:
        return torch.stack([_moved(x, shift) for shift in shifts[part.start : part.stop]])

    seed = _random.seed(generator)
    maps = Maps(attribution, model, x, y, points, len(shifts), batch_size, seed)

    def quotient(z: Tensor, b: Tensor, i: Tensor) -> Tensor:
        return lipschitz_quotient(maps.clean[i], b, x[i], z, order=1)

    return maps.values(quotient).amax(0).to(x)


def _moved(x: Tensor, shift: int) -> Tensor:
    """Images moved by so many columns; what comes in is black."""
    column = torch.arange(x.shape[3], device=x.device) - shift  # where it was
    inside = (column >= 0) & (column < x.shape[3])
    return torch.where(inside, x.roll(shift, dims=3), torch.zeros_like(x))
