"""Does a map point at what the model uses? Scores that ask the model, not another map.

`insertion` and `deletion` show the model images in which only the pixels that a map ranks high, or low,
are left; `adversarial_insertion` takes the order from the map of an attacked image.
`random_perturbation_similarity` asks how much of a map survives a little noise; it is a check of
stability, and a constant map passes it, so it is reported beside the others.
`diffroar` trains new models on the pixels that maps rank high, and on those they rank low.
Use models in eval mode. None of the scores is differentiable.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from attrlib import _check, _model, _passes, _random
from attrlib.data import Images
from attrlib.maps import to_heatmap
from attrlib.types import Attribution, Classifier, Heatmaps, Inputs, Labels, Metric, PerSample

Output = Literal["probability", "logit"]


def insertion(
    model: Classifier,
    x: Inputs,
    y: Labels,
    h: Heatmaps,
    *,
    baseline: Tensor | None = None,
    steps: int = 20,
    output: Output = "probability",
) -> PerSample:
    r"""Return the area under the curve of class $y$ as pixels are put in, the highest first.

    $$\int_0^1 p_y\big(m_r \odot x + (1 - m_r) \odot b\big)\,dr$$

    where $m_r$ is 1 at the share $r$ of pixels that `h` ranks highest and $b$ is the baseline. The
    trapezoid rule over `steps` equal shares, rounded down to whole pixels; exact if every pixel is a
    step. `steps` + 1 forward passes for each image, several images together: memory does not grow with
    `steps`, and a few images are as fast as many.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Images (n, channels, h, w), pixels in [0, 1].
        y: Classes to follow, int64 (n,).
        h: Heatmaps (n, h, w). Only their order counts; ties go to the lower index. All channels of a
            pixel go together.
        baseline: What hides a pixel, in the shape of `x` or of one row `(1, …)`; None is black.
        steps: Equal shares of the pixels, 1 to h·w.
        output: `probability`, the softmax of the class; or `logit`, which adds up for a linear model.

    Returns:
        Areas (n,), the mean of the output over the curve: in [0, 1] for probabilities, without bound
        for logits. Higher is more faithful. Depends on how the model reads hidden pixels: compare maps
        on one model, and beside a random order.

    Raises:
        TypeError: If a tensor is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, `steps` is out of range,
            `output` is unknown, or a tensor holds NaN.

    Source: Petsiuk et al. 2018, section 4; Joo et al. 2023 with 20 steps. Differs: the baseline is black
    and not blurred, and ties are kept, which the second code drops.
    """
    _model.settled(model)
    start = _checked(x, y, h, baseline=baseline, steps=steps, output=output)
    return _area(model, start, x.detach(), y, h, steps, output)


def deletion(
    model: Classifier,
    x: Inputs,
    y: Labels,
    h: Heatmaps,
    *,
    baseline: Tensor | None = None,
    steps: int = 20,
    output: Output = "probability",
) -> PerSample:
    r"""Return the area under the curve of class $y$ as pixels are taken out, the highest first.

    $$\int_0^1 p_y\big(m_r \odot b + (1 - m_r) \odot x\big)\,dr$$

    `insertion` with image and baseline exchanged. Taking out in one order is putting in in the reverse
    order, read backwards: `deletion(h)` is `insertion(-h)` if no values are tied and all steps equal.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Images (n, channels, h, w), pixels in [0, 1].
        y: Classes to follow, int64 (n,).
        h: Heatmaps (n, h, w). Only their order counts; ties go to the lower index.
        baseline: What hides a pixel, in the shape of `x` or of one row `(1, …)`; None is black.
        steps: Equal shares of the pixels, 1 to h·w.
        output: `probability`, the softmax of the class; or `logit`.

    Returns:
        Areas (n,), the mean of the output over the curve: in [0, 1] for probabilities, without bound
        for logits. Lower is more faithful.

    Raises:
        TypeError: If a tensor is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, `steps` is out of range,
            `output` is unknown, or a tensor holds NaN.

    Source: Petsiuk et al. 2018, section 4.
    """
    _model.settled(model)
    end = _checked(x, y, h, baseline=baseline, steps=steps, output=output)
    return _area(model, x.detach(), end, y, h, steps, output)


def adversarial_insertion(
    model: Classifier,
    x: Inputs,
    y: Labels,
    z: Inputs,
    *,
    attribution: Attribution,
    baseline: Tensor | None = None,
    steps: int = 20,
    output: Output = "probability",
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return the area of `insertion` when the order of pixels comes from the map of a changed image.

    $$\int_0^1 p_y\big(m_r(z) \odot x + (1 - m_r(z)) \odot b\big)\,dr$$

    where $m_r(z)$ is 1 at the share $r$ of pixels that the heatmap of `z` ranks highest. Does an
    attacked map still point at pixels of the clean image that the model uses? With `z` = `x` it is
    `insertion`. One attribution and `steps` + 1 forward passes.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Images (n, channels, h, w), pixels in [0, 1], whose pixels are put in.
        y: Classes to explain and to follow, int64 (n,).
        z: Changed images, in the shape of `x`, such as an attack on the map found.
        attribution: The map; its absolute values, summed over channels, give the order.
        baseline: What hides a pixel, in the shape of `x` or of one row `(1, …)`; None is black.
        steps: Equal shares of the pixels, 1 to h·w.
        output: `probability`, the softmax of the class; or `logit`.
        generator: Handed to the attribution.

    Returns:
        Areas (n,), as `insertion`. Higher is better. Compare with `insertion` of the clean map: a map
        that was never faithful loses nothing.

    Raises:
        TypeError: If a tensor is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a label is not a class of the model, `steps` is out of range,
            `output` is unknown, or a tensor or the map holds NaN.

    Source: Joo et al. 2023, evaluation. Differs: the attack is the caller's; ties are kept.
    """
    _check.labelled(x, y)
    if z.shape != x.shape:
        raise ValueError(f"Expected z of shape {tuple(x.shape)}, got {tuple(z.shape)}")
    h = to_heatmap(attribution(model, z.detach(), y, generator=generator))
    return insertion(model, x, y, h, baseline=baseline, steps=steps, output=output)


def random_perturbation_similarity(
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    attribution: Attribution,
    metric: Metric,
    eps: float,
    draws: int = 10,
    generator: torch.Generator | None = None,
) -> PerSample:
    r"""Return how alike the heatmaps of an image and of its noisy copies are, on average.

    $$\frac1m \sum_{k=1}^{m} s\big(h(x), h(\mathrm{clip}(x + \varepsilon u_k))\big), \qquad
      u_k \sim \mathcal U[-1, 1]^d$$

    with the metric $s$ and the heatmap $h$ of the absolute values, summed over channels. A stochastic
    attribution gets the same noise of its own each time, so that `eps` = 0 gives the best value.
    `draws` + 1 attributions.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Images (n, channels, h, w), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        attribution: Maps to compare.
        metric: Similarity of two batches of heatmaps.
        eps: Largest change of a pixel, >= 0; noisy copies are clipped to [0, 1].
        draws: Noisy copies, m >= 1.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Mean similarities (n,) in the range of the metric, higher is more stable; NaN where the metric is
        undefined for any copy.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If shapes disagree, a pixel lies outside [0, 1], `eps` is negative, or `draws` is
            below 1.

    Source: Joo et al. 2023, evaluation. Differs: the maps stay what they are, where the authors' code
    scales the clean map again in each draw; the metric is a choice of the caller.
    """
    _check.labelled(x, y)
    _check.pixels(x=x)
    _check.nonnegative(eps=eps)
    _model.settled(model)
    _check.count(draws=draws)
    x, seed = x.detach(), _random.seed(generator)

    def heatmap(z: Tensor) -> Tensor:
        return to_heatmap(attribution(model, z, y, generator=torch.Generator().manual_seed(seed)))

    clean, total = heatmap(x), torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for _ in range(draws):
        noise = _random.uniform_like(x, generator=generator)
        total += metric(clean, heatmap(torch.add(x, noise, alpha=eps).clamp(0, 1)))
    return (total / draws).to(x)


def diffroar(
    train: Images,
    test: Images,
    a: Tensor,
    b: Tensor,
    *,
    fit: Callable[[Images], Classifier],
    share: float,
    baseline: Tensor | None = None,
) -> PerSample:
    r"""Return what new models learn from the highest entries of maps, and not from the lowest.

    $$\big[f^{\mathrm{top}}(x^{\mathrm{top}}) = y\big]
      - \big[f^{\mathrm{bottom}}(x^{\mathrm{bottom}}) = y\big]$$

    where $x^{\mathrm{top}}$ keeps the given share of the entries of $x$, those with the largest $|a_i|$
    of its map, $x^{\mathrm{bottom}}$ as many with the smallest, and each model was trained on images
    treated like those it is asked about. The maps come from the model in question; the new ones never
    see it. Two trainings.

    Args:
        train: Images to train on.
        test: Images to be asked about.
        a: Maps of the training images, in the shape of `train.x`; channels are ranked one by one.
        b: Maps of the test images, in the shape of `test.x`, of the same method.
        fit: Trains a new model on images and returns it, in eval mode; called twice. With a seed of its
            own it starts both times from the same weights.
        share: Share of the entries that stay, in (0, 1); rounded to whole entries, of which at least one
            stays and one goes.
        baseline: What hides an entry, one row `(1, …)` in the shape of an image; None is black.

    Returns:
        Values (n,) for the test images: 1, 0 or -1. Their mean is the score, in [-1, 1]: above 0 the
        large entries of the maps point at what can be learned, around 0 the order says nothing, below 0
        it is the wrong way round. Ties go to the lower index, so that maps without any order give 0.

    Raises:
        TypeError: If maps are not floating-point.
        ValueError: If shapes disagree, `share` is out of range, `fit` gives no classifier, or a tensor
            holds NaN.

    Source: Shah et al. 2021, DiffROAR. Differs: entries are hidden by black, as in the paper, and not by
    the mean, as in the first code.
    """
    _check.unit_interval(share=share)
    for images, maps, name in ((train, a, "a"), (test, b, "b")):
        _check.floating(**{name: maps})
        if maps.shape != images.x.shape:
            raise ValueError(
                f"Expected {name} of shape {tuple(images.x.shape)}, got {tuple(maps.shape)}"
            )
        _check.finite(**{name: maps})
    hidden = _check.baseline(train.x[:1], baseline)
    hits = []
    for descending in (True, False):
        known, asked = (
            _kept(images, maps, hidden, share, descending)
            for images, maps in ((train, a), (test, b))
        )
        hits.append(_hits(fit(known), asked))
    return hits[0] - hits[1]


def _kept(images: Images, a: Tensor, hidden: Tensor, share: float, descending: bool) -> Images:
    """Images of which the entries with the largest, or smallest, values of the map are left."""
    x, size = images.x, images.x[0].numel()
    count = min(max(round(share * size), 1), size - 1)
    order = a.detach().abs().flatten(1).argsort(dim=1, descending=descending, stable=True)
    keep = torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, :count], True)
    return Images(torch.where(keep.view_as(x), x, hidden), images.y, images.classes)


@torch.no_grad()
def _hits(model: Classifier, images: Images) -> Tensor:
    """1 where the highest logit is the label's, else 0."""
    _model.settled(model)
    parts = zip(torch.split(images.x, 256), torch.split(images.y, 256), strict=True)
    found = [_model.logits(model, x, y, classes=2).argmax(1) == y for x, y in parts]
    return torch.cat(found).to(images.x)


def _checked(
    x: Tensor, y: Tensor, h: Tensor, *, baseline: Tensor | None, steps: int, output: str
) -> Tensor:
    """The baseline in the shape of `x`, once all arguments are found to be right."""
    _check.labelled(x, y)
    _check.heatmaps(h=h)
    if x.ndim != 4 or (len(x), *x.shape[2:]) != h.shape:
        n, height, width = h.shape
        raise ValueError(
            f"Expected x of shape ({n}, channels, {height}, {width}) to fit h, got {tuple(x.shape)}"
        )
    _check.count(steps=steps, high=h[0].numel())
    _check.one_of(("probability", "logit"), output=output)
    return _check.baseline(x, baseline).detach()


@torch.no_grad()
def _area(
    model: Classifier, start: Tensor, end: Tensor, y: Tensor, h: Tensor, steps: int, output: Output
) -> Tensor:
    """Area under the output while `end` replaces `start`, pixel by pixel in falling order of `h`."""
    size = h[0].numel()
    order = h.flatten(1).argsort(dim=1, descending=True, stable=True)
    place = order.argsort(dim=1).view(len(h), 1, *h.shape[1:])  # 0 is the highest pixel
    counts = torch.tensor([step * size // steps for step in range(steps + 1)], device=end.device)

    def images(part: range) -> Tensor:
        return torch.where(
            place < counts[part.start : part.stop, None, None, None, None], end, start
        )

    follow = partial(_output, model, output)
    values = list(_passes.passes(follow, images, y, like=end, count=steps + 1))
    return torch.trapezoid(torch.cat(values), counts.double() / size, dim=0).to(end)


def _output(model: Classifier, output: Output, x: Tensor, y: Tensor, *, look: bool) -> Tensor:
    """What is followed, in float64: the probability or the logit of the label."""
    classes = 2 if output == "probability" else 1
    logits = _model.logits(model, x, y if look else None, classes=classes)
    scores = logits.double().softmax(1) if output == "probability" else logits.double()
    return scores.gather(1, y[:, None])[:, 0]
