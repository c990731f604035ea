"""Feature attributions: one score per pixel for the logit of one class.

Every attribution has the same call, `(model, x, y, *, generator=None)`, explains the logit of class
`y`, and returns a signed map with the shape, dtype and device of `x`. Bind options with
`functools.partial(integrated_gradients, steps=64)`.

A map can be differentiated in `x`, and twice in the weights, exactly when `x` requires grad; attacks
and training terms rely on it. The caller's tensors, the parameters' gradients and the model's mode
are never touched. Use models in eval mode: batch normalisation in train mode mixes the rows.

Points of a path and noisy copies go through the model together. `batch_size` is the number of rows, a
row being one point of one image, that one pass takes at most, and None chooses it so that one image
costs as little for each pass as many do: up to 192 rows on a CPU and 2048 on an accelerator, fewer for
large images (2 and 33 of 3×224×224 in float32). A batch with more images goes through in parts. Memory
is that of one such pass, whatever the number of points and images; only if `x` requires grad, all
passes are kept. Noise does not depend on `batch_size`, and maps differ by rounding only.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from attrlib import _check, _model, _passes, _random
from attrlib.maps import to_heatmap
from attrlib.types import Attribution, Classifier, Inputs, Labels, Norm, PerSample

__all__ = [
    "gradient",
    "input_x_gradient",
    "integrated_gradients",
    "smooth_grad",
    "target_logit",
    "to_heatmap",
    "uni_grad",
    "word_integrated_gradients",
    "wrap",
]


def target_logit(model: Classifier, x: Inputs, y: Labels) -> PerSample:
    r"""Return the logit that is explained, $f_y(x)$.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).

    Returns:
        Logits (n,), without bound. Differentiable.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, or `x` holds NaN.
    """
    _check.labelled(x, y)
    return _target_logit(model, x, y, twice=torch.is_grad_enabled() and x.requires_grad)


def gradient(
    model: Classifier, x: Inputs, y: Labels, *, generator: torch.Generator | None = None
) -> Inputs:
    r"""Return the gradient of the logit, the saliency map before its absolute value is taken.

    $$g(x) = \nabla_x f_y(x)$$

    One forward and one backward pass.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        generator: Ignored; all attributions share one call.

    Returns:
        Maps shaped like `x`, in logits per unit of pixel; signed, without bound.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, or `x` holds NaN.

    Source: Baehrens et al. 2010; Simonyan et al. 2014, section 3. Differs: the sign is kept and the
    channels are not reduced; `to_heatmap` does both.

    >>> model = torch.nn.Linear(2, 1)
    >>> x, y = torch.rand(1, 2), torch.tensor([0])
    >>> torch.equal(gradient(model, x, y), model.weight.detach())
    True
    """
    _check.labelled(x, y)
    return _gradient(model, x, y)


def input_x_gradient(
    model: Classifier, x: Inputs, y: Labels, *, generator: torch.Generator | None = None
) -> Inputs:
    r"""Return input times gradient, the first-order share of each pixel against black.

    $$a(x) = x \odot \nabla_x f_y(x)$$

    One forward and one backward pass. Zero wherever the pixel is black.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        generator: Ignored; all attributions share one call.

    Returns:
        Maps shaped like `x`, in logits; signed, without bound.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, or `x` holds NaN.

    Source: Shrikumar et al. 2017, where it is the baseline method.
    """
    _check.labelled(x, y)
    return x * _gradient(model, x, y)


def integrated_gradients(
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    baseline: Tensor | None = None,
    steps: int = 32,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Inputs:
    r"""Return integrated gradients along the straight line from the baseline $b$ to $x$.

    $$a(x) = (x - b) \odot \frac1m \sum_{k=1}^{m}
      \nabla f_y\!\Big(b + \frac{k - \frac12}{m}\,(x - b)\Big)$$

    The midpoint rule for $\int_0^1 \nabla f_y(b + t(x - b))\,dt$. The entries of a map add up to
    $f_y(x) - f_y(b)$ (completeness) up to the error of the rule, which is zero where the gradient is
    linear along the path. `steps` forward and backward passes for each image, `batch_size` rows at a
    time; memory does not grow with `steps` unless `x` requires grad.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        baseline: Where the path starts, in the shape of `x` or of one row `(1, …)`; None is black.
        steps: Points on the path, m >= 1.
        batch_size: Rows of one pass, >= 1; None chooses, see the top of the module. Sets speed and
            memory, not the map.
        generator: Ignored; all attributions share one call.

    Returns:
        Maps shaped like `x`, in logits; signed, without bound.

    Raises:
        TypeError: If `x` or `baseline` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, `steps` or `batch_size` is
            below 1, or `x` or `baseline` holds NaN.

    Source: Sundararajan et al. 2017, equation 1. Differs: the midpoint rule where the paper sums
    right end points; it needs no correction at the ends and its error falls as 1/m².
    """
    _check.labelled(x, y)
    _check.count(steps=steps)
    _check.batch_size(batch_size)
    start = _check.baseline(x, baseline)

    def path(part: range) -> Tensor:
        ends = (part.start + 0.5) / steps, (part.stop - 0.5) / steps
        shares = torch.linspace(*ends, len(part), dtype=x.dtype, device=x.device)
        return torch.lerp(start, x, shares.view(-1, *[1] * x.ndim))

    mean = _mean_gradient(model, path, y, like=x, count=steps, batch_size=batch_size)
    return (x - start) * mean


def word_integrated_gradients(
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    steps: int = 32,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Inputs:
    """Return integrated gradients of embedded sentences, from padding in the place of every word.

    The words of the baseline are zero vectors, as padding is, and its last channel is that of the
    sentence: there are as many words. With zeros there, too, points near the baseline had no word.

    Args:
        model: Maps embedded inputs to logits (n, classes), such as `models.TextCNN`.
        x: Embedded inputs (n, channels + 1, 1, words).
        y: Classes to explain, int64 (n,).
        steps: Points on the path, >= 1.
        batch_size: Rows of one pass, as of `integrated_gradients`.
        generator: Ignored; all attributions share one call.

    Returns:
        Maps shaped like `x`, in logits; signed. A word's scores are those of its column; padding has 0.

    Raises:
        TypeError: As `integrated_gradients`.
        ValueError: As `integrated_gradients`.
    """
    _check.floating(x=x)
    start = torch.zeros_like(x)
    start[:, -1:] = x[:, -1:].detach()
    return integrated_gradients(
        model, x, y, baseline=start, steps=steps, batch_size=batch_size, generator=generator
    )


def smooth_grad(
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    sigma: float,
    samples: int = 32,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Inputs:
    r"""Return SmoothGrad, the mean gradient over Gaussian noise around $x$.

    $$a(x) = \frac1m \sum_{k=1}^{m} \nabla f_y(x + \sigma \varepsilon_k), \qquad
      \varepsilon_k \sim \mathcal N(0, I)$$

    An unbiased estimate of the gradient of the Gaussian-smoothed model. `samples` forward and backward
    passes for each image, `batch_size` rows at a time; memory does not grow with `samples` unless `x`
    requires grad. The same state of the generator gives the same noise, for any `batch_size`.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1]. Noisy inputs are not clipped to [0, 1].
        y: Classes to explain, int64 (n,).
        sigma: Standard deviation of the noise in pixel units, >= 0; 0 gives the gradient.
        samples: Noisy copies, m >= 1.
        batch_size: Rows of one pass, >= 1; None chooses, see the top of the module. Sets speed and
            memory, not the map.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Maps shaped like `x`, in logits per unit of pixel; signed, without bound.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, `sigma` is negative,
            `samples` or `batch_size` is below 1, or `x` holds NaN.

    Source: Smilkov et al. 2017, section 2. Differs: `sigma` is in pixel units for all images, where
    the paper scales it by each image's range; the sign is kept.
    """
    _check.labelled(x, y)
    _check.nonnegative(sigma=sigma)
    _check.count(samples=samples)
    _check.batch_size(batch_size)

    def noisy(part: range) -> Tensor:
        noise = _random.normal_stack(x, len(part), generator=generator)
        return torch.add(x, noise, alpha=sigma)  # x + sigma · noise

    return _mean_gradient(model, noisy, y, like=x, count=samples, batch_size=batch_size)


def uni_grad(
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radius: float,
    samples: int = 32,
    norm: Norm = "l2",
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> Inputs:
    r"""Return UniGrad, the mean gradient over uniform noise around $x$.

    $$a(x) = \frac1m \sum_{k=1}^{m} \nabla f_y(x + r u_k), \qquad
      u_k \sim \mathcal U(\text{unit ball})$$

    `samples` forward and backward passes for each image, `batch_size` rows at a time; memory does not
    grow with `samples` unless `x` requires grad. The same state of the generator gives the same noise,
    for any `batch_size`.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1]. Noisy inputs are not clipped to [0, 1].
        y: Classes to explain, int64 (n,).
        radius: Radius r of the ball in pixel units, >= 0; 0 gives the gradient.
        samples: Noisy copies, m >= 1.
        norm: `l2`, the Euclidean ball; `linf`, the cube, each entry uniform on [-r, r].
        batch_size: Rows of one pass, >= 1; None chooses, see the top of the module. Sets speed and
            memory, not the map.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Maps shaped like `x`, in logits per unit of pixel; signed, without bound.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, `radius` is negative,
            `samples` or `batch_size` is below 1, `norm` is unknown, or `x` holds NaN.

    Source: Wang et al. 2020, section on stochastic smoothing; their released code samples the cube.
    Differs: the Euclidean ball is the default, since the certificates of this package speak of it.
    """
    _check.labelled(x, y)
    _check.nonnegative(radius=radius)
    _check.count(samples=samples)
    _check.batch_size(batch_size)
    _check.one_of(("l2", "linf"), norm=norm)
    draw = _random.ball_like if norm == "l2" else _random.uniform_like

    def noisy(part: range) -> Tensor:
        noise = torch.stack([draw(x, generator=generator) for _ in part])
        return torch.add(x, noise, alpha=radius)  # x + radius · noise

    return _mean_gradient(model, noisy, y, like=x, count=samples, batch_size=batch_size)


def wrap(method: Callable[[Any, Tensor, Tensor], Tensor]) -> Attribution:
    """Return a method of another library as an attribution: `(model, x, y, *, generator=None)`.

    The result has the shape, dtype and device of `x` and is detached. It cannot be differentiated:
    second derivatives of other libraries may be wrong without a warning, as those of Captum's integrated
    gradients are. So an `x` that requires grad is refused, and with it every attack that follows
    gradients. Attack another attribution and score this one on the points found, or use
    `attacks.RandomSign`. Patterns with Captum and zennit (extra `explainers`), for a network with
    `nn.ReLU` modules, each used once::

        @wrap
        def deep_lift(model, x, y):
            return captum.attr.DeepLift(model).attribute(x, target=y)

        @wrap
        def guided_backprop(model, x, y):
            return captum.attr.GuidedBackprop(model).attribute(x, target=y)

        @wrap
        def grad_cam(model, x, y):  # after the ReLU of the last convolution
            heat = captum.attr.LayerGradCam(model, model.layers[3]).attribute(x, target=y)
            return functional.interpolate(heat, x.shape[2:], mode="bilinear")

        @wrap
        def lrp(model, x, y):
            with zennit.attribution.Gradient(model, zennit.composites.EpsilonPlusFlat()) as explain:
                return explain(x, functional.one_hot(y, model(x).shape[1]).to(x))[1]

    Cost: that of the method, one forward pass that checks the labels, and a copy of the model.

    Args:
        method: Function of a model, inputs (n, …) and labels (n,) that returns maps shaped like the
            inputs, or (n, 1, h, w), which all channels get. It is given a copy of the model, in the
            same mode, and must take layers from this copy; what it does to it reaches nobody. The
            inputs it is given require grad. Its noise from torch's global generators follows `generator`.

    Returns:
        An attribution with the name of the method.

    Raises:
        TypeError: If `method` cannot be called. When the attribution is called, if `method` returns no
            tensor, `x` is not floating-point or `y` not int64.
        ValueError: When the attribution is called, if `x` requires grad, the map has another shape, a
            label is not a class of the model, or `x` holds NaN.

    >>> doubled = wrap(lambda model, x, y: 2 * x)
    >>> doubled(torch.nn.Linear(2, 1), torch.ones(1, 2), torch.tensor([0]))
    tensor([[2., 2.]])
    """
    if not callable(method):
        raise TypeError(f"Expected method to be a function, got {type(method).__name__}")
    name = getattr(method, "__name__", type(method).__name__)

    def attribution(
        model: Classifier, x: Inputs, y: Labels, *, generator: torch.Generator | None = None
    ) -> Inputs:
        _check.labelled(x, y)
        _check.recording(x)
        if torch.is_grad_enabled() and x.requires_grad:
            raise ValueError(
                f"Expected x that requires no grad, got one that does: {name} cannot be differentiated "
                "(second derivatives of other libraries may be wrong without a warning); attack "
                "another attribution and score this one on the points found"
            )
        with torch.no_grad():
            _target_logit(model, x, y)
        leaf = x.detach().clone().requires_grad_()
        with (
            torch.enable_grad(),
            _random.in_place_of_global(generator, x.device),
            warnings.catch_warnings(),
        ):
            warnings.filterwarnings("ignore", r"\s*Setting (forward, )?backward hooks")  # on a copy
            result = method(_model.copied(model), leaf, y.clone())
        return _like(result, x, name)

    attribution.__name__ = attribution.__qualname__ = name
    attribution.__module__, attribution.__doc__ = method.__module__, method.__doc__
    return attribution


def _target_logit(
    model: Classifier, x: Tensor, y: Tensor, *, twice: bool = False, look: bool = True
) -> Tensor:
    if look:
        _model.independent(model)
    logits = _model.logits(model, x, y if look else None, twice=twice)
    return logits.gather(1, y[:, None]).squeeze(1)


def _gradient(model: Classifier, x: Tensor, y: Tensor, *, look: bool = True) -> Tensor:
    _check.recording(x)
    # The one rule of differentiability: a graph is kept exactly when the caller's x has one.
    differentiable = torch.is_grad_enabled() and x.requires_grad
    x = x if differentiable else x.detach().requires_grad_()
    with torch.enable_grad():
        total = _target_logit(model, x, y, twice=differentiable, look=look).sum()
    return _model.slope(total, x, create_graph=differentiable)


def _mean_gradient(
    model: Classifier,
    points: Callable[[range], Tensor],
    y: Tensor,
    *,
    like: Tensor,
    count: int,
    batch_size: int | None,
) -> Tensor:
    """The mean of the gradients at `count` points, each shaped like `like`."""
    gradients = partial(_gradient, model)
    return _passes.mean(gradients, points, y, like=like, count=count, batch_size=batch_size)


def _like(a: Tensor, x: Tensor, name: str) -> Tensor:
    """The map, detached, in the shape, dtype and device of `x`."""
    if not isinstance(a, Tensor):
        raise TypeError(f"Expected {name} to return a torch.Tensor, got {type(a).__name__}")
    if a.shape not in (x.shape, (len(x), 1, *x.shape[2:])):
        raise ValueError(
            f"Expected {name} to return maps of shape {tuple(x.shape)} or with one channel, "
            f"got {tuple(a.shape)}"
        )
    return a.detach().to(x).expand_as(x).clone(memory_format=torch.contiguous_format)
