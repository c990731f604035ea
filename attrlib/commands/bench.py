"""`python -m attrlib bench`: the studies whose tables the book reads."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from attrlib import _files, benchmark, checkpoints, data, models
from attrlib.benchmark import _table
from attrlib.commands import grid, row
from attrlib.training.state import contents


def add_options(
    parser: argparse.ArgumentParser, *, machine: Callable[[argparse.ArgumentParser], None]
) -> None:
    """Declare the studies and their options.

    Args:
        parser: Where to declare them.
        machine: Declares where to compute.
    """
    row.add_options(parser)
    grid.add_options(parser)
    machine(parser)
    studies = parser.add_subparsers(dest="study", metavar="STUDY")
    strength = studies.add_parser(
        "strength", help="how far attacks on attributions go, by their effort (hours on one core)"
    )
    strength.add_argument("--images", type=int, default=300, help="number (default: 300)")
    frontier = studies.add_parser(
        "frontier",
        help="every training method at many strengths, in short runs (hours on one core)",
    )
    frontier.add_argument("--only", nargs="+", metavar="FAMILY", help="these (default: all)")
    density = studies.add_parser(
        "density",
        help="smoothing of each density at many weights, in short runs (an hour on one core)",
    )
    density.add_argument("--only", nargs="+", metavar="IMAGES", help="these sets (default: all)")
    games = studies.add_parser(
        "games",
        help="insertion and DiffROAR, on ordinary and smoothed networks (five minutes on one core)",
    )
    games.add_argument("--only", nargs="+", metavar="SET", help="these sets (default: all)")
    soundness = studies.add_parser(
        "soundness",
        help="attacks against certificates, and how often these fail (minutes); points of a grid, too",
    )
    soundness.add_argument("--images", type=int, default=8, help="1 to 10 (default: 8)")
    imagenet = studies.add_parser(
        "imagenet", help="accuracy of attrlib.models.imagenet() on photographs of ImageNet"
    )
    lens = studies.add_parser(
        "imagenet-lens",
        help="its maps under noise and attack, by each metric (an hour on one core)",
    )
    for study in (imagenet, lens):
        study.add_argument(
            "--image-folder", type=Path, required=True, help="photographs, as DIR/WNID/IMAGE"
        )
        study.add_argument(
            "--wnids",
            type=Path,
            required=True,
            help="text file with the 1,000 identifiers in order",
        )
    transfer = studies.add_parser(
        "transfer", help="attacks on one explanation, scored on the others (15 minutes on one core)"
    )
    sentences = studies.add_parser(
        "sentences", help="networks for sentences: maps under synonyms, by each metric (20 minutes)"
    )
    sentences.add_argument("--count", type=int, default=100, help="sentences (default: 100)")
    sentences.add_argument(
        "--nets",
        type=Path,
        default=Path("runs/sentences"),
        help="folder of the networks, which are trained where missing (default: runs/sentences)",
    )
    sampling = studies.add_parser(
        "sampling", help="scores that sample, beside an attack of the same radius (minutes)"
    )
    benign = studies.add_parser(
        "benign",
        help="maps of all shipped checkpoints under more light, JPEG and a shift, and with random "
        "weights (minutes)",
    )
    benign.add_argument("--only", nargs="+", metavar="RECIPE", help="these recipes (default: all)")
    colour = studies.add_parser(
        "cifar", help="the networks for CIFAR-10 under the suite (ten minutes on one core)"
    )
    colour.add_argument(
        "--data",
        type=Path,
        help="images as DIR/test/CLASS/IMAGE (default: see attrlib.data.cifar10)",
    )
    colour.add_argument("--only", nargs="+", metavar="RECIPE", help="these recipes (default: all)")
    tables = {
        "attack-strength": strength,
        "benign": benign,
        "cifar": colour,
        "density": density,
        "imagenet-accuracy": imagenet,
        "imagenet-lens": lens,
        "frontier": frontier,
        "games": games,
        "sampling": sampling,
        "transfer": transfer,
        "sentences": sentences,
        "soundness": soundness,
    }
    for table, study in tables.items():
        path = Path("results") / f"{table}.csv"
        study.add_argument("--out", type=Path, default=path, help=f"table (default: {path})")
        machine(study)


def run(options: argparse.Namespace, *, device: torch.device) -> None:
    """Run a grid or a study, or measure a network of the caller's own; a second call goes on.

    Args:
        options: As `add_options` declares them.
        device: Where to compute.

    Raises:
        ValueError: If an option is bad, the table is of another study or of other weights or images, or
            another run writes it now.
        FileNotFoundError: If images are missing.
        OSError: If the table cannot be written; this is tried first.
    """
    if options.grid:
        given = (name for name, usual in row.ALONE.items() if getattr(options, name) != usual)
        first = next((f"--{name}" for name in given), None)
        other = options.study or (options.model or options.checkpoint or [first])[0]
        if other is not None:
            raise ValueError(f"Expected --grid alone, got {other}, too")
        grid.run(options, device=device)
        return
    stray = [name for name in grid.NEEDING if options.study is None and getattr(options, name)]
    if stray:
        raise ValueError(f"Expected --grid with --{stray[0]}, got none")
    if options.study is None or options.model or options.checkpoint:
        row.run(options, device=device)
        return
    with _files.claimed(options.out), _table.made_of(options.out, **_contents(options)):
        if options.study == "strength":
            benchmark.strength(options.out, images=options.images, device=device, progress=True)
        elif options.study == "benign":
            benchmark.benign(options.out, only=options.only, device=device, progress=True)
        elif options.study == "cifar":
            benchmark.cifar(
                options.out, folder=options.data, only=options.only, device=device, progress=True
            )
        elif options.study == "soundness":
            benchmark.soundness(
                options.out,
                images=options.images,
                points=options.points,
                device=device,
                progress=True,
            )
        elif options.study == "frontier":
            benchmark.frontier(options.out, only=options.only, device=device, progress=True)
        elif options.study == "density":
            benchmark.density(options.out, only=options.only, device=device, progress=True)
        elif options.study == "games":
            benchmark.games(options.out, only=options.only, device=device, progress=True)
        elif options.study == "sentences":
            benchmark.sentences(
                options.out, nets=options.nets, count=options.count, device=device, progress=True
            )
        elif options.study == "sampling":
            benchmark.sampling(options.out, device=device, progress=True)
        elif options.study == "transfer":
            benchmark.transfer(options.out, device=device, progress=True)
        else:
            lens = options.study == "imagenet-lens"
            study = benchmark.imagenet_lens if lens else benchmark.imagenet_accuracy
            study(options.out, options.image_folder, options.wnids, device=device, progress=True)
    print(options.out)


def _contents(options: argparse.Namespace) -> dict[str, str]:
    """What a table is made of: digests, or numbers; photographs count by name and size in bytes."""
    if options.study == "imagenet":
        return {}  # one row, made anew by each call
    if options.study == "sentences":
        return {"count": str(options.count)}
    if options.study == "imagenet-lens":
        paths = data.image_folder(options.image_folder).paths
        files = [
            f"{path.relative_to(options.image_folder)} {path.stat().st_size}" for path in paths
        ]
        return {"weights": contents(models.imagenet()), "images": _files.digest(*files)}
    if options.study != "strength":
        return {}  # each row names its checkpoints, or its setting, and its images
    images = data.fashion_mnist("val", full=True)
    weights = contents(checkpoints.load("natural").model)
    return {"weights": _files.digest(weights), "images": data.fingerprint(images)}
