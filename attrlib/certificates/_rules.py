"""What each function of PyTorch does to a box: sums, linear layers, pooling, new shapes, activations."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from attrlib.certificates._trace import Box, NoBoundsError, Rule, Tape, name_of


def _layer(func: Any, box: Any, weight: Any, bias: Any = None, *rest: Any, **options: Any) -> Box:
    """A linear layer or convolution."""
    _alone(func, box, weight, bias)
    tape: Tape = box.tape
    weight, bias = tape.constant(weight), tape.constant(bias)
    size = None if bias is None else tape.rounding * (weight[0].numel() + 8) * bias.abs()
    result = tape.linear(
        (box,),
        lambda c: func(c, weight, bias, *rest, **options),
        lambda r: func(r, weight.abs(), size, *rest, **options),
    )
    if box.choices and func in _CONVOLUTIONS:
        _tighten(result, func, box, weight, bias, *rest, **options)
    return result


def _tighten(
    result: Box, func: Any, box: Box, weight: Tensor, bias: Any, *rest: Any, **options: Any
) -> None:
    """Bounds of a convolution whose columns are chosen: each column of the kernel sees one of them.

    So the least and the greatest value over the choices of that column are attained, and add up.
    """
    low = high = size = torch.zeros(())
    for place in range(weight.shape[-1]):
        kernel = torch.zeros_like(weight)
        kernel[..., place] = weight[..., place]
        values = torch.stack([func(c, kernel, None, *rest, **options) for c in box.choices])
        low, high = low + values.amin(0), high + values.amax(0)
        largest = torch.stack(box.choices).abs().amax(0)
        size = size + func(largest, kernel.abs(), None, *rest, **options)
    if bias is not None:
        shift = bias.view(-1, *[1] * (result.ndim - 2))
        low, high, size = low + shift, high + shift, size + shift.abs()
    margin = box.tape.rounding * (box.centre[0].numel() + 8) * size
    ends = result.ends()
    low, high = torch.maximum(ends[0], low - margin), torch.minimum(ends[1], high + margin)
    result.centre, result.radius = (low + high) / 2, (high - low) / 2


def _product(func: Any, box: Any, weight: Any) -> Box:
    """A matrix product with weights on the right."""
    _alone(func, box, weight)
    tape: Tape = box.tape
    weight = tape.constant(weight)
    return tape.linear((box,), lambda c: c @ weight, lambda r: r @ weight.abs())


def _batch_norm(
    func: Any,
    box: Any,
    mean: Any,
    variance: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Box:
    """Batch normalisation with running statistics, an affine map of each channel."""
    _alone(func, box, mean, variance, weight, bias)
    if training or mean is None or variance is None:
        raise NoBoundsError(f"{name_of(func)} with the statistics of a batch")
    shape = (1, -1, *[1] * (box.ndim - 2))
    mean, variance, weight, bias = map(box.tape.constant, (mean, variance, weight, bias))
    scale = (variance + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift, size = -mean * scale, (mean * scale).abs()
    if bias is not None:
        shift, size = shift + bias, size + bias.abs()
    return _affine(box, scale.view(shape), shift.view(shape), size.view(shape))


def _affine(box: Box, scale: Any, shift: Any = 0.0, size: Any = 0.0) -> Box:
    """`scale * box + shift`, with the size of the numbers that were added up to the shift."""
    tape = box.tape
    margin = 16 * tape.rounding
    return tape.linear(
        (box,), lambda c: c * scale + shift, lambda r: r * abs(scale) + margin * size
    )


def _times(func: Any, a: Any, b: Any) -> Box:
    """A product with a constant."""
    box, factor = (a, b) if isinstance(a, Box) else (b, a)
    _alone(func, box, factor)
    factor = box.tape.constant(factor)
    result = _affine(box, factor)
    if result.shape == box.shape:
        result.choices = tuple(choice * factor for choice in box.choices)
    return result


def _over(func: Any, a: Any, b: Any) -> Box:
    """A quotient with a constant below."""
    _alone(func, a, b)
    return _affine(a, 1 / a.tape.constant(b))


def _sum(func: Any, a: Any, b: Any, *, alpha: float = 1, signs: tuple[int, int] = (1, 1)) -> Box:
    """A sum or difference, of two boxes or of a box and a constant."""
    first, second = signs[0], signs[1] * alpha
    if isinstance(a, Box) and isinstance(b, Box):
        return a.tape.linear(
            (a, b), lambda c, d: first * c + second * d, lambda r, s: r + abs(second) * s
        )
    box, factor, other, weight = (
        (a, first, b, second) if isinstance(a, Box) else (b, second, a, first)
    )
    shift = weight * box.tape.constant(other)
    return _affine(box, factor, shift, abs(shift))


def _minus(func: Any, a: Any, b: Any, *, alpha: float = 1) -> Box:
    return _sum(func, a, b, alpha=alpha, signs=(1, -1))


def _minus_reversed(func: Any, a: Any, b: Any) -> Box:
    return _sum(func, b, a, signs=(1, -1))


def _negative(func: Any, box: Any) -> Box:
    return _affine(box, -1.0)


def _mean(func: Any, box: Any, *rest: Any, **options: Any) -> Box:
    """A linear map without negative weights, the same on centres and radii: means, pooling, padding."""
    _alone(func, box, *rest, *options.values())
    tape: Tape = box.tape
    result = tape.linear(
        (box,), lambda c: func(c, *rest, **options), lambda r: func(r, *rest, **options)
    )
    if result.centre.dtype != tape.kind:
        raise NoBoundsError(f"{name_of(func)} with a dtype")
    return result


def _shape(func: Any, box: Any, *rest: Any, **options: Any) -> Box:
    """The same numbers in another shape, perhaps in the same memory."""
    result = _mean(func, box, *rest, **options)
    box.viewed = result.viewed = True
    return result


def _part(func: Any, box: Any, index: Any) -> Box:
    """Slices of each sample, in the same memory."""
    steps = index if isinstance(index, tuple) else (index,)
    if not all(step is None or step is Ellipsis or isinstance(step, int | slice) for step in steps):
        raise NoBoundsError(f"{name_of(func)} with what is no slice")
    whole = steps[0] is Ellipsis and len(steps) <= box.ndim
    if not (whole or (isinstance(steps[0], slice) and steps[0] == slice(None))):
        raise NoBoundsError(f"{name_of(func)} of some of the samples")
    result = _shape(func, box, index)
    if not any(step is None or isinstance(step, int) for step in steps):
        result.choices = tuple(choice[index] for choice in box.choices)
    return result


def _comparison(func: Any, box: Any, value: Any) -> Tensor:
    """A comparison with a number that has one outcome in all of the box, such as that of a mask."""
    _alone(func, box, value)
    low, high = (func(end, box.tape.constant(value)) for end in box.ends())
    if not torch.equal(low, high):
        raise NoBoundsError(f"{name_of(func)} with more than one outcome")
    outcome: Tensor = low
    return outcome


def _pad(func: Any, box: Any, pad: Any, mode: str = "constant", value: float | None = None) -> Box:
    """Padding with zeros, or with what is there."""
    if value:
        raise NoBoundsError(f"{name_of(func)} with {value}")
    return _mean(func, box, pad, mode=mode)


def _same(func: Any, box: Any, *rest: Any, **options: Any) -> Box:
    """A copy."""
    result = Box(box.centre, box.radius, box.tape, box.step)
    result.choices = box.choices
    return result


def _converted(func: Any, box: Any, *rest: Any, **options: Any) -> Box | Tensor:
    """A conversion to the type that is there already."""
    if not isinstance(box, Box):  # a constant, to the type that a box shows
        return _like(func, box, *rest, **options)
    like = func(torch.empty(0, dtype=box.dtype, device=box.device), *rest, **options)
    if (like.dtype, like.device) != (box.dtype, box.device):
        raise NoBoundsError(f"{name_of(func)} from {box.dtype} to {like.dtype}")
    box.viewed = True  # what it gives is the tensor itself
    result = _same(func, box)
    result.viewed = True
    return result


def _like(func: Any, value: Tensor, *rest: Any, **options: Any) -> Tensor:
    """A constant in the type that a box shows."""
    shown = [part for part in (*rest, *options.values()) if isinstance(part, Box)]
    return value.to(shown[0].dtype)


def _dropout(func: Any, box: Any, p: float = 0.5, training: bool = True) -> Box:
    """Dropout in eval mode, which does nothing."""
    if training and p:
        raise NoBoundsError(f"{name_of(func)} in train mode")
    return _same(func, box)


def _relu(func: Any, box: Any) -> Box:
    tape: Tape = box.tape
    low, high = box.ends()
    slopes = (low > 0).to(tape.kind), (high > 0).to(tape.kind)
    return tape.increasing(box, (low.clamp(min=0), high.clamp(min=0)), slopes)


def _softplus(func: Any, box: Any, beta: float = 1, threshold: float = 20) -> Box:
    """Softplus as PyTorch computes it, which is the identity from the threshold on."""
    if not (beta > 0 and threshold >= 0):
        raise NoBoundsError(f"{name_of(func)} with beta {beta} and threshold {threshold}")
    low, high = box.ends()
    tape: Tape = box.tape
    kind = tape.kind
    near = 8 * torch.finfo(kind).eps * (threshold + 1)
    may, must = beta * high > threshold - near, beta * low > threshold + near
    jump = math.log1p(math.exp(-threshold)) / beta * may.to(kind)
    values = tuple(functional.softplus(end, beta=beta, threshold=threshold) for end in (low, high))
    slopes = tuple(torch.sigmoid(beta * end) for end in (low, high))
    if tape.rounding:  # the exponential of u is off by a relative u · 2⁻⁵³ and a little more
        values, slopes = (
            (
                low_value * (1 - tape.rounding * (beta * low.abs() + 8)),
                high_value * (1 + tape.rounding * (beta * high.abs() + 8)),
            )
            for low_value, high_value in (values, slopes)
        )
    flat, steep = slopes
    return tape.increasing(
        box,
        ((values[0] - jump).clamp(min=0), values[1] + jump),
        (torch.where(must, 1.0, flat).clamp(0, 1), torch.where(may, 1.0, steep).clamp(max=1)),
    )


def _alone(func: Any, box: Any, *others: Any) -> None:
    """Raise unless the first argument is a box and no other is one."""
    if not isinstance(box, Box) or any(isinstance(other, Box) for other in others):
        raise NoBoundsError(f"{name_of(func)} of two values that both depend on the input")


def _functions(*names: str) -> tuple[Callable[..., Any], ...]:
    """The functions of PyTorch with these names, as functions and as methods."""
    homes = (torch, Tensor, functional)
    found = (getattr(home, name, None) for home in homes for name in names)
    return tuple(function for function in found if callable(function))


_CONVOLUTIONS = _functions("conv1d", "conv2d", "conv3d")
_POOLS = ("", "adaptive_")
RULES: dict[Any, Rule] = {
    **dict.fromkeys((*_functions("linear"), *_CONVOLUTIONS), _layer),
    **dict.fromkeys(_functions("matmul", "mm", "__matmul__"), _product),
    **dict.fromkeys(_functions("batch_norm"), _batch_norm),
    **dict.fromkeys(_functions("add", "add_"), _sum),
    **dict.fromkeys(_functions("sub", "subtract", "sub_"), _minus),
    **dict.fromkeys(_functions("rsub", "__rsub__"), _minus_reversed),
    **dict.fromkeys(_functions("mul", "multiply", "mul_"), _times),
    **dict.fromkeys(_functions("div", "divide", "true_divide", "div_"), _over),
    **dict.fromkeys(_functions("neg", "negative", "neg_"), _negative),
    **dict.fromkeys(_functions("mean", "sum"), _mean),
    **dict.fromkeys(
        _functions(*(f"{kind}avg_pool{d}d" for kind in _POOLS for d in (1, 2, 3))), _mean
    ),
    **dict.fromkeys(
        _functions("flatten", "view", "reshape", "squeeze", "unsqueeze", "unflatten", "permute"),
        _shape,
    ),
    **dict.fromkeys(_functions("transpose", "contiguous"), _shape),
    **dict.fromkeys(_functions("__getitem__"), _part),
    **dict.fromkeys(
        _functions(
            *(f"{sign}{name}{sign}" for name in ("gt", "ge", "lt", "le") for sign in ("", "__"))
        ),
        _comparison,
    ),
    **dict.fromkeys(_functions("pad"), _pad),
    **dict.fromkeys(_functions("clone"), _same),
    **dict.fromkeys(_functions("to", "float", "double"), _converted),
    **dict.fromkeys(_functions("dropout", "dropout1d", "dropout2d", "dropout3d"), _dropout),
    **dict.fromkeys(_functions("relu", "relu_"), _relu),
    **dict.fromkeys(_functions("softplus"), _softplus),
}
