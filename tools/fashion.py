"""Make the embedded part of Fashion-MNIST again, from the full set.

    python -m tools.fashion attrlib/_assets/data

The full set is looked for where `attrlib.data.fashion_mnist` does. Two files are written, with the same
bytes each time: the first 1,000 training and 200 test images of each class, in the official order. They
are packed with LZMA because it takes a seventh less room than the deflate of `np.savez_compressed`, and
`np.load` reads both.
"""

import argparse
import io
import zipfile
from pathlib import Path

import numpy as np

from attrlib.data import FASHION_CLASSES, Split, fashion_mnist

#: What a file is made of, joined in this order, and how many images of each class it has.
FILES: dict[str, tuple[tuple[Split, ...], int]] = {
    "fashion-mnist-train.npz": (("train", "val"), 1000),
    "fashion-mnist-test.npz": (("test",), 200),
}


def main() -> None:
    """Read the full set and write both files."""
    parser = argparse.ArgumentParser(description="Make the embedded images again.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, (splits, count) in FILES.items():
        write(folder / name, *first(*whole(splits), count=count))


def whole(splits: tuple[Split, ...]) -> tuple[np.ndarray, np.ndarray]:
    """All pixels (n, 28, 28) and labels (n,) of these splits of the full set, as bytes."""
    images = [fashion_mnist(split, full=True) for split in splits]
    x = np.concatenate([(part.x[:, 0] * 255).round().byte().numpy() for part in images])
    return x, np.concatenate([part.y.byte().numpy() for part in images])


def first(x: np.ndarray, y: np.ndarray, *, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first images of each class and their labels, in the order they have."""
    rows = [np.flatnonzero(y == label)[:count] for label in range(len(FASHION_CLASSES))]
    kept = np.sort(np.concatenate(rows))
    return x[kept], y[kept]


def write(path: Path, x: np.ndarray, y: np.ndarray) -> None:
    """Write an archive for `np.load`, with equal bytes for equal arrays."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in (("x", x), ("y", y)):
            stream = io.BytesIO()
            np.lib.format.write_array(stream, values, allow_pickle=False)
            # The time of writing would change the bytes.
            member = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(member, stream.getvalue(), zipfile.ZIP_LZMA)


if __name__ == "__main__":
    main()
