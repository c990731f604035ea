"""The functions of PyTorch with a kink, and what becomes of each where ReLU is a smooth function."""

from collections.abc import Callable
from typing import Any, TypeAlias

from torch import Tensor

from attrlib import _model

Relu: TypeAlias = Callable[[Tensor], Tensor]


def _leaky(relu: Relu, x: Tensor, negative_slope: float | Tensor = 0.01) -> Tensor:
    return negative_slope * x + (1 - negative_slope) * relu(x)


def _prelu(relu: Relu, x: Tensor, weight: Tensor) -> Tensor:
    channels = (1, -1, *[1] * (x.ndim - 2))[: x.ndim] if weight.numel() > 1 else ()
    return _leaky(relu, x, weight.reshape(channels))


def _rrelu(
    relu: Relu, x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> Tensor | None:
    return None if training else _leaky(relu, x, (lower + upper) / 2)


def _between(relu: Relu, x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return min_val + relu(x - min_val) - relu(x - max_val)


def _outside(relu: Relu, x: Tensor, lambd: float = 0.5) -> Tensor:
    return relu(x - lambd) - relu(-x - lambd)


def _threshold(relu: Relu, x: Tensor, threshold: float, value: float) -> Tensor | None:
    return value + relu(x - threshold) if value == threshold else None  # else it jumps


def _above(
    relu: Relu, x: Tensor, min: float | Tensor | None = None, max: float | Tensor | None = None
) -> Tensor | None:
    is_relu = not isinstance(min, Tensor) and min == 0 and max is None
    return relu(x) if is_relu else None  # other limits are no activation


ROUNDED: dict[Callable[..., Tensor], Callable[..., Tensor | None]] = {
    **dict.fromkeys(_model.functions("relu"), lambda relu, x: relu(x)),
    **dict.fromkeys(_model.functions("relu6"), lambda relu, x: relu(x) - relu(x - 6)),
    **dict.fromkeys(_model.functions("leaky_relu"), _leaky),
    **dict.fromkeys(_model.functions("prelu"), _prelu),
    **dict.fromkeys(_model.functions("rrelu"), _rrelu),
    **dict.fromkeys(_model.functions("hardtanh"), _between),
    **dict.fromkeys(
        _model.functions("hardsigmoid"), lambda relu, x: _between(relu, x, -3.0, 3.0) / 6 + 0.5
    ),
    **dict.fromkeys(
        _model.functions("hardswish"), lambda relu, x: x * (_between(relu, x, -3.0, 3.0) / 6 + 0.5)
    ),
    **dict.fromkeys(_model.functions("softshrink"), _outside),
    **dict.fromkeys(_model.functions("threshold"), _threshold),
    **dict.fromkeys(_model.functions("clamp", "clip", "clamp_min"), _above),
}


def unpacked(
    function: Callable[..., Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Tensor, list[Any], dict[str, Any], bool]:
    """The input of a call of one of these functions, its other arguments, and whether it is in place."""
    x, *rest = args if args else (kwargs["input"],)
    options = {name: value for name, value in kwargs.items() if name not in ("input", "inplace")}
    in_place = kwargs.get("inplace", False) or function.__name__.endswith("_")
    return x, rest, options, in_place
