"""The suite behind every number of the book: one call, no parameters to tune."""

import functools
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from attrlib import _check, metrics
from attrlib.attacks.attribution import AttributionAttack
from attrlib.attacks.balls import Ball, L2Ball, LinfBall
from attrlib.attacks.identification import Identification
from attrlib.attacks.objectives import Cosine, TopK, cut
from attrlib.attacks.ranks import Order, Rank
from attrlib.attacks.worst import WorstOf
from attrlib.models import smoothed
from attrlib.types import Attack, Attribution, Classifier, Metric, Norm, Objective

SUITE = "1"
"""Version of the suite, in every table: rows of different versions do not mix."""

Effort = Literal["quick", "standard", "strong"]
Goal = Literal["top-k", "lens", "kendall", "cosine", "identification"]

_MOMENTUM, _MARGIN = 0.75, 0.1
_BLUNT, _SHARP = (10.0, 30.0, 100.0), (100.0, 300.0, 1000.0)


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

    Stages, each from the best point so far, on smooth copies of a network with kinks (on a smooth network
    itself):

    1. mass of the top k (`TopK`), blunt copies β = 10, 30, 100;
    2. the same, sharp copies β = 100, 300, 1000;
    3. soft ranks (`Rank`), temperature 1 → 0.1, sharp copies;
    4. soft ranks, temperature 0.1 → 0.02, sharp copies.

    All with momentum 0.75, steps from ε/4 (stage 4: ε/10) to ε/50, and a margin of 0.1 logits that keeps
    the prediction. Other goals put their own objective in place of these: `lens` the mass and ranks of
    the grown set, `kendall` soft rank correlation (`Order`) and ranks, `cosine` the cosine,
    `identification` the heatmaps of other images.

    | effort   | ascent steps an image | gradient evaluations of a gradient map |
    |----------|-----------------------|-----------------------------------------|
    | quick    | 60                    | about 6 a step on a smooth network,     |
    | standard | 420                   | 9 on one with kinks; measured in        |
    | strong   | 1,320                 | `results/attack-strength.csv`           |

    The strong suite gives stage 1 a random start, and goes through stages 2 to 4 twice, in longer runs.
    A stochastic or averaged map multiplies the cost by its passes.

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
    independent attack that found what mass and blunt copies had missed.
    """
    _check.nonnegative(eps=eps)
    _check.one_of(("linf", "l2"), norm=norm)
    _check.one_of(("quick", "standard", "strong"), effort=effort)
    _check.one_of(("top-k", "lens", "kendall", "cosine", "identification"), goal=goal)
    if (others is not None) != (goal == "identification"):
        word = "no others" if others is None else "others"
        raise ValueError(f"Expected others exactly for identification, got {word} for {goal}")
    ball: Ball = LinfBall(eps=eps) if norm == "linf" else L2Ball(eps=eps)
    score, floor = _score(goal, k, window, others)
    inner = None if goal in ("kendall", "identification") else score

    def stage(part: _Stage) -> AttributionAttack:
        return AttributionAttack(
            attribution=attribution,
            objective=part.objective,
            ball=ball,
            steps=part.steps,
            step_size=part.first * max(eps, 1e-6),
            step_decay=0.02 / part.first,
            restarts=part.restarts,
            surrogates=tuple(functools.partial(_copy, beta=beta) for beta in part.sharpness),
            score=inner,
            momentum=_MOMENTUM,
            margin=_MARGIN,
        )

    stages = _stages(goal, effort, k, window, others)
    return WorstOf(attacks=tuple(map(stage, stages)), score=score, floor=floor)


@dataclass(frozen=True)
class _Stage:
    objective: Objective
    sharpness: tuple[float, ...]
    steps: int
    first: float = 0.25  # length of the first step, in ε
    restarts: int = 1


def _stages(goal: Goal, effort: Effort, k: int, window: int, others: Tensor | None) -> list[_Stage]:
    """The stages of a suite; steps are those of the standard effort, or a share of them."""
    mass, hot, cold = _objectives(goal, k, window, others)
    blunt = _Stage(mass, _BLUNT, 60)
    sharp = _Stage(mass, _SHARP, 60)
    heated = _Stage(hot, _SHARP[1:], 120)
    cooled = _Stage(cold, _SHARP, 180, first=0.1)
    if effort == "quick":
        return [_Stage(mass, _BLUNT, 24), _Stage(cold, _SHARP, 36, first=0.1)]
    if effort == "standard":
        return [blunt, sharp, heated, cooled]
    again = [
        _Stage(mass, _SHARP, 120),
        _Stage(hot, _SHARP[1:], 200),
        _Stage(cold, _SHARP, 280, first=0.1),
    ]
    return [_Stage(mass, _BLUNT, 60, restarts=2), *again, *again]


def _objectives(
    goal: Goal, k: int, window: int, others: Tensor | None
) -> tuple[Objective, Objective, Objective]:
    """For stages of mass, of hot and of cold ranks."""
    if goal == "cosine":
        return Cosine(), Cosine(), Cosine()
    if goal == "identification":
        assert others is not None  # checked above
        fine, coarse = Identification(others=others), Identification(others=others, temperature=0.2)
        return coarse, fine, fine
    grown = window if goal == "lens" else 0
    ranks = [Rank(k=k, window=grown, temperature=t) for t in ((1.0, 0.1), (0.1, 0.02))]
    if goal == "kendall":
        return Order(), Order(temperature=(1.0, 0.1)), Order(temperature=(0.2, 0.05))
    return TopK(k=k, window=grown), ranks[0], ranks[1]


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


def _copy(model: Classifier, *, beta: float) -> Classifier:
    """A smooth copy of a network; a function that is no module is taken as it is."""
    return smoothed(model, beta, required=False) if isinstance(model, nn.Module) else model
