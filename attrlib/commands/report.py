"""`python -m attrlib report`: one page about the explanations of a network on a user's own pictures."""

import argparse
import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attrlib import _check, attacks, attributions, checkpoints, data
from attrlib.attacks.suite import EFFORTS
from attrlib.commands import (
    choice,
    findings,
    labels,
    measured,
    network,
    page,
    pictures,
    proofs,
    rows,
    wording,
)
from attrlib.training import eval_mode
from attrlib.types import Attribution

_BY_INTERVALS = ("gradient", "input_x_gradient", "integrated_gradients")
_SHARES = (1 / 16, 1 / 4, 1)  # of eps, for interval bounds
_BUDGETS = (0.05, 0.1, 0.2)  # l2, for smoothing
_NOISE = 1 / 7  # radius of the noise over the root of the entries: 4 for 28 × 28, as in certify
SAMPLES: dict[bool, dict[str, Any]] = {
    False: {"samples": 1000, "alpha": 0.001},
    True: {"samples": 200, "alpha": 0.01},
}
"""Noisy copies for a certificate by smoothing, and its failure probability: by whether it is quick."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command.

    Args:
        parser: Where to declare them.
    """
    what = pictures.add_options(parser)
    what.add_argument(
        "--classes",
        type=Path,
        metavar="FILE",
        help="what your folders mean: a text file with the name of a class in each line, in the order of "
        'the model\'s outputs, or a .json file such as {"cat": 281}. Accuracy is reported only then: '
        "else the names of folders are only names",
    )
    how = parser.add_argument_group("measurements")
    choice.add_map_options(how)
    how.add_argument("--window", type=int, default=1, help="radius of the LENS window (default: 1)")
    choice.add_budget_options(how)
    effort = how.add_mutually_exclusive_group()
    effort.add_argument(
        "--suite", choices=EFFORTS, default="standard", help="effort (default: standard)"
    )
    effort.add_argument(
        "--quick",
        action="store_true",
        help="the quick suite, and a fifth of the noisy copies for certificates by smoothing",
    )
    how.add_argument(
        "--certificate",
        choices=("auto", "interval", "smoothing", "none"),
        default="auto",
        help="interval bounds, or of maps averaged over noise; auto takes intervals if the network's "
        "layers allow them (default: auto)",
    )
    pictures.add_run_options(parser, command="report", batch_size=1)


def run(options: argparse.Namespace, *, device: torch.device) -> None:
    """Measure pictures in batches, then write the page. A second call goes on.

    Args:
        options: As `add_options` declares them.
        device: Where to compute.

    Raises:
        ValueError: If an option, the model or an image is bad, or the folder holds another run.
        FileNotFoundError: If there are no images.
        OSError: If the folder cannot be written; this is tried first.
    """
    pictures.check(options)
    _check.positive(eps=options.eps)
    _check.count(window=options.window, low=0)
    options.suite = "quick" if options.quick else options.suite
    store = rows.Store(options.out, "report", measured.COLUMNS, "maps", ".safetensors")
    with store.claimed():
        names, images = pictures.load(options)
        model = network.load(options).to(device)
        first = images[:1].x.to(device)
        shape = first.shape[1:]
        known = network.settings(model, shape, device, options)
        outputs = len(known["outputs"])  # type: ignore[arg-type]
        meaning = _meaning(options, images, outputs)
        k = choice.top(options, shape[1] * shape[2])
        attribution = choice.attribution(options)
        attack = functools.partial(
            attacks.standard, eps=options.eps, k=k, norm=options.norm, effort=options.suite
        )
        suite = attack(attribution=attribution)
        with eval_mode(model):
            proof, reason = _proof(options, model, first, k)
            settings = {
                "report": _settings(options, attribution, proof, k, meaning),
                **known,
                **pictures.settings(options),
            }
            table = store.run(
                names,
                images,
                settings,
                size=options.batch_size,
                steps=measured.steps(suite, proof),
                unit="map",
                make=measured.Work(
                    options=options,
                    attribution=attribution,
                    attack=lambda maps: attack(attribution=maps),
                    model=model,
                    device=device,
                    k=k,
                    proof=proof,
                    classes=meaning.classes,
                ),
            )
        files = [store.figure(i, name) for i, name in enumerate(names)]
        facts = findings.collect(
            table, files, options, meaning=meaning, k=k, maps=choice.maps(suite), reason=reason
        )
        shown = page.write(options.out / "report.html", facts, settings, device)
    for text in wording.findings(facts):
        print(f"- {text}")
    print(f"{shown}, {store.table} and {store.figures}")


def _meaning(options: argparse.Namespace, images: data.Images, outputs: int) -> labels.Meaning:
    """What labels mean to the network."""
    if options.image is not None and options.classes is not None:
        raise ValueError("Expected --classes with --image-folder, got --image, which has no labels")
    folders = options.image_folder is not None or options.image is not None
    meaning = labels.meaning(images, options.classes, folders=folders, outputs=outputs)
    if meaning.classes is None and options.explain == "label":
        raise ValueError(
            "Expected --classes with --explain label, since folders are only names, got none"
            if folders
            else f"Expected a model of {len(images.classes)} classes with --explain label, got {outputs}"
        )
    return meaning


def _proof(
    options: argparse.Namespace, model: nn.Module, x: Tensor, k: int
) -> tuple[proofs.Method | None, str]:
    """What certifies; and why not by intervals, where they are not taken."""
    kind, reason = options.certificate, ""
    if kind == "none":
        return None, "None was asked for."
    bounded = options.attribution in _BY_INTERVALS
    name = options.attribution if bounded else "gradient"
    plain, bounds = proofs.maps(name, options.samples)
    if kind in ("auto", "interval"):
        reason = (
            _refusal(bounds, model, x) if bounded else f"there are none for {options.attribution}"
        )
        if not reason:
            budgets = [share * options.eps for share in _SHARES]
            return proofs.Intervals(plain, bounds, budgets, k), ""
        if kind == "interval":
            raise ValueError(
                f"Expected --certificate interval for a network that allows it: {reason}"
            )
    dim = x[0].numel()
    found = proofs.Smoothing(
        attribution=plain if bounded else attributions.gradient,
        budgets=_BUDGETS,
        radius=_NOISE * math.sqrt(dim),
        k=None,
        seed=options.seed,
        **SAMPLES[options.suite == "quick"],
    )
    found.check(x.shape[1:])
    return found, reason


def _refusal(bounds: proofs.Bounds, model: nn.Module, x: Tensor) -> str:
    """Why the layers of a network have no interval bounds; empty if they have."""
    try:
        bounds(model, x, network.predict(model, x), eps=0.0)
    except Exception as error:  # of code that is not ours, which bounds run through
        return rows.line(error)
    return ""


def _settings(
    options: argparse.Namespace,
    attribution: Attribution,
    proof: proofs.Method | None,
    k: int,
    meaning: labels.Meaning,
) -> dict[str, Any]:
    """All that decides the rows beside pictures and network, ready for JSON."""
    classes: Sequence[int] | None = None if meaning.classes is None else meaning.classes.tolist()
    return {
        "suite": [attacks.SUITE, options.suite],
        "budget": [options.norm, options.eps],
        "attribution": checkpoints.describe(attribution),
        "scores": [k, options.window],
        "certificate": None if proof is None else proof.settings(),
        "classes": classes,
    }
