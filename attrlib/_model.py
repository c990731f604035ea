"""The caller's model: called on a copy of `x`, and what it is and gives is checked in one place."""

import copy
import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.overrides import TorchFunctionMode

from attrlib import _check
from attrlib.types import Classifier

_NO_SECOND_DERIVATIVE = (
    "does not currently support double backward",  # torch.compile
    "Double backwards is not supported",  # cuDNN
    "once_differentiable",
    "derivative for aten::",  # "the derivative for aten::… is not implemented"
    "derivative for '",
)


def logits(
    model: Classifier, x: Tensor, y: Tensor | None = None, *, classes: int = 1, twice: bool = False
) -> Tensor:
    """Return the logits of `x`; raise unless they are logits, and the labels `y` are among the classes.

    The model gets a copy, so that one whose layers work in place neither overwrites the caller's `x` nor
    stops at a leaf. `twice` records a graph that can be differentiated twice: attention by its formula,
    since the fused kernels have a first derivative only, and compiled code as it was before. Where the
    model fails because its weights do not fit `x`, the error says so.
    """
    with ExitStack() as stack:
        if twice and not torch.compiler.is_compiling():
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            # Without this module nothing is compiled, and its import takes seconds.
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
        try:
            scores = model(x.clone())
        except RuntimeError as error:
            if reason := _misfit(error, model, x):
                raise ValueError(reason) from error
            raise
    _check.logits(scores, len(x), y, classes=classes)
    return scores


def _misfit(error: RuntimeError, model: object, x: Tensor) -> str:
    """Why the weights of a model do not take `x`; empty if they do and the error is another one."""
    if str(error).startswith("Inference tensors cannot be saved for backward"):
        return (
            "Expected model with weights made outside torch.inference_mode(), got inference tensors; "
            "make or load it outside; torch.no_grad() is fine"
        )
    weights = [p for _, layer in _layers(model) for p in layer.parameters(recurse=False)]
    for where, own in (("dtype", x.dtype), ("device", x.device)):
        found = {getattr(p, where) for p in weights if p.is_floating_point()}
        if len(found) == 1 and own not in found:
            return f"Expected x with the {where} of the model's weights, {found.pop()}, got {own}"
    return ""


def decision(model: Classifier, x: Tensor) -> Tensor:
    """Return the predicted class of each row; of a single logit, whether it is positive."""
    return decided(logits(model, x))


def decided(scores: Tensor) -> Tensor:
    """Return the class that logits predict; of a single logit, whether it is positive."""
    return scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).long()


def lead(scores: Tensor, label: Tensor) -> Tensor:
    """Return how far a class is ahead of all others; with one logit, how far it is on its side of 0."""
    if scores.shape[1] == 1:
        return scores[:, 0] * (2 * label - 1)
    column = label[:, None]
    others = scores.scatter(1, column, -torch.inf)
    return scores.gather(1, column)[:, 0] - others.amax(1)


def slope(values: Tensor, x: Tensor, weights: Tensor | None = None, **options: bool) -> Tensor:
    """Return `torch.autograd.grad` in `x` of logits or a loss; raise if no graph leads from it to `x`."""
    grad: Tensor | None = None
    if values.requires_grad:
        (grad,) = torch.autograd.grad(values, x, weights, allow_unused=True, **options)
    if grad is None:
        raise ValueError(
            "Expected model(x) to be differentiable in x, got values with no graph to x; take "
            "torch.no_grad, detach, NumPy and the like out of the model's forward"
        )
    return grad


@contextmanager
def second_derivative() -> Iterator[None]:
    """Say in one sentence what to do where PyTorch has no second derivative of a layer."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        if not any(words in reason for words in _NO_SECOND_DERIVATIVE):
            raise
        raise ValueError(
            f"Expected model to have a second derivative, got {reason!r}; use layers made of plain "
            "operations: torch.nn.attention.sdpa_kernel(SDPBackend.MATH) for attention, "
            "torch.backends.cudnn.flags(enabled=False) for recurrent layers, no torch.compile or "
            "torch.jit"
        ) from error


def independent(model: Classifier) -> None:
    """Raise if a layer mixes the rows of a batch, or moves its running statistics, when it is called."""
    for name, layer in _layers(model):
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            if layer.running_mean is None and layer.running_var is None:
                raise ValueError(
                    "Expected batch normalisation with running statistics (samples must not depend on "
                    f"each other), got {type(layer).__name__} {name!r} with "
                    "track_running_stats=False; use group normalisation"
                )
            if layer.training:
                raise ValueError(
                    "Expected model without batch normalisation in train mode (samples must not "
                    f"depend on each other), got {type(layer).__name__} {name!r}; call model.eval()"
                )
        elif isinstance(layer, nn.modules.instancenorm._InstanceNorm):
            if layer.training and layer.running_mean is not None:
                raise ValueError(
                    "Expected model whose statistics stay as they are, got "
                    f"{type(layer).__name__} {name!r} in train mode; call model.eval()"
                )


def settled(model: Classifier) -> None:
    """Raise as `independent`, and if a layer in train mode draws noise or moves by itself."""
    independent(model)
    for name, layer in _layers(model):
        noisy = _draws_noise(layer)
        parts = (layer, *layer._forward_pre_hooks.values())
        moves = any(isinstance(part, _SpectralNorm | SpectralNorm) for part in parts)
        if layer.training and (noisy or moves):
            raise ValueError(
                "Expected model that gives equal logits each time, got "
                f"{type(layer).__name__} {name!r} in train mode; call model.eval()"
            )


def _draws_noise(layer: nn.Module) -> bool:
    """Whether a layer of PyTorch gives other values each time in train mode."""
    match layer:
        case nn.modules.dropout._DropoutNd():
            return layer.p > 0
        case nn.MultiheadAttention() | nn.RNNBase():
            return layer.dropout > 0
        case nn.RReLU():
            return layer.lower < layer.upper
    return False


class _Copying(TorchFunctionMode):
    """While it is active, `copy.deepcopy` takes tensors with a graph, and leaves the graph behind."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            return memo.setdefault(id(tensor), tensor.detach().clone())
        return func(*args, **(kwargs or {}))


def copied(model: Any) -> Any:
    """A deep copy of a network, without what `torch.compile` put around it; other functions stay."""
    if not isinstance(model, nn.Module):
        return model
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise ValueError(
            "Expected model in Python, got one compiled by torch.jit; give the model it was made from"
        )
    try:
        with _Copying():
            twin = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"Expected model that copy.deepcopy can copy, got {str(error).partition(chr(10))[0]!r}; "
            "take what cannot be copied out of the model's attributes and hooks"
        ) from error
    for path, module in list(twin.named_modules(remove_duplicate=False)):
        if isinstance(plain := module._modules.get("_orig_mod"), nn.Module):
            twin = put(twin, path, plain)
    return twin


def functions(*names: str) -> tuple[Callable[..., Tensor], ...]:
    """The functions of PyTorch with these names, as functions and as methods, also in place."""
    homes, ends = (torch, Tensor, nn.functional), ("", "_")
    found = (getattr(home, name + end, None) for home in homes for name in names for end in ends)
    return tuple(function for function in found if function is not None)


def put(model: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """Put `part` at the path; return the model, which is `part` itself where the path is empty."""
    if not path:
        return part
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, part)
    return model


def _layers(model: object) -> Iterator[tuple[str, nn.Module]]:
    """The layers of a network, also of those behind a method, a partial, a function or an object."""
    if isinstance(model, nn.Module):
        yield from model.named_modules()
    elif inspect.ismethod(model):
        yield from _layers(model.__self__)
    elif isinstance(model, functools.partial):
        for part in (model.func, *model.args, *model.keywords.values()):
            yield from _layers(part)
    elif inspect.isfunction(model):
        seen = inspect.getclosurevars(model)
        yield from _held((*seen.nonlocals.values(), *seen.globals.values()))
    elif not isinstance(model, type):
        yield from _held(getattr(model, "__dict__", {}).values())


def _held(values: Iterable[object]) -> Iterator[tuple[str, nn.Module]]:
    """The layers of networks among some values, alone or several in a list, tuple or dict."""
    for value in values:
        if isinstance(value, nn.Module):
            yield from value.named_modules()
        elif isinstance(value, list | tuple | dict) and value:
            parts = value.values() if isinstance(value, dict) else value
            if isinstance(next(iter(parts)), nn.Module):
                yield from _held(part for part in parts if isinstance(part, nn.Module))
