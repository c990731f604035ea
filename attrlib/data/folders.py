"""Images in folders of files, read when they are asked for."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from attrlib import _check, _pictures
from attrlib.data.images import Images, Rows, to_unit
from attrlib.types import Inputs, Labels

_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


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
        return to_unit(found.numpy()) if size is None else fit(found, size)
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
        folders[:] = [
            name for name in folders if not _hidden(name) and not _loops(Path(root, name))
        ]
        found.append((root, sorted(names)))
    for root, names in sorted(found):
        for name in names:
            if name.lower().endswith(_ENDINGS) and not _hidden(name):
                yield Path(root, name)


def _loops(path: Path) -> bool:
    """Whether a folder is a link to one that was passed on the way to it: a walk would not end."""
    return path.is_symlink() and path.resolve() in {folder.resolve() for folder in path.parents}


def _hidden(name: str) -> bool:
    return name.startswith(".")


def fit(picture: Tensor, size: int) -> Tensor:
    """Scale the short side of 8-bit (channels, h, w) and cut the centre; the usual 256 → 224 rule."""
    from torchvision.transforms.v2 import functional

    scaled = functional.resize(picture, [round(size * 256 / 224)], antialias=True)
    return to_unit(functional.center_crop(scaled, [size, size]).numpy())
