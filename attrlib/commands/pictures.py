"""The images that a command works on, and the options that choose them and the model."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from attrlib import _check, _files, data
from attrlib.commands import rows

_COUNT = 8


def add_options(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """Declare the options of images and model.

    Args:
        parser: Where to declare them.

    Returns:
        Where to declare more of them.
    """
    what = parser.add_argument_group("images and model")
    source = what.add_mutually_exclusive_group()
    source.add_argument(
        "--data",
        choices=("fashion-mnist", "fashion-mnist-full"),
        default="fashion-mnist",
        help="the embedded or the full Fashion-MNIST (default: fashion-mnist)",
    )
    source.add_argument("--image-folder", type=Path, help="your images, as DIR/CLASS/IMAGE")
    source.add_argument(
        "--image", type=Path, nargs="+", metavar="FILE", help="single pictures, without labels"
    )
    what.add_argument(
        "--split",
        choices=("train", "val", "test"),
        default="test",
        help="of Fashion-MNIST (default: test)",
    )
    what.add_argument(
        "--count", type=int, help=f"number of images (default: {_COUNT}; of --image all)"
    )
    what.add_argument("--size", type=int, help="scale and cut your images to SIZE × SIZE")
    what.add_argument(
        "--skip-bad", action="store_true", help="leave out images that cannot be read"
    )
    which = what.add_mutually_exclusive_group()
    which.add_argument("--checkpoint", default="natural", help="name or path (default: natural)")
    which.add_argument(
        "--model",
        help="your own, as module:function; the function takes nothing and returns a torch.nn.Module "
        "from pixels in [0, 1] to logits, such as attrlib.models:imagenet",
    )
    what.add_argument(
        "--explain",
        choices=("predicted", "label"),
        default="predicted",
        help="class whose logit is explained (default: predicted)",
    )
    return what


def add_run_options(
    parser: argparse.ArgumentParser, *, command: str, batch_size: int
) -> "argparse._ArgumentGroup":
    """Declare the options of the run itself, which every such command has.

    Args:
        parser: Where to declare them.
        command: Name of the command, and of the folder that it writes below `runs`.
        batch_size: Default.

    Returns:
        Where to declare more of them.
    """
    run = parser.add_argument_group("run")
    out = Path("runs") / command
    run.add_argument("--out", type=Path, default=out, help=f"folder to write (default: {out})")
    run.add_argument(
        "--batch-size",
        type=int,
        default=batch_size,
        help=f"images at a time (default: {batch_size}); rows are kept "
        "batch by batch, and large images need much memory",
    )
    run.add_argument("--seed", type=int, default=0, help="of starts and noise (default: 0)")
    return run


def check(options: argparse.Namespace) -> None:
    """Raise if one of the numbers among the options declared here is out of range."""
    if options.count is not None:
        _check.count(count=options.count)
    _check.count(batch_size=options.batch_size)
    _check.count(seed=options.seed, low=0, high=2**62)  # parts of a run add to it


def load(options: argparse.Namespace) -> tuple[list[str], data.Images]:
    """Return names and images, in order; those that cannot be read are reported.

    Args:
        options: As `add_options` declares them, with the name of the command.

    Raises:
        ValueError: If an image cannot be read, the sizes differ, or labels are asked for where none are.
        FileNotFoundError: If there are no images.
    """
    if options.image_folder is None and options.image is None:
        fashion = data.fashion_mnist(options.split, full=options.data == "fashion-mnist-full")
        count = min(options.count or _COUNT, len(fashion))
        return [f"{options.split}-{i:05d}" for i in range(count)], fashion[:count]
    if options.image_folder is None:
        images = _readable(options, _single(options), options.count or len(options.image))
        return [_files.shown(str(path)) for path in images.paths], images
    folder = data.image_folder(options.image_folder, size=options.size)
    images = _readable(options, folder, options.count or _COUNT)
    root = options.image_folder
    return [_files.shown(str(path.relative_to(root))) for path in images.paths], images


def settings(options: argparse.Namespace) -> dict[str, object]:
    """What is chosen here, but for the model, ready for JSON."""
    source = "pictures" if options.image else str(options.image_folder or options.data)
    return {
        "data": [source, options.split, options.size],
        "explain": options.explain,
        "seed": options.seed,
        "batch_size": options.batch_size,
    }


def _single(options: argparse.Namespace) -> data.FolderImages:
    """Pictures that belong to no class."""
    if options.explain == "label":
        raise ValueError(
            "Expected --explain predicted with --image, which has no labels, got label"
        )
    if options.size is not None:
        _check.count(size=options.size)
    none = torch.zeros(len(options.image), dtype=torch.int64)
    return data.FolderImages(options.image, none, ("",), options.size)


def _readable(
    options: argparse.Namespace, folder: data.FolderImages, count: int
) -> data.FolderImages:
    """The first images that can be read."""
    good: list[int] = []
    shape: Sequence[int] | None = None
    for i in range(len(folder)):
        if len(good) == count:
            break
        try:
            found = folder[[i]].x.shape
        except ValueError as error:
            if not options.skip_bad:
                raise ValueError(f"{error}; --skip-bad leaves such images out") from error
            said = f"attrlib {options.command}: left out: {rows.line(error)}"
            print(said, file=sys.stderr)
            continue
        shape = shape or found
        if found != shape:
            raise ValueError(
                f"Expected images of one size (or a value for --size), got {tuple(shape[1:])} "
                f"{folder.paths[good[0]]} and {tuple(found[1:])} {folder.paths[i]}"
            )
        good.append(i)
    if not good:
        where = options.image_folder or "--image"
        raise ValueError(f"Expected an image that can be read in {where}, got none")
    paths = [folder.paths[i] for i in good]
    return data.FolderImages(paths, folder.y[good], folder.classes, folder.size)
