"""Copies of a network with its values, and with slopes that change over a width instead of at a point."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import softplus
from torch.overrides import TorchFunctionMode

from attrlib import _check, _model, _shape
from attrlib.models.kinks import ROUNDED, Relu, unpacked
from attrlib.types import Classifier, Norm

_SEED = 0  # of the move that measures: the same for every network
_STAY = 0.1  # reach for units on the side where they are wanted, as a part of the others'


def softened(
    model: Classifier,
    width: float,
    *,
    eps: float,
    norm: Norm = "linf",
    reach: float | None = None,
) -> nn.Module:
    r"""Return a copy whose values are those of the network, and whose slopes change gradually.

    $$\mathrm{relu}'(u) \mapsto \mathrm{sigmoid}(u / w_l), \qquad
      w_l = \text{width} \cdot \sqrt{\operatorname{mean}_i \big(u_{l,i}(z + \xi) - u_{l,i}(z)\big)^2}$$

    for the numbers $u_l$ that enter activation l. The width is in units of what a random move $\xi$ of
    length `eps` (each pixel up or down) does to the numbers of this layer: layers of one network differ
    in scale by a factor of ten, and a single sharpness, as in `smoothed`, is blunt in one of them and
    sharp in the next. Softplus of sharpness β gets the width $w_l + 1/\beta$. Other smooth activations
    stay; all that `smoothed` rounds is softened, as modules and as functions.

    The derivative of such a slope is symmetrical about the kink: it lets go of a unit that is far on the
    wrong side. With `reach` r the derivative of what follows from it, of slope $s$ of unit u, is replaced
    in the chain rule by a one-sided pull,

    $$\frac{\partial D}{\partial u} \mathrel{+}= \frac{1}{r_l} \frac{\partial D}{\partial s} \,
      e^{-|u| / r}, \qquad r = r_l \text{ if } u \text{ is on the wrong side, else } 0.1 \, r_l$$

    where the wrong side is that on which $D$ falls: a unit that is to change sides is pulled from far
    away, one that is where it should be only when it is about to leave. Then what looks like a second
    derivative is none: use such copies to climb, not to measure curvature.

    Attacks follow the slopes of such copies. One more forward pass, without a graph, for each call.

    Args:
        model: A network, or a function of networks.
        width: Over which a slope changes, > 0; at 0 it would be the network itself.
        eps: Length of the random move, > 0, in pixel units: of each entry (`linf`), or over all of an
            image (`l2`). Its signs are the same for all images and networks. Pixels stay in [0, 1].
        norm: `linf` or `l2`.
        reach: Over which units on the wrong side are pulled, > 0, in the units of `width` and mostly
            larger; None takes the derivative of the slope as it is.

    Returns:
        A module, with a deep copy of `model`. Row i of what it gives depends on row i of its input only.

    Raises:
        ValueError: If a number is not positive, a word is unknown, or `model` cannot be copied; in the
            call, if the code of the model takes another way for the moved images.

    Source: ours. Exact values with approximate slopes as in Athalye et al. 2018 (BPDA, against defences
    that hide slopes); a width that follows the spread of the pre-activations after an independent attack
    on the first suite of this package; one-sided pulls after another one, on the second suite.

    >>> net = torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = net[0].weight.fill_(2.0), net[0].bias.fill_(-1.0)
    >>> x = torch.tensor([[0.5], [0.6]], requires_grad=True)  # on the kink, and 0.2 above it
    >>> values = softened(net, 1.0, eps=0.1)(x)
    >>> bool((values == net(x)).all())
    True
    >>> torch.autograd.grad(values.sum(), x)[0].flatten()  # 2 · sigmoid(u / w), with w = 0.2
    tensor([1.0000, 1.4621])
    """
    _check.positive(width=width, eps=eps)
    _check.one_of(("linf", "l2"), norm=norm)
    if reach is not None:
        _check.positive(reach=reach)
    return _Softened(_model.copied(model), width, eps, norm, reach)


class _Softened(nn.Module):
    def __init__(
        self, model: Classifier, width: float, eps: float, norm: Norm, reach: float | None
    ) -> None:
        super().__init__()
        self.model = model.module if isinstance(model, nn.DataParallel) else model
        self.width, self.eps, self.norm, self.reach = width, eps, norm, reach

    def forward(self, z: Tensor) -> Tensor:
        """The values of the network."""
        moved, elsewhere = _Moved(), self._elsewhere(z)
        with torch.no_grad(), moved:
            self.model(elsewhere)
        with _Soft(moved.seen, self.width, self.reach):
            return self.model(z)

    def _elsewhere(self, z: Tensor) -> Tensor:
        """All samples after the random move."""
        generator = torch.Generator().manual_seed(_SEED)
        up = torch.rand((1, *z.shape[1:]), generator=generator).to(z.device) < 0.5
        length = self.eps if self.norm == "linf" else self.eps / up.numel() ** 0.5
        step = torch.where(up, length, -length).to(z.dtype)
        return (z.detach() + step).clamp(0, 1)


class _Moved(TorchFunctionMode):
    """While it is active, keeps what enters each activation."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SOFTENED:
            self.seen.append(unpacked(func, args, kwargs)[0].clone())
        return func(*args, **kwargs)


class _Soft(TorchFunctionMode):
    """While it is active, activations have their values and soft slopes."""

    def __init__(self, moved: list[Tensor], width: float, reach: float | None) -> None:
        super().__init__()
        self._moved, self._width, self._reach = iter(moved), width, reach

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _SOFTENED:
            return func(*args, **kwargs)
        x, rest, options, in_place = unpacked(func, args, kwargs)
        before = x.clone() if in_place else x
        unit = _response(next(self._moved, None), before.detach())
        reach = None if self._reach is None else self._reach * unit
        soft = _SOFTENED[func](_relu(self._width * unit, reach), before, *rest, **options)
        if soft is None:
            return func(*args, **kwargs)
        with torch.no_grad():
            hard = func(*args, **kwargs).clone()
        value = hard + (soft - soft.detach())
        return x.copy_(value) if in_place else value


def _response(moved: Tensor | None, u: Tensor) -> Tensor:
    """Per sample the root mean square by which the numbers differ; 1 where they do not."""
    if moved is None or moved.shape != u.shape:
        raise ValueError(
            "Expected model to call the same activations for all images, got another way for moved ones"
        )
    size = (moved - u).flatten(1).square().mean(1).sqrt()
    return _shape.wide(torch.where(size > 0, size, 1), u)


def _relu(width: Tensor, reach: Tensor | None) -> Relu:
    """A ReLU whose slope changes over `width`, over more of it where it does so anyway."""

    def relu(u: Tensor, least: float = 0) -> Tensor:
        pulls = None if reach is None else (least + reach, least + _STAY * reach)
        value: Tensor = _Relu.apply(u, least + width, pulls)
        return value

    return relu


class _Relu(Function):
    """The values of ReLU with the slope sigmoid(u / width)."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, width: Tensor, pulls: tuple[Tensor, Tensor] | None) -> Tensor:
        ctx.save_for_backward(u, width)
        ctx.pulls = pulls
        return u.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        u, width = ctx.saved_tensors
        slope = (u / width).sigmoid() if ctx.pulls is None else _Slope.apply(u, width, *ctx.pulls)
        return grad * slope, None, None


class _Slope(Function):
    """The slope sigmoid(u / width); in place of its derivative a pull that depends on the side."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, width: Tensor, far: Tensor, near: Tensor) -> Tensor:
        ctx.save_for_backward(u, far, near)
        return (u / width).sigmoid()

    @staticmethod
    def backward(ctx: Any, rise: Tensor) -> tuple[Tensor, None, None, None]:
        u, far, near = ctx.saved_tensors
        wrong = (rise > 0) == (u < 0)  # the slope is to rise, and the unit is off; or the reverse
        return rise / far * (-u.abs() / torch.where(wrong, far, near)).exp(), None, None, None


def _softplus(relu: Callable[..., Tensor], x: Tensor, beta: float = 1, _: float = 20) -> Tensor:
    return relu(x, least=1 / beta)


_SOFTENED: dict[Callable[..., Tensor], Callable[..., Tensor | None]] = {
    **ROUNDED,
    softplus: _softplus,
}
