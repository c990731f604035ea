"""CIFAR-10, or any set of small pictures in folders, held in memory."""

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attrlib import _check
from attrlib.data.folders import image_folder
from attrlib.data.images import Images, Split, to_unit

_SHARE = 10  # one image in so many of each class is for validation


def cifar10(
    split: Split = "train", *, full: bool = True, folder: str | Path | None = None
) -> Images:
    """Return CIFAR-10: animals and vehicles, 32×32, in colour. Nothing of it is embedded.

    `val` is cut off the training images: the last tenth of each class; `train` is what remains (45,000
    and 5,000), `test` is 10,000. All pixels are decoded once and stay in memory.

    Args:
        split: `train`, `val` or `test`. Choices are made on `val`; `test` is for reported numbers.
        full: Must be True.
        folder: Pictures as `folder/train/<class>/<image>` and `folder/test/<class>/<image>`, of any one
            size and any classes. None takes the folder `$ATTRLIB_DATA/cifar10` of this form if it is
            there, else torchvision's download into `~/.cache/attrlib`.

    Returns:
        Images of shape (n, 3, 32, 32).

    Raises:
        ValueError: If `split` is unknown, `full` is False, or a file is broken.
        FileNotFoundError: If the folder has no such pictures, or there is none and the download fails.

    Source: Krizhevsky 2009.
    """
    _check.one_of(("train", "val", "test"), split=split)
    if not full:
        raise ValueError("Expected full=True for CIFAR-10, of which no part is embedded, got False")
    part = "test" if split == "test" else "train"
    own = os.environ.get("ATTRLIB_DATA")
    if folder is None and own and (Path(own) / "cifar10" / part).is_dir():
        folder = Path(own) / "cifar10"
    found = _download(part) if folder is None else image_folder(Path(folder) / part)
    if split == "test":
        return found[:]
    held_out = _last_of_each(found.y)
    return found[(held_out if split == "val" else ~held_out).nonzero()[:, 0]]


def _last_of_each(y: Tensor) -> Tensor:
    """Mask of the last tenth of each class."""
    held_out = torch.zeros(len(y), dtype=torch.bool)
    for label in set(y.tolist()):
        rows = (y == label).nonzero()[:, 0]
        held_out[rows[len(rows) - len(rows) // _SHARE :]] = True
    return held_out


def _download(part: str) -> Images:
    from torchvision.datasets import CIFAR10

    cache = Path.home() / ".cache" / "attrlib"
    try:
        found = CIFAR10(str(cache), train=part == "train", download=True)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            "Expected CIFAR-10 in the folder $ATTRLIB_DATA/cifar10, as train/CLASS/IMAGE and "
            f"test/CLASS/IMAGE, got none, and the download failed: {error}"
        ) from error
    pixels = np.ascontiguousarray(found.data.transpose(0, 3, 1, 2))
    return Images(to_unit(pixels), torch.tensor(found.targets), tuple(found.classes))
