"""A network run on boxes: each number a centre and a radius, forward through its values and back again.

A `Box` stands in for the input tensor, and every function of PyTorch that is called on it gives the next
one, so that what is bounded is what the network does, not the list of its layers. The `Tape` keeps each
step and takes the bounds of the gradient back through them.
"""

import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import resolve_name

Pair: TypeAlias = tuple[Tensor, Tensor]
"""Centre and radius, of one shape."""

Pull: TypeAlias = Callable[[Pair], tuple[Pair, ...]]
"""From the bounds of the slopes at what a step gives to those at each of what it takes."""

Rule: TypeAlias = Callable[..., Tensor]
"""What a function of PyTorch does to boxes; it gets the function and its arguments, and gives a box, or
a constant where all of a box has one result."""


class NoBoundsError(ValueError):
    """A step that no rule describes; `Tape.run` says in which module it stands."""


class Box(Tensor):
    """A tensor of which only the shape is known, and that each entry lies in centre ± radius.

    It shows the type that the network expects and has no numbers of its own: whatever is done to it goes
    through the rules of its tape, or is refused.
    """

    centre: Tensor
    radius: Tensor
    tape: "Tape"
    step: int  # the step of the tape that gave it
    viewed: bool  # another box stands for the same memory
    choices: tuple[Tensor, ...]  # each column is that of one of these; empty where nothing is known

    @staticmethod
    def __new__(cls: type["Box"], centre: Tensor, radius: Tensor, tape: "Tape", step: int) -> "Box":
        box: Box = Tensor._make_wrapper_subclass(
            cls, centre.shape, dtype=tape.shown, device=centre.device
        )
        box.centre, box.radius, box.tape, box.step, box.viewed = centre, radius, tape, step, False
        box.choices = ()
        return box

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if "input" in kwargs and not args:
            args = (kwargs.pop("input"),)
        box = next(part for part in _flat((*args, *kwargs.values())) if isinstance(part, Box))
        rule = box.tape.rules.get(func)
        if rule is None:
            raise NoBoundsError(name_of(func))
        in_place = bool(kwargs.pop("inplace", False)) or func.__name__.rstrip("_") + "_" == (
            func.__name__
        )
        result = rule(func, *args, **kwargs)
        return _overwritten(args[0], result, func) if in_place else result

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        raise NoBoundsError(f"{func} called from compiled code")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Box of shape {tuple(self.shape)}"

    def ends(self) -> Pair:
        """The lowest and the highest value of each entry, rounding included."""
        radius = self.tape.wide((self.centre, self.radius))
        return self.centre - radius, self.centre + radius


class Tape:
    """The steps of one run, and how to compute.

    Attributes:
        rules: What each function of PyTorch does to boxes.
        shown: The type that boxes show, that of the network's input.
        kind: The type in which centres and radii are computed.
        learn: Keep the graph, so that bounds can be differentiated in the weights; then without a margin
            for rounding, which training does not need.
    """

    def __init__(
        self, rules: Mapping[Any, Rule], *, shown: torch.dtype, kind: torch.dtype, learn: bool
    ) -> None:
        self.rules, self.shown, self.kind, self.learn = rules, shown, kind, learn
        self.rounding = 0.0 if learn else 8 * roundoff(kind)
        self.shorter = 0.0 if learn or shown == kind else roundoff(shown)
        self.steps: list[tuple[tuple[int, ...], Pull]] = []

    def wide(self, pair: Pair, terms: int = 0, *, more: float = 0.0) -> Tensor:
        """The radius with a margin for the rounding of a sum of so many products, see `interval`."""
        centre, radius = pair
        if not self.rounding:
            return radius
        return torch.add(radius, centre.abs() + radius, alpha=self.rounding * (terms + 8) + more)

    def constant(self, value: Any) -> Any:
        """A weight in the type of the computation."""
        return value.to(self.kind) if isinstance(value, Tensor) else value

    def box(self, centre: Tensor, radius: Tensor, parents: tuple[int, ...], pull: Pull) -> Box:
        """What a step gives; `pull` takes slopes back through it."""
        self.steps.append((parents, pull))
        return Box(centre, radius, self, len(self.steps) - 1)

    def linear(
        self,
        parents: tuple[Box, ...],
        on_centres: Callable[..., Tensor],
        on_radii: Callable[..., Tensor],
    ) -> Box:
        """A linear step: the map itself on centres, that with the absolute weights on radii.

        Slopes go back through the transposes of both, which autograd knows.
        """
        own = _alias if self.learn else _leaf
        terms = max(_entries(p.centre) for p in parents)
        centres = tuple(own(p.centre) for p in parents)
        radii = tuple(own(self.wide((p.centre, p.radius), terms)) for p in parents)
        with torch.enable_grad():
            outputs = on_centres(*centres), on_radii(*radii)
        terms = max(terms, _entries(outputs[0]))

        def pull(slope: Pair) -> tuple[Pair, ...]:
            weights = slope[0], self.wide(slope, terms, more=self.shorter)
            found = torch.autograd.grad(
                outputs, (*centres, *radii), weights, create_graph=self.learn
            )
            return tuple(zip(found[: len(parents)], found[len(parents) :], strict=True))

        centre, radius = outputs if self.learn else (part.detach() for part in outputs)
        return self.box(centre, radius, tuple(p.step for p in parents), pull)

    def increasing(self, parent: Box, values: Pair, slopes: Pair) -> Box:
        """An activation, from the bounds of its values and of its slopes, which are >= 0."""
        low, high = values

        def pull(slope: Pair) -> tuple[Pair, ...]:
            radius = self.wide(slope)
            down, up = slope[0] - radius, slope[0] + radius
            flat, steep = slopes
            down = down.clamp(max=0) * steep + down.clamp(min=0) * flat
            up = up.clamp(min=0) * steep + up.clamp(max=0) * flat
            return (((down + up) / 2, (up - down) / 2),)

        return self.box((low + high) / 2, (high - low) / 2, (parent.step,), pull)

    def start(self, low: Tensor, high: Tensor, choices: tuple[Tensor, ...] = ()) -> Box:
        """The box of inputs; with choices, each of its columns is that of one of them."""
        centre, radius = ((low + high) / 2).contiguous(), ((high - low) / 2).contiguous()
        if self.learn:
            centre, radius = _leaf(centre), _leaf(radius)
        box = self.box(centre, radius, (), lambda _: ())
        box.choices = choices
        return box

    def back(self, output: Box, slope: Tensor) -> Pair:
        """The bounds of the gradient in the input, from the slopes of the output."""
        waiting: dict[int, Pair] = {output.step: (slope, torch.zeros_like(slope))}
        for step in range(output.step, 0, -1):
            if step not in waiting:
                continue
            parents, pull = self.steps[step]
            for parent, found in zip(parents, pull(waiting.pop(step)), strict=True):
                if parent in waiting:
                    (a, r), (b, s) = waiting[parent], found
                    found = a + b, self.wide((a, r)) + self.wide((b, s))
                waiting[parent] = found
        centre, radius = waiting[0]
        radius = self.wide((centre, radius))
        return centre - radius, centre + radius


def named(error: NoBoundsError, model: object) -> ValueError:
    """The error with the module in whose `forward` it arose, in words for the user."""
    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    modules = [part for part in frames if isinstance(part, nn.Module)]
    where = ""
    if modules:
        inside = model.named_modules() if isinstance(model, nn.Module) else ()
        path = next((name for name, part in inside if part is modules[-1]), "")
        where = f" in {type(modules[-1]).__name__}" + (f" {path!r}" if path else "")
    return ValueError(
        "Expected model of operations with bounds (linear layers, convolutions, average pooling, "
        "batch normalisation in eval mode, flatten, Normalize, sums, ReLU, Softplus), got "
        f"{error}{where}"
    )


def roundoff(kind: torch.dtype) -> float:
    """Half the distance from 1 to the next number."""
    return torch.finfo(kind).eps / 2


def name_of(func: Any) -> str:
    """A function of PyTorch, as it is written."""
    if isinstance(func, torch.ScriptFunction | torch.ScriptMethod):
        return "code of torch.jit"
    name: str = resolve_name(func) or getattr(func, "__name__", repr(func))
    return name.removesuffix(".__get__")


def _leaf(part: Tensor) -> Tensor:
    return part.detach().requires_grad_()


def _alias(part: Tensor) -> Tensor:
    """The same with its graph, as a tensor of its own: one that stands twice in a sum has two slopes."""
    return part.view_as(part)


def _entries(batch: Tensor) -> int:
    return batch[0].numel() if batch.ndim else 1


def _flat(parts: Any) -> Any:
    for part in parts:
        if isinstance(part, tuple | list):
            yield from _flat(part)
        else:
            yield part


def _overwritten(target: Any, result: Tensor, func: Any) -> Box:
    """What stands in the place of the first argument from now on."""
    if not (isinstance(target, Box) and isinstance(result, Box)) or target.shape != result.shape:
        raise NoBoundsError(f"{name_of(func)} in place on what has no bounds")
    if target.viewed:
        raise NoBoundsError(f"{name_of(func)} in place on a view")
    target.centre, target.radius, target.step = result.centre, result.radius, result.step
    target.choices = result.choices
    return target


_METADATA = {
    *(getattr(Tensor, name).__get__ for name in ("shape", "dtype", "device", "ndim", "layout")),
    *(getattr(Tensor, name).__get__ for name in ("requires_grad", "is_cuda", "is_sparse")),
    *(Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement, Tensor.__len__),
    *(Tensor.is_floating_point, torch.is_floating_point, Tensor.is_contiguous, torch.numel),
}
