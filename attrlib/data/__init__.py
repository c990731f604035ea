"""Data sets as tensors: pixels in [0, 1], word numbers and labels int64.

The embedded subset of Fashion-MNIST needs no network; `full=True` looks for the whole set.
"""

from attrlib.data.benign import BENIGN, brightness, jpeg, shift
from attrlib.data.cifar import cifar10
from attrlib.data.fashion import FASHION_CLASSES, fashion_mnist, find_full
from attrlib.data.fingerprints import fingerprint
from attrlib.data.folders import FolderImages, image_folder
from attrlib.data.images import Images, Rows, Split
from attrlib.data.pictures import Mosaics, mosaics, photographs
from attrlib.data.planted import (
    Blocks,
    Shortcuts,
    block_fashion,
    null_patch,
    spurious_fashion,
)
from attrlib.data.texts import Texts, encode, sentiment, synonyms, valence

__all__ = [
    "BENIGN",
    "FASHION_CLASSES",
    "Blocks",
    "FolderImages",
    "Images",
    "Mosaics",
    "Rows",
    "Shortcuts",
    "Split",
    "Texts",
    "block_fashion",
    "brightness",
    "cifar10",
    "encode",
    "fashion_mnist",
    "find_full",
    "fingerprint",
    "image_folder",
    "jpeg",
    "mosaics",
    "null_patch",
    "photographs",
    "sentiment",
    "shift",
    "spurious_fashion",
    "synonyms",
    "valence",
]
