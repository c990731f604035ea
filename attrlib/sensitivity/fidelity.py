"""Infidelity: does a map foretell how the logit changes with the image?"""

import torch
from torch import Tensor
from torch.nn import functional

from attrlib import _check, _model, _passes
from attrlib.sensitivity._points import checked, near
from attrlib.types import Attribution, Classifier, Inputs, Labels, Norm, PerSample


def infidelity(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radius: float,
    samples: int = 50,
    norm: Norm = "linf",
    scaled: bool = False,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return how far a map misses the change of the logit under random noise, squared and averaged.

    $$\frac1m \sum_{k=1}^{m} \Big(\langle x - z_k, a(x)\rangle - \big(f_y(x) - f_y(z_k)\big)\Big)^2$$

    with $z_k$ uniform within the radius, clipped to [0, 1].

    For maps in logits per unit of pixel, such as gradients and their averages; those that hold a factor
    of the image (`input_x_gradient`, `integrated_gradients`) are for `square_infidelity`. One attribution
    and `samples` + 1 forward passes for each image.

    Args:
        attribution: Maps that are asked, in the shape of `x`.
        model: Maps a batch to logits (n, classes).
        x: Images (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        radius: r > 0 in pixel units.
        samples: Random images near each, m >= 1.
        norm: `linf`, the cube; `l2`, the Euclidean ball.
        scaled: Multiply each map by the factor that gives the smallest value, so that only its direction
            counts.
        batch_size: Rows of one pass, >= 1; None chooses. Sets speed and memory, not the points.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Values (n,), >= 0, in squared logits; smaller is better. 0 for the gradient of a linear model.
        Unlike the scores of change, it is not fooled by a map that is the same for every image.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], a number is out of range, `norm` is
            unknown, or a map has another shape than `x` or holds NaN.

    Source: Yeh et al. 2019, INFD; `infidelity` of Captum 0.9 gives the same at the same points,
    and with `normalize=True` for `scaled`, which the authors' code always does. Differs: uniform noise,
    clipped to [0, 1], where the paper draws normal noise around a baseline.
    """
    x = checked(model, x, y, batch_size=batch_size)
    points = near(x, radius=radius, samples=samples, norm=norm, generator=generator)
    a = _map(attribution, model, x, y, generator)

    def pair(z: Tensor, i: Tensor, *, look: bool) -> Tensor:
        foretold = ((x[i] - z).double() * a[i]).flatten(1).sum(1)
        return torch.stack([foretold, _logit(model, z, y[i])], dim=1)

    images = torch.arange(len(x), device=x.device)
    pairs = _passes.passes(pair, points, images, like=x, count=samples, batch_size=batch_size)
    foretold, logit = torch.cat(list(pairs)).unbind(2)
    return _missed(foretold, _logit(model, x, y) - logit, scaled=scaled).to(x)


def square_infidelity(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    size: int,
    baseline: Tensor | None = None,
    scaled: bool = False,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return how far a map misses the change of the logit when a square is hidden, over all squares.

    $$\frac{1}{|\mathcal S|} \sum_{S \in \mathcal S}
      \Big(\sum_{i \in S} a_i(x) - \big(f_y(x) - f_y(x_{S \to b})\big)\Big)^2$$

    For maps in logits, whose entries are shares of the logit against the baseline $b$, such as
    `integrated_gradients`. One attribution and a forward pass for each place of the square.

    Args:
        attribution: Maps that are asked, in the shape of `x`.
        model: Maps a batch to logits (n, classes).
        x: Images (n, channels, h, w), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        size: Side of the square in pixels, from 1 to the smaller of h and w.
        baseline: What hides it, in the shape of `x` or of one row `(1, …)`; None is black.
        scaled: Multiply each map by the factor that gives the smallest value.
        batch_size: Rows of one pass, >= 1; None chooses. Sets speed and memory only.
        generator: Source of the noise of a stochastic attribution; None is torch's global generator.

    Returns:
        Values (n,), >= 0, in squared logits; smaller is better. 0 for `input_x_gradient` of a linear
        model.

    Raises:
        TypeError: If `x` or `baseline` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], `size` is out of range, or a map has
            another shape than `x` or holds NaN.

    Source: Yeh et al. 2019, square removal; `infidelity` of Captum 0.9 gives the same with masks as
    perturbations. Differs: squares of one size, where the authors' code joins the sizes 1 to 10. Not the
    `Infidelity` of Quantus 0.6, which hides one square after the other and never shows them again.
    """
    x = checked(model, x, y, batch_size=batch_size)
    if x.ndim != 4:
        raise ValueError(f"Expected x to be images (n, channels, h, w), got {tuple(x.shape)}")
    height, width = x.shape[2:]
    _check.count(size=size, high=min(height, width))
    hidden = _check.baseline(x, baseline).detach()
    a = _map(attribution, model, x, y, generator)
    corners = [(i, j) for i in range(height - size + 1) for j in range(width - size + 1)]

    def points(part: range) -> Tensor:
        return torch.stack([_hidden(x, hidden, corners[k], size) for k in part])

    def logit(z: Tensor, labels: Tensor, *, look: bool) -> Tensor:
        return _logit(model, z, labels)

    logits = _passes.passes(logit, points, y, like=x, count=len(corners), batch_size=batch_size)
    change = _logit(model, x, y) - torch.cat(list(logits))
    sums = functional.avg_pool2d(a.sum(1, keepdim=True), size, stride=1) * size**2
    return _missed(sums.flatten(1).T, change, scaled=scaled).to(x)


def _map(
    attribution: Attribution,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """The maps in float64, once they are found to have the shape of the images."""
    a = attribution(model, x, y, generator=generator).detach()
    if a.shape != x.shape:
        raise ValueError(f"Expected maps of shape {tuple(x.shape)}, got {tuple(a.shape)}")
    _check.finite(maps=a)
    return a.double()


@torch.no_grad()
def _logit(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    return _model.logits(model, x, y).double().gather(1, y[:, None])[:, 0]


def _hidden(x: Tensor, baseline: Tensor, corner: tuple[int, int], size: int) -> Tensor:
    """Images in which one square, with this upper left corner, shows the baseline."""
    down, right = (slice(first, first + size) for first in corner)
    z = x.clone()
    z[:, :, down, right] = baseline[:, :, down, right]
    return z


def _missed(foretold: Tensor, change: Tensor, *, scaled: bool) -> Tensor:
    """The mean square of what is missed (m, n), for the maps as they are or in the best scale."""
    if scaled:
        square = foretold.square().sum(0)
        best = (foretold * change).sum(0) / square
        foretold = foretold * torch.where(square == 0, 0, best)
    return (foretold - change).square().mean(0)
