"""The suite behind every number of the book: one call, no parameters to tune."""

import functools
from dataclasses import dataclass, replace
from typing import Literal, get_args

from torch import Tensor, nn

from attrlib import _check, metrics
from attrlib.attacks.attribution import AttributionAttack
from attrlib.attacks.balls import Ball, L2Ball, LinfBall
from attrlib.attacks.crossing import Crossing
from attrlib.attacks.identification import Identification
from attrlib.attacks.objectives import Cosine, TopK, cut
from attrlib.attacks.ranks import Order, Rank
from attrlib.attacks.worst import WorstOf
from attrlib.models import softened
from attrlib.types import Attack, Attribution, Metric, Norm, Objective

SUITE = "3"
"""Version of the suite, in every table: rows of different versions do not mix."""

Effort = Literal["quick", "standard", "strong"]
Goal = Literal["top-k", "lens", "kendall", "cosine", "identification"]
EFFORTS: tuple[Effort, ...] = get_args(Effort)
GOALS: tuple[Goal, ...] = get_args(Goal)

_MOMENTUM, _MARGIN = 0.75, 0.1


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

    Stages on soft copies of the network (`models.softened`; widths are in units of what a random move of
    length ε does to the numbers of a layer), the first three from the image, each on its own:

    1. soft ranks (`Rank`), temperature 0.3 → 0.03, widths 0.16 → 0.016, one-sided pulls that reach
       tenfold;
    2. soft ranks of any size of map (`relative=False`), temperature 1 → 0.1, widths 0.1 → 0.02, pulls
       that reach threefold;
    3. mass of the top k (`TopK`), widths 2 → 0.07, symmetrical;

    then from the best point so far:

    4. soft ranks, temperature 0.1 → 0.02, widths 0.2 → 0.02, symmetrical;
    5. the same, widths 0.05 → 0.008, pulls that reach tenfold;
    6. blocks of the points that these stages found are exchanged (`Crossing`).

    All stages with momentum 0.75, steps from ε/4 (4 and 5: ε/10) to ε/50 (5: ε/100), and a margin of 0.1
    logits that keeps the prediction. Other goals put their own objective in place of these: `lens` the
    mass and ranks of the grown set, `kendall` soft rank correlation (`Order`), `cosine` the cosine,
    `identification` the heatmaps of other images.

    Ascent steps an image and exchanges: 60 and 0 (quick), 400 and 300 (standard), 1,200 and 900 (strong).
    The strong suite gives stage 3 a random start, too, and goes through longer stages 4 and 5 twice; the
    quick one has stages 1 and 4. A step on a gradient map takes as long as about 6 gradients, an exchange
    as 2. A map that is an average multiplies this by its passes.

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

    Source: ours, after the idea of Croce and Hein 2020 for predictions. Each version was mended after an
    independent attack that beat the one before: `Rank` and sharp copies (version 1), a width for each
    layer (2), one-sided pulls and exchanges (3).
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

    def surrogate(width: float, reach: float | None) -> functools.partial[nn.Module]:
        far = None if reach is None else reach * width
        return functools.partial(softened, width=width, reach=far, eps=length, norm=norm)

    def stage(part: _Stage) -> AttributionAttack:
        return AttributionAttack(
            attribution=attribution,
            objective=part.objective,
            ball=ball,
            steps=part.steps,
            step_size=part.first * length,
            step_decay=part.last / part.first,
            restarts=part.restarts,
            surrogates=tuple(surrogate(width, part.reach) for width in part.widths),
            score=inner,
            momentum=_MOMENTUM,
            margin=_MARGIN,
        )

    stages, exchanges = _stages(effort, *_objectives(goal, k, window, others))
    return WorstOf(
        attacks=tuple(map(stage, stages)),
        score=score,
        floor=floor,
        cold=sum(part.cold for part in stages),
        crossing=Crossing(ball=ball, tries=exchanges) if exchanges else None,
    )


@dataclass(frozen=True)
class _Stage:
    objective: Objective
    widths: tuple[float, ...]
    steps: int
    first: float = 0.25  # length of the first step, in ε
    last: float = 0.02
    reach: float | None = None  # of one-sided pulls, in widths
    restarts: int = 1
    cold: bool = False


def _stages(
    effort: Effort, ranks: Objective, wide: Objective, mass: Objective, cold: Objective
) -> tuple[list[_Stage], int]:
    """The stages, and the number of exchanges."""
    one = _Stage(ranks, (0.16, 0.09, 0.05, 0.028, 0.016), 100, reach=10, cold=True)
    two = _Stage(wide, (0.1, 0.07, 0.045, 0.03, 0.02), 100, reach=10 / 3, cold=True)
    three = _Stage(mass, (2.0, 0.7, 0.2, 0.07), 60, cold=True)
    four = _Stage(cold, (0.2, 0.07, 0.02), 80, first=0.1)
    five = _Stage(cold, (0.05, 0.028, 0.014, 0.008), 60, first=0.1, last=0.01, reach=10)
    if effort == "quick":
        return [replace(one, steps=36), replace(four, steps=24)], 0
    if effort == "standard":
        return [one, two, three, four, five], 300
    start = [replace(one, steps=200), replace(two, steps=200), replace(three, restarts=2)]
    cycle = [replace(four, steps=200), replace(five, steps=140)]
    return [*start, *cycle, *cycle], 900


def _objectives(
    goal: Goal, k: int, window: int, others: Tensor | None
) -> tuple[Objective, Objective, Objective, Objective]:
    """Ranks, ranks of maps of any size, mass, and cold ranks; what takes their place for other goals."""
    if goal == "cosine":
        return (Cosine(),) * 4
    if goal == "identification":
        assert others is not None  # checked above
        coarse, fine = (Identification(others=others, temperature=t) for t in (0.2, 0.05))
        return coarse, coarse, coarse, fine
    if goal == "kendall":
        warm, hot, cold = (Order(temperature=t) for t in ((0.5, 0.1), (1.0, 0.1), (0.2, 0.05)))
        return warm, hot, warm, cold
    rank = Rank(k=k, window=window if goal == "lens" else 0)
    ranks = replace(rank, temperature=(0.3, 0.03))
    wide = replace(rank, temperature=(1.0, 0.1), relative=False)
    return ranks, wide, TopK(k=k, window=rank.window), replace(rank, temperature=(0.1, 0.02))


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
