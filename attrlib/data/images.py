"""A labelled set of images."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from attrlib.types import Inputs, Labels

Split: TypeAlias = Literal["train", "val", "test"]
Rows: TypeAlias = slice | Sequence[int] | Tensor


@dataclass(frozen=True, eq=False)
class Images:
    """A labelled set of images.

    Attributes:
        x: Pixels (n, channels, h, w), float32 in [0, 1].
        y: Class indices (n,), int64.
        classes: Name of each class.
    """

    x: Inputs = field(repr=False)
    y: Labels = field(repr=False)
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Check that there is one label for each image."""
        if self.x.ndim != 4 or self.y.shape != (len(self.x),):
            raise ValueError(
                "Expected x of shape (n, channels, h, w) and y of shape (n,), "
                f"got {tuple(self.x.shape)} and {tuple(self.y.shape)}"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.y)

    def __getitem__(self, rows: Rows) -> "Images":
        """Return the chosen rows, in the order given."""
        return Images(self.x[rows], self.y[rows], self.classes)


def to_unit(pixels: np.ndarray) -> Tensor:
    """8-bit pixels as float32 in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32)) / 255
