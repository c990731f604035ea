"""What `python -m attrlib report` measures on each picture: a row of numbers, and the maps themselves."""

import argparse
import functools
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from torch import Tensor, nn
from tqdm import tqdm

from attrlib import _random, attacks, data, metrics
from attrlib.commands import choice, network, outcome, proofs, rows
from attrlib.maps import to_heatmap
from attrlib.types import Attack, Attribution, Metric

CHANGES = ("attack", "noise", *data.BENIGN)
"""What is done to each picture: the suite, plain noise of the same size, and three benign changes."""

SCORES = ("topk_intersection", "lens_recall", "kendall", "cosine", "center_shift")
"""How alike the maps before and after a change are; the last one is a distance."""

CHANCE = ("topk_intersection", "lens_recall", "cosine")
"""Scores whose chance level is no constant 0."""

BUDGETS = 3
"""For how many budgets a certificate is computed."""

PROVED = ("topk", "cosine", "kendall")
"""Columns of lower bounds, for each budget."""

COLUMNS = (
    "name",
    "label",
    "prediction",
    "correct",
    "explained",
    *(f"{change}_{part}" for change in CHANGES for part in (*SCORES, "prediction_kept")),
    *(f"chance_{score}" for score in CHANCE),
    "changed",
    "eps",
    "largest_change",
    "certificate",
    *(f"certified_{part}_{i}" for i in range(BUDGETS) for part in ("eps", *PROVED)),
    "map_seconds",
    "attack_seconds",
    "certificate_seconds",
    "note",
)

_DRAWS = 20  # random orders behind the chance level of the cosine
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Work:
    """What is done with each batch.

    Args:
        options: As `report.add_options` declares them.
        attribution: Whose maps are measured.
        attack: The suite, for an attribution.
        model: The network.
        device: Where it is.
        k: Pixels in the top set.
        proof: What certifies, if anything does.
        classes: Class of the network that each label means; None if nobody knows.
    """

    options: argparse.Namespace
    attribution: Attribution
    attack: Callable[[Attribution], Attack]
    model: nn.Module
    device: torch.device
    k: int
    proof: proofs.Method | None
    classes: Tensor | None

    def __call__(
        self, part: rows.Part, bar: "tqdm[Any]"
    ) -> tuple[list[rows.Row], list[rows.Figure]]:
        """A row for each picture of a batch, and what writes its maps.

        What fails for reasons of the network leaves its columns empty and is told in the note.
        """
        x, label = part.images.x.to(self.device), part.images.y
        prediction = network.predict(self.model, x)
        truth = None if self.classes is None else self.classes[label].to(self.device)
        y = truth if truth is not None and self.options.explain == "label" else prediction
        table = [
            dict.fromkeys(COLUMNS, "")
            | {
                "name": name,
                "label": rows.class_name(part.images, int(label[j])),
                "prediction": str(int(prediction[j])),
                "correct": "" if truth is None else str(bool(prediction[j] == truth[j])),
                "explained": str(int(y[j])),
                "eps": f"{self.options.eps:.9g}",
            }
            for j, name in enumerate(part.names)
        ]
        batch = _Batch(self, part, bar, x, y, prediction, table)
        batch.measure()
        for row in table:
            row["note"] = "; ".join(dict.fromkeys(n for n in (row["note"], *batch.notes) if n))
        return table, [_saved({k: t[j] for k, t in batch.kept.items()}) for j in range(len(x))]

    def maps(self, x: Tensor, y: Tensor) -> Tensor:
        """Maps with noise that is the same for all calls."""
        noise = torch.Generator().manual_seed(self.options.seed)
        return self.attribution(self.model, x, y, generator=noise).detach()


@dataclass
class _Batch:
    """Pictures whose rows are being filled in; `kept` is what is written of each."""

    work: Work
    part: rows.Part
    bar: "tqdm[Any]"
    x: Tensor
    y: Tensor
    prediction: Tensor
    table: list[rows.Row]
    kept: dict[str, Tensor] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def measure(self) -> None:
        """Explain the pictures, change them, and certify what can be."""
        self.kept["image"] = self.x
        before = time.perf_counter()
        a = self._tried("maps", lambda: self.work.maps(self.x, self.y))
        self.bar.update()
        if a is None:
            return
        self._time("map", before)
        self.kept["map"] = to_heatmap(a)
        self._chance(a)
        noise = torch.Generator().manual_seed(
            self.work.options.seed + 1000003 * self.part.number  # of its own for each batch
        )
        self._compare("noise", a, lambda: self._noisy(noise))
        for name, change in data.BENIGN.items():
            self._compare(name, a, functools.partial(change, self.x))
        self._compare("attack", a, lambda: self._attacked(a, noise))
        self._certify()

    def _chance(self, a: Tensor) -> None:
        """Chance levels of the scores; NaN for maps that are not finite."""
        known = a.flatten(1).isfinite().all(1)
        k, window = self.work.k, self.work.options.window
        heat = to_heatmap(a)
        scores: dict[str, tuple[Metric, Tensor]] = {
            "topk_intersection": (functools.partial(metrics.topk_intersection, k=k), heat),
            "lens_recall": (functools.partial(metrics.lens_recall, k=k, window=window), heat),
            "cosine": (metrics.cosine, a),
        }
        for name, (metric, maps) in scores.items():
            values = a.new_full((len(a),), torch.nan)
            if bool(known.any()):
                noise = torch.Generator().manual_seed(self.work.options.seed)
                values[known] = metrics.chance_level(
                    metric, maps[known], maps[known], draws=_DRAWS, generator=noise
                )
            for row, value in zip(self.table, values.tolist(), strict=True):
                row[f"chance_{name}"] = f"{value:.6f}"

    def _compare(self, name: str, a: Tensor, make: Callable[[], Tensor]) -> None:
        """Change the pictures and compare the maps."""
        z = self._tried(name, make)
        b = None if z is None else self._tried(f"{name} map", lambda: self.work.maps(z, self.y))
        self.bar.update()
        if z is None or b is None:
            return
        if name == "shift":  # the map has moved along: it is moved back
            b = data.shift(b, right=-1)
        scores = outcome.scores(a, b, k=self.work.k, window=self.work.options.window)
        same = network.predict(self.work.model, z) == self.prediction
        for j, row in enumerate(self.table):
            row[f"{name}_prediction_kept"] = str(bool(same[j]))
            row |= {f"{name}_{score}": f"{float(scores[score][j]):.6f}" for score in SCORES}
        self.kept[f"map_{name}"] = to_heatmap(b)
        if name == "attack":
            self.kept["attacked"] = z

    def _noisy(self, generator: torch.Generator) -> Tensor:
        """Noise of full size: each entry by eps up or down, or a random direction of length eps."""
        eps = self.work.options.eps
        if self.work.options.norm == "linf":
            noise = attacks.RandomSign(eps=eps)
            return noise(self.work.model, self.x, self.y, generator=generator)
        step = _random.normal_like(self.x, generator=generator)
        length = step.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return attacks.L2Ball(eps=eps).project(self.x + eps * step / length, self.x)

    def _attacked(self, a: Tensor, noise: torch.Generator) -> Tensor:
        """The pictures after the suite."""
        attack = self.work.attack(choice.counted(self.work.attribution, self.bar.update))
        before = time.perf_counter()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            z = attack(self.work.model, self.x, self.y, generator=noise)
        self._time("attack", before)
        for text in dict.fromkeys(outcome.said(w.message, self.part.names) for w in caught):
            tqdm.write(f"attrlib report: {text}", file=sys.stderr)
        for j, row in enumerate(self.table):
            changed = not torch.equal(self.x[j], z[j])
            row["changed"] = str(changed)
            row["largest_change"] = f"{float((z[j] - self.x[j]).abs().max()):.9g}"
            row["note"] = "" if changed else f"left unchanged: {outcome.why(a[j])}"
        return z

    def _certify(self) -> None:
        """Lower bounds, where the method gives them."""
        proof = self.work.proof
        if proof is None:
            return
        arguments = (self.work.model, self.x, self.y, self.part.places, self.bar.update)
        before = time.perf_counter()
        found = self._tried("certificate", lambda: proof.proved(*arguments))
        if found is None:
            return
        self._time("certificate", before)
        for j, row in enumerate(self.table):
            row["certificate"] = "smoothing" if isinstance(proof, proofs.Smoothing) else "interval"
            for i, eps in enumerate(proof.budgets):
                row[f"certified_eps_{i}"] = f"{eps:.9g}"
                row |= {
                    f"certified_{score}_{i}": proofs.down(float(found.scores[score][j, i]))
                    for score in PROVED
                    if score in found.scores
                }

    def _time(self, what: str, before: float) -> None:
        """Write the seconds that each picture took."""
        for row in self.table:
            row[f"{what}_seconds"] = f"{(time.perf_counter() - before) / len(self.x):.3f}"

    def _tried(self, what: str, work: Callable[[], _Found]) -> _Found | None:
        """The result; None, with a note, where the network does not allow it."""
        try:
            return work()
        except (MemoryError, OSError, torch.OutOfMemoryError):
            raise  # of the machine: another call may do better
        except Exception as error:  # of code that is not ours
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            self.notes.append(f"no {what}: {kind}{rows.line(error)}")
            return None


def steps(attack: Attack, proof: proofs.Method | None) -> Callable[[int], int]:
    """By how much the progress bar moves for a batch of so many pictures: maps, and what a proof counts.

    Args:
        attack: The suite.
        proof: What certifies, if anything does.
    """
    maps = 1 + len(CHANGES) + choice.maps(attack)
    return lambda images: maps + (proof.steps(images) if proof else 0)


def read(path: Path) -> dict[str, Tensor]:
    """Return what was kept of a picture: `image`, `attacked`, and heatmaps `map` and `map_…`.

    Args:
        path: File of the store; one that is not there gives nothing.
    """
    return safetensors.torch.load(path.read_bytes()) if path.exists() else {}


def _saved(parts: dict[str, Tensor]) -> rows.Figure:
    held = {name: part.detach().float().cpu().contiguous() for name, part in parts.items()}
    return lambda path: rows.write(path, safetensors.torch.save(held))
