"""Free photographs, and mosaics of them with known regions."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attrlib import _check
from attrlib.data.folders import fit
from attrlib.data.images import Images, Rows


@dataclass(frozen=True, eq=False)
class Mosaics(Images):
    """Images made of four pictures, upper left, upper right, lower left and lower right.

    Attributes:
        regions: Where each of the four pictures is, masks (n, 4, h, w).
        parts: Which picture stands there, class indices (n, 4); the first of them is the label.
    """

    regions: Tensor = field(repr=False)
    parts: Tensor = field(repr=False)

    def __getitem__(self, rows: Rows) -> "Mosaics":
        """Return the chosen rows, in the order given."""
        regions, parts = self.regions[rows], self.parts[rows]
        return Mosaics(self.x[rows], self.y[rows], self.classes, regions, parts)


def photographs(*, size: int = 224) -> Images:
    """Return five free photographs that come with scikit-image and scikit-learn.

    Coffee, cat and rocket are CC0; the temple and the flower are CC BY 2.0 (danielbuechele, vultilion).
    Needs the extra `imagenet` or `book`.

    Args:
        size: The short side is scaled to size · 256/224 and the central size × size square cut out.

    Returns:
        Images of shape (5, 3, size, size); the class of a photograph is its own name.

    Raises:
        ValueError: If `size` is not positive.
    """
    from skimage import data as skimage_data
    from sklearn.datasets import load_sample_image

    _check.count(size=size)
    free: Any = skimage_data
    pictures = {
        "coffee": free.coffee(),
        "cat": free.cat(),
        "rocket": free.rocket(),
        "temple": load_sample_image("china.jpg"),
        "flower": load_sample_image("flower.jpg"),
    }
    x = torch.stack([fit(torch.tensor(p).permute(2, 0, 1), size) for p in pictures.values()])
    return Images(x, torch.arange(len(pictures)), tuple(pictures))


def mosaics(*, size: int = 224) -> Mosaics:
    """Return five images with four known objects each: the photographs, two by two.

    Mosaic i shows photographs i, i + 1, i + 2 and i + 3, counted round, so that every photograph stands
    once in every corner. Needs the extra `imagenet` or `book`.

    Args:
        size: Height and width, even; each region is `photographs(size=size // 2)` of its photograph.

    Returns:
        Mosaics of shape (5, 3, size, size).

    Raises:
        ValueError: If `size` is not positive or odd.
    """
    _check.count(size=size)
    if size % 2:
        raise ValueError(f"Expected size to be even, got {size}")
    single, half = photographs(size=size // 2), size // 2
    n = len(single)
    parts = (torch.arange(n)[:, None] + torch.arange(4)) % n
    x = torch.empty(n, 3, size, size)
    regions = torch.zeros(n, 4, size, size, dtype=torch.bool)
    for region in range(4):
        top, left = half * (region // 2), half * (region % 2)
        x[:, :, top : top + half, left : left + half] = single.x[parts[:, region]]
        regions[:, region, top : top + half, left : left + half] = True
    return Mosaics(x, parts[:, 0], single.classes, regions, parts)
