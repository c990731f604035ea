"""Several attacks as one: each image keeps the worst point that any of them finds."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from attrlib import _check, _model, _random, _shape
from attrlib.attacks.ascent import compared, defined, maps_of
from attrlib.attacks.attribution import AttributionAttack, UnattackedWarning, warn_unattacked
from attrlib.attacks.crossing import Crossing
from attrlib.attacks.objectives import cut
from attrlib.types import Attack, Attribution, Classifier, Inputs, Labels, Metric


@dataclass(frozen=True, kw_only=True)
class WorstOf:
    """Run several attacks; each image keeps the worst admissible point.

    Attacks run in order. The first `cold` ones start at `x`; a later one that can (`AttributionAttack`,
    `WorstOf`) starts at the best point so far. In the end the points of all attacks may be crossed.
    Points are compared on the real model, with one fixed noise for stochastic maps. Images that are at
    the floor are left out of further work; noise is drawn for all rows all the same, so that no row
    depends on another (but for the rounding of smaller batches).

    Attributes:
        attacks: The attacks, at least one.
        score: Metric that is minimised, see `AttributionAttack`.
        attribution: Maps that the score compares; None takes those of the first attack that has any.
        keep_label: Keep the predicted class of `x`, whatever the single attacks do.
        cold: So many attacks, >= 1, start at `x`; as many as there are leaves each on its own.
        crossing: Blocks of the points of all attacks are exchanged at the end; None leaves this out.
        floor: Score that cannot be undercut, such as 0 for top-k intersections; None if there is none.

    Source: the idea of an ensemble with one result, Croce and Hein 2020; there for predictions.
    """

    attacks: tuple[Attack, ...]
    score: Metric
    attribution: Attribution | None = None
    keep_label: bool = True
    cold: int = 1
    crossing: Crossing | None = None
    floor: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.attacks, tuple) or not all(map(callable, self.attacks)):
            raise TypeError(f"Expected attacks to be a tuple of attacks, got {self.attacks!r}")
        if not self.attacks:
            raise ValueError("Expected attacks to hold at least one attack, got an empty tuple")
        if self.attribution is None and not any(map(_attribution, self.attacks)):
            raise ValueError("Expected attribution, or an attack that has one, got neither")
        _check.count(cold=self.cold)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        start: Inputs | None = None,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return images whose explanations differ from those of `x`.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Images (n, …), pixels in [0, 1].
            y: Classes to explain, int64 (n,).
            start: Where cold attacks that can start instead of `x`.
            generator: Source of all noise; None is torch's global generator.

        Returns:
            Images within the budgets of the attacks; detached. A row that could not be attacked equals
            that of `x` bit for bit.

        Raises:
            TypeError: If `x` is not floating-point or `y` not int64.
            ValueError: If shapes disagree, a label is not a class of the model, `x` is not in [0, 1], or
                an attack of all rows finds no slope to follow. Rows without a map (zero or not finite)
                come back unchanged and are named in an `UnattackedWarning`.
        """
        _check.labelled(x, y)
        _check.pixels(x=x)
        _model.settled(model)
        x = x.detach()
        attribution = self.attribution or next(filter(None, map(_attribution, self.attacks)))
        maps = maps_of(attribution, model, generator)
        clean = maps(x, y)
        alive = defined(clean)
        clean = torch.where(_shape.wide(alive, x), clean, 0)
        with torch.no_grad():
            label = _model.decision(model, x)
        best = x.clone()
        lowest = compared(self.score, clean)(clean)

        def consider(z: Tensor, rows: Tensor, *, ties: bool = False) -> None:
            with _random.part(rows, of=len(x)):
                value = compared(cut(self.score, rows), clean[rows])(maps(z, y[rows]))
            better = value <= lowest[rows] if ties else value < lowest[rows]
            if self.keep_label:
                with torch.no_grad():
                    better &= _model.decision(model, z) == label[rows]
            best[rows] = torch.where(_shape.wide(better, z), z, best[rows])
            lowest[rows] = torch.where(better, value, lowest[rows])

        def open_rows() -> Tensor:
            unfinished = alive if self.floor is None else alive & (lowest > self.floor)
            return unfinished.nonzero()[:, 0]

        begun, pool = 0, []
        for attack in self.attacks:
            rows = open_rows()
            if len(rows) == 0:
                break
            # Only the first attack gets no start: later ones are not stopped by rows without a slope.
            begin = start if begun == 0 or start is not None else x
            begin = begin if begun < self.cold else best
            with _random.part(rows, of=len(x)), warnings.catch_warnings():
                warnings.simplefilter("ignore", UnattackedWarning)
                run = _started(attack, rows, begin)
                z = run(model, x[rows], y[rows], generator=generator)
            consider(z, rows)
            pool.append(x.index_copy(0, rows, z))
            begun += start is None or _starts(attack)
        rows = open_rows()
        if self.crossing and len(rows):
            for number in range(self.crossing.tries):
                turn, mate = divmod(number, len(pool))
                with _random.part(rows, of=len(x)):
                    child = self.crossing.child(
                        best[rows], pool[mate][rows], x[rows], turn=turn, generator=generator
                    )
                consider(child, rows, ties=True)
        warn_unattacked(~alive, "their map is zero or not finite")
        return best

    def rows(self, index: Tensor) -> "WorstOf":
        """Return the attack for some of the samples: what it knows of each is cut along.

        Args:
            index: Their numbers, or a mask (n,).
        """
        attacks = tuple(cut(attack, index) for attack in self.attacks)
        return replace(self, attacks=attacks, score=cut(self.score, index))


def _attribution(attack: Attack) -> Attribution | None:
    found: Attribution | None = getattr(attack, "attribution", None)
    if found is None and isinstance(attack, WorstOf):
        return next(filter(None, map(_attribution, attack.attacks)))
    return found


def _starts(attack: Attack) -> bool:
    """Whether an attack takes a start."""
    return isinstance(attack, AttributionAttack | WorstOf)


def _started(attack: Attack, rows: Tensor, begin: Tensor | None) -> Callable[..., Tensor]:
    """The attack on some rows, from its start if it takes one."""
    part: Callable[..., Tensor] = cut(attack, rows)
    if begin is None or not _starts(attack):
        return part
    return functools.partial(part, start=begin[rows])
