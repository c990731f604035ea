"""What an attack may do to an image: stay near it, and in [0, 1]; and to the words of a sentence."""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from attrlib import _check, _random, _shape
from attrlib.types import Inputs


@runtime_checkable
class Ball(Protocol):
    """A set of allowed points around each image, and the steps that fit its norm.

    Images are pixels in [0, 1]; a ball for other inputs has an attribute `span`: the lowest and the
    highest value of an entry, or None for no limits.
    """

    def project(self, z: Tensor, x: Tensor) -> Tensor:
        """Return an allowed point near `z`, exactly within the budget around `x`."""
        ...

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return a random allowed point around `x`."""
        ...

    def steepest(self, grad: Tensor) -> Tensor:
        """Return the step of length 1 that gains most along `grad`."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinfBall:
    r"""Images that differ from $x$ by at most $\varepsilon$ in every entry.

    $$\{z \in [0, 1]^d : \max_i |z_i - x_i| \le \varepsilon\}$$

    Attributes:
        eps: Budget in pixel units, >= 0; 8/255 is eight grey levels.
    """

    eps: float

    def __post_init__(self) -> None:
        """Check the budget."""
        _check.nonnegative(eps=self.eps)

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """Return the nearest allowed point.

        Args:
            z: Points (n, …).
            x: Images of the same shape, pixels in [0, 1].

        Returns:
            Points with `(z - x).abs() <= eps` in the dtype of `x` at every entry, and in [0, 1]. Clamping
            alone misses this for about half of all entries, since `x + eps` is rounded.
        """
        limit = _round_down(self.eps, x)
        near = torch.minimum(torch.maximum(z, x - limit), x + limit).clamp(0, 1)
        return _not_beyond(near, x, limit)

    def sample(self, x: Inputs, generator: torch.Generator | None = None) -> Inputs:
        """Return a random point: uniform in the cube around `x`, then projected.

        Args:
            x: Images (n, …), pixels in [0, 1].
            generator: Source of the noise; None is torch's global generator.
        """
        return self.project(x + self.eps * _random.uniform_like(x, generator=generator), x)

    def steepest(self, grad: Inputs) -> Inputs:
        """Return the sign of `grad`; zero where it is zero.

        Args:
            grad: Gradients (n, …).
        """
        return grad.sign()


@dataclass(frozen=True, kw_only=True)
class L2Ball:
    r"""Images at Euclidean distance at most $\varepsilon$ from $x$.

    $$\{z \in [0, 1]^d : \|z - x\|_2 \le \varepsilon\}$$

    Attributes:
        eps: Budget in pixel units, >= 0, over all entries of an image together.
    """

    eps: float

    def __post_init__(self) -> None:
        """Check the budget."""
        _check.nonnegative(eps=self.eps)

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """Return an allowed point: `z` clamped to [0, 1], then pulled straight towards `x` if too far.

        Allowed points stay as they are. Where [0, 1] does not bind, it is the nearest allowed point.

        Args:
            z: Points (n, …).
            x: Images of the same shape, pixels in [0, 1].

        Returns:
            Points whose norm of `z - x` is at most `eps` in the dtype of `x`, and in [0, 1].
        """
        limit = _round_down(self.eps, x)
        inside = z.clamp(0, 1)
        norm = _norm(inside - x)
        # A little short of the limit: a norm is a rounded sum of rounded squares.
        scale = limit * (1 - 64 * torch.finfo(x.dtype).eps) / norm
        step = scale * (inside - x)
        return torch.where(norm > limit, _not_beyond(x + step, x, step.abs()), inside)

    def sample(self, x: Inputs, generator: torch.Generator | None = None) -> Inputs:
        """Return a random point: uniform in the Euclidean ball around `x`, then projected.

        Args:
            x: Images (n, …), pixels in [0, 1].
            generator: Source of the noise; None is torch's global generator.
        """
        return self.project(x + self.eps * _random.ball_like(x, generator=generator), x)

    def steepest(self, grad: Inputs) -> Inputs:
        """Return `grad` scaled to norm 1 for each sample; zero where all of it is zero.

        Args:
            grad: Gradients (n, …).
        """
        # Divided by its largest entry first: the square of a small gradient may not exist in float32.
        peak = _shape.wide(grad.abs().flatten(1).amax(1), grad)
        grad = grad / torch.where(peak == 0, 1, peak)
        return grad / _norm(grad).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class WordBall:
    r"""Embedded sentences in which the vector of every word moves by at most $\varepsilon$.

    $$\{z : \|z_j - x_j\|_2 \le \varepsilon \text{ for each word } j\}$$

    The budget is one of each word and not of the sentence, so that long sentences get no smaller share,
    and it has the unit in which a synonym is away from a word. Padding and the last channel, which says
    where the words are, stay as they are. Vectors have no limits such as [0, 1].

    Attributes:
        eps: Budget in units of the word vectors, >= 0.
    """

    eps: float
    span: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Check the budget."""
        _check.nonnegative(eps=self.eps)

    def project(self, z: Inputs, x: Inputs) -> Inputs:
        """Return the nearest allowed point: each word's vector pulled straight towards `x` if too far.

        Args:
            z: Points (n, channels + 1, 1, words).
            x: Embedded inputs of the same shape, as `TextCNN.embed` makes them.

        Returns:
            Points whose words are within `eps` of those of `x` in its dtype.

        Raises:
            ValueError: If `x` is not of this shape, or its last channel has other values than 0 and 1.
        """
        real, limit = _words(x), _round_down(self.eps, x)
        away = torch.where(real, z - x, 0)
        norm = away.norm(dim=1, keepdim=True)
        # A little short of the limit: a norm is a rounded sum of rounded squares.
        step = limit * (1 - 64 * torch.finfo(x.dtype).eps) / norm * away
        near = torch.where(norm > limit, _not_beyond(x + step, x, step.abs()), z)
        return torch.where(real, near, x)

    def sample(self, x: Inputs, generator: torch.Generator | None = None) -> Inputs:
        """Return a random point: each word's vector uniform in its Euclidean ball.

        Args:
            x: Embedded inputs (n, channels + 1, 1, words).
            generator: Source of the noise; None is torch's global generator.
        """
        noise = torch.where(_words(x), _random.normal_like(x, generator=generator), 0)
        volume = (1 + _random.uniform_like(x[:, :1], generator=generator)) / 2
        length = self.eps * volume ** (1 / (x.shape[1] - 1))
        norm = noise.norm(dim=1, keepdim=True)
        return self.project(x + length * noise / torch.where(norm == 0, 1, norm), x)

    def steepest(self, grad: Inputs) -> Inputs:
        """Return `grad` scaled to norm 1 for each word; zero where all of it is zero.

        Args:
            grad: Gradients (n, channels + 1, 1, words).
        """
        peak = grad.abs().amax(1, keepdim=True)
        grad = grad / torch.where(peak == 0, 1, peak)
        norm: Tensor = grad.norm(dim=1, keepdim=True)
        return grad / norm.clamp(min=1)


def _words(x: Tensor) -> Tensor:
    """Which entries (n, channels + 1, 1, words) of embedded inputs belong to the vector of a word."""
    if x.ndim != 4 or x.shape[1] < 2 or x.shape[2] != 1:
        raise ValueError(f"Expected x of shape (n, channels + 1, 1, words), got {tuple(x.shape)}")
    last = x[:, -1:]
    if not bool(((last == 0) | (last == 1)).all()):
        raise ValueError(
            "Expected x with a last channel of 0 and 1, as TextCNN.embed gives it, got other values"
        )
    real = (last == 1).expand_as(x).clone()
    real[:, -1] = False
    return real


def _norm(x: Tensor) -> Tensor:
    return _shape.wide(x.flatten(1).norm(dim=1), x)


def _round_down(value: float, like: Tensor) -> float:
    """The largest number of the dtype of `like` that is not above `value`."""
    rounded = torch.tensor(value, dtype=like.dtype)
    if float(rounded) > value:
        rounded = torch.nextafter(rounded, torch.zeros_like(rounded))
    return float(rounded)


def _not_beyond(z: Tensor, x: Tensor, limit: float | Tensor) -> Tensor:
    """Move entries that rounding put beyond `limit` to the next number towards `x`; one is enough."""
    return torch.where((z - x).abs() > limit, torch.nextafter(z, x), z)
