"""Another attack on the top-k score of gradient maps, without code of the suite; run by `tests.refute`.

*One-sided slopes.* The top k are counted on the map itself, or nearly so, and never on a soft copy: by
the chain rule each unit's derivative has a slope on the score, and the unit is pushed along it. What
replaces the derivative of a step, which is zero, looks at which side a unit is on: one that is to change
sides is pushed from far away, one that is where it should be only when it is about to leave. The
derivative of a soft slope is symmetrical, and lets go of a unit that is far on the wrong side.

*Crossing.* In the end, points that different descents found are crossed: blocks of pixels of one take the
place of those of the best, and what scores lower on the real network stays. No gradient is needed.

Version 3 of the suite took both ideas from here, so what is left between the two is tuning and luck;
`tests.squares` is an attack of another kind.

Networks, allowed points and the score come from `tests.masks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from attrlib.models import SmallCNN
from attrlib.types import Classifier
from tests.masks import LEAD, MOMENTUM, Best, Task, Written, near_boundary

KEPT = 0.1  # width for units on the side they should be on, as a part of the others'
SIDES = (1, 2, 4, 7, 14)  # of blocks


class Push(NamedTuple):
    """A descent: values at its first and its last step, geometric in between."""

    heat: tuple[float, float]  # temperature of the soft count
    width: tuple[float, float]  # of the slopes, in spreads of a unit
    step: tuple[float, float]  # in ε
    mixed: float  # width of the derivatives of the map that is counted, as a part of `width`
    relative: bool  # to the size of the map


# From the image, from it, from a corner, from near the boundary.
PUSHES = (
    Push((0.3, 0.03), (1, 0.1), (0.25, 0.02), 0.1, relative=True),
    Push((1, 0.05), (0.5, 0.1), (0.25, 0.02), 0.1, relative=False),
    Push((1, 0.1), (0.5, 0.1), (0.25, 0.02), 0.3, relative=False),
    Push((1, 0.05), (0.5, 0.1), (0.25, 0.02), 0.3, relative=True),
)
# From the best point so far.
COLD = (
    Push((0.1, 0.02), (0.3, 0.05), (0.1, 0.01), 0.1, relative=True),
    Push((0.3, 0.03), (0.3, 0.05), (0.1, 0.01), 0.1, relative=False),
)


def slope(task: Task, z: Tensor, heat: float, width: float, push: Push) -> Tensor:
    """Where the count rises; minus where the lead does, if it is short."""
    z, one = z.detach().requires_grad_(), z.new_ones(1)
    logits, pre = task.net.forward(z)
    own = 0.0 if task.net.beta is None else 1 / task.net.beta
    wide = [own + width * s for s in task.spread]
    near = [own + width * push.mixed * s for s in task.spread]
    slopes = [(u / w).sigmoid().detach().requires_grad_() for u, w in zip(pre, near, strict=True)]
    g = task.net.back(slopes, task.y).flatten(1)
    value = task.goal.soft(g, heat * one, push.relative * one)
    pulls = []
    for c, u, w in zip(torch.autograd.grad(value.sum(), slopes), pre, wide, strict=True):
        wrong = (c > 0) == (u > 0)  # the count is to fall
        kept = own + KEPT * (w - own)
        pulls.append(c / w * (-u.detach().abs() / torch.where(wrong, w, kept)).exp())
    (rise,) = torch.autograd.grad(pre, z, pulls, retain_graph=True)
    rise, lead = _scaled(rise), task.lead(logits)
    if bool((lead < LEAD).any()):
        (back,) = torch.autograd.grad(lead[lead < LEAD].sum(), z)
        rise = rise - _scaled(back)
    return rise


def descend(task: Task, z: Tensor, push: Push, steps: int) -> Best:
    """Go down by signs of a momentum."""
    best, move = Best(task, task.x), torch.zeros_like(z)
    best.see(z)
    for i in range(steps):
        share = i / max(1, steps - 1)
        heat, width, step = (first * (last / first) ** share for first, last in push[:3])
        move = MOMENTUM * move + slope(task, z, heat, width, push)
        z = task.project(z - task.eps * step * move.sign())
        best.see(z)
    return best


def cross(task: Task, pool: Sequence[Tensor], tries: int, generator: Generator | None) -> Best:
    """Blocks of the points of a pool in place of those of the best, kept if the real score falls."""
    best = Best(task, task.x)
    for z in pool:
        best.see(z)
    for i in range(tries):
        partner = pool[int(torch.randint(len(pool), (1,), generator=generator))]
        blocks = _blocks(best.z, SIDES[i % len(SIDES)], generator)
        best.see(torch.where(blocks, partner, best.z), ties=True)
    return best


@dataclass(frozen=True)
class Crossing:
    """The attack, called as those of the package are.

    `steps` of each of the four descents, `cold` of each of the two that follow, `tries` of the crossing.
    """

    eps: float
    steps: int = 90
    cold: int = 60
    tries: int = 600

    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, /, *, generator: Generator | None = None
    ) -> Tensor:
        if not isinstance(model, SmallCNN):
            raise TypeError(f"Expected model to be a SmallCNN, got {type(model).__name__}")
        task = Task(Written(model), x, y, self.eps, "top-k")
        starts = [x, x, task.corner(generator), near_boundary(task)]
        pool, best = [], Best(task, x)
        for start, push in zip(starts, PUSHES, strict=True):
            pool.append(descend(task, start, push, self.steps).z)
            best.see(pool[-1])
        for push in COLD:
            pool.append(descend(task, best.z, push, self.cold).z)
            best.see(pool[-1])
        return cross(task, pool, self.tries, generator).z


def _blocks(like: Tensor, side: int, generator: Generator | None) -> Tensor:
    """True on some blocks of a grid, up to half of them: how many and which differs from row to row."""
    n, count = len(like), like.shape[-1] // side
    share = torch.rand((n, 1, 1, 1), generator=generator) / 2
    chosen = torch.rand((n, 1, count, count), generator=generator) < share
    return chosen.repeat_interleave(side, 2).repeat_interleave(side, 3).to(like.device)


def _scaled(rise: Tensor) -> Tensor:
    return rise / rise.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-20)
