"""What a map and a step of an attack cost, beside the pass that they cannot do without."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from attrlib import _check, attacks, attributions, models
from attrlib.types import Inputs, Labels

_STEPS = 4


def cpu_seconds(action: Callable[[], object], *, turns: int = 2) -> float:
    """Return the least time of the processor over some turns, after one to warm up.

    Args:
        action: Function without arguments; what it returns is dropped.
        turns: Number of turns that count, >= 1.

    Returns:
        Seconds in which this process had the processor, on all its threads together.

    Raises:
        ValueError: If `turns` is not positive.
    """
    _check.count(turns=turns)
    action()
    return min(_once(action) for _ in range(turns))


def pass_costs(model: nn.Module, x: Inputs, y: Labels, *, eps: float = 8 / 255) -> dict[str, float]:
    """Return the milliseconds an image of a bare pass, of a gradient map and of a step of an attack.

    The *bare pass* is the model forward and backward to the pixels, and nothing else. The attack aims at
    an eighth of the pixels in the gradient map, against a copy with softplus (β = 10).

    Args:
        model: A classifier with ReLU modules.
        x: Images (n, channels, height, width), pixels in [0, 1].
        y: Labels (n,).
        eps: Budget of the attack in each pixel, > 0.

    Returns:
        Name to time of the processor, keys `bare pass`, `gradient map` and `attack step`.

    Raises:
        ValueError: If `eps` is not positive, or `x` and `y` do not go together.
    """
    _check.positive(eps=eps)
    _check.labelled(x, y)
    attack = attacks.AttributionAttack(
        attribution=attributions.gradient,
        objective=attacks.TopK(k=max(1, x[0, 0].numel() // 8)),
        ball=attacks.LinfBall(eps=eps),
        steps=_STEPS,
        step_size=eps / 10,
        surrogates=(partial(models.with_softplus, beta=10.0),),
    )
    whole = partial(attack, model, x, y, generator=torch.Generator(x.device).manual_seed(0))
    seconds = {
        "bare pass": cpu_seconds(partial(_bare_pass, model, x, y), turns=5),
        "gradient map": cpu_seconds(partial(attributions.gradient, model, x, y), turns=5),
        "attack step": cpu_seconds(whole) / _STEPS,
    }
    return {name: 1000 * value / len(x) for name, value in seconds.items()}


def kept_numbers(model: nn.Module, x: Inputs) -> int:
    """Return how many numbers the layers of a model give out on the way forward, an image.

    A backward pass needs most of them. Layers are the modules without children, each counted as often as
    it is called; what is computed between modules is not seen.

    Args:
        model: Any module.
        x: Images (n, …).

    Returns:
        The count, rounded down.
    """
    counts: list[int] = []

    def count(_: nn.Module, __: object, out: Tensor) -> None:
        counts.append(out.numel())

    leaves = [layer for layer in model.modules() if not list(layer.children())]
    hooks = [layer.register_forward_hook(count) for layer in leaves]
    try:
        with torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return sum(counts) // len(x)


def two_convolutions(width: int, *, generator: torch.Generator | None = None) -> nn.Sequential:
    """Return an untrained network for colour images of 32×32 pixels and 10 classes, of any width.

    The convolutions of `SmallCNN` with `width` and 2 · `width` channels, and one linear layer.

    Args:
        width: Channels after the first convolution, >= 1.
        generator: Source of the weights; None is torch's global generator.

    Returns:
        The network.

    Raises:
        ValueError: If `width` is not positive.
    """
    _check.count(width=width)
    net = nn.Sequential(
        nn.Conv2d(3, width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * width * 8 * 8, 10),
    )
    models.randomize(net, generator=generator)
    return net


def _once(action: Callable[[], object]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


def _bare_pass(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    z = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(z).gather(1, y[:, None]).sum(), z)
    return slope
