r"""Bounds that hold for every point of a box, without noise: intervals through the network and back.

The box holds all images within `eps` of `x` in every entry, and in [0, 1]; for inputs that are no images,
such as sentences, it is given by its ends. A number of the network lies in $c \pm r$, centre and radius.
A linear step takes $(c, r)$ to $(Wc + b, |W| r)$, an activation takes ends to ends. The slopes go back in
the same way, through $W^\top$ and $|W|^\top$, and times the slopes that each activation can have in its
interval. What is bounded is what the network does when it is called, step by step; a step without a rule
is refused by name. Two correlated numbers are bounded as if they were independent, so the bounds are true
but not tight, and grow with the depth and with the box.

**Rounding.** Bounds are computed in float64 whatever the type of `x`, with the weights as they are. With
the unit roundoff $u = 2^{-53}$ and $\gamma_m = m u / (1 - m u)$, a sum of n products and a bias, in any
order, is off by at most $\gamma_{n+1} (|W||a| + |b|)$. Let the inputs be known as
$|a - c| \le r + 8u (|c| + r)$. Then both the centre computed here and the value that a network computes
in float64 may be off by $\gamma_{n+1}$, and the radius computed here may come out short by the share
$\gamma_{n+4}$. So each radius is widened to $r + s (|c| + r)$ before its step and by $s |b|$ after it;
$s \ge 3 \gamma_{n+4} + 8u$ is enough, and $s = 8 (n + 8) u$ is taken, with the number of entries of the
input or output for n, whichever is larger, so that it covers the transpose, too. Sums of slopes, ends of
intervals and exponentials ($e^v$ is off by a relative $|v| u$, and a few $u$) are widened likewise. The
bounds hold for the exact gradient and for one computed in float64, provided that no number underflows; on
shipped networks the margin is at most 2e-8 of the largest entry of a map.

A gradient computed in float32 has a rounding of its own. Bounds for such an `x` give each sum on the way
back one more unit of roundoff of float32, times the sum of absolute values, and the result four of its
largest entry; and the box holds every image whose distance, taken in float32, is at most `eps`. This is
measured, not proved: at `eps` 0 it covers the float32 maps of all of 1,000 images on two shipped ReLU
networks and of 98 % on a softplus one, and moves the bounds by less than 3e-5. At a kink nothing covers
it: where a neuron is within rounding of switching, float32 may see it on the other side. Compute maps in
float64 where that counts.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from attrlib import _check, _model, _passes, _shape
from attrlib.certificates._rules import RULES
from attrlib.certificates._trace import Box, NoBoundsError, Tape, named, roundoff
from attrlib.types import Classifier, Inputs, Labels, Logits

Ends: TypeAlias = tuple[Inputs, Inputs]
"""The lower and the upper ends of a box, for each sample."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """A box that is a choice: each column of a sample is that column of one of several samples.

    Attributes:
        choices: The samples (n, m, channels, h, w) to choose from, m for each.
    """

    choices: Tensor

    @property
    def lower(self) -> Inputs:
        """The lowest value of each entry, shaped like the inputs."""
        return self.choices.amin(1)

    @property
    def upper(self) -> Inputs:
        """The highest value of each entry, shaped like the inputs."""
        return self.choices.amax(1)


_EXACT = torch.float64
_ROUNDING = 8 * roundoff(_EXACT)
_SHORT = 4  # units of roundoff of the largest entry, for maps computed in less than float64


def gradient_bounds(
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    eps: float | None = None,
    box: Ends | Columns | None = None,
) -> tuple[Inputs, Inputs]:
    r"""Return bounds on the gradient of the logit at every point near `x`, entry by entry.

    $$\underline g \le \nabla_z f_y(z) \le \overline g \quad\text{for all } z \in [0, 1]^d
      \text{ with } \|z - x\|_\infty \le \epsilon$$

    or for all z of another `box`. Rows go through in parts that fit the memory, see `attributions`.

    Cost: about 6 gradients in float32, or 3 in float64, in a batch; 4 and 5 for one image.

    Args:
        model: Maps a batch to logits (n, classes): a network of linear layers, convolutions, average
            pooling, batch normalisation in eval mode, flatten, view, reshape, slices, products and sums
            with constants such as `Normalize`, residual sums, ReLU and Softplus, in modules or functions;
            comparisons where the outcome is the same in all of the box, as for a mask.
        x: Images (n, …), pixels in [0, 1]; with a `box` any finite inputs in it.
        y: Classes to explain, int64 (n,).
        eps: Largest change of each entry in pixel units, 0 <= eps < 1; 0 gives the gradient itself.
        box: In place of `eps`: lower and upper ends, each shaped like `x`; or `Columns` of a few samples,
            such as a `synonym_box`, whose bounds are tighter than those of its ends.

    Returns:
        The lower and the upper bound, each shaped like `x`, in logits per unit of pixel. The derivative
        of ReLU at 0 is 0, as in PyTorch. Not differentiable.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If the model has an operation without bounds, which is named with its module, mixes
            the samples or draws noise; `eps` is negative or spans the whole range of pixels; shapes
            disagree, a label is not a class of the model, or `x` is not in [0, 1] or not in the `box`; or
            unless one of `eps` and `box` is given.

    Source: the idea of intervals forward and backward is Wicker et al. 2023, of which the abstract was at
    hand; forward intervals are Gowal et al. 2018. Differs: centre and radius, the executed graph, and the
    margin for rounding (top of the module) are ours.

    >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.fill_(2.0), model[0].bias.fill_(-1.0)
    >>> x, y = torch.tensor([[0.6]]), torch.tensor([0])
    >>> [f"{bound.item():.4f}" for bound in gradient_bounds(model, x, y, eps=0.05)]
    ['2.0000', '2.0000']
    >>> [abs(round(bound.item(), 4)) for bound in gradient_bounds(model, x, y, eps=0.2)]
    [0.0, 2.0]
    """
    _check.labelled(x, y)
    return _bounds(model, x, y, _ends(x, eps, box), columns=isinstance(box, Columns))


def input_x_gradient_bounds(
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    eps: float | None = None,
    box: Ends | Columns | None = None,
) -> tuple[Inputs, Inputs]:
    r"""Return bounds on input times gradient at every point near `x`, entry by entry.

    $$\underline a \le z \odot \nabla_z f_y(z) \le \overline a$$

    The gradient's bounds times the interval of the pixel. The cost is that of `gradient_bounds`.

    Args:
        model: As of `gradient_bounds`.
        x: Images (n, …), pixels in [0, 1]; with a `box` any inputs in it.
        y: Classes to explain, int64 (n,).
        eps: Largest change of each entry in pixel units, 0 <= eps < 1.
        box: In place of `eps`, as of `gradient_bounds`.

    Returns:
        The lower and the upper bound, each shaped like `x`, in logits.

    Raises:
        TypeError: As `gradient_bounds`.
        ValueError: As `gradient_bounds`.
    """
    _check.labelled(x, y)
    return _bounds(
        model, x, y, _ends(x, eps, box), columns=isinstance(box, Columns), start=torch.zeros_like(x)
    )


def integrated_gradients_bounds(
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    eps: float | None = None,
    box: Ends | Columns | None = None,
    baseline: Tensor | None = None,
    steps: int = 32,
) -> tuple[Inputs, Inputs]:
    r"""Return bounds on integrated gradients at every point near `x`, entry by entry.

    $$\underline a \le (z - b) \odot \frac1m \sum_{k=1}^{m} \nabla f_y\big(b + t_k (z - b)\big)
      \le \overline a, \qquad t_k = \frac{k - \frac12}{m}$$

    Each point of the path has its own box, between the baseline and that of the image; the bounds of its
    gradients are averaged and multiplied by the interval of the difference. The midpoint rule is that of
    `attributions.integrated_gradients`: what is bounded is the sum, not the integral. It costs `steps`
    times as much as `gradient_bounds`.

    Args:
        model: As of `gradient_bounds`.
        x: Images (n, …), pixels in [0, 1]; with a `box` any inputs in it.
        y: Classes to explain, int64 (n,).
        eps: Largest change of each entry in pixel units, 0 <= eps < 1.
        box: In place of `eps`, as of `gradient_bounds`.
        baseline: Where the path starts, in the shape of `x` or of one row `(1, …)`; None is black. Where
            its signs are not those of the box, the rounding of the points on the path is not covered.
        steps: Points on the path, m >= 1, as in the map that is bounded.

    Returns:
        The lower and the upper bound, each shaped like `x`, in logits.

    Raises:
        TypeError: As `gradient_bounds`.
        ValueError: As `gradient_bounds`, or if `steps` is below 1.
    """
    _check.labelled(x, y)
    _check.count(steps=steps)
    shares = [(k + 0.5) / steps for k in range(steps)]
    start = _check.baseline(x, baseline)
    return _bounds(
        model,
        x,
        y,
        _ends(x, eps, box),
        columns=isinstance(box, Columns),
        start=start,
        shares=shares,
    )


def logit_bounds(
    model: Classifier, x: Inputs, *, eps: float | None = None, box: Ends | Columns | None = None
) -> tuple[Logits, Logits]:
    r"""Return bounds on all logits at every point near `x`.

    $$\underline f \le f(z) \le \overline f \quad\text{for all } z \in [0, 1]^d
      \text{ with } \|z - x\|_\infty \le \epsilon$$

    Cost: the forward half of `gradient_bounds`.

    Args:
        model: As of `gradient_bounds`.
        x: Images (n, …), pixels in [0, 1]; with a `box` any inputs in it.
        eps: Largest change of each entry in pixel units, 0 <= eps < 1.
        box: In place of `eps`, as of `gradient_bounds`.

    Returns:
        The lower and the upper bound (n, classes), for `accuracy_in_box`.

    Raises:
        TypeError: If `x` is not floating-point.
        ValueError: As `gradient_bounds`.

    Source: Gowal et al. 2018, equations 5 and 6. Differs: the margin for rounding.
    """
    _check.floating(x=x)
    _check.finite(x=x)
    ends = _ends(x, eps, box)

    start = functools.partial(_forward, model, like=x, columns=isinstance(box, Columns))

    def logits(rows: Tensor, labels: Tensor, *, look: bool) -> Tensor:
        return torch.stack(start(rows, look=look).ends(), 1)

    unused = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    with torch.no_grad():
        (found,) = _passes.passes(logits, lambda _: ends[None], unused, like=ends, count=1)
    lower, upper = found[0].unbind(1)
    return _rounded(lower, upper, x)


def forward(
    model: Classifier,
    low: Tensor,
    high: Tensor,
    y: Tensor | None = None,
    *,
    choices: tuple[Tensor, ...] = (),
    like: Tensor,
    look: bool = True,
    learn: bool = False,
) -> Box:
    """Run a network on the box from `low` to `high`; return the box of its logits.

    Args:
        model: As of `gradient_bounds`.
        low: Lower ends (n, …), in the type of the computation.
        high: Upper ends of the same shape.
        y: Labels, to be checked against the classes.
        choices: Samples of which each column of a point in the box is one; empty for the whole box.
        like: A tensor of the type that the network expects.
        look: Check the model; not needed a second time.
        learn: Keep the graph for `back`, to differentiate bounds in the weights; no margin for rounding.

    Returns:
        The box of logits (n, classes), whose `ends()` are their bounds.

    Raises:
        ValueError: As `gradient_bounds`.
    """
    if look:
        _model.settled(model)
    tape = Tape(RULES, shown=like.dtype, kind=low.dtype, learn=learn)
    try:
        output = _model.logits(model, tape.start(low, high, choices), y, twice=True)
    except NoBoundsError as error:
        raise named(error, model) from None
    if not isinstance(output, Box):
        raise ValueError("Expected model(x) to depend on x, got logits that do not")
    return output


def back(output: Box, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return bounds on the gradient of the logit `y`, from the box of logits.

    Args:
        output: What `forward` gave; can be used once, or with `learn` any number of times.
        y: Classes to explain, int64 (n,).

    Returns:
        The lower and the upper bound, shaped like the input.
    """
    slope = nn.functional.one_hot(y, output.shape[1]).to(output.tape.kind)
    return output.tape.back(output, slope)


def _bounds(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    ends: Tensor,
    *,
    columns: bool,
    start: Tensor | None = None,
    shares: Sequence[float] = (1.0,),
) -> tuple[Tensor, Tensor]:
    """Bounds on the mean gradient at these shares of the way from a start, perhaps times the way."""
    first = (torch.zeros_like(x) if start is None else start.detach()).to(_EXACT)[:, None]
    way = ends - first

    def slopes(rows: Tensor, labels: Tensor, *, look: bool) -> Tensor:
        output = _forward(model, rows, labels if look else None, like=x, look=look, columns=columns)
        return torch.stack(back(output, labels), 1)

    def points(part: range) -> Tensor:
        return torch.stack([first + shares[k] * way for k in part])

    size = torch.zeros_like(ends[:, 0])
    total = torch.stack([size, size], 1)
    with torch.no_grad():
        for stack in _passes.passes(slopes, points, y, like=ends, count=len(shares)):
            total, size = total + stack.sum(0), size + stack.abs().amax(2).sum(0)
        margin = _ROUNDING * (len(shares) + 8) * size
        lower, upper = (
            (total[:, i] + sign * margin) / len(shares) for i, sign in ((0, -1), (1, 1))
        )
        if start is not None:
            lower, upper = product((lower, upper), (way.amin(1), way.amax(1)))
        return _rounded(lower, upper, x)


def _forward(
    model: Classifier,
    rows: Tensor,
    y: Tensor | None = None,
    *,
    like: Tensor,
    look: bool,
    columns: bool,
) -> Box:
    """Run a network on boxes (n, m, …) of two ends, or of m samples whose columns can be chosen."""
    choices = rows.unbind(1) if columns else ()
    return forward(model, rows.amin(1), rows.amax(1), y, choices=choices, like=like, look=look)


def check_budget(eps: float) -> None:
    """Raise unless a change of `eps` in each entry leaves something of the image."""
    _check.nonnegative(eps=eps)
    if eps >= 1:
        raise ValueError(f"Expected eps < 1, the whole range of pixels, got {eps!r}")


def _ends(x: Tensor, eps: float | None, box: Ends | Columns | None) -> Tensor:
    """The ends of the box (n, 2, …), or the samples (n, m, …) that it chooses from, in float64."""
    if (eps is None) == (box is None):
        raise ValueError(f"Expected eps or box, got {'neither' if eps is None else 'both'}")
    _check.recording(x)
    if box is not None:
        lower, upper = (box.lower, box.upper) if isinstance(box, Columns) else box
        _check.floating(lower=lower, upper=upper)
        _check.same_shape(lower=lower, upper=upper, x=x)
        _check.finite(lower=lower, upper=upper)
        outside = ((x < lower) | (x > upper)).flatten(1).any(1)
        if bool(outside.any()):
            raise ValueError(
                f"Expected lower <= x <= upper, got {int(outside.sum())} of {len(x)} samples outside"
            )
        ends = box.choices if isinstance(box, Columns) else torch.stack([lower, upper], 1)
        return ends.detach().to(_EXACT)
    budget = 0.0 if eps is None else eps
    check_budget(budget)
    _check.pixels(x=x)
    reach = budget * (1 + 2 * torch.finfo(x.dtype).eps)  # distances are rounded in the type of x
    centre = x.detach().to(_EXACT)
    return torch.stack([(centre - reach).clamp(min=0), (centre + reach).clamp(max=1)], 1)


def product(a: Ends, b: Ends) -> Ends:
    """Return the ends of a product of two numbers that are anywhere between theirs, each.

    Args:
        a: Lower and upper ends of the first one.
        b: Of the second one, of the same shape.

    Returns:
        Lower and upper ends; they can be reached if the two numbers do not depend on each other.
    """
    corners = torch.stack([one * other for one in a for other in b])
    return corners.amin(0), corners.amax(0)


def _rounded(lower: Tensor, upper: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds in the type of `x`, with room for maps that are computed in less than float64."""
    if x.dtype != _EXACT:
        largest = torch.maximum(lower.abs(), upper.abs()).flatten(1).amax(1)
        room = _SHORT * roundoff(x.dtype) * _shape.wide(largest, lower)
        lower, upper = lower - room, upper + room
    return lower.to(x.dtype), upper.to(x.dtype)
