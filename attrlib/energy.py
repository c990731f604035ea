r"""Logits read as a density of the input: four log-densities, their slopes, and what ties them together.

With $p(x, k) \propto e^{f_k(x)}$ a classifier says something of its input, too: the marginal $p(x)$, the
joint $p(x, y)$ and the conditional $p(y \mid x)$, each up to one constant that no slope sees. A
classifier trained on labels is never asked to make $p(x)$ resemble the data: it is a function of the
logits, no estimate. And it has a gauge: a number added to all logits changes $p(x)$ and no prediction.
`centered` and `GaugeFixed` do not see such a shift; `gauge_ratio` says how much of a flat marginal is
due to one.

All functions of a model share one call, `(model, x, y)`; where no class is needed, `y` may be left out.
Logits are those before any softmax. Use models in eval mode.
"""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn

from attrlib import _check, _model, _random
from attrlib.types import Classifier, Inputs, Labels, Logits, PerSample

Density: TypeAlias = Callable[[Classifier, Inputs, Labels], PerSample]
"""A log-density of the input: model, inputs and labels to one value per sample, such as `marginal`."""


def marginal(model: Classifier, x: Inputs, y: Labels | None = None) -> PerSample:
    r"""Return the marginal log-density of the input, the negative energy.

    $$s(x) = \log \sum_k e^{f_k(x)} = \log p(x) + \text{const}$$

    Its slope is the mean of the slopes of the logits under $p(k \mid x)$, see `gradient`. One forward
    pass; logits of any finite size are safe.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Ignored; all densities share one call.

    Returns:
        Log-densities (n,) in nats, without bound, up to one constant for all inputs; higher is more
        likely. Differentiable.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, the model has one logit, or
            `x` holds NaN.

    Source: Grathwohl et al. 2020, section 3; as a score for unknown data, Liu et al. 2020.
    """
    return _logits(model, x, y).logsumexp(1)


def joint(model: Classifier, x: Inputs, y: Labels) -> PerSample:
    r"""Return the joint log-density of the input and class $y$: the logit.

    $$f_y(x) = \log p(x, y) + \text{const}$$

    Its slope is the gradient map, `attributions.gradient`. One forward pass.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes, int64 (n,).

    Returns:
        Log-densities (n,) in nats, without bound, up to one constant for all inputs and classes.
        Differentiable.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, the model has one logit, or
            `x` holds NaN.

    Source: Grathwohl et al. 2020, section 3.
    """
    _check.labelled(x, y)
    return _logits(model, x, y).gather(1, y[:, None]).squeeze(1)


def conditional(model: Classifier, x: Inputs, y: Labels) -> PerSample:
    r"""Return the log-probability of class $y$, minus the cross-entropy.

    $$\log p(y \mid x) = f_y(x) - s(x)$$

    The joint minus the marginal; no shift of all logits changes it. One forward pass.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes, int64 (n,).

    Returns:
        Log-probabilities (n,) in nats, <= 0. Differentiable.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, the model has one logit, or
            `x` holds NaN.
    """
    _check.labelled(x, y)
    return _logits(model, x, y).log_softmax(1).gather(1, y[:, None]).squeeze(1)


def centered(model: Classifier, x: Inputs, y: Labels | None = None) -> PerSample:
    r"""Return the marginal log-density above the mean logit, which no shift of all logits changes.

    $$s(x) - \frac1K \sum_k f_k(x) = -\frac1K \sum_k \log p(k \mid x)$$

    The cross-entropy against the uniform label, and the marginal of `GaugeFixed`. One forward pass.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Ignored; all densities share one call.

    Returns:
        Values (n,) in nats, >= log K; equal to it where all classes are equally likely. Differentiable.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, the model has one logit, or
            `x` holds NaN.

    Source: ours as a density; its slope is what Ross and Doshi-Velez 2018 call certainty sensitivity.
    """
    logits = _logits(model, x, y)
    return logits.logsumexp(1) - logits.mean(1)


def gradient(
    model: Classifier,
    x: Inputs,
    y: Labels | None = None,
    *,
    density: Density = marginal,
    generator: torch.Generator | None = None,
) -> Inputs:
    r"""Return the slope of a log-density, the score in the sense of score matching.

    $$\nabla_x s = \sum_k p(k \mid x) \, \nabla_x f_k, \qquad
      \nabla_x \log p(y \mid x) = \nabla_x f_y - \nabla_x s$$

    One forward and one backward pass, for any number of classes. With a density bound,
    `partial(gradient, density=conditional)` is an attribution as any other.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes, int64 (n,); may be left out for `marginal` and `centered`.
        density: `marginal`, `joint`, `conditional` or `centered`.
        generator: Ignored; all attributions share one call.

    Returns:
        Maps shaped like `x`, in nats per unit of pixel; signed, without bound. Differentiable exactly
        when `x` requires grad.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, the model has one logit, or
            `x` holds NaN.

    >>> model, x = torch.nn.Linear(2, 3), torch.rand(1, 2)
    >>> by_hand = model(x).softmax(1) @ model.weight
    >>> torch.allclose(gradient(model, x), by_hand)
    True
    """
    _batch(x, y)
    _check.recording(x)
    tracked = torch.is_grad_enabled() and x.requires_grad
    x = x if tracked else x.detach().requires_grad_()
    with torch.enable_grad():
        total = density(model, x, y).sum()  # type: ignore[arg-type]  # the density asks for y itself
    return _model.slope(total, x, create_graph=tracked)


def soft_minimum(parts: Logits, logits: Logits) -> PerSample:
    r"""Return what a change of the input takes from the marginal: a soft minimum over the classes.

    $$D = -\log \sum_k p(k \mid x) \, e^{-M_k} = s(x) - s(x'), \qquad M_k = f_k(x) - f_k(x')$$

    The part of a set of pixels in each logit, found by taking them out, is the attribution $M_k$ to that
    class; $D$ is their part in the marginal, whatever the class. It is at most the mean
    $\sum_k p(k \mid x) M_k$, and tends to $M_k$ as the model becomes sure of class $k$. A marginal whose
    slope is at most $L$ bounds it, $|D| \le L \|x - x'\|_2$.

    Args:
        parts: What the change takes from each logit, (n, classes).
        logits: Logits of the unchanged input, (n, classes).

    Returns:
        Differences of log-densities (n,) in nats, without bound; positive where the change makes the
        input less likely. Differentiable.

    Raises:
        TypeError: If a tensor is not floating-point.
        ValueError: If the shapes differ or a tensor holds NaN.

    Source: ours, from the definition of the attribution in Yang et al. 2024.

    >>> sure, parts = torch.tensor([[100.0, 0.0]]), torch.tensor([[2.0, 5.0]])
    >>> soft_minimum(parts, sure).item()
    2.0
    """
    _check.floating(parts=parts, logits=logits)
    _check.same_shape(parts=parts, logits=logits)
    _check.finite(parts=parts, logits=logits)
    _check.logits(logits, len(logits))
    return -(logits.log_softmax(1) - parts).logsumexp(1)


def fisher_trace(
    model: Classifier,
    x: Inputs,
    y: Labels | None = None,
    *,
    draws: int = 1,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return an estimate of the trace of the input's Fisher information: what tells the classes apart.

    $$\mathrm{tr}\, I(x) = \sum_k p_k \, \|\nabla_x \log p_k\|_2^2
      = \sum_k p_k \, \|\nabla_x f_k\|_2^2 - \|\nabla_x s\|_2^2$$

    $$\mathrm{tr}\, I(x) = \mathbb{E}\, \|J^\top u\|_2^2, \qquad
      u = \sqrt p \odot \varepsilon - p \, (\sqrt p^\top \varepsilon), \quad
      \varepsilon \sim \mathcal N(0, I)$$

    with $p = p(\cdot \mid x)$ and the Jacobian $J$ of the logits. So the joint penalty, averaged over the
    classes, is the marginal one plus this trace. One forward pass, and one backward pass for each draw,
    whatever the number of classes.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Ignored; all functions of a model share one call.
        draws: Draws of ε for each sample, >= 1. The variance falls as their inverse.
        generator: Source of ε; None is torch's global generator.

    Returns:
        Unbiased estimates (n,) >= 0, in squared nats per squared unit of pixel. Differentiable exactly
        when `x` requires grad.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, the model has one logit,
            `draws` is below 1, or `x` holds NaN.

    Source: ours; with the square root of the covariance of a one-hot class, as for any Fisher
    information.
    """
    _batch(x, y)
    _check.recording(x)
    _check.count(draws=draws)
    tracked = torch.is_grad_enabled() and x.requires_grad
    x = x if tracked else x.detach().requires_grad_()
    total = torch.zeros(len(x), dtype=x.dtype, device=x.device)
    with torch.enable_grad():
        logits = _logits(model, x, y)
        logp = logits.log_softmax(1)
        p, root = logp.exp(), (logp / 2).exp()
    for _ in range(draws):
        with torch.enable_grad():
            noise = root * _random.normal_like(logits.detach(), generator=generator)
            u = noise - p * noise.sum(1, keepdim=True)
        pulled = _model.slope(logits, x, u, create_graph=tracked, retain_graph=True)
        total = total + pulled.flatten(1).square().sum(1)
    return total / draws


def gauge_ratio(model: Classifier, x: Inputs, y: Labels | None = None) -> PerSample:
    r"""Return how steep the marginal is beside the same marginal without shifts of all logits.

    $$\rho = \frac{\|\nabla_x s\|_2}{\|\nabla_x (s - \bar f)\|_2}, \qquad
      \bar f = \frac1K \sum_k f_k$$

    Near 1 in an ordinary trained network, and large before training, when all logits move together. Far
    below 1, a flat marginal is the work of a number that the network adds to all its logits and that no
    prediction sees. Two forward and two backward passes.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Ignored; all functions of a model share one call.

    Returns:
        Ratios (n,) >= 0, without bound; NaN where the centred slope is 0. Differentiable exactly when `x`
        requires grad.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, the model has one logit, or
            `x` holds NaN.

    Source: ours; that logits have this freedom, Srinivas and Fleuret 2021.
    """
    steep = gradient(model, x, y).flatten(1)
    fixed = gradient(model, x, y, density=centered).flatten(1)
    ratio: Tensor = steep.norm(dim=1) / fixed.norm(dim=1)
    return ratio.masked_fill((fixed == 0).all(1), torch.nan)


@torch.no_grad()
def density_shift(
    model: Classifier,
    x: Inputs,
    z: Inputs,
    y: Labels | None = None,
    *,
    density: Density = marginal,
) -> PerSample:
    r"""Return how far a change moves a log-density, in units of its spread over the images.

    $$\frac{|s(z) - s(x)|}{\mathrm{std}_{x'}\, s(x')}$$

    Logits that are all scaled down give a smaller move, and a spread that is smaller by about as much:
    without the spread, any network of low confidence would look robust. Two forward passes.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1]; at least two, over which the spread is taken.
        z: Changed inputs, in the shape of `x`.
        y: Classes, int64 (n,); may be left out for `marginal` and `centered`.
        density: The log-density that moves.

    Returns:
        Values (n,) >= 0, lower is more robust; NaN if all densities are the same up to rounding. Rows
        depend on each other through the spread. Not differentiable.

    Raises:
        TypeError: If a tensor is not floating-point or `y` not int64.
        ValueError: If shapes disagree, there are fewer than two inputs, a label is not a class of the
            model, or a tensor holds NaN.

    Source: ours; Yang et al. 2024 report perturbed densities, and how was not at hand.
    """
    _batch(x, y)
    _check.floating(z=z)
    _check.same_shape(x=x, z=z)
    _check.finite(z=z)
    if len(x) < 2:
        raise ValueError(f"Expected x of at least two inputs to have a spread, got {len(x)}")
    here, there = density(model, x, y), density(model, z, y)  # type: ignore[arg-type]
    spread = here.std()
    rounding = 32 * torch.finfo(here.dtype).eps * (1 + here.abs().amax())
    return ((there - here).abs() / spread).masked_fill(spread <= rounding, torch.nan)


class GaugeFixed(nn.Module):
    r"""A network without the freedom to shift its logits: their mean is taken away.

    $$f_k(x) \mapsto f_k(x) - \frac1K \sum_j f_j(x)$$

    Probabilities stay. Any attribution of it is contrastive: it explains why this class rather than the
    average one, and leaves out what all logits share. Its `marginal` is the `centered` density of the
    network.

    Args:
        model: Maps a batch to logits (n, classes).

    Source: ours, against the freedom in Srinivas and Fleuret 2021.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Inputs) -> Logits:
        """Return the logits (n, classes) of mean zero."""
        logits = self.model(x)
        _check.logits(logits, len(x))
        return logits - logits.mean(1, keepdim=True)


class Shifted(nn.Module):
    r"""A network with one number, a function of the input, added to all its logits.

    $$f_k(x) \mapsto f_k(x) + c(x)$$

    Probabilities, and with them cross-entropy and accuracy, stay; gradient maps and the marginal move as
    $\nabla c$ and $c$ do. With $c = -s$ the marginal is 0 everywhere, whatever the network does.

    Args:
        model: Maps a batch to logits (n, classes).
        shift: Maps a batch to one number for each input, (n,) or (n, 1); may have weights of its own.

    Source: the argument of Srinivas and Fleuret 2021 that gradients of logits are not fixed by the
    classifier.
    """

    def __init__(self, model: Classifier, shift: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.shift = model, shift

    def forward(self, x: Inputs) -> Logits:
        """Return the shifted logits (n, classes)."""
        shift = self.shift(x)
        if shift.shape not in ((len(x),), (len(x), 1)):
            raise ValueError(
                f"Expected shift(x) of one number for each of {len(x)} inputs, "
                f"got shape {tuple(shift.shape)}"
            )
        logits = self.model(x)
        _check.logits(logits, len(x))
        return logits + shift.reshape(-1, 1)


def _batch(x: Tensor, y: Tensor | None) -> None:
    """Raise unless `x` is a finite batch, and `y`, if there is one, its labels."""
    if y is None:
        _check.floating(x=x)
        _check.finite(x=x)
    else:
        _check.labelled(x, y)


def _logits(model: Classifier, x: Tensor, y: Tensor | None) -> Tensor:
    _batch(x, y)
    _model.independent(model)
    twice = torch.is_grad_enabled() and x.requires_grad
    return _model.logits(model, x, y, classes=2, twice=twice)
