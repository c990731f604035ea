"""Noise from a generator.

Drawn on the generator's own device and moved, so that a CPU generator gives the same numbers to a
run on the CPU and to a run on an accelerator.
"""

import torch
from torch import Tensor


def normal_like(x: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Standard normal noise with the shape, dtype and device of `x`."""
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=_place(x, generator)).to(
        x.device
    )


def uniform_like(x: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Noise uniform on [-1, 1) with the shape, dtype and device of `x`."""
    draw = torch.rand(x.shape, generator=generator, dtype=x.dtype, device=_place(x, generator))
    return (2 * draw - 1).to(x.device)


def ball_like(x: Tensor, *, generator: torch.Generator | None) -> Tensor:
    """Points uniform in the unit l2 ball of each sample, in the shape of `x`.

    A normal direction times a radius whose d-th power is uniform.
    """
    direction = normal_like(x, generator=generator).flatten(1)
    volume = torch.rand(
        (len(x), 1), generator=generator, dtype=x.dtype, device=_place(x, generator)
    ).to(x.device)
    radius = volume ** (1 / direction.shape[1])
    norm = torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    return direction.mul_(radius / norm).view_as(x)  # in place: no second array for the noise


def seed(generator: torch.Generator | None) -> int:
    """A seed for a stream of its own, drawn from the generator."""
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(2**62, (), generator=generator, device=device))


def _place(x: Tensor, generator: torch.Generator | None) -> torch.device:
    return x.device if generator is None else generator.device
