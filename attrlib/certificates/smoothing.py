r"""Certificates by smoothing: sample the maps of noisy copies once, then certify many budgets.

The promise is about the ideal smoothed map $h(x) = \mathbb E\, g(x + u)$ of a bounded attribution,
whatever the network: within ε of x its cosine with h(x) is at least the certificate. Sampling can fail
to bound its length, with probability α for each image; nothing else is left to chance.

*Floating point.* A proof about real numbers can be void for a program that rounds (Jin et al. 2022). Here
noise is drawn and added in float64 and only then rounded to the dtype of x, so that this rounding, like
that of the network, is a part of the attribution g, of which nothing but its bound is used; lengths are
cut to the bound, and sums and bounds are in float64. What is left is that the noise is pseudo-random and
has 46 binary digits, and that a network may round in another way in a batch of another size.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from attrlib import _check, _model, _passes, _random
from attrlib.certificates import _sampling, confidence, geometry
from attrlib.certificates.bounded import Bounded
from attrlib.certificates.certificate import Certificate
from attrlib.certificates.volume import Gaussian, Law, UniformBall
from attrlib.types import Attribution, Classifier, Inputs, Labels, PerSample

PILOT = 4
"""One in so many samples only says in which direction the length of the mean map is measured."""

_FEW = 64  # samples that are tried first when it is asked whether those given are enough
_MOST = 2**17  # the largest number of samples that is tried to say how many are needed


def certify(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radius: float | None = None,
    sigma: float | None = None,
    eps: float,
    samples: int,
    alpha: float,
    interval: confidence.LowerBound = confidence.betting,
    index: Sequence[int] | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None,
) -> Certificate:
    r"""Return lower bounds of the cosine of smoothed maps within ε, with a confidence statement.

    $$\Pr\Big[\min_{\|\delta\|_2 \le \epsilon} \cos\big(h(x), h(x + \delta)\big)
      \ge \texttt{lower}\Big] \ge 1 - \alpha$$

    for the smoothed map $h(x) = \mathbb E_u \, g(x + u)$, over the noise that is drawn, for each image
    and any point near it, whether or not its prediction is the same. A quarter of the samples gives a
    direction w; the length of h is at least the mean of ⟨w, g(x + u)⟩, of which the other samples give
    a lower bound (the length of their mean map itself is too large on average); `worst_cosine` does the
    rest. The class stays y.

    Image by image: `samples` passes of the attribution, `batch_size` rows at a time. Memory does not
    depend on `samples` or on the number of images. Each image has its own stream of noise, made from the
    generator and `index`: any part of the images, in any order, gets the same answer.

    Args:
        attribution: A `Bounded` one: `normalized`, `clipped` or `sparsified`. Noise of its own is
            allowed; then the answer depends on `batch_size`.
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        radius: Radius r > 0 of noise uniform in a ball, in pixel units; or
        sigma: standard deviation > 0 of Gaussian noise. Exactly one of the two.
        eps: Budget of the attack, l2, in pixel units, >= 0, and below 2r. `Certificate.cosine` answers
            for others.
        samples: Noisy copies of each image.
        alpha: Probability for each image that the bound is wrong, at most; strictly between 0 and 1.
        interval: Lower bound of a mean: `betting`, `bernstein` or `hoeffding`. To be chosen before the
            result is seen.
        index: Number of each image in its data set, from which its noise follows; None counts from 0.
        batch_size: Rows of one pass, >= 1; None chooses by their size. Sets speed and memory.
        generator: Source of the noise; None is torch's global generator. One number is drawn from it.

    Returns:
        `Certificate`; its `lower` (n,) is the answer, and `abstained` says where there is none.

    Raises:
        TypeError: If `x` is not floating-point or `y` not int64.
        ValueError: If the attribution is not bounded or breaks its promise, a map is not finite, a number
            is out of range, shapes disagree, `samples` are too few for any certificate at `eps` where
            more would do (the message says how many), or a layer draws noise.

    Source: the problem is that of Wang and Kong 2024, whose text could not be consulted: the certificate
    is that of `worst_cosine`. Projection and intervals are ours.

    >>> from attrlib.attributions import gradient
    >>> from attrlib.certificates import normalized
    >>> model, x = torch.nn.Linear(2, 1), torch.rand(1, 2)  # the map is the same everywhere
    >>> certificate = certify(normalized(gradient), model, x, torch.tensor([0]), radius=1.0, eps=0.1,
    ...                       samples=1000, alpha=0.01, generator=torch.Generator().manual_seed(0))
    >>> round(certificate.norm.item(), 2), round(certificate.lower.item(), 2)
    (0.99, 1.0)
    """
    _check.labelled(x, y)
    law = _law(radius, sigma)
    g = _bounded(attribution)
    _model.settled(model)
    _check.nonnegative(eps=eps)
    _check.unit_interval(alpha=alpha)
    _check.count(samples=samples, low=2)
    _check.batch_size(batch_size)
    if isinstance(law, UniformBall):
        geometry.check_balls(eps=eps, radius=law.radius)
    numbers = range(len(x)) if index is None else [int(i) for i in index]
    if len(numbers) != len(x):
        raise ValueError(f"Expected index of {len(x)} numbers, got {len(numbers)}")
    check_enough(g, law.lost(eps, x[0].numel()), samples, alpha, interval)
    base = _random.seed(generator)
    place = torch.device("cpu") if generator is None else generator.device
    found = [
        _one(g, model, x[i : i + 1], y[i : i + 1], law, samples, alpha, interval, batch_size, own)
        for i, own in enumerate(_sampling.streams(base, number, place) for number in numbers)
    ]
    return Certificate(
        norm=torch.cat([norm for norm, _ in found]).to(x.device),
        mean=torch.stack([mean for _, mean in found]),
        eps=eps,
        alpha=alpha,
        samples=samples,
        law=law,
        dim=x[0].numel(),
        attribution=g,
    )


def smallest_radius(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    *,
    radii: Sequence[float],
    eps: float,
    cosine: float,
    samples: int,
    alpha: float,
    interval: confidence.LowerBound = confidence.betting,
    index: Sequence[int] | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None,
) -> PerSample:
    r"""Return the smallest of several radii of noise at which a cosine is certified, for each image.

    The length of the smoothed map is measured anew at each radius, with a share α / len(radii) of the
    failure probability, so that the choice costs nothing more. `certify` for each radius.

    Args:
        attribution: A `Bounded` one.
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: Classes to explain, int64 (n,).
        radii: Candidates > eps / 2, in pixel units.
        eps: Budget of the attack, l2, in pixel units, >= 0.
        cosine: Cosine that is to be kept, strictly between 0 and 1.
        samples: Noisy copies of each image at each radius.
        alpha: Probability for each image that the cosine is not kept at its radius, at most.
        interval: Lower bound of a mean, as in `certify`.
        index: Number of each image in its data set, as in `certify`.
        batch_size: Rows of one pass, as in `certify`.
        generator: Source of the noise; None is torch's global generator.

    Returns:
        Radii (n,), float64; NaN where no candidate will do.

    Raises:
        TypeError: As `certify`.
        ValueError: As `certify`; if there are no candidates or `cosine` is out of range.

    Source: ours. Wang and Kong 2024 ask for the smallest radius; how they find it could not be consulted.
    """
    _check.unit_interval(cosine=cosine, alpha=alpha)
    if not len(radii):
        raise ValueError("Expected radii of one candidate or more, got none")
    best = torch.full((len(x),), torch.nan, dtype=torch.float64, device=x.device)
    for radius in sorted(radii, reverse=True):
        certificate = certify(
            attribution,
            model,
            x,
            y,
            radius=radius,
            eps=eps,
            samples=samples,
            alpha=alpha / len(radii),
            interval=interval,
            index=index,
            batch_size=batch_size,
            generator=generator,
        )
        best = best.masked_fill(certificate.lower >= cosine, radius)
    return best


def smoothed(
    attribution: Attribution,
    *,
    radius: float | None = None,
    sigma: float | None = None,
    samples: int = 32,
    batch_size: int | None = None,
) -> Attribution:
    r"""Return the attribution that is certified, as a mean over noise: to show it, and to attack it.

    $$\hat h(x) = \frac1N \sum_{k=1}^N g(x + u_k)$$

    Args:
        attribution: Explains class y, a `Bounded` one or any other.
        radius: Radius r > 0 of noise uniform in a ball, in pixel units; or
        sigma: standard deviation > 0 of Gaussian noise. Exactly one of the two.
        samples: Noisy copies N >= 1.
        batch_size: Rows of one pass, >= 1; None chooses by their size.

    Returns:
        An attribution `(model, x, y, *, generator=None)`, differentiable where g is. All copies are kept
        if x requires grad.

    Raises:
        ValueError: If a number is out of range.

    Source: as `certify`.

    >>> from attrlib.attributions import gradient
    >>> model, x, y = torch.nn.Linear(2, 1), torch.rand(1, 2), torch.tensor([0])
    >>> torch.allclose(smoothed(gradient, radius=1.0)(model, x, y), gradient(model, x, y))
    True
    """
    law = _law(radius, sigma)
    _check.count(samples=samples)
    _check.batch_size(batch_size)

    def mean_map(
        model: Classifier, x: Tensor, y: Tensor, /, *, generator: torch.Generator | None = None
    ) -> Tensor:
        _check.labelled(x, y)

        def noisy(part: range) -> Tensor:
            return torch.stack([(x + law.noise(x, generator=generator)).to(x.dtype) for _ in part])

        def g(rows: Tensor, labels: Tensor, *, look: bool) -> Tensor:
            return attribution(model, rows, labels, generator=generator)

        return _passes.mean(g, noisy, y, like=x, count=samples, batch_size=batch_size)

    return mean_map


def _one(
    g: Bounded,
    model: Classifier,
    x: Tensor,
    y: Tensor,
    law: Law,
    samples: int,
    alpha: float,
    interval: confidence.LowerBound,
    batch_size: int | None,
    streams: tuple[torch.Generator, torch.Generator],
) -> tuple[Tensor, Tensor]:
    """The lower bound (1,) of the length of the smoothed map of one image, and the released map."""
    draw = _sampling.maps(g, model, x, y, law=law, batch_size=batch_size, streams=streams)
    pilot = samples // PILOT or 1
    total = sum(part.sum(0) for part in draw(pilot))
    assert isinstance(total, Tensor)
    size = torch.linalg.vector_norm(total)
    direction = total / size if size > 0 else torch.full_like(total, total.numel() ** -0.5)

    def lengths() -> Iterator[Tensor]:
        for part in draw(samples - pilot):
            total.add_(part.sum(0))
            yield (part.flatten(1) @ direction.flatten())[:, None]

    norm = interval(
        lengths(),
        low=0.0 if g.nonnegative else -g.bound,
        high=g.bound,
        samples=samples - pilot,
        alpha=alpha,
    )
    return norm.clamp(0, g.bound), total / samples


def check_enough(
    g: Bounded, lost: float, samples: int, alpha: float, interval: confidence.LowerBound
) -> None:
    """Raise if the best of all maps would get no certificate, and would with more samples.

    Args:
        g: The bounded attribution.
        lost: Share of the noise that is lost at the budget, as of `Law.lost`.
        samples: Noisy copies of each image.
        alpha: Failure probability.
        interval: Lower bound of a mean.

    Raises:
        ValueError: If so; the message says how many are needed.
    """

    def enough(count: int) -> bool:
        values = count - (count // PILOT or 1)
        parts = (min(4096, values - i) for i in range(0, values, 4096))
        ones = (torch.full((part, 1), g.bound, dtype=torch.float64) for part in parts)
        norm = interval(
            ones,
            low=0.0 if g.nonnegative else -g.bound,
            high=g.bound,
            samples=values,
            alpha=alpha,
        )
        norm = norm.clamp(0, g.bound)
        worst = geometry.worst_cosine(norm, lost, bound=g.bound, nonnegative=g.nonnegative)
        return bool(norm > 0) and float(worst) > (0 if g.nonnegative else -1)

    best = geometry.worst_cosine(g.bound, lost, bound=g.bound, nonnegative=g.nonnegative)
    if best <= (0 if g.nonnegative else -1):
        return  # no map has a certificate here, whatever the samples say
    # What a few samples can do, more can: looking at few first costs less.
    if samples >= 4 and (enough(min(samples, _FEW)) or enough(samples)):
        return
    few, many = samples, max(2 * samples, 4)
    while not enough(many):
        few, many = many, 2 * many
        if many > _MOST:
            return  # no number within reach: the certificate abstains
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if middle >= 4 and enough(middle) else (middle, many)
    raise ValueError(
        f"Expected samples >= {many}, the least for any certificate at this eps and alpha {alpha:.6g}, "
        f"got {samples}"
    )


def _law(radius: float | None, sigma: float | None) -> Law:
    if (radius is None) == (sigma is None):
        raise ValueError(f"Expected radius or sigma, got {radius!r} and {sigma!r}")
    return Gaussian(sigma=sigma) if sigma is not None else UniformBall(radius=radius or 0.0)


def _bounded(attribution: Attribution) -> Bounded:
    if not isinstance(attribution, Bounded):
        name = getattr(attribution, "__name__", type(attribution).__name__)
        raise ValueError(
            f"Expected attribution whose maps are bounded, got {name}; give "
            "certificates.normalized(attribution), clipped or sparsified"
        )
    return attribution
