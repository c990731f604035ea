"""Copies of a network that can be differentiated twice: kinks rounded to softplus."""

from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from attrlib import _check, _model
from attrlib.models.kinks import ROUNDED, unpacked


class _SoftReLU6(nn.Module):
    """Smooth ReLU6: softplus(x) - softplus(x - 6)."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, x: Tensor) -> Tensor:
        softplus = nn.functional.softplus
        return softplus(x, beta=self.beta) - softplus(x - 6, beta=self.beta)


def smoothed(model: nn.Module, beta: float, *, required: bool = True) -> nn.Module:
    r"""Return a copy of a network that can be differentiated twice: its kinks are rounded.

    $$\mathrm{relu}(u) \mapsto \tfrac1\beta \log(1 + e^{\beta u})$$

    All activations that consist of ReLUs are rounded in this way, as modules and as functions called in
    a `forward`: ReLU, ReLU6, LeakyReLU, PReLU, RReLU, Hardtanh, Hardsigmoid, Hardswish, Softshrink,
    `clamp(min=0)` and a Threshold without a jump. Smooth ones (GELU, SiLU, ELU) stay. The weights are
    equal but no longer shared; as beta grows the copy approaches the network, and is above it by at most
    log(2)/beta at each ReLU.

    Args:
        model: A network. Tensors that it keeps from an earlier call are copied without their graph;
            compiled code is left out.
        beta: Sharpness, > 0.
        required: Raise if there is nothing to round; False gives a plain copy of a smooth network.

    Returns:
        A deep copy of `model` on the same device, with its hooks but for those of modules `nn.ReLU` and
        `nn.ReLU6`, which are replaced; `model` is untouched.

    Raises:
        TypeError: If `model` is not a `torch.nn.Module`.
        ValueError: If `beta` is not positive, `model` cannot be copied, there is nothing to round, or a
            function with a kink is run again by `torch.utils.checkpoint`; where that depends on the code
            of a `forward`, the first call of the copy raises.

    Source: Dombrowski et al. 2019, section 3.4. Differs: Softplus keeps PyTorch's `threshold` of 20,
    above which it is linear; larger thresholds overflow the second derivative in float32.
    """
    _check.positive(beta=beta)
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected model to be a torch.nn.Module, got {type(model).__name__}")
    twin: nn.Module = _model.copied(model)
    replaced = 0
    # With duplicates: one ReLU object may stand in several places.
    for path, child in list(twin.named_modules(remove_duplicate=False)):
        if type(child) in (nn.ReLU, nn.ReLU6):
            soft = nn.Softplus(beta=beta) if type(child) is nn.ReLU else _SoftReLU6(beta)
            soft.training = child.training
            twin = _model.put(twin, path, soft)
            replaced += 1
    if any(map(_may_hide_kinks, twin.modules())):
        kinks = _Kinks(beta, name=type(model).__name__, needed=required and not replaced)
        body = twin.module if isinstance(twin, nn.DataParallel) else twin
        body.register_forward_pre_hook(kinks.start, prepend=True)
        body.register_forward_hook(kinks.stop, always_call=True)
    elif required and not replaced:
        raise _nothing_to_round(type(model).__name__)
    return twin


with_softplus = smoothed
"""The first name of `smoothed`."""


def _may_hide_kinks(module: nn.Module) -> bool:
    """Whether running the module can show a kink that its type does not tell."""
    kind = type(module)
    if not kind.__module__.startswith(("torch.nn.modules.", "attrlib.models")):
        return True
    return kind not in _SMOOTH and kind.__module__.endswith((".activation", ".transformer"))


_SMOOTH = (nn.Softplus, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.CELU, nn.Tanh, nn.Sigmoid, nn.Softmax)


def _nothing_to_round(name: str) -> ValueError:
    return ValueError(
        f"Expected model to have nn.ReLU or another activation with a kink, got {name} with none; a "
        "smooth network needs no copy: leave out surrogates (--beta without values on the command "
        "line, beta=None in a term); write kinks of your own with torch.relu"
    )


def _saves_otherwise() -> bool:
    """Whether hooks, such as those of `torch.utils.checkpoint`, keep what the backward pass needs."""
    try:
        with disable_saved_tensors_hooks(""):
            return False
    except RuntimeError:  # it cannot be entered then
        return True


class _Kinks(TorchFunctionMode):
    """While it is active, functions with a kink give the rounded one. A network starts and stops it."""

    def __init__(self, beta: float, *, name: str, needed: bool) -> None:
        super().__init__()
        self.beta, self.name, self.needed = beta, name, needed
        self.met, self.active, self.hooked = False, True, False

    def start(self, module: nn.Module, args: object) -> None:
        """Before the network is called."""
        if self.active:
            self.hooked = _saves_otherwise()
            self.__enter__()  # type: ignore[no-untyped-call]

    def stop(self, module: nn.Module, args: object, output: object) -> None:
        """After the call; a network whose first call met no kink is left alone from then on."""
        if not self.active:
            return
        self.__exit__(None, None, None)  # type: ignore[no-untyped-call]
        if self.needed and not self.met and output is not None:
            raise _nothing_to_round(self.name)
        self.active = self.met or output is None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in ROUNDED:
            return func(*args, **kwargs)
        x, rest, options, in_place = unpacked(func, args, kwargs)
        soft = ROUNDED[func](self._relu, x.clone() if in_place else x, *rest, **options)
        if soft is None:
            return func(*args, **kwargs)
        if not self.hooked and _saves_otherwise():  # its second run would be outside of this mode
            raise ValueError(
                f"Expected model without torch.utils.checkpoint around functions with a kink, got "
                f"{func.__name__}; turn checkpointing off, or use modules such as nn.ReLU"
            )
        self.met = True
        return x.copy_(soft) if in_place else soft

    def _relu(self, u: Tensor) -> Tensor:
        return nn.functional.softplus(u, beta=self.beta)
