"""Wrong answers to the exercises of the chapter on stochastic smoothing: at least three for each."""

import math

import torch
from torch import Tensor
from torch.nn import functional


def _bell(ratio: Tensor) -> Tensor:
    return torch.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)


WRONG = {
    "blurred-relu": [
        lambda u, sigma: u * torch.special.ndtr(u / sigma),  # the slope's part alone
        lambda u, sigma: u * torch.special.ndtr(u / sigma) + _bell(u / sigma),
        lambda u, sigma: torch.special.ndtr(u / sigma),
        lambda u, sigma: functional.softplus(u, beta=1.5958 / sigma),  # as steep at 0
    ],
    "deviation": [
        lambda radius, dim, norm: radius / math.sqrt(3),
        lambda radius, dim, norm: radius / math.sqrt(dim if norm == "l2" else 3),
        lambda radius, dim, norm: radius / math.sqrt(dim + 2),
        lambda radius, dim, norm: radius**2 / (dim + 2 if norm == "l2" else 3),  # the variance
    ],
    "samples-for": [
        lambda cosine, samples, wanted: math.ceil(samples * wanted / cosine),
        lambda cosine, samples, wanted: samples * (1 / cosine - 1) * wanted / (1 - wanted),
        lambda cosine, samples, wanted: math.floor(
            samples * (1 / cosine - 1) * wanted / (1 - wanted)
        ),
        lambda cosine, samples, wanted: math.ceil(
            samples * (1 / cosine**2 - 1) * wanted**2 / (1 - wanted**2)
        ),
    ],
    "constant": [
        lambda density, step: 2 * density.max(),
        lambda density, step: density.diff().abs().sum(),  # no ends, no area
        lambda density, step: functional.pad(density, (1, 1)).diff().sum(),
        lambda density, step: functional.pad(density, (1, 1)).diff().abs().sum() / step,
    ],
    "averaged-leaky": [
        lambda u, beta, slope: functional.softplus(u, beta=beta),
        lambda u, beta, slope: functional.leaky_relu(functional.softplus(u, beta=beta), slope),
        lambda u, beta, slope: slope * u + functional.softplus(u, beta=beta),
        lambda u, beta, slope: (1 - slope) * functional.softplus(u, beta=beta),
    ],
    "worth": [
        lambda alike, samples, twice: samples * (1 / twice - 1) * alike / (1 - alike),
        lambda alike, samples, twice: samples * alike / twice,
        lambda alike, samples, twice: samples * (1 / twice**2 - 1) * alike**2 / (1 - alike**2),
        lambda alike, samples, twice: samples * (1 / twice - 1) / (1 - alike**2),
    ],
}
