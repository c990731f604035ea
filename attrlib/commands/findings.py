"""What the rows of a report say together: means, intervals and chance levels."""

import argparse
import functools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attrlib import metrics
from attrlib.commands import labels, measured
from attrlib.commands.rows import Row

CHANGE_NAMES = {
    "brightness": "10 % more light",
    "jpeg": "JPEG, quality 75",
    "shift": "one pixel to the right",
    "noise": "noise as large as the attack",
    "attack": "attack (suite)",
}
SCORE_NAMES = {
    "topk_intersection": "top-k",
    "lens_recall": "LENS recall",
    "kendall": "Kendall's τ",
    "cosine": "cosine",
    "center_shift": "shift of the centre",
}
UNSIGNED = 2 / math.pi
"""Cosine of unrelated maps of normal entries without their signs: smoothing is about such maps."""

_RANGES = {
    "topk_intersection": (0, 1),
    "lens_recall": (0, 1),
    "kendall": (-1, 1),
    "cosine": (-1, 1),
    "center_shift": (0, math.inf),
}
_MANY = 20  # pictures from which on a bootstrap is as good as the t interval, and follows the range


@dataclass(frozen=True)
class Mean:
    """A mean over pictures, its 95 % interval (NaN for one picture), and the values behind it."""

    value: float
    low: float
    high: float
    values: tuple[float, ...]

    def __str__(self) -> str:
        """The number and its interval."""
        if math.isnan(self.low):
            return f"{self.value:.2f}"
        return f"{self.value:.2f} (95 % interval {self.low:.2f} to {self.high:.2f})"


@dataclass(frozen=True)
class Facts:
    """What a report is written from.

    Args:
        table: Rows of the pictures.
        files: Where the maps of each picture are.
        options: Of the command.
        meaning: What labels mean to the network.
        k: Pixels in the top set.
        maps: How many maps the suite asks for, at most.
        reason: Why there are no interval bounds; empty where there are.
        scores: For each change and score the mean; changes and scores without a number are left out.
        chance: Mean chance level of each score; no entry for what has none.
        identification: For each change, if a class has two pictures or more.
    """

    table: Sequence[Row]
    files: Sequence[Path]
    options: argparse.Namespace
    meaning: labels.Meaning
    k: int
    maps: int
    reason: str
    scores: dict[str, dict[str, Mean]]
    chance: dict[str, float]
    identification: dict[str, Mean]

    @property
    def accuracy(self) -> tuple[int, int] | None:
        """Pictures whose class is right, and all of them; None where nobody knows."""
        known = [row["correct"] == "True" for row in self.table if row["correct"]]
        return (sum(known), len(known)) if known else None

    def kept(self, change: str) -> tuple[int, int]:
        """Pictures whose prediction survives a change, and all that were changed."""
        known = [row[f"{change}_prediction_kept"] for row in self.table]
        return known.count("True"), len(known) - known.count("")

    def seconds(self, what: str) -> float:
        """Median over pictures; NaN where nothing was measured."""
        known = [float(row[f"{what}_seconds"]) for row in self.table if row[f"{what}_seconds"]]
        return statistics.median(known) if known else math.nan

    @property
    def floor(self) -> float:
        """What a bound has to be above to say something: what unrelated maps reach."""
        smoothed = any(row["certificate"] == "smoothing" for row in self.table)
        return UNSIGNED if smoothed else 0.0

    def certified(self, score: str) -> list[tuple[float, Mean, int]]:
        """For each budget: the budget, the mean lower bound, and how many of them say something."""
        found = []
        for i in range(measured.BUDGETS):
            known = [row for row in self.table if row[f"certified_{score}_{i}"]]
            if known:
                values = [float(row[f"certified_{score}_{i}"]) for row in known]
                useful = sum(value > self.floor for value in values)
                eps = float(known[0][f"certified_eps_{i}"])
                found.append((eps, _mean(values, (-1, 1)), useful))
        return found

    def widest(self, score: str) -> tuple[float, Mean, int]:
        """The entry of `certified` for the largest budget that has a bound of use, or else the first."""
        found = self.certified(score)
        useful = [entry for entry in found if entry[2]]
        return max(useful, key=lambda entry: entry[0], default=found[0])


def collect(
    table: Sequence[Row],
    files: Sequence[Path],
    options: argparse.Namespace,
    *,
    meaning: labels.Meaning,
    k: int,
    maps: int,
    reason: str,
) -> Facts:
    """Return what the rows say together.

    Args:
        table: Rows of the pictures.
        files: Where the maps of each picture are.
        options: Of the command.
        meaning: What labels mean to the network.
        k: Pixels in the top set.
        maps: How many maps the suite asks for, at most.
        reason: Why there are no interval bounds.
    """
    scores: dict[str, dict[str, Mean]] = {}
    for change in CHANGE_NAMES:
        for score in measured.SCORES:
            values = _numbers(table, f"{change}_{score}")
            if values:
                scores.setdefault(change, {})[score] = _mean(values, _RANGES[score])
    levels = {score: _numbers(table, f"chance_{score}") for score in measured.CHANCE}
    chance = {score: statistics.fmean(values) for score, values in levels.items() if values}
    if chance:
        chance["kendall"] = 0.0
    same = _identified(table, files, k)
    return Facts(table, files, options, meaning, k, maps, reason, scores, chance, same)


def _numbers(table: Sequence[Row], column: str) -> list[float]:
    values = [float(row[column]) for row in table if row[column]]
    return [value for value in values if not math.isnan(value)]


def _mean(values: Sequence[float], ends: tuple[float, float]) -> Mean:
    """The mean and its interval: of few pictures by Student's t, within the range of the score."""
    given = torch.tensor(values, dtype=torch.float64)
    low = high = math.nan
    if len(values) >= _MANY:
        low, high = metrics.interval(given, generator=torch.Generator().manual_seed(0))
    elif len(values) > 1:
        low, high = metrics.seed_interval(given)  # of one value each: the usual t interval
    low, high = (min(max(end, ends[0]), ends[1]) for end in (low, high))  # NaN stays
    return Mean(statistics.fmean(values), low, high, tuple(values))


def _identified(table: Sequence[Row], files: Sequence[Path], k: int) -> dict[str, Mean]:
    """For each change, how often a changed map is nearest to that of its own picture."""
    kept = [measured.read(path) for path in files]
    groups = [row["label"] or row["explained"] for row in table]
    found = {}
    for change in CHANGE_NAMES:
        pairs = [
            (group, parts["map"], parts[f"map_{change}"])
            for group, parts in zip(groups, kept, strict=True)
            if {"map", f"map_{change}"} <= parts.keys()
            and all(bool(parts[m].isfinite().all()) for m in ("map", f"map_{change}"))
        ]
        if not pairs:
            continue
        names, a, b = zip(*pairs, strict=True)
        y = torch.tensor([names.index(name) for name in names])
        values = _nearest(torch.stack(a), torch.stack(b), y, k)
        if values:
            found[change] = _mean(values, (0, 1))
    return found


def _nearest(a: Tensor, b: Tensor, y: Tensor, k: int) -> list[float]:
    score = functools.partial(metrics.topk_intersection, k=k)
    values = metrics.identification(a, b, y, score=score)
    return [value for value in values.tolist() if not math.isnan(value)]
