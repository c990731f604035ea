"""Does the prediction stay when an explanation is shown with a few more pixels? Soft stability."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor

from attrlib import _check, _model, _passes
from attrlib.certificates import confidence
from attrlib.types import Classifier, Inputs, Masks, PerSample


@dataclass(frozen=True, kw_only=True, eq=False)
class Stability:
    """How often random additions keep the prediction.

    Made by `soft_stability`.

    Args:
        rate: Share (n,) of the samples that kept the prediction, float64.
        lower: Lower bounds (n,) of the probability, each right with probability 1 - `alpha`, float64.
        alpha: Failure probability of each bound.
        additions: Most pixels that were added.
        samples: Random additions for each image.
    """

    rate: PerSample
    lower: PerSample
    alpha: float
    additions: int
    samples: int


def soft_stability(
    model: Classifier,
    x: Inputs,
    kept: Masks,
    *,
    additions: int,
    samples: int,
    alpha: float,
    baseline: Tensor | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None,
) -> Stability:
    r"""Return how often the prediction on the kept pixels survives random additions to them.

    $$\tau_r = \Pr_{S'} \big[\arg\max f(x_{S'}) = \arg\max f(x_S)\big]$$

    with $S'$ drawn evenly from all $S' \supseteq S$ that have at most r pixels more, where $x_S$ shows
    the pixels of S and hides all others. An explanation that holds the reason for a prediction is not
    overturned by a few pixels more. All sets count alike, and most of them are large: nearly always
    about r pixels are added. The bound is that of Clopper and Pearson. Says nothing about the worst
    addition, nor about changes of pixel values.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Images (n, channels, h, w), pixels in [0, 1].
        kept: Pixels S of the explanation (n, h, w), such as `topk_mask` of a map.
        additions: Most pixels r that are added, >= 0; where fewer are hidden, all of them.
        samples: Random additions for each image, >= 1: `stability_samples` says how many are needed.
        alpha: Probability for each image that the bound is above the rate, at most.
        baseline: What hides a pixel, in the shape of `x` or of one row `(1, …)`; None is black.
        batch_size: Rows of one pass, >= 1; None chooses by their size. Sets speed and memory.
        generator: Source of the additions; None is torch's global generator.

    Returns:
        `Stability`: rates in [0, 1], higher is more stable, and their lower bounds.

    Raises:
        TypeError: If `x` is not floating-point or `kept` not boolean.
        ValueError: If shapes disagree, a number is out of range, `x` holds NaN, or a layer draws noise.

    Source: Jin et al. 2025, equation 3 and the algorithm SCA. Differs: the exact binomial bound where
    they use Hoeffding's; the baseline is an option.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2))
    >>> kept = torch.tensor([[[True, False], [False, False]]])
    >>> soft_stability(model, torch.zeros(1, 1, 2, 2), kept, additions=2, samples=100, alpha=0.05,
    ...                generator=torch.Generator().manual_seed(0)).lower.item()
    0.97
    """
    _check.floating(x=x)
    _check.finite(x=x)
    _check.unit_interval(alpha=alpha)
    _check.count(samples=samples)
    _check.count(additions=additions, low=0)
    _check.batch_size(batch_size)
    _check.boolean(kept=kept)
    if x.ndim != 4 or kept.shape != (len(x), *x.shape[2:]):
        raise ValueError(
            f"Expected images (n, channels, h, w) and kept (n, h, w), got {tuple(x.shape)} and "
            f"{tuple(kept.shape)}"
        )
    _model.settled(model)
    hidden = _check.baseline(x, baseline)
    sizes = _sizes(kept, additions)

    def shown(mask: Tensor) -> Tensor:
        return torch.where(mask[..., None, :, :], x, hidden)

    def points(part: range) -> Tensor:
        return shown(torch.stack([kept | _added(kept, sizes, generator) for _ in part]))

    def decide(rows: Tensor, labels: Tensor, *, look: bool) -> Tensor:
        return _model.decision(model, rows) == labels

    with torch.no_grad():
        y = _model.decision(model, shown(kept))
        parts = _passes.passes(decide, points, y, like=x, count=samples, batch_size=batch_size)
        hits = sum(part.sum(0) for part in parts)
    assert isinstance(hits, Tensor)
    lower = confidence.least_chance(hits.cpu().numpy(), samples=samples, alpha=alpha)
    return Stability(
        rate=hits.double() / samples,
        lower=torch.as_tensor(lower).to(x.device),
        alpha=alpha,
        additions=additions,
        samples=samples,
    )


def stability_samples(error: float, *, alpha: float) -> int:
    r"""Return how many samples put a rate within `error` of the truth.

    $$N = \Big\lceil \frac{\ln (2 / \alpha)}{2 \, \texttt{error}^2} \Big\rceil$$

    Args:
        error: Largest distance of the measured rate from the true one, strictly between 0 and 1.
        alpha: Probability that it is larger, at most; strictly between 0 and 1.

    Returns:
        Number of samples, the same for every model, image and number of additions.

    Raises:
        ValueError: If a number is out of range.

    Source: Jin et al. 2025, by Hoeffding 1963.

    >>> stability_samples(0.1, alpha=0.05)
    185
    """
    _check.unit_interval(error=error, alpha=alpha)
    return math.ceil(math.log(2 / alpha) / (2 * error**2))


def _sizes(kept: Tensor, additions: int) -> Tensor:
    """Cumulative probabilities (n, r + 1) of the number of additions, by the number of such sets."""
    free = (~kept).flatten(1).sum(1, keepdim=True).double().cpu().numpy()
    number = np.arange(additions + 1)[None]
    # Logarithms of binomial coefficients, which overflow for some hundred pixels.
    logs = np.full((len(free), additions + 1), -np.inf)
    possible = number <= free
    wide = np.broadcast_to(free, logs.shape)[possible]
    chosen = np.broadcast_to(number, logs.shape)[possible]
    logs[possible] = -np.log1p(wide) - special.betaln(wide - chosen + 1, chosen + 1)
    return torch.as_tensor(special.softmax(logs, axis=1).cumsum(1)).to(kept.device)


def _added(kept: Tensor, sizes: Tensor, generator: torch.Generator | None) -> Tensor:
    """A random set of hidden pixels for each row, of a random size."""
    place = kept.device if generator is None else generator.device
    draw = torch.rand(len(kept), 1, generator=generator, dtype=torch.float64, device=place)
    order = torch.rand(kept.shape, generator=generator, dtype=torch.float64, device=place)
    most = sizes.shape[1] - 1
    size = torch.searchsorted(sizes, draw.to(kept.device)).clamp(max=most)
    rank = order.to(kept.device).masked_fill(kept, 2).flatten(1).argsort(1).argsort(1)
    return (rank < size).view_as(kept) & ~kept
