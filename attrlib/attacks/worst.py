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
from attrlib.attacks.objectives import cut
from attrlib.types import Attack, Attribution, Classifier, Inputs, Labels, Metric


@dataclass(frozen=True, kw_only=True)
class WorstOf:
    """Run several attacks; each image keeps the worst admissible point.

    Attacks run in order. One that can (`AttributionAttack`, `WorstOf`) starts at the best point so far,
    unless `warm` is False; the first starts at `x`. Points are compared on the real model, with one
    fixed noise for stochastic maps. Images that are at the floor are left out of further work; noise is
    drawn for all rows all the same, so that no row depends on another (but for the rounding of smaller
    batches).

    Attributes:
        attacks: The attacks, at least one.
        score: Metric that is minimised, see `AttributionAttack`.
        attribution: Maps that the score compares; None takes those of the first attack that has any.
        keep_label: Keep the predicted class of `x`, whatever the single attacks do.
        warm: Later attacks start at the best point so far.
        floor: Score that cannot be undercut, such as 0 for top-k intersections; None if there is none.

    Source: the idea of an ensemble with one result, Croce and Hein 2020; there for predictions.
    """

    attacks: tuple[Attack, ...]
    score: Metric
    attribution: Attribution | None = None
    keep_label: bool = True
    warm: bool = True
    floor: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        if not isinstance(self.attacks, tuple) or not all(map(callable, self.attacks)):
            raise TypeError(f"Expected attacks to be a tuple of attacks, got {self.attacks!r}")
        if not self.attacks:
            raise ValueError("Expected attacks to hold at least one attack, got an empty tuple")
        if self.attribution is None and not any(map(_attribution, self.attacks)):
            raise ValueError("Expected attribution, or an attack that has one, got neither")

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
            start: Where the first attack that can starts instead of `x`.
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

        def consider(z: Tensor, rows: Tensor) -> None:
            with _random.part(rows, of=len(x)):
                value = compared(cut(self.score, rows), clean[rows])(maps(z, y[rows]))
            better = value < lowest[rows]
            if self.keep_label:
                with torch.no_grad():
                    better &= _model.decision(model, z) == label[rows]
            best[rows] = torch.where(_shape.wide(better, z), z, best[rows])
            lowest[rows] = torch.where(better, value, lowest[rows])

        begin = start
        for attack in self.attacks:
            open_rows = alive if self.floor is None else alive & (lowest > self.floor)
            rows = open_rows.nonzero()[:, 0]
            if len(rows) == 0:
                break
            with _random.part(rows, of=len(x)), warnings.catch_warnings():
                warnings.simplefilter("ignore", UnattackedWarning)
                run = _started(attack, rows, begin)
                z = run(model, x[rows], y[rows], generator=generator)
            consider(z, rows)
            if start is None or _starts(attack):
                # Later attacks get a start in any case: it does not stop them that rows with a slope are
                # done and left out.
                begin = best if self.warm else x if start is None else start
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
