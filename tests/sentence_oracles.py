"""A network for sentences small enough to try every one of them, a table, and the optimum by a loop."""

import itertools
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from attrlib.maps import to_heatmap
from tests import oracles

VOCABULARY, WORDS = 12, 6


class Sentences(nn.Module):
    """Word vectors and a mask to two logits: a convolution, an activation, a mean, a linear layer."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU, *, seed: int = 0) -> None:
        super().__init__()
        noise = oracles.seeded(seed)
        self.vectors = nn.Parameter(torch.randn(VOCABULARY, 3, generator=noise))
        self.convolution = nn.Conv2d(3, 4, (1, 3), padding=(0, 1))
        self.activation, self.linear = activation(), nn.Linear(4, 2)
        with torch.no_grad():
            self.vectors[0] = 0
            for p in (*self.convolution.parameters(), *self.linear.parameters()):
                p.copy_(torch.randn(p.shape, generator=noise))

    def embed(self, ids: Tensor) -> Tensor:
        vectors = self.vectors[ids].transpose(1, 2)
        return torch.cat([vectors, (ids != 0)[:, None].to(vectors)], 1)[:, :, None]

    def forward(self, x: Tensor) -> Tensor:
        real = (x[:, -1:] > 0.5).to(x)
        features = self.activation(self.convolution(x[:, :-1] * real)) * real
        return self.linear(features.sum((2, 3)) / real.sum((2, 3)))


class Bag(nn.Module):
    """A linear network: the mean of a value of each word and its negative."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.tensor(values)[:, None])

    def embed(self, ids: Tensor) -> Tensor:
        vectors = self.vectors[ids].transpose(1, 2)
        return torch.cat([vectors, (ids != 0)[:, None].to(vectors)], 1)[:, :, None]

    def forward(self, x: Tensor) -> Tensor:
        real = (x[:, -1:] > 0.5).to(x)
        mean = (x[:, :-1] * real).sum((2, 3)) / real.sum((2, 3))
        return mean * torch.tensor([1.0, -1.0])


def sentences() -> Tensor:
    """Four sentences of different lengths; words 10 and 11 have no substitutes."""
    return torch.tensor(
        [[2, 3, 4, 5, 10, 6], [7, 8, 2, 11, 0, 0], [9, 9, 3, 0, 0, 0], [4, 11, 6, 7, 2, 0]]
    )


def table() -> Tensor:
    """Substitutes of words 2 to 9 among themselves, with one word itself and one twice in it."""
    rows = [[3, 4, 0], [2, 4, 0], [2, 3, 4], [6, 0, 0], [5, 7, 5], [6, 0, 0], [9, 0, 0], [8, 2, 3]]
    found = torch.zeros(VOCABULARY, 3, dtype=torch.int64)
    found[2:10] = torch.tensor(rows)
    return found


def others(row: Tensor, table: Tensor, budget: int) -> Iterator[list[int]]:
    """All sentences with at most so many words replaced, the sentence itself among them."""
    sets = [{word, *table[word].tolist()} - {0} if word else {0} for word in row.tolist()]
    for found in itertools.product(*sets):
        if sum(a != b for a, b in zip(found, row.tolist(), strict=True)) <= budget:
            yield list(found)


def optimum(
    model: nn.Module,
    row: Tensor,
    y: Tensor,
    attribution: Callable[..., Tensor],
    score: Callable[[Tensor, Tensor], Tensor],
    budget: int,
    *,
    keep_label: bool = True,
) -> float:
    """The lowest score of heatmaps of all sentences within the budget, one sentence at a time."""
    length = int((row != 0).sum())
    x = model.embed(row[None])
    clean = to_heatmap(attribution(model, x, y))[..., :length]
    lowest = float(score(clean, clean))
    for other in others(row, table(), budget):
        z = model.embed(torch.tensor([other]))
        heat = to_heatmap(attribution(model, z, y))[..., :length]
        if keep_label and int(model(z).argmax(1)) != int(model(x).argmax(1)):
            continue
        if bool((heat != 0).any()):
            lowest = min(lowest, float(score(clean, heat)))
    return lowest
