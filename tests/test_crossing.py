"""The exchange of blocks between the points of several attacks."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attrlib import metrics
from attrlib.attacks import Crossing, L2Ball, LinfBall, WorstOf
from attrlib.attributions import gradient
from tests import oracles
from tests.attack_oracles import Bowl, Fixed, zeros
from tests.oracles import seeded

BALL = LinfBall(eps=0.2)


def points(n: int, dtype: torch.dtype, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Images, and two points of their balls that differ in every pixel."""
    x = 0.3 + 0.4 * oracles.images(n, size=size).to(dtype)
    return x, x - 0.1, x + 0.1


def taken(x: Tensor, *, turn: int, seed: int = 0) -> Tensor:
    """Which pixels come from the other point."""
    best, other = x - 0.1, x + 0.1
    child = Crossing(ball=BALL).child(best, other, x, turn=turn, generator=seeded(seed))
    assert (torch.isclose(child, best) | torch.isclose(child, other)).all()
    return torch.isclose(child, other)


@pytest.mark.parametrize(("turn", "side"), [(0, 1), (1, 2), (2, 4), (3, 7), (4, 14), (5, 1)])
def test_blocks_are_exchanged_as_wholes(turn: int, side: int, dtype: torch.dtype) -> None:
    x, *_ = points(40, dtype, size=28)
    mask = taken(x, turn=turn)[:, 0]
    count = 28 // side
    blocks = mask.view(40, count, side, count, side).transpose(2, 3).flatten(3)
    assert (blocks.all(3) | ~blocks.any(3)).all()
    share = blocks[..., 0].double().mean((1, 2))
    if count > 4:  # enough blocks in an image to tell its share
        assert share.max() < 0.65  # up to half of them
        assert share.std() > 0.1  # how many differs from image to image
    assert share.mean() == pytest.approx(0.25, abs=0.08)
    assert not torch.equal(mask[0], mask[1])


def test_all_channels_of_a_pixel_go_together(dtype: torch.dtype) -> None:
    x = (0.3 + 0.4 * oracles.images(4).to(dtype)).repeat(1, 3, 1, 1)
    mask = taken(x, turn=0)
    assert mask.any()
    assert torch.equal(mask[:, 0], mask[:, 2])


@pytest.mark.parametrize("shape", [(3, 10), (3, 1, 1, 10), (3, 2, 9, 5), (3, 6, 6)])
def test_inputs_of_other_shapes(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = 0.3 + 0.4 * torch.rand(shape, generator=seeded(0), dtype=torch.float64).to(dtype)
    for turn in range(5):
        assert taken(x, turn=turn).shape == shape


def test_children_stay_in_the_ball(dtype: torch.dtype) -> None:
    x = 0.5 + torch.zeros(20, 1, 8, 8, dtype=dtype)
    ball = L2Ball(eps=0.3)
    best, other = (ball.sample(x, seeded(seed)) for seed in (0, 1))
    child = Crossing(ball=ball).child(best, other, x, turn=0, generator=seeded(0))
    assert ((child - x).flatten(1).norm(dim=1) <= 0.3).all()


def test_what_two_attacks_found_in_two_corners_is_joined(dtype: torch.dtype) -> None:
    """Each point takes half of the top set away; only a child that has both takes all of it."""
    x = torch.full((6, 1, 4, 4), 0.2, dtype=dtype)
    x[..., 0, :] = 0.8  # the map of `Bowl` is the image: the top four are the first row
    half, rest = x.clone(), x.clone()
    half[..., 0, :2] = 0.1
    rest[..., 0, 2:] = 0.1
    top = partial(metrics.topk_intersection, k=4)
    both = WorstOf(attacks=(Fixed(half), Fixed(rest)), score=top, attribution=gradient)
    for crossing, left in ((None, 0.5), (Crossing(ball=LinfBall(eps=0.7), tries=60), 0.0)):
        found = replace(both, crossing=crossing, keep_label=False)
        z = found(Bowl(), x, zeros(x), generator=seeded(0))
        a, b = x[:, 0], z[:, 0]
        assert top(a, b).mean() == pytest.approx(left), crossing


def test_children_that_change_the_prediction_are_not_taken(dtype: torch.dtype) -> None:
    x = torch.full((4, 1, 2, 2), 0.6, dtype=dtype)
    other = torch.full_like(x, 0.1)

    def model(z: Tensor) -> Tensor:
        total = z.square().flatten(1).sum(1) / 2
        return torch.stack([total, total.new_full((len(z),), 0.5)], 1)

    found = WorstOf(
        attacks=(Fixed(x), Fixed(other)),
        score=metrics.cosine,
        attribution=gradient,
        crossing=Crossing(ball=LinfBall(eps=0.5), tries=40),
    )
    z = found(model, x, zeros(x), generator=seeded(0))
    assert torch.equal(model(z).argmax(1), model(x).argmax(1))
    free = WorstOf(
        attacks=found.attacks,
        score=metrics.cosine,
        attribution=gradient,
        crossing=found.crossing,
        keep_label=False,
    )(model, x, zeros(x), generator=seeded(0))
    assert not torch.equal(free, z)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("tries", [0, -1, 1.5])
def test_bad_settings_are_named(tries: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="tries"):
        Crossing(ball=BALL, tries=tries)


@pytest.mark.usefixtures("unchecked_shapes")
def test_points_of_other_shapes_are_named(dtype: torch.dtype) -> None:
    x, best, other = points(3, dtype)
    with pytest.raises(ValueError, match="other"):
        Crossing(ball=BALL).child(best, other[:2], x, turn=0)
    with pytest.raises(ValueError, match="Expected x"):
        Crossing(ball=BALL).child(best, other, x[:2], turn=0)
