"""Maps of noisy copies of one image: streams of noise, and maps that are held to their promise."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from attrlib import _check, _passes, _shape
from attrlib.certificates.bounded import Bounded
from attrlib.certificates.volume import Law
from attrlib.types import Classifier

_BLOCK = 32  # draws of noise at once, whatever the batch size
# A map longer than the bound by a larger share breaks its promise; below, it is rounding.
_SLACK = 1e-4


def maps(
    g: Bounded,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    law: Law,
    batch_size: int | None,
    streams: tuple[torch.Generator, torch.Generator],
) -> Callable[[int], Iterator[Tensor]]:
    """Return a function that yields so many of the maps (k, …) of noisy copies of one image, in parts."""
    noise, inner = streams
    points = _points(x, law, noise)

    def function(rows: Tensor, labels: Tensor, *, look: bool) -> Tensor:
        return _kept(g, g(model, rows, labels, generator=inner).detach())

    def draw(count: int) -> Iterator[Tensor]:
        for stack in _passes.passes(
            function, points, y, like=x, count=count, batch_size=batch_size
        ):
            yield stack[:, 0]

    return draw


def streams(base: int, number: int, place: torch.device) -> tuple[torch.Generator, torch.Generator]:
    """Two generators that follow from a seed and the number of an image: for the noise, and for g."""
    _check.count(index=number, low=0)
    first, second = np.random.SeedSequence([base, number]).generate_state(2, np.uint64)
    noise, inner = (torch.Generator(place).manual_seed(int(s) >> 1) for s in (first, second))
    return noise, inner


def _points(x: Tensor, law: Law, generator: torch.Generator) -> Callable[[range], Tensor]:
    """Noisy copies (k, 1, …) of an image in the order of a stream that no batch size changes."""
    exact = x.double()
    like = exact.expand(_BLOCK, *x.shape[1:])
    left = exact[:0]

    def points(part: range) -> Tensor:
        nonlocal left
        parts, ready = [left], len(left)
        while ready < len(part):
            parts.append(law.noise(like, generator=generator))
            ready += _BLOCK
        drawn = torch.cat(parts)
        left = drawn[len(part) :]
        return (exact + drawn[: len(part)]).to(x.dtype)[:, None]

    return points


def _kept(g: Bounded, a: Tensor) -> Tensor:
    """The maps as float64, cut to the bound; raise if they break what is promised of them."""
    if g.nonnegative and not bool(a.min() >= 0):
        _check.finite(**{"maps of attribution": a})
        raise ValueError(
            f"Expected maps of attribution without values below 0, got {float(a.min()):.6g}"
        )
    maps = a.double()
    size = torch.linalg.vector_norm(maps.flatten(1), dim=1)
    low, high = g.limits
    promises = [(g.bound, "length", float(size.max()))]
    if high < g.bound:  # else a map of this length has no larger entry
        promises.append((high, "entry", float(maps.abs().max())))
    for promise, name, value in promises:
        if not value <= promise * (1 + _SLACK):
            _check.finite(**{"maps of attribution": a})
            raise ValueError(
                f"Expected maps of attribution with {name} <= {promise:.6g}, got {value:.6g}"
            )
    if g.binary and not bool(((maps == 0) | (maps == 1)).all()):
        raise ValueError("Expected maps of attribution of zeros and ones, got other values")
    if any(value > promise for promise, _, value in promises):
        maps = maps.clamp(low, high)
        scale = torch.where(size > g.bound, g.bound / size, 1)
        maps = maps * _shape.wide(scale, maps)
    return maps
