"""`python -m attrlib bench --grid`: recipes × maps × attacks × budgets × seeds."""

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from attrlib import _files, benchmark
from attrlib.benchmark import trained
from attrlib.benchmark._table import Runner

_TABLES = {
    "full": Path("results/recipes.csv"),
    "small": Path("runs/bench/small.csv"),
    "first": Path("results/first-attack.csv"),
}


NEEDING = ("only", "maps", "nets", "scheduler", "export")
"""Options that say nothing without a grid."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of a grid.

    Args:
        parser: Where to declare them; `--out` is there.
    """
    grid = parser.add_argument_group("a grid of recipes, maps, attacks and budgets, without STUDY")
    grid.add_argument(
        "--grid",
        choices=tuple(benchmark.GRIDS),
        help="full (many hours on one core), small (minutes), or first, the book's first attack (a "
        f"third of an hour); --out is {_TABLES['full']}, {_TABLES['small']} or {_TABLES['first']} "
        "unless given",
    )
    grid.add_argument("--only", nargs="+", metavar="RECIPE", help="these recipes (default: all)")
    grid.add_argument("--maps", nargs="+", metavar="MAP", help="these maps (default: all)")
    grid.add_argument(
        "--nets",
        type=Path,
        metavar="DIR",
        help="measure your own checkpoints RECIPE-sSEED.safetensors of DIR, as `train` writes them, into "
        "a table of their own (default: the shipped ones)",
    )
    grid.add_argument(
        "--points",
        type=Path,
        default=Path("runs/points"),
        help="folder of the changed images that were found (default: runs/points)",
    )
    grid.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="make the cells on a Dask cluster, such as tcp://10.0.0.1:8786 (default: here)",
    )
    grid.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="write maps and changed images of the attacked cells of --only there, too",
    )


def run(options: argparse.Namespace, *, device: torch.device) -> None:
    """Measure what is missing of a grid; a second call goes on after the first one.

    Args:
        options: As `add_options` declares them.
        device: Where to compute.

    Raises:
        ValueError: If an option is bad, there is no scheduler, the table is another one or has rows of
            another version, or another run writes it now.
        FileNotFoundError: If the folder of checkpoints is missing.
        OSError: If the table or a folder cannot be written; this is tried first.
    """
    if options.export and not options.only:
        raise ValueError("Expected --only with --export, a few recipes, got all")
    if options.nets and options.export:
        raise ValueError(f"Expected --export without --nets, got --nets {options.nets}")
    if options.nets and not options.out:
        raise ValueError("Expected --out with --nets, a table of its own, got none")
    blocks, out = benchmark.GRIDS[options.grid], options.out or _TABLES[options.grid]
    chosen = {"only": options.only, "maps": options.maps, "nets": options.nets}
    with _files.claimed(out):
        trained.chosen(blocks, **chosen)  # before a cluster is asked
        place: AbstractContextManager[Runner | None] = nullcontext()
        if options.scheduler:
            place = benchmark.on_cluster(options.scheduler)
        with place as runner:
            for folder in (options.points, options.export):
                if folder is not None:
                    _files.ready(folder / "all")
            benchmark.recipes(
                out,
                blocks=blocks,
                points=options.points,
                **chosen,
                device=device,
                progress=True,
                runner=runner,
            )
        if options.export:
            written = benchmark.export(
                options.export,
                blocks=blocks,
                points=options.points,
                only=options.only,
                maps=options.maps,
                device=device,
            )
            print(f"{options.export}: {len(written)} cells")
    print(out)
