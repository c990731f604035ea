"""A row of the leaderboard for any network: measured, written as JSON, and checked when it is read."""

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from attrlib import _check, _files, attributions, data, training
from attrlib._random import seeded
from attrlib.attacks import SUITE, RandomSign, standard
from attrlib.attacks.suite import EFFORTS, Effort
from attrlib.benchmark import _table, cells
from attrlib.benchmark.attack_strength import K
from attrlib.benchmark.board import SUITE_ATTACK
from attrlib.benchmark.grid import BUDGETS
from attrlib.benchmark.harmless import changes, summarized
from attrlib.benchmark.seeds import Columns
from attrlib.training.state import contents

_PROVENANCE = ("commit", "date", "device", "versions", "seconds")


@dataclass(frozen=True)
class Kind:
    """What a field holds.

    Attributes:
        says: In words.
        holds: Whether a value is of this kind.
    """

    says: str
    holds: Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _hex(digits: int) -> Callable[[Any], bool]:
    return lambda value: (
        isinstance(value, str) and bool(re.fullmatch(f"[0-9a-f]{{{digits}}}", value))
    )


def _list(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and value != [] and all(map(holds, value))


def _source(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {*_PROVENANCE}
        and all(map(_text, value.values()))
    )


_TEXT = Kind("a text that is not empty", _text)
_COUNT = Kind("a whole number >= 0", lambda n: _finite(n) and isinstance(n, int) and n >= 0)
_NULL = Kind("a number or null", lambda value: value is None or _finite(value))

SCHEMA: Mapping[str, Kind] = {
    "format": Kind("1", lambda value: value == 1 and value is not True),
    "name": _TEXT,
    "models": Kind("a list of texts", _list(_text)),
    "weights": Kind("a list of texts of 16 hex digits", _list(_hex(16))),
    "data": _TEXT,
    "list": Kind("a text of 8 hex digits", _hex(8)),
    "images": _COUNT,
    "suite": _TEXT,
    "effort": Kind(f"one of {', '.join(EFFORTS)}", lambda value: value in EFFORTS),
    "cells": Kind("a list of objects", _list(lambda value: isinstance(value, dict))),
    "provenance": Kind(f"an object with the texts {', '.join(_PROVENANCE)}", _source),
}
"""What a row holds: exactly these fields, of these kinds."""

CELL: Mapping[str, Kind] = {
    "attack": _TEXT,
    "eps": Kind("a number >= 0", lambda value: _finite(value) and value >= 0),
    "seed": _TEXT,
    "quantity": _TEXT,
    "images": _COUNT,
    "value": _NULL,
    "low": _NULL,
    "high": _NULL,
}
"""What a cell holds: the columns of `results/recipes.csv` that have these names."""

_QUANTITIES = ("topk", "identification_topk", "kept", "unchanged")  # of attacked maps


def own_row(
    nets: Sequence[nn.Module],
    images: data.Images,
    pool: data.Images,
    *,
    name: str,
    models: Sequence[str],
    source: str,
    test: data.Images | None = None,
    eps: Sequence[float] = BUDGETS,
    effort: Effort = "standard",
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> dict[str, Any]:
    """Measure networks as those of the leaderboard are, and return the row.

    Args:
        nets: The same network, trained with other seeds: several give an interval that speaks of training
            again; one gives none.
        images: Images whose maps are attacked, of each class two or more.
        pool: Other images of these classes, with whose maps an attacked one competes.
        name: Of the row.
        models: Where each network is from.
        source: Name of the images.
        test: Images of which accuracy is measured; None takes `images`.
        eps: Budgets.
        effort: Of the suite.
        device: Where to compute.
        progress: Print each part as it is done.

    Returns:
        A row that `check_row` accepts, ready for JSON.

    Raises:
        ValueError: If an argument is out of range, or there are no networks.
    """
    _check.one_of(EFFORTS, effort=effort)
    _check.count(nets=len(nets))
    for budget in eps:
        _check.nonnegative(eps=budget)
    sizes = images.y.bincount()
    sizes = sizes[sizes > 0]
    if len(sizes) < 2 or int(sizes.min()) < 2:
        raise ValueError(
            f"Expected images of two or more classes, two or more of each, got {sizes.tolist()}"
        )
    start = time.perf_counter()
    digests = [contents(net) for net in nets]
    found = {}
    for seed, net in enumerate(nets):
        with training.eval_mode(net.to(device)):
            found[seed] = _parts(net, (images, pool, test or images), eps, effort, device)
            if progress:
                print(f"{models[seed]}: {time.perf_counter() - start:.0f} s", flush=True)
    made = [cell for part in found[0] for cell in _cells(part, found)]
    seconds = time.perf_counter() - start
    return {
        "format": 1,
        "name": name,
        "models": list(models),
        "weights": digests,
        "data": source,
        "list": data.fingerprint(images)[:8],
        "images": len(images),
        "suite": SUITE,
        "effort": effort,
        "cells": made,
        "provenance": _table.provenance(device, seconds=seconds),
    }


_Parts = Mapping[tuple[str, float], Columns]


def _parts(
    net: nn.Module,
    lists: tuple[data.Images, data.Images, data.Images],
    eps: Sequence[float],
    effort: Effort,
    device: str | torch.device,
) -> _Parts:
    """Values of each image, by attack and budget."""
    images, pool, test = lists
    x, y = images.x.to(device), images.y.to(device)
    found: dict[tuple[str, float], Columns] = {("model", 0.0): _accuracy(net, test, device)}
    others = cells.clean_controls(net, images, device=device)
    for name, columns in {**others, **changes(net, images, device=device)}.items():
        found[name, 0.0] = columns
    for budget in eps:
        suite = standard(eps=budget, attribution=attributions.gradient, k=K, effort=effort)
        for name, attack in (("random", RandomSign(eps=budget)), (SUITE_ATTACK, suite)):
            z = attack(net, x, y, generator=seeded(0))
            found[name, budget] = cells.scores_at(
                net, images, z, pool, quantities=_QUANTITIES, device=device
            )
    return found


def _accuracy(net: nn.Module, test: data.Images, device: str | torch.device) -> Columns:
    scores = {"accuracy": training.correct, "pgd20_accuracy": cells.pgd20_accuracy}
    values = training.evaluate(net, test, scores, device=device)
    return {name: value.cpu().double() for name, value in values.items()}


def _cells(part: tuple[str, float], found: Mapping[int, _Parts]) -> list[dict[str, Any]]:
    attack, eps = part
    made = []
    for line in summarized({seed: {attack: parts[part]} for seed, parts in found.items()}):
        value, low, high = (_number(line[end]) for end in ("value", "low", "high"))
        made.append(
            {
                "attack": attack,
                "eps": eps,
                "seed": line["seed"],
                "quantity": line["quantity"],
                "images": int(line["images"]),
                "value": value,
                "low": low,
                "high": high,
            }
        )
    return made


def _number(text: str) -> float | None:
    """None for what JSON has no number for."""
    return float(text) if text and math.isfinite(float(text)) else None


def check_row(found: Any, *, suite: str | None = SUITE) -> None:
    """Raise unless this is a row as `own_row` returns it.

    Args:
        found: What was read from a file.
        suite: The version of the suite that it must be of; None takes any.

    Raises:
        ValueError: With the first field that is missing, unknown or of another kind, or if the row is of
            another version of the suite.
    """
    _fields(found, SCHEMA, "the row")
    places = set()
    for number, cell in enumerate(found["cells"]):
        _fields(cell, CELL, f"cell {number}")
        low, value, high = cell["low"], cell["value"], cell["high"]
        if None not in (low, value, high) and not low <= value <= high:
            raise ValueError(
                f"Expected cell {number} with low <= value <= high, got {low}, {value}, {high}"
            )
        places.add(tuple(cell[name] for name in ("attack", "eps", "seed", "quantity")))
    if len(places) < len(found["cells"]):
        raise ValueError("Expected each number once, got two cells of one place")
    if not any((attack, seed) == (SUITE_ATTACK, "all") for attack, _, seed, _ in places):
        raise ValueError(f"Expected a cell of the {SUITE_ATTACK} and all seeds, got none")
    if len(found["models"]) != len(found["weights"]):
        raise ValueError(
            f"Expected weights of {len(found['models'])} models, got {len(found['weights'])}"
        )
    if suite is not None and found["suite"] != suite:
        raise ValueError(
            f"Expected a row of version {suite} of the suite, got version {found['suite']}; measure "
            "the network again"
        )


def load_row(path: str | Path, *, suite: str | None = SUITE) -> dict[str, Any]:
    """Read a row from a file.

    Args:
        path: As `python -m attrlib bench --model` writes it.
        suite: See `check_row`.

    Returns:
        The row, checked.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no such row; the message begins with the path.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"Expected a row of the leaderboard, got no file {path}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        check_row(found, suite=suite)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return dict(found)


def as_rows(found: Mapping[str, Any]) -> list[dict[str, str]]:
    """Turn a row into rows of the form of `results/recipes.csv`.

    Args:
        found: A row, as `load_row` returns it.

    Returns:
        One for each cell that has a value.
    """
    head = {
        "recipe": found["name"],
        "list": found["list"],
        "checkpoints": _files.digest(*found["weights"])[:8],
    }
    made = []
    for cell in found["cells"]:
        if cell["value"] is None:
            continue
        text = {name: "" if value is None else str(value) for name, value in cell.items()}
        text["eps"] = f"{cell['eps']:.5f}"
        suite = found["suite"] if cell["attack"] == SUITE_ATTACK else ""
        made.append(head | text | {"suite": suite})
    return made


def _fields(found: Any, schema: Mapping[str, Kind], where: str) -> None:
    if not isinstance(found, dict):
        raise ValueError(f"Expected {where} to be an object, got {type(found).__name__}")
    for name in (*schema, *found):
        if name not in schema:
            raise ValueError(f"Expected {where} with {', '.join(schema)} only, got {name!r}, too")
        if name not in found:
            raise ValueError(f"Expected {where} with {name!r}, got none")
    for name, kind in schema.items():
        if not kind.holds(found[name]):
            said = repr(found[name])
            said = said if len(said) < 60 else f"{said[:57]}..."
            raise ValueError(f"Expected {name!r} of {where} to be {kind.says}, got {said}")
