"""Fashion-MNIST: the embedded part, and the whole set where it can be found."""

import gzip
import os
import struct
import zlib
from functools import lru_cache
from importlib.resources import as_file, files
from lzma import LZMAError
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from attrlib import _check
from attrlib.data.images import Images, Split, to_unit

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def fashion_mnist(split: Split = "train", *, full: bool = False) -> Images:
    """Return Fashion-MNIST: ten kinds of garment, 28×28, grey.

    Embedded: the first 1,000 / 200 images of each class in the official train / test order. `val` is cut
    off the training images: the last 100 of each class, or with `full` the last 5,000 of all; `train` is
    what remains (9,000 or 55,000), `test` is 2,000 or 10,000. The embedded `val` images lie in the
    `train` split of the full set: a network trained with `full` must be judged on `full` validation.

    Args:
        split: `train`, `val` or `test`. Choices are made on `val`; `test` is for reported numbers.
        full: Use the whole set, from the folder `$ATTRLIB_DATA`, else Debian's package
            `dataset-fashion-mnist`, else torchvision's download into `~/.cache/attrlib`.

    Returns:
        Images of shape (n, 1, 28, 28).

    Raises:
        ValueError: If `split` is unknown or a file is damaged.
        FileNotFoundError: If `full` and none of the three places has the files.

    Source: Xiao et al. 2017 (MIT licence).
    """
    _check.one_of(("train", "val", "test"), split=split)
    part = "test" if split == "test" else "train"
    pixels, y = _read_full(part) if full else _read_embedded(part)
    if split != "test":
        held_out = _last_rows(y, full=full)
        rows = held_out if split == "val" else ~held_out
        pixels, y = pixels[rows], y[rows]
    return Images(to_unit(pixels)[:, None], torch.from_numpy(y.astype(np.int64)), FASHION_CLASSES)


def find_full() -> Path | None:
    """Look for the full Fashion-MNIST set where `fashion_mnist` does; nothing is downloaded.

    Returns:
        The folder with its four files, or None.
    """
    own = os.environ.get("ATTRLIB_DATA")
    candidates = [Path(own), _DEBIAN] if own else [_DEBIAN]
    candidates.append(_cache())
    for root in candidates:
        for folder in (root, root / "fashion-mnist", root / "FashionMNIST" / "raw"):
            if all(_idx_path(folder, name) for names in _IDX.values() for name in names):
                return folder
    return None


def _read_embedded(part: str) -> tuple[np.ndarray, np.ndarray]:
    resource = files("attrlib") / "_assets" / "data" / f"fashion-mnist-{part}.npz"
    with as_file(resource) as path:
        return _read_archive(path)


@lru_cache(maxsize=2)
def _read_archive(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of a file, unpacked once; nobody can write into them."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            x, y = archive["x"], archive["y"]
    except (BadZipFile, KeyError, ValueError, EOFError, zlib.error, LZMAError) as error:
        raise ValueError(f"Expected {path} to be the embedded data, got {error}") from error
    x.flags.writeable = y.flags.writeable = False
    return x, y


def _read_full(part: str) -> tuple[np.ndarray, np.ndarray]:
    folder = find_full() or _download()
    images, labels = (_read_idx(_idx_path(folder, name)) for name in _IDX[part])
    if images.shape != (len(labels), 28, 28) or labels.max(initial=0) >= len(FASHION_CLASSES):
        raise ValueError(f"Expected 28×28 images and their labels in {folder}, got {images.shape}")
    return images, labels


def _read_idx(path: Path | None) -> np.ndarray:
    if path is None:
        raise FileNotFoundError(
            "Expected the four idx files of Fashion-MNIST, got an incomplete set"
        )
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        kind, ndim = struct.unpack(">xxBB", raw[:4])
        shape = struct.unpack(f">{ndim}I", raw[4 : 4 + 4 * ndim])
        if kind != 8:
            raise ValueError(f"type code {kind} instead of 8 (bytes)")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (OSError, EOFError, zlib.error, struct.error, ValueError) as error:
        raise ValueError(f"Expected {path} to be an idx file, got {error}") from error


def _idx_path(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _cache() -> Path:
    return Path.home() / ".cache" / "attrlib"


def _download() -> Path:
    from torchvision.datasets import FashionMNIST

    try:
        return Path(FashionMNIST(str(_cache()), download=True).raw_folder)
    except (OSError, RuntimeError) as error:
        raise FileNotFoundError(
            "Expected the full Fashion-MNIST set in the folder $ATTRLIB_DATA or in Debian's package "
            f"dataset-fashion-mnist, got neither, and the download failed: {error}"
        ) from error


def _last_rows(y: np.ndarray, *, full: bool) -> np.ndarray:
    """Mask of the validation rows of the training images."""
    held_out = np.zeros(len(y), dtype=bool)
    if full:
        held_out[-5000:] = True
    else:
        for label in range(len(FASHION_CLASSES)):
            held_out[np.flatnonzero(y == label)[-100:]] = True
    return held_out
