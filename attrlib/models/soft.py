"""Copies of a network with its values, and with slopes that change over a width instead of at a point."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.overrides import TorchFunctionMode

from attrlib import _check, _model, _shape
from attrlib.models.kinks import ROUNDED, Relu, unpacked
from attrlib.types import Classifier, Norm

_SEED = 0  # of the move that measures: the same for every network


def softened(model: Classifier, width: float, *, eps: float, norm: Norm = "linf") -> nn.Module:
    r"""Return a copy whose values are those of the network, and whose slopes change gradually.

    $$\mathrm{relu}'(u) \mapsto \mathrm{sigmoid}(u / w_l), \qquad
      w_l = \text{width} \cdot \sqrt{\operatorname{mean}_i \big(u_{l,i}(z + \xi) - u_{l,i}(z)\big)^2}$$

    for the numbers $u_l$ that enter activation l. The width is in units of what a random move $\xi$ of
    length `eps` (each pixel up or down) does to the numbers of this layer: layers of one network differ
    in scale by a factor of ten, and a single sharpness, as in `smoothed`, is blunt in one of them and
    sharp in the next. Softplus of sharpness β gets the width $w_l + 1/\beta$. Other smooth activations
    stay; all that `smoothed` rounds is softened, as modules and as functions.

    Attacks follow the slopes of such copies. One more forward pass, without a graph, for each call.

    Args:
        model: A network, or a function of networks.
        width: Over which a slope changes, > 0; at 0 it would be the network itself.
        eps: Length of the random move, > 0, in pixel units: of each entry (`linf`), or over all of an
            image (`l2`). Its signs are the same for all images and networks. Pixels stay in [0, 1].
        norm: `linf` or `l2`.

    Returns:
        A module, with a deep copy of `model`. Row i of what it gives depends on row i of its input only.

    Raises:
        ValueError: If a number is not positive, a word is unknown, or `model` cannot be copied; in the
            call, if the code of the model takes another way for the moved images.

    Source: ours. Exact values with approximate slopes as in Athalye et al. 2018 (BPDA, against defences
    that hide slopes); a width that follows the spread of the pre-activations after an independent attack
    on the first suite of this package.

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
    return _Softened(_model.copied(model), width, eps, norm)


class _Softened(nn.Module):
    def __init__(self, model: Classifier, width: float, eps: float, norm: Norm) -> None:
        super().__init__()
        self.model = model.module if isinstance(model, nn.DataParallel) else model
        self.width, self.eps, self.norm = width, eps, norm

    def forward(self, z: Tensor) -> Tensor:
        """The values of the network."""
        moved, elsewhere = _Moved(), self._elsewhere(z)
        with torch.no_grad(), moved:
            self.model(elsewhere)
        with _Soft(moved.seen, self.width):
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

    def __init__(self, moved: list[Tensor], width: float) -> None:
        super().__init__()
        self._moved, self._width = iter(moved), width

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _SOFTENED:
            return func(*args, **kwargs)
        x, rest, options, in_place = unpacked(func, args, kwargs)
        before = x.clone() if in_place else x
        width = self._width * _response(next(self._moved, None), before.detach())
        soft = _SOFTENED[func](_relu(width), before, *rest, **options)
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


def _relu(width: Tensor) -> Relu:
    """A smooth ReLU whose slope changes over `width`, over more of it where it does so anyway."""

    def relu(u: Tensor, least: float = 0) -> Tensor:
        total = width + least
        return total * softplus(u / total)

    return relu


def _softplus(relu: Callable[..., Tensor], x: Tensor, beta: float = 1, _: float = 20) -> Tensor:
    return relu(x, least=1 / beta)


_SOFTENED: dict[Callable[..., Tensor], Callable[..., Tensor | None]] = {
    **ROUNDED,
    softplus: _softplus,
}
