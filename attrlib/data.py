"""Data sets as tensors: pixels in [0, 1], labels int64.

The embedded subset of Fashion-MNIST needs no network; `full=True` looks for the whole set.
"""

import gzip
import hashlib
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from attrlib import _check, _pictures
from attrlib.types import Inputs, Labels

Split = Literal["train", "val", "test"]
Rows = slice | Sequence[int] | Tensor

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
_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_DEBIAN = Path("/usr/share/datasets/fashion-mnist")
_IDX = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


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


class FolderImages(Images):
    """Images that stay on disk until they are asked for: `images[:8].x` decodes eight files."""

    def __init__(
        self, paths: Sequence[Path], y: Labels, classes: tuple[str, ...], size: int | None
    ) -> None:
        for name, value in {
            "paths": tuple(paths),
            "y": y,
            "classes": classes,
            "size": size,
        }.items():
            object.__setattr__(self, name, value)

    paths: tuple[Path, ...]
    size: int | None

    @cached_property
    def x(self) -> Inputs:
        """All pixels (n, 3, h, w); decoded at the first use and kept."""
        return _decode(self.paths, self.size)

    def __getitem__(self, rows: Rows) -> Images:
        """Return the chosen rows as tensors; only their files are read."""
        chosen = torch.arange(len(self))[rows]
        paths = [self.paths[i] for i in chosen.tolist()]
        return Images(_decode(paths, self.size), self.y[rows], self.classes)


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
    return Images(_to_unit(pixels)[:, None], torch.from_numpy(y.astype(np.int64)), FASHION_CLASSES)


def image_folder(path: str | Path, *, size: int | None = None) -> FolderImages:
    """Return the images below a folder with one subfolder per class, loaded lazily.

    Args:
        path: Folder in torchvision's ImageFolder layout, `path/<class>/<image>`. Files may be grey,
            have a palette or 16 bits; transparency is dropped and a camera's rotation applied. Hidden
            files and folders, whose names begin with a dot, are passed over.
        size: Scale the short side to size · 256/224 (bilinear, antialiased) and cut the central
            size × size square; None keeps the files' own size, which must then be one for all.

    Returns:
        Images whose `x` (n, 3, h, w) is decoded at first use; `images[rows]` decodes those rows only.
        Classes are the subfolders' names in alphabetical order.

    Raises:
        FileNotFoundError: If the folder or the images in it, or in one of its subfolders, are missing.
        PermissionError: If a folder cannot be read.
        ValueError: If `size` is not positive; on decoding, if a file is broken, sizes differ, or the
            range of its pixels is unknown (float, 32 bits).
    """
    if size is not None:
        _check.count(size=size)
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"Expected path to be a folder, got {path}")
    classes = sorted(p.name for p in path.iterdir() if p.is_dir() and not _hidden(p.name))
    found = [list(_pictures_below(path / name)) for name in classes]
    empty = [name for name, files in zip(classes, found, strict=True) if not files]
    if empty or not classes:
        reason = f"none in {empty[0]}" if empty else "no subfolder"
        raise FileNotFoundError(
            f"Expected path to hold images as <class>/<image>, got {path}: {reason} "
            f"(endings: {', '.join(_ENDINGS)})"
        )
    y = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(f) for f in found]))
    return FolderImages([file for files in found for file in files], y, tuple(classes), size)


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
    x = torch.stack([_fit(torch.tensor(p).permute(2, 0, 1), size) for p in pictures.values()])
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


def fingerprint(images: Images) -> str:
    """Return the first 16 hex digits of the SHA-256 of the labels and the 8-bit pixels.

    Args:
        images: Any set; a folder's files are decoded, 4,096 at a time.

    Returns:
        Digits that differ as soon as one label, pixel or the order differs.
    """
    digest = hashlib.sha256(images.y.numpy().tobytes())
    for start in range(0, len(images), 4096):
        digest.update((images[start : start + 4096].x * 255).round().byte().numpy().tobytes())
    return digest.hexdigest()[:16]


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
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                return archive["x"], archive["y"]
        except (BadZipFile, KeyError, ValueError, EOFError, zlib.error) as error:
            raise ValueError(f"Expected {path} to be the embedded data, got {error}") from error


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


def _decode(paths: Sequence[Path], size: int | None) -> Inputs:
    pictures = [_read_image(path, size) for path in paths]
    shapes = {tuple(p.shape): path for p, path in zip(pictures, paths, strict=True)}
    if len(shapes) > 1:
        (one, first), (other, second) = list(shapes.items())[:2]
        raise ValueError(
            f"Expected images of one size (or a value for size), got {first} {one} and {second} {other}"
        )
    return torch.stack(pictures) if pictures else torch.empty(0, 3, size or 0, size or 0)


def _read_image(path: Path, size: int | None) -> Tensor:
    found = torch.from_numpy(np.array(_pictures.read(path))).permute(2, 0, 1)
    try:
        return _to_unit(found.numpy()) if size is None else _fit(found, size)
    except (RuntimeError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"Expected {path} to be an image that fits memory, got {reason}"
        ) from error


def _pictures_below(folder: Path) -> Iterator[Path]:
    """Picture files at any depth, in the order of torchvision's ImageFolder."""

    def refuse(error: OSError) -> None:
        raise error

    found = []
    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders[:] = [name for name in folders if not _hidden(name)]
        found.append((root, sorted(names)))
    for root, names in sorted(found):
        for name in names:
            if name.lower().endswith(_ENDINGS) and not _hidden(name):
                yield Path(root, name)


def _hidden(name: str) -> bool:
    return name.startswith(".")


def _fit(picture: Tensor, size: int) -> Tensor:
    """Scale the short side of 8-bit (channels, h, w) and cut the centre; the usual 256 → 224 rule."""
    from torchvision.transforms.v2 import functional

    scaled = functional.resize(picture, [round(size * 256 / 224)], antialias=True)
    return _to_unit(functional.center_crop(scaled, [size, size]).numpy())


def _to_unit(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.astype(np.float32)) / 255
