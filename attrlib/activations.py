"""What a network is doing at an image: which neurons are on.

A small change of the image that switches neurons changes the gradient, whatever the prediction does.
"""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from attrlib import _check, _model
from attrlib.types import Classifier, Inputs, PerSample


def consistency(model: Classifier, x: Inputs, z: Inputs) -> PerSample:
    r"""Return how alike the sets of neurons are that are on at `x` and at `z`, a mean over layers.

    $$\frac1L \sum_{l=1}^{L} \frac{|S_l(x) \cap S_l(z)|}{\sqrt{|S_l(x)|\,|S_l(z)|}}, \qquad
      S_l(x) = \{i : u_{l,i}(x) > 0\}$$

    with the numbers $u_l$ that enter activation l: the cosine of the two patterns of on and off. For a
    wide layer with independent Gaussian weights it is $1 - \varphi/\pi$ at the angle $\varphi$ between
    `x` and `z`, and so is the cosine of the gradients of a network with this one layer.

    What counts as an activation is ReLU, ReLU6, LeakyReLU, PReLU, RReLU, Softplus, ELU, CELU, SELU, GELU,
    SiLU and Mish, as modules and as functions called in a `forward`, each time one is called. One forward
    pass of both images.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Images (n, …), pixels in [0, 1].
        z: Images of the same shape.

    Returns:
        Values (n,) in [0, 1], 1 where no neuron switches; NaN where all neurons of a layer are off. Not
        differentiable.

    Raises:
        TypeError: If `x` or `z` is not floating-point.
        ValueError: If the shapes differ, `x` or `z` is not finite, the model mixes the samples or draws
            noise, calls none of these activations (those in code of `torch.jit` are not seen), or calls
            one on a tensor without a row for each image.

    Source: Wang & Kong 2022, whose text was not at hand, after a replication; there hooks on modules miss
    activations that are called as functions. Differs: a mean over layers for each image, softplus and
    the like included.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = model[0].weight.copy_(torch.eye(2)), model[0].bias.fill_(-0.5)
    >>> consistency(model, torch.tensor([[0.9, 0.9]]), torch.tensor([[0.9, 0.1]]))  # 1 / √(2 · 1)
    tensor([0.7071])
    """
    _check.floating(x=x, z=z)
    _check.same_shape(x=x, z=z)
    _check.finite(x=x, z=z)
    _model.settled(model)
    seen = _Switches()
    with torch.no_grad(), seen:
        _model.logits(model, torch.cat([x, z]), twice=True)  # in Python, where calls are seen
    if not seen.states:
        raise ValueError(
            "Expected model to call an activation such as torch.relu or nn.Softplus, got "
            f"{type(model).__name__} that calls none"
        )
    shares = []
    for state in seen.states:
        if len(state) != 2 * len(x):
            raise ValueError(
                f"Expected activations of one row for each of {2 * len(x)} images, got shape "
                f"{tuple(state.shape)}"
            )
        here, there = state.flatten(1).chunk(2)
        kept = (here & there).sum(1).double()
        shares.append(kept / (here.sum(1).double() * there.sum(1)).sqrt())
    return torch.stack(shares).mean(0).to(x.dtype)


class _Switches(TorchFunctionMode):
    """While it is active, every call of an activation leaves which of its inputs are positive."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _ACTIVATIONS:
            u = args[0] if args else kwargs["input"]
            self.states.append(u > 0)  # before the call, which may work in place
        return func(*args, **kwargs)


_ACTIVATIONS = frozenset(
    _model.functions(
        *("relu", "relu6", "leaky_relu", "prelu", "rrelu"),
        *("softplus", "elu", "celu", "selu", "gelu", "silu", "mish"),
    )
)
