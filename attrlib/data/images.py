"""A labelled set of images, and its fingerprint."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

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


class Labelled(Protocol):
    """What images and sentences have in common: inputs, labels, and rows."""

    @property
    def x(self) -> Tensor:
        """Pixels or word numbers, one row per sample."""

    @property
    def y(self) -> Tensor:
        """Class indices (n,)."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, rows: Rows) -> "Labelled":
        """Chosen rows."""


def fingerprint(images: Labelled) -> str:
    """Return the first 16 hex digits of the SHA-256 of the labels and the 8-bit pixels or word numbers.

    Args:
        images: Any set, also of sentences; a folder's files are decoded, 4,096 at a time.

    Returns:
        Digits that differ as soon as one label, pixel, word or the order differs.
    """
    digest = hashlib.sha256(images.y.numpy().tobytes())
    for start in range(0, len(images), 4096):
        x = images[start : start + 4096].x
        digest.update(((x * 255).round().byte() if x.is_floating_point() else x).numpy().tobytes())
    return digest.hexdigest()[:16]


def to_unit(pixels: np.ndarray) -> Tensor:
    """8-bit pixels as float32 in [0, 1]."""
    return torch.from_numpy(pixels.astype(np.float32)) / 255
