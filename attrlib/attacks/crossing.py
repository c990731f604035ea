"""A search without gradients among the points that several attacks found."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attrlib import _check, _random
from attrlib.attacks.balls import Ball
from attrlib.types import Inputs

_PARTS = (28, 14, 7, 4, 2)  # of the longer side of an image: the sides of blocks, in turn


@dataclass(frozen=True, kw_only=True)
class Crossing:
    r"""Put blocks of one point in place of those of another.

    $$z' = \Pi_{B(x)}\big(m \odot z_j + (1 - m) \odot z^*\big)$$

    for the best point $z^*$ so far, a point $z_j$ that another attack found, and a mask $m$ of square
    blocks. The blocks have 1/28, 1/14, 1/7, 1/4 or 1/2 of the longer side of an image; up to half of
    them are exchanged, which and how many is drawn for each image. `WorstOf` keeps what scores no
    higher. Different descents end in different corners of the ball, and a corner made of two of them
    needs no slope to be found.

    Cost of a try: a map, its score and a forward pass.

    Attributes:
        ball: `LinfBall` or `L2Ball`, into which each point is projected.
        tries: Points that are looked at, >= 1; other attacks take turns.

    Source: ours; crossover as in genetic algorithms (Holland 1975), with two parents.
    """

    ball: Ball
    tries: int = 300

    def __post_init__(self) -> None:
        """Check the number."""
        _check.count(tries=self.tries)

    def child(
        self,
        best: Inputs,
        other: Inputs,
        x: Inputs,
        *,
        turn: int,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return a point made of two.

        Args:
            best: Points (n, …), most of whose blocks stay.
            other: Points of the same shape, whose blocks take the others' place.
            x: Centres of the balls, of the same shape.
            turn: Number of the size of blocks: one after the other.
            generator: Source of the masks; None is torch's global generator.
        """
        _check.same_shape(other=other, best=best)
        _check.same_shape(x=x, best=best)
        return self.ball.project(torch.where(_blocks(x, turn, generator), other, best), x)


def _blocks(x: Tensor, turn: int, generator: torch.Generator | None) -> Tensor:
    """True on some blocks of a grid, up to half of them."""
    height, width = x.shape[-2:] if x.ndim > 2 else (1, x.shape[-1])
    side = max(1, round(max(height, width) / _PARTS[turn % len(_PARTS)]))
    down, across = -(-height // side), -(-width // side)
    noise = _random.uniform_like(x.new_empty((len(x), 1 + down * across)), generator=generator)
    share = (noise + 1) / 2
    chosen = (share[:, 1:] < share[:, :1] / 2).view(-1, down, across)
    chosen = chosen.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, :height, :width]
    return chosen.reshape(len(x), *[1] * (x.ndim - 3), *x.shape[max(1, x.ndim - 2) :])
