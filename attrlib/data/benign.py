"""Changes that nobody makes in order to deceive: a little light, a compressed file, a pixel to the right.

Their place is beside attacks: a map that a JPEG file changes as much as an attack does needs no attacker.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from attrlib import _check
from attrlib.types import Inputs


def brightness(x: Inputs, *, factor: float = 1.1) -> Inputs:
    r"""Return images whose pixels are multiplied by a factor, as a longer exposure does.

    $$z = \min(1, \mathrm{factor} \cdot x)$$

    Args:
        x: Pixels (n, channels, h, w) in [0, 1].
        factor: 1 changes nothing, below 1 darkens.

    Returns:
        Images like `x`; black stays black. Differentiable.

    Raises:
        ValueError: If `factor` is negative, or `x` is not a finite batch in [0, 1].
        TypeError: If `x` is not a floating-point tensor.

    >>> brightness(torch.tensor([[[[0.0, 0.5, 0.95]]]]), factor=1.1)
    tensor([[[[0.0000, 0.5500, 1.0000]]]])
    """
    _check.nonnegative(factor=factor)
    _images(x)
    return (factor * x).clamp(max=1)


@torch.no_grad()
def jpeg(x: Inputs, *, quality: int = 75) -> Inputs:
    """Return images as they come back from a JPEG file.

    Pixels are rounded to 8 bits first, as in any file. Pillow writes and reads the file; colours are
    kept at half the resolution (4:2:0), as most programs do.

    Args:
        x: Pixels (n, channels, h, w) in [0, 1], with 1 or 3 channels.
        quality: 1 (smallest file) to 95; 75 is what most programs take.

    Returns:
        Images like `x`. Not differentiable.

    Raises:
        ValueError: If `quality` is out of range, `x` has another number of channels, or is not a finite
            batch in [0, 1].
        TypeError: If `x` is not a floating-point tensor.

    >>> jpeg(torch.full((1, 1, 8, 8), 0.5)).unique() * 255
    tensor([128.])
    """
    _check.count(quality=quality, high=95)
    _images(x)
    if x.shape[1] not in (1, 3):
        raise ValueError(f"Expected x with 1 or 3 channels, got {x.shape[1]}")
    pixels = (x.detach().double() * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    read = np.stack([_through_file(picture, quality) for picture in pixels])
    return (torch.from_numpy(read).permute(0, 3, 1, 2).to(x.device).double() / 255).to(x.dtype)


def shift(x: Inputs, *, right: int = 1, down: int = 0) -> Inputs:
    """Return images moved by whole pixels; what moves in repeats the edge.

    A map has to move along: compare the map of the moved image with the moved map, `shift(a)`.

    Args:
        x: Images (n, channels, h, w) or maps (n, h, w), any numbers.
        right: Columns, negative to the left.
        down: Rows, negative upwards.

    Returns:
        A batch like `x`. Differentiable.

    Raises:
        ValueError: If `x` has less than three axes, or is moved by its whole width or height.
        TypeError: If `x` is not a floating-point tensor.

    >>> shift(torch.tensor([[[1.0, 2.0, 3.0]]]))
    tensor([[[1., 1., 2.]]])
    """
    _check.floating(x=x)
    if x.ndim < 3:
        raise ValueError(f"Expected x to be (n, …, h, w), got shape {tuple(x.shape)}")
    height, width = x.shape[-2:]
    _check.count(right=right, low=1 - width, high=width - 1)
    _check.count(down=down, low=1 - height, high=height - 1)
    rows = (torch.arange(height, device=x.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) - right).clamp(0, width - 1)
    return x[..., rows, :][..., columns]


BENIGN: Mapping[str, Callable[[Inputs], Inputs]] = MappingProxyType(
    {
        "brightness": partial(brightness, factor=1.1),
        "jpeg": partial(jpeg, quality=75),
        "shift": partial(shift, right=1),
    }
)
"""The three changes that tables and reports show beside attacks: 10 % more light, JPEG of quality 75, and
one pixel to the right, after which maps are compared with the moved map."""


def _images(x: Tensor) -> None:
    """Raise unless `x` is a finite batch of images (n, channels, h, w) in [0, 1]."""
    _check.floating(x=x)
    if x.ndim != 4:
        raise ValueError(f"Expected x to be images (n, channels, h, w), got {tuple(x.shape)}")
    _check.finite(x=x)
    _check.pixels(x=x)


def _through_file(picture: np.ndarray, quality: int) -> np.ndarray:
    """8-bit (h, w, channels), written and read."""
    file = io.BytesIO()
    grey = picture.shape[2] == 1
    Image.fromarray(picture[..., 0] if grey else picture).save(file, "JPEG", quality=quality)
    with Image.open(file) as read:
        return np.asarray(read).reshape(picture.shape).copy()
