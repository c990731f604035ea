"""Noise from a generator.

Drawn on the generator's own device and moved, so that a CPU generator gives the same numbers to a
run on the CPU and to a run on an accelerator. Several processes that share a batch draw the noise of
the whole batch, and each keeps its own rows: see `part`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_PART: ContextVar[tuple[Tensor, int] | None] = ContextVar("part", default=None)


@contextmanager
def part(rows: slice | Tensor, *, of: int) -> Iterator[None]:
    """Within the block, noise has a row for each of `of` samples, of which the given rows are kept.

    Inside another such block the `of` samples are the rows which that one keeps.
    """
    outer = _PART.get()
    whole = torch.arange(of) if outer is None else outer[0]
    if len(whole) != of:
        raise ValueError(f"Expected rows of {len(whole)} samples, got rows of {of}")
    chosen = whole[rows if isinstance(rows, slice) else rows.cpu()]
    token = _PART.set((chosen, of if outer is None else outer[1]))
    try:
        yield
    finally:
        _PART.reset(token)


def normal_like(x: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise with the shape, dtype and device of `x`."""
    return _draw(torch.randn, x, x.shape, generator)


def normal_stack(x: Tensor, count: int, *, generator: torch.Generator | None) -> Tensor:
    """`count` draws of `normal_like` (count, n, …): the same numbers, in less time for few entries."""
    if _PART.get() is not None or _place(generator, x.device) != x.device:
        return torch.stack([normal_like(x, generator=generator) for _ in range(count)])
    stack = torch.empty((count, *x.shape), dtype=x.dtype, device=x.device)
    for noise in stack.unbind():
        noise.normal_(generator=generator)
    return stack


def uniform_like(x: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Noise uniform on [-1, 1) with the shape, dtype and device of `x`."""
    return 2 * _draw(torch.rand, x, x.shape, generator) - 1


def sign_like(x: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """-1 or 1 with equal chance, with the shape, dtype and device of `x`."""
    return torch.where(uniform_like(x, generator=generator) < 0, -1.0, 1.0).to(x)


def ball_like(x: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Points uniform in the unit l2 ball of each sample, in the shape of `x`."""
    return into_ball(normal_like(x, generator=generator), generator=generator)


def into_ball(noise: Tensor, *, radius: float = 1.0, generator: torch.Generator | None) -> Tensor:
    """Normal noise moved, in place, to points uniform in an l2 ball, each in its direction.

    The d-th power of its length is uniform.
    """
    rows = noise.flatten(1)
    volume = _draw(torch.rand, rows, (len(rows), 1), generator)
    length = radius * volume ** (1 / rows.shape[1])
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.mul_(length / norm).view_as(noise)  # in place: no second array for the noise


def seeded(number: int) -> torch.Generator:
    """A new generator on the CPU with this seed."""
    return torch.Generator().manual_seed(number)


def seed(generator: torch.Generator | None) -> int:
    """A seed for a stream of its own, drawn from the generator."""
    device = _place(generator, torch.device("cpu"))
    return int(torch.randint(2**62, (), generator=generator, device=device))


@contextmanager
def in_place_of_global(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Within the block, torch's global generators give noise that follows from the given one.

    For code that takes no generator. They are as before afterwards; None leaves them as they are.
    """
    if generator is None:
        yield
        return
    number, cuda = seed(generator), [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(number)
        for place in cuda:
            with torch.cuda.device(place):
                torch.cuda.manual_seed(number)
        yield


def _place(generator: torch.Generator | None, otherwise: torch.device) -> torch.device:
    """Where noise is drawn; raises for what is no generator, such as a seed."""
    if generator is None:
        return otherwise
    if not isinstance(generator, torch.Generator):
        raise TypeError(
            f"Expected generator to be a torch.Generator or None, got {type(generator).__name__}; "
            "torch.Generator().manual_seed(0) makes one of a seed"
        )
    return generator.device


def _draw(
    make: Callable[..., Tensor],
    x: Tensor,
    shape: tuple[int, ...],
    generator: torch.Generator | None,
) -> Tensor:
    place = _place(generator, x.device)
    chosen = _PART.get()
    if chosen is None:
        return make(shape, generator=generator, dtype=x.dtype, device=place).to(x.device)
    rows, of = chosen
    whole = make((of, *shape[1:]), generator=generator, dtype=x.dtype, device=place)
    if len(rows) != shape[0]:
        raise ValueError(f"Expected noise for {len(rows)} samples, got {shape[0]}")
    return whole[rows.to(place)].to(x.device)
