"""The one reader of picture files: 8-bit RGB, upright."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112  # tags of EXIF and of TIFF
_BITS = 0x0102
_SIXTEEN = ("PNG", "PPM")  # older versions of Pillow give their 16 bits as 32
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read(path: Path) -> Image.Image:
    """Read a picture: grey, palette, 16 bits and CMYK become RGB; a camera's rotation is applied.

    Transparency is dropped. Metadata that cannot be read are passed over.

    Raises:
        ValueError: If the file is no picture, broken, or has pixels of unknown range (float, 32 bits).
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"Expected {path} to be an image, got no file")
    try:
        with Image.open(path) as file:
            file.load()
            if file.mode == "F" or (file.mode == "I" and file.format not in _SIXTEEN):
                raise _Unknown("float" if file.mode == "F" else "32-bit")
            picture = _scaled(file) if file.mode.startswith("I") else file
            turn = _TURNS.get(_orientation(file))
            upright = picture if turn is None else picture.transpose(turn)
            return upright.convert("RGBA").convert("RGB")
    except _Unknown as error:
        raise ValueError(
            f"Expected {path} to have 8 or 16 bits a pixel, got {error} pixels, whose range is unknown"
        ) from None
    except Exception as error:  # decoders raise a different error for each kind of damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"Expected {path} to be an image, got a broken file: {reason}") from error


class _Unknown(Exception):
    """Pixels between which black and white cannot be told."""


def _scaled(file: Image.Image) -> Image.Image:
    """Scale 16 bits (in some TIFFs fewer of them) to 8, which `convert` would cut off at 255."""
    tags: Any = getattr(file, "tag_v2", {})
    top = 2 ** int(tags.get(_BITS, (16,))[0]) - 1
    return Image.fromarray((np.asarray(file).astype(np.uint32) * 255 // top).astype(np.uint8))


def _orientation(file: Image.Image) -> int:
    try:
        return int(file.getexif().get(_ORIENTATION, 1))
    except Exception:  # as odd as the metadata; the pixels are fine
        return 1
