"""Noise from a generator: many draws at once are the draws one by one."""

import pytest
import torch

from attrlib import _random
from attrlib._random import seeded


@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (3, 1, 5, 5), (2, 3), (0, 1, 4, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_stack_holds_the_draws_in_their_order(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.ones(shape, dtype=dtype, requires_grad=True)
    one, all_ = seeded(3), seeded(3)
    singly = torch.stack([_random.normal_like(x, generator=one) for _ in range(4)])
    stack = _random.normal_stack(x, 4, generator=all_)
    assert torch.equal(stack, singly)
    assert stack.dtype == dtype
    assert not stack.requires_grad
    assert torch.equal(one.get_state(), all_.get_state())


def test_a_stack_of_a_part_is_a_part_of_the_stack() -> None:
    x = torch.ones(5, 1, 3, 3)
    whole = _random.normal_stack(x, 2, generator=seeded(0))
    with _random.part(slice(1, 3), of=5):
        some = _random.normal_stack(x[1:3], 2, generator=seeded(0))
    # Of few entries a whole batch and a stack of batches have the same noise, sample by sample.
    one = torch.stack([_random.normal_like(x, generator=g) for g in [seeded(0)] for _ in range(2)])
    assert torch.equal(whole, one)
    assert torch.equal(some, one[:, 1:3])
