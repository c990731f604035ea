"""Argument checks. The keyword is the name in the message: `positive(steps=0)` speaks of `steps`."""

import math
from collections.abc import Collection
from numbers import Integral, Real

import torch
from torch import Tensor


def positive(**values: float) -> None:
    """Raise unless every value is a finite number above zero."""
    for name, value in values.items():
        if not _number(value) or not value > 0:
            raise ValueError(f"Expected {name} > 0, got {value!r}")


def nonnegative(**values: float) -> None:
    """Raise unless every value is a finite number, zero or above."""
    for name, value in values.items():
        if not _number(value) or not value >= 0:
            raise ValueError(f"Expected {name} >= 0, got {value!r}")


def count(*, low: int = 1, high: int | None = None, **values: int) -> None:
    """Raise unless every value is an integer from `low` to `high`."""
    for name, value in values.items():
        if not _whole(value) or value < low or (high is not None and value > high):
            limits = f">= {low}" if high is None else f"from {low} to {high}"
            raise ValueError(f"Expected {name} to be an integer {limits}, got {value!r}")


def batch_size(batch_size: int | None) -> None:
    """Raise unless the number of rows of a pass is an integer above zero, or None."""
    if batch_size is not None:
        count(batch_size=batch_size)


def unit_interval(**values: float) -> None:
    """Raise unless every value lies strictly between 0 and 1."""
    for name, value in values.items():
        if not _number(value) or not 0 < value < 1:
            raise ValueError(f"Expected {name} strictly between 0 and 1, got {value!r}")


def one_of(options: Collection[str], **values: str) -> None:
    """Raise unless every value is one of the options."""
    for name, value in values.items():
        if value not in options:
            raise ValueError(f"Expected {name} to be one of {', '.join(options)}, got {value!r}")


def finite(**tensors: Tensor) -> None:
    """Raise if a tensor holds NaN or infinity; the message says in how many samples."""
    for name, tensor in tensors.items():
        # A sum tells the usual case in a fraction of the time. It can overflow: then each entry counts.
        if math.isfinite(float(tensor.detach().sum())):
            continue
        bad = ~torch.isfinite(tensor.detach())
        if bool(bad.any()):
            rows = int(bad.reshape(len(bad), -1).any(1).sum()) if tensor.ndim else 1
            of = f"{rows} of {len(tensor)} samples" if tensor.ndim else "a scalar"
            raise ValueError(f"Expected {name} to be finite, got NaN or infinity in {of}")


def floating(**tensors: Tensor) -> None:
    """Raise unless every tensor is a floating-point batch (n, …) with at least one entry a sample."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"Expected {name} to be a torch.Tensor, got {type(tensor).__name__}")
        if not tensor.is_floating_point():
            raise TypeError(f"Expected {name} to be a floating-point tensor, got {tensor.dtype}")
        if tensor.ndim < 2 or tensor[:1].numel() == 0:
            raise ValueError(
                f"Expected {name} to be a non-empty batch (n, …), got shape {tuple(tensor.shape)}"
            )


def heatmaps(**tensors: Tensor) -> None:
    """Raise unless every tensor is a finite floating-point batch (n, h, w)."""
    floating(**tensors)
    for name, tensor in tensors.items():
        if tensor.ndim != 3:
            raise ValueError(
                f"Expected {name} to be heatmaps (n, h, w), got shape {tuple(tensor.shape)}"
            )
    finite(**tensors)


def pixels(ball: object = None, **tensors: Tensor) -> None:
    """Raise unless every entry lies in [0, 1], or in the `span` of the ball: two limits, or None."""
    span = getattr(ball, "span", (0, 1))
    if span is None:
        return
    for name, tensor in tensors.items():
        low, high = (float(v) for v in torch.aminmax(tensor.detach()))
        if not (low >= span[0] and high <= span[1]):
            raise ValueError(
                f"Expected {name} to be pixels in [{span[0]:.4g}, {span[1]:.4g}], "
                f"got [{low:.4g}, {high:.4g}]"
            )


def same_shape(**tensors: Tensor) -> None:
    """Raise unless all tensors have one shape."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"Expected {' and '.join(shapes)} to have one shape, got {listed}")


def labelled(x: Tensor, y: Tensor) -> None:
    """Raise unless `x` is a finite batch and `y` one int64 label for each of its rows."""
    floating(x=x)
    labels(len(x), y=y)
    if y.device != x.device:
        raise ValueError(f"Expected y on the device of x, {x.device}, got {y.device}")
    finite(x=x)


def labels(n: int, **tensors: Tensor) -> None:
    """Raise unless every tensor is int64 of shape (n,)."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.int64:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"Expected {name} to be an int64 tensor, got {kind}")
        if tensor.shape != (n,):
            raise ValueError(f"Expected {name} of shape ({n},), got {tuple(tensor.shape)}")


def boolean(**tensors: Tensor) -> None:
    """Raise unless every tensor is boolean."""
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.bool:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeError(f"Expected {name} to be a boolean tensor, got {kind}")


def recording(x: Tensor) -> None:
    """Raise if PyTorch cannot differentiate in `x` here, whatever `torch.enable_grad` says."""
    if torch.is_inference_mode_enabled() or x.is_inference():
        raise RuntimeError(
            "Expected x to be made and used outside torch.inference_mode(), got an inference tensor "
            "or an inference block; torch.no_grad() is fine"
        )


def logits(scores: object, n: int, y: Tensor | None = None, *, classes: int = 1) -> None:
    """Raise unless the model gave logits (n, classes) and every label is one of the classes."""
    wanted = f"logits ({n}, classes)"
    if not isinstance(scores, Tensor):
        kind = type(scores).__name__
        part = {"tuple": "[0]", "list": "[0]", "dict": "['logits']"}.get(kind, ".logits")
        raise ValueError(
            f"Expected model(x) to be {wanted}, got a {kind}; give a model that returns the logits "
            f"alone, such as model(x){part}"
        )
    if scores.ndim != 2 or len(scores) != n:
        raise ValueError(f"Expected model(x) to be {wanted}, got shape {tuple(scores.shape)}")
    if not scores.is_floating_point():
        raise ValueError(f"Expected model(x) to be floating-point {wanted}, got {scores.dtype}")
    if scores.shape[1] < classes:
        raise ValueError(
            f"Expected model(x) to be {wanted} of at least {classes} classes, got {scores.shape[1]}; "
            "a single logit s stands for the two logits torch.cat([torch.zeros_like(s), s], dim=1)"
        )
    if y is None:
        return
    low, high = (int(label) for label in torch.aminmax(y))  # one pass: attributions look each time
    if low < 0 or high >= scores.shape[1]:
        first = y[(y < 0) | (y >= scores.shape[1])][0]
        raise ValueError(f"Expected y from 0 to {scores.shape[1] - 1}, got {int(first)}")


def baseline(x: Tensor, baseline: Tensor | None) -> Tensor:
    """Return the baseline in the shape of `x` (None is black); raise unless it fits `x` or is one row."""
    if baseline is None:
        return torch.zeros_like(x)
    floating(baseline=baseline)
    if baseline.shape[1:] != x.shape[1:] or len(baseline) not in (1, len(x)):
        raise ValueError(
            f"Expected baseline of shape {tuple(x.shape)} or one row of it, "
            f"got {tuple(baseline.shape)}"
        )
    finite(baseline=baseline)
    return baseline.to(x).expand_as(x)


def _number(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Real) and math.isfinite(value)


def _whole(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, Integral)
