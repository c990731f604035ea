"""`python -m attrlib bench --model module:function`: a row of the leaderboard for any network."""

import argparse
import json
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import torch

from attrlib import _check, _files, benchmark, data
from attrlib.attacks import SUITE
from attrlib.attacks.suite import EFFORTS
from attrlib.benchmark import cells
from attrlib.benchmark.board import SUITE_ATTACK
from attrlib.benchmark.grid import BUDGETS
from attrlib.benchmark.trained import PER_CLASS, POOL
from attrlib.commands import network
from attrlib.training.state import contents

ALONE = {
    "name": None,
    "data": "embedded",
    "size": None,
    "images": PER_CLASS,
    "eps": list(BUDGETS),
    "effort": "standard",
}
"""Options that say nothing of a grid, and their defaults."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a row.

    Args:
        parser: Where to declare them.
    """
    own = parser.add_argument_group("a row for a network of your own, without STUDY")
    which = own.add_mutually_exclusive_group()
    which.add_argument(
        "--model",
        nargs="+",
        metavar="MODULE:FUNCTION",
        help="one for each seed; the function takes nothing and returns a torch.nn.Module from pixels in "
        "[0, 1] to logits",
    )
    which.add_argument("--checkpoint", nargs="+", metavar="NAME", help="or these, names or paths")
    own.add_argument("--name", help="of the row (default: that of the first network)")
    own.add_argument(
        "--data",
        default=ALONE["data"],
        help="embedded (default) for the list of the leaderboard, or a folder as CLASS/IMAGE",
    )
    own.add_argument("--size", type=int, help="scale and cut the images of a folder to SIZE × SIZE")
    own.add_argument(
        "--images",
        type=int,
        default=ALONE["images"],
        help=f"of each class; other numbers give a list of their own (default: {PER_CLASS})",
    )
    own.add_argument(
        "--eps",
        type=_budget,
        nargs="+",
        default=ALONE["eps"],
        metavar="EPS",
        help="budgets in pixel units, such as 8/255 (default: those of the leaderboard)",
    )
    own.add_argument(
        "--effort",
        choices=EFFORTS,
        default=ALONE["effort"],
        help="of the suite (default: standard, as on the leaderboard; quick takes a seventh)",
    )
    own.add_argument("--out", type=Path, help="file to write, such as row.json")


def run(options: argparse.Namespace, *, device: torch.device) -> None:
    """Measure a network and write its row; a file that holds this row already is left as it is.

    Args:
        options: As `add_options` declares them.
        device: Where to compute.

    Raises:
        ValueError: If an option is missing or bad, the code fails, or the file holds another row.
        FileNotFoundError: If there are no images, or no such checkpoint.
        OSError: If the file cannot be written; this is tried first.
    """
    names = options.model or options.checkpoint
    if options.study is not None:
        raise ValueError(f"Expected a study or --model, got both, {options.study} and {names[0]}")
    if not names:
        raise ValueError("Expected a study, --grid or --model, got none; --help lists the studies")
    if options.out is None:
        raise ValueError("Expected --out FILE for the row, got none")
    _check.count(images=options.images, low=2)
    with _files.claimed(options.out):
        nets = [
            network.load(
                argparse.Namespace(
                    model=name if options.model else None,
                    checkpoint=None if options.model else name,
                )
            )
            for name in names
        ]
        images, pool, test = _lists(options)
        wanted = {
            "weights": [contents(net) for net in nets],
            "list": data.fingerprint(images)[:8],
            "effort": options.effort,
            "suite": SUITE,
        }
        if options.out.exists():
            _check_same(options.out, wanted, eps=options.eps, test=len(test))
        else:
            made = benchmark.own_row(
                nets,
                images,
                pool,
                name=options.name or names[0],
                models=names,
                source="Fashion-MNIST" if options.data == "embedded" else Path(options.data).name,
                test=test,
                eps=options.eps,
                effort=options.effort,
                device=device,
                progress=True,
            )
            benchmark.check_row(made)
            with _files.whole(options.out) as partial:
                text = json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False)
                partial.write_text(text + "\n", encoding="utf-8")
    print(options.out)


def _budget(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ArithmeticError) as error:
        raise argparse.ArgumentTypeError(
            f"Expected a number or a fraction, got {text!r}"
        ) from error


def _lists(options: argparse.Namespace) -> tuple[data.Images, data.Images, data.Images]:
    """Images to attack, others of their classes, and those of which accuracy is measured."""
    test: data.Images
    if options.data == "embedded":
        test, start = data.fashion_mnist("test"), max(PER_CLASS, options.images)
    elif Path(options.data).is_dir():
        test, start = data.image_folder(options.data, size=options.size), options.images
    else:
        raise FileNotFoundError(
            f"Expected --data to be embedded or a folder with CLASS/IMAGE, got {options.data}"
        )
    fewest = int(test.y.bincount(minlength=len(test.classes)).min())
    if fewest <= start:
        raise ValueError(
            f"Expected more than {start} images in each class of --data, so that maps can be told from "
            f"others, got {fewest}; --images takes fewer"
        )
    images = cells.listed(test, per_class=options.images)
    return images, cells.listed(test, per_class=POOL, start=start), test


def _check_same(path: Path, wanted: dict[str, object], *, eps: Sequence[float], test: int) -> None:
    found = benchmark.load_row(path)
    changed = [name for name, value in wanted.items() if found[name] != value]
    budgets = {cell["eps"] for cell in found["cells"] if cell["attack"] == SUITE_ATTACK}
    counts = {cell["images"] for cell in found["cells"] if cell["attack"] == "model"}
    changed += [*["eps"] * (budgets != {*eps}), *["number of images"] * (counts != {test})]
    if changed:
        raise ValueError(
            f"Expected {path} to be new or the same row, got another {', '.join(changed)}; "
            "choose another file"
        )
