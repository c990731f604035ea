"""Command line: `python -m attrlib COMMAND --help`."""

import argparse
import io
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from attrlib import _files, checkpoints, data, recipes, training
from attrlib.commands import attack, bench, certify, report, rows
from attrlib.training.parallel import leads


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; a user's mistake ends in one line on stderr and exit status 2, Ctrl-C in 130.

    Args:
        arguments: Command and options; None takes those the program was called with.

    Returns:
        The exit status.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names that the terminal cannot show end no run
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except (ValueError, OSError, ImportError) as error:
        print(f"attrlib {options.command}: {rows.line(error)}", file=sys.stderr)
        return 2
    except (
        TypeError,
        RuntimeError,
        MemoryError,
    ) as error:  # of libraries, more often than of users
        kind = type(error).__name__
        print(f"attrlib {options.command}: {kind}: {rows.line(error)}", file=sys.stderr)
        return 2
    except Exception as error:  # of a user's model, in the middle of the work
        if sys.flags.dev_mode:
            raise
        kind, last = type(error).__name__, traceback.extract_tb(error.__traceback__)[-1]
        where = f"({Path(last.filename).name}, line {last.lineno}; all of it with python -X dev)"
        print(f"attrlib {options.command}: {kind}: {rows.line(error)} {where}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"attrlib {options.command}: stopped{options.kept}", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="attrlib", description="Robust feature attributions.")
    commands = parser.add_subparsers(dest="command", required=True)

    where = commands.add_parser("data", help="say what data and checkpoints are where")
    where.set_defaults(run=_data, kept="")

    fit = commands.add_parser("train", help="train a recipe and write its checkpoint")
    fit.add_argument("recipe", help=f"one of: {', '.join(recipes.RECIPES)}")
    fit.add_argument(
        "--out", type=Path, help="file to write (default: runs/RECIPE-sSEED.safetensors)"
    )
    fit.add_argument("--seed", type=int, default=0, help="seed of weights, data order and noise")
    fit.add_argument(
        "--start",
        help="checkpoint, name or path, with the first weights (default: what the recipe says)",
    )
    fit.add_argument("--log", type=Path, help="CSV file to write, with a line for each epoch")
    fit.add_argument(
        "--devices", type=int, default=1, help="processes on each machine (default: 1)"
    )
    fit.add_argument("--nodes", type=int, default=1, help="machines (default: 1)")
    _common(fit)
    fit.set_defaults(
        run=_train, kept="; the same command goes on from its last state (one a minute)"
    )

    change = commands.add_parser("attack", help="change the explanations of images")
    attack.add_options(change)
    _machine(change)
    change.set_defaults(
        run=lambda options: attack.run(options, device=_device(options)), kept=_KEPT.format("batch")
    )

    prove = commands.add_parser("certify", help="prove how far explanations of images can change")
    certify.add_options(prove)
    _machine(prove)
    prove.set_defaults(
        run=lambda options: certify.run(options, device=_device(options)),
        kept=_KEPT.format("batch"),
    )

    tell = commands.add_parser(
        "report", help="write a page about explanations of your own pictures"
    )
    report.add_options(tell)
    _machine(tell)
    tell.set_defaults(
        run=lambda options: report.run(options, device=_device(options)), kept=_KEPT.format("batch")
    )

    study = commands.add_parser("bench", help="measure what the book reads from results/")
    bench.add_options(study, machine=_machine)
    study.set_defaults(
        run=lambda options: bench.run(options, device=_device(options)), kept=_KEPT.format("row")
    )

    score = commands.add_parser("evaluate", help="accuracy of a checkpoint")
    score.add_argument("checkpoint", help="name of a shipped checkpoint, or a path")
    score.add_argument("--split", choices=("train", "val", "test"), default="test")
    _common(score)
    score.set_defaults(run=_evaluate, kept="")
    return parser


_KEPT = "; the same command goes on after the last whole {}"


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        default="full",
        help="full or embedded Fashion-MNIST, in the form that the recipe is for, or a folder of images "
        "as SPLIT/CLASS/IMAGE (default: full); recipes for CIFAR-10 download the full set, or take the "
        "folder; recipes for sentences have one set under both names",
    )
    _machine(parser)


def _machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="cpu", help="cpu (default), cuda, mps …")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads; with 1 (default) a run repeats bit for bit on one machine",
    )


def _data(_: argparse.Namespace) -> None:
    print("Fashion-MNIST, embedded")
    for split in ("train", "val", "test"):
        images = data.fashion_mnist(split)
        print(f"  {split:5s} {len(images):6,d} images  {data.fingerprint(images)}")
    folder = data.find_full()
    print("Fashion-MNIST, full")
    print(
        f"  {folder}"
        if folder
        else "  not found: set ATTRLIB_DATA to the folder of its four idx "
        "files, or install Debian's dataset-fashion-mnist, or let the first use download it"
    )
    print("Sentences with ratings, embedded")
    splits: tuple[data.Split, ...] = ("train", "val", "test")
    for split in splits:
        texts = data.sentiment(split)
        print(f"  {split:5s} {len(texts):6,d} tweets  {data.fingerprint(texts)}")
    print("Checkpoints (python -m attrlib train RECIPE makes one anew)")
    for name in checkpoints.names():
        for seed in checkpoints.seeds(name):
            found = checkpoints.load(f"{name}-s{seed}")
            print(
                f"  {name}-s{seed}  test accuracy {found.metrics['test_accuracy']:.4f}, "
                f"trained in {found.recipe['seconds']:.0f} s on {found.recipe['device']}"
            )


def _train(options: argparse.Namespace) -> None:
    recipe = recipes.RECIPES.get(options.recipe)
    if recipe is None:
        raise ValueError(
            f"Expected recipe to be one of {', '.join(recipes.RECIPES)}, got {options.recipe!r}"
        )
    device = _device(options)
    path = options.out or Path("runs") / f"{recipe.name}-s{options.seed}.safetensors"
    for file in (path, options.log):
        if file is not None:
            _files.ready(file)
    splits = _splits(options.data, recipe.data)
    made = recipes.fit(
        recipe,
        path,
        data=splits,
        seed=options.seed,
        device=device,
        devices=options.devices,
        nodes=options.nodes,
        start=options.start,
        log=options.log,
        progress=True,
    )
    if not leads():
        return
    print(f"{path}: " + ", ".join(f"{name} {value:.4f}" for name, value in made.metrics.items()))
    if options.data == "full" and options.seed in _shipped_seeds(recipe.name):
        print(_compare(made, checkpoints.load(f"{recipe.name}-s{options.seed}")))


def _evaluate(options: argparse.Namespace) -> None:
    device = _device(options)
    found = checkpoints.load(options.checkpoint)
    model, recipe = found.model, recipes.RECIPES.get(found.recipe.get("name", ""))
    source = recipe.data if recipe else data.fashion_mnist
    images = _splits(options.data, source, only=options.split)[options.split]
    if len(images.classes) != model.settings["classes"]:
        raise ValueError(
            f"Expected --data with the {model.settings['classes']} classes of the checkpoint, "
            f"got {len(images.classes)}"
        )
    hits = training.evaluate(model, images, {"correct": training.correct}, device=device)["correct"]
    error = float(hits.std(correction=0)) / len(hits) ** 0.5
    print(
        f"accuracy {float(hits.mean()):.4f} ± {error:.4f} (one standard error), {len(hits):,} images"
    )


def _device(options: argparse.Namespace) -> torch.device:
    if options.threads < 1:
        raise ValueError(f"Expected --threads >= 1, got {options.threads}")
    torch.set_num_threads(options.threads)
    try:
        one = torch.zeros(1, device=options.device)
        one.item()  # a device without numbers, such as meta, is none
        return one.device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"Expected --device of this machine, got {options.device!r}: {reason}"
        ) from error


def _splits(
    name: str, source: Callable[..., data.Images | data.Texts], *, only: data.Split | None = None
) -> dict[str, data.Images | data.Texts]:
    wanted: tuple[data.Split, ...] = (only,) if only else ("train", "val", "test")
    if name in ("full", "embedded"):
        return {split: source(split, full=name == "full") for split in wanted}
    if (
        source is data.cifar10
    ):  # holds its validation images out of a folder, and keeps all in memory
        return {split: data.cifar10(split, folder=name) for split in wanted}
    folders = {split: Path(name) / split for split in wanted}
    present = {split: folder for split, folder in folders.items() if folder.is_dir()}
    if (only or "train") not in present:
        raise FileNotFoundError(
            "Expected --data to be full, embedded or a folder with "
            f"{only or 'train'}/CLASS/IMAGE, got {name}"
        )
    return {split: data.image_folder(folder) for split, folder in present.items()}


def _shipped_seeds(name: str) -> list[int]:
    return checkpoints.seeds(name) if name in checkpoints.names() else []


def _compare(made: checkpoints.Checkpoint, shipped: checkpoints.Checkpoint) -> str:
    pairs = zip(made.model.state_dict().values(), shipped.model.state_dict().values(), strict=True)
    gap = max(float((a.cpu() - b).abs().max()) for a, b in pairs)
    if gap == 0:
        return "Identical to the shipped checkpoint, bit for bit."
    return (
        f"Differs from the shipped checkpoint by at most {gap:.1e} in a weight "
        f"(that one: torch {shipped.recipe['versions']['torch']}, {shipped.recipe['device']}, "
        f"{shipped.recipe['threads']} thread)."
    )


if __name__ == "__main__":
    sys.exit(main())
