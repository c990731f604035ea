"""The suite behind every number of the book: one call, no parameters to tune."""

import functools
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor

from attrlib import _check, metrics
from attrlib.attacks.attribution import AttributionAttack
from attrlib.attacks.balls import Ball, L2Ball, LinfBall
from attrlib.attacks.identification import Identification
from attrlib.attacks.objectives import Cosine, TopK, cut
from attrlib.attacks.ranks import Order, Rank
from attrlib.attacks.worst import WorstOf
from attrlib.models import softened
from attrlib.types import Attack, Attribution, Metric, Norm, Objective

SUITE = "2"
"""Version of the suite, in every table: rows of different versions do not mix."""

Effort = Literal["quick", "standard", "strong"]
Goal = Literal["top-k", "lens", "kendall", "cosine", "identification"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
GOALS: tuple[Goal, ...] = get_args(Goal)

_MOMENTUM, _MARGIN = 0.75, 0.1
_BLUNT, _SHARP = (2.0, 0.7, 0.2), (0.2, 0.07, 0.02)  # widths of soft copies
_SHARPEST = _SHARP[1:]


def standard(
    *,
    eps: float,
    attribution: Attribution,
    k: int = 100,
    norm: Norm = "linf",
    effort: Effort = "standard",
    goal: Goal = "top-k",
    window: int = 1,
    others: Tensor | None = None,
) -> Attack:
    r"""Return the suite of attacks on an explanation, without parameters to tune.

    Stages, each from the best point so far, on soft copies of the network (`models.softened`; widths are
    in units of what a random move of length ε does to the numbers of a layer):

    1. mass of the top k (`TopK`), widths 2, 0.7, 0.2;
    2. the same, widths 0.2, 0.07, 0.02;
    3. soft ranks (`Rank`), temperature 0.1 → 0.02, widths 0.2, 0.07, 0.02;
    4. soft ranks of any size of map (`relative=False`), temperature 1 → 0.1, widths 0.07, 0.02;
    5. as 3, of any size of map.

    All with momentum 0.75, steps from ε/4 (stages 3 and 5: ε/10) to ε/50, and a margin of 0.1 logits that
    keeps the prediction. Other goals put their own objective in place of these: `lens` the mass and ranks
    of the grown set, `kendall` soft rank correlation (`Order`), `cosine` the cosine, `identification`
    the heatmaps of other images.

    Ascent steps an image: 60 (quick), 420 (standard), 1,320 (strong). The strong suite gives stage 1 a
    random start, too, and goes through longer stages 2 to 5 twice; the quick one has stages 1 and 3. A
    step on a gradient map takes as long as about 6 gradients. A map that is an average multiplies this by
    its passes.

    What an attack leaves of a score is an upper bound on robustness: a better attack may find less.

    Args:
        eps: Budget in pixel units, >= 0: in each entry (`linf`), or over all of an image (`l2`).
        attribution: Whose maps are attacked; differentiable.
        k: Pixels in the top set, for top-k and LENS.
        norm: `linf` or `l2`.
        effort: `quick`, `standard` or `strong`.
        goal: The score that is attacked and by which points are compared.
        window: Radius of the LENS window, for `lens`.
        others: Signed clean maps of other images (n, m, channels, h, w), for `identification`.

    Returns:
        An attack, called with `(model, x, y, *, generator=None)`. `SUITE` holds its version.

    Raises:
        ValueError: If a number is out of range, a word is unknown, or `others` is missing or not needed.

    Source: ours, after the idea of Croce and Hein 2020 for predictions. `Rank` and sharp copies after an
    independent attack that found what mass and blunt copies had missed; widths after a second one, which
    found what copies of one sharpness had missed (version 1, `models.smoothed` with β from 10 to 1000).
    """
    _check.nonnegative(eps=eps)
    _check.one_of(("linf", "l2"), norm=norm)
    _check.one_of(EFFORTS, effort=effort)
    _check.one_of(GOALS, goal=goal)
    if (others is not None) != (goal == "identification"):
        word = "no others" if others is None else "others"
        raise ValueError(f"Expected others exactly for identification, got {word} for {goal}")
    ball: Ball = LinfBall(eps=eps) if norm == "linf" else L2Ball(eps=eps)
    score, floor = _score(goal, k, window, others)
    inner = None if goal in ("kendall", "identification") else score
    length = max(eps, 1e-6)  # of what is no length at 0

    def stage(part: _Stage) -> AttributionAttack:
        return AttributionAttack(
            attribution=attribution,
            objective=part.objective,
            ball=ball,
            steps=part.steps,
            step_size=part.first * length,
            step_decay=0.02 / part.first,
            restarts=part.restarts,
            surrogates=tuple(
                functools.partial(softened, width=width, eps=length, norm=norm)
                for width in part.widths
            ),
            score=inner,
            momentum=_MOMENTUM,
            margin=_MARGIN,
        )

    stages = _stages(goal, effort, k, window, others)
    return WorstOf(attacks=tuple(map(stage, stages)), score=score, floor=floor)


@dataclass(frozen=True)
class _Stage:
    objective: Objective
    widths: tuple[float, ...]
    steps: int
    first: float = 0.25  # length of the first step, in ε
    restarts: int = 1


def _stages(goal: Goal, effort: Effort, k: int, window: int, others: Tensor | None) -> list[_Stage]:
    mass, cold, hot, end = _objectives(goal, k, window, others)
    if effort == "quick":
        return [_Stage(mass, _BLUNT, 24), _Stage(cold, _SHARP, 36, first=0.1)]
    if effort == "standard":
        return [
            _Stage(mass, _BLUNT, 60),
            _Stage(mass, _SHARP, 40),
            _Stage(cold, _SHARP, 80, first=0.1),
            _Stage(hot, _SHARPEST, 160),
            _Stage(end, _SHARP, 80, first=0.1),
        ]
    cycle = [
        _Stage(mass, _SHARP, 80),
        _Stage(cold, _SHARP, 140, first=0.1),
        _Stage(hot, _SHARPEST, 240),
        _Stage(end, _SHARP, 140, first=0.1),
    ]
    return [_Stage(mass, _BLUNT, 60, restarts=2), *cycle, *cycle]


def _objectives(
    goal: Goal, k: int, window: int, others: Tensor | None
) -> tuple[Objective, Objective, Objective, Objective]:
    """For stages of mass, of cold ranks, of hot ranks, and of cold ranks at the end."""
    if goal == "cosine":
        return (Cosine(),) * 4
    if goal == "identification":
        assert others is not None  # checked above
        coarse, fine = (Identification(others=others, temperature=t) for t in (0.2, 0.05))
        return coarse, fine, coarse, fine
    if goal == "kendall":
        cold = Order(temperature=(0.2, 0.05))
        return Order(), cold, Order(temperature=(1.0, 0.1)), cold
    rank = Rank(k=k, window=window if goal == "lens" else 0, temperature=(0.1, 0.02))
    hot = replace(rank, temperature=(1.0, 0.1), relative=False)
    return TopK(k=k, window=rank.window), rank, hot, replace(rank, relative=False)


def _score(goal: Goal, k: int, window: int, others: Tensor | None) -> tuple[Metric, float | None]:
    """The score and its floor."""
    if goal == "identification":
        assert others is not None  # checked above
        return _Behind(Identification(others=others)), None
    known: dict[str, tuple[Metric, float | None]] = {
        "top-k": (functools.partial(metrics.topk_intersection, k=k), 0.0),
        "lens": (functools.partial(metrics.lens_recall, k=k, window=window), 0.0),
        "kendall": (metrics.kendall, None),
        "cosine": (metrics.cosine, None),
    }
    return known[goal]


@dataclass(frozen=True, eq=False)
class _Behind:
    """Minus an objective, as a score; cut along with the samples."""

    objective: Identification

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        return -self.objective(a, b)

    def rows(self, index: Tensor) -> "_Behind":
        return _Behind(cut(self.objective, index))
