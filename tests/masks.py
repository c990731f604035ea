"""An attack on gradient maps by a researcher who had no part in the suite; no code is shared with it.

`tests.refute` compares the two. The attack knows networks like `SmallCNN` only.

*Masks.* A network is made smooth in one place: pre-activations stay those of the real network, and the
derivative of each unit, 0 or 1 for ReLU, becomes a sigmoid of c·u/s, with the spread s of this unit's
pre-activation u over the ball around this image. The first suite's softplus copies moved the
pre-activations of all later layers, and had one sharpness for layers of different scale; the second took
its copies from here, with one width for a layer. The map is written out by hand: a step is one pass
forward and one backward through it.

*Descents.* Four side by side, each with its own start and schedule (`CHAINS`), by signs of a momentum.
From the best point of all, two colder ones (`COLD`).

*Search.* In the end random changes along the slope, kept if the score of the real network falls.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn.functional import conv_transpose2d, cosine_similarity

from attrlib.models import SmallCNN
from attrlib.types import Classifier

K = 100
NOISES = 12  # random points of the ball that tell the spread of a unit
STRETCH = 4.0  # an attack moves a unit further than noise does
MOMENTUM = 0.75
LEAD = 0.1  # of the predicted class; where it is shorter, a step also makes it longer
TINY = 1e-12

Pair = tuple[Tensor, Tensor]


class Chain(NamedTuple):
    """A descent: values at its first and its last step, geometric in between."""

    heat: tuple[float, float]  # temperature of the soft ranks
    sharp: tuple[float, float]  # of the masks
    step: tuple[float, float]  # in ε
    relative: bool  # to the size of the map: nothing is gained by a larger map


# From the image (cosine: from noise), from it (cosine: a corner), from a corner, from near the boundary.
CHAINS = (
    Chain((0.3, 0.03), (1, 30), (0.25, 0.02), relative=True),
    Chain((1, 0.1), (1, 30), (0.25, 0.02), relative=False),
    Chain((1, 0.03), (1, 100), (0.25, 0.02), relative=False),
    Chain((0.3, 0.03), (1, 30), (0.25, 0.02), relative=True),
)
COLD = (
    Chain((0.3, 0.03), (5, 100), (0.1, 0.01), relative=False),
    Chain((0.3, 0.03), (5, 100), (0.1, 0.01), relative=True),
)


class Written:
    """A `SmallCNN` with its gradient map written out as transposed convolutions."""

    def __init__(self, model: SmallCNN) -> None:
        layers: Any = model.layers
        self.first, self.second, self.third, self.last = (layers[i] for i in (0, 2, 5, 7))
        self.activation = layers[1]
        self.beta = getattr(layers[1], "beta", None)  # None: ReLU

    def forward(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the pre-activations of the three hidden layers."""
        u1 = self.first(z)
        u2 = self.second(self.activation(u1))
        u3 = self.third(self.activation(u2).flatten(1))
        return self.last(self.activation(u3)), [u1, u2, u3]

    def back(self, slopes: Sequence[Tensor], y: Tensor) -> Tensor:
        """The map of the logits y, from the derivatives of all units."""
        d1, d2, d3 = slopes
        v: Tensor = ((self.last.weight[y] * d3) @ self.third.weight).view_as(d2) * d2
        for layer, d in ((self.second, d1), (self.first, 1.0)):
            v = d * conv_transpose2d(v, layer.weight, None, layer.stride, layer.padding)
        return v

    @torch.no_grad()
    def real(self, z: Tensor, y: Tensor) -> Pair:
        """Logits and map."""
        logits, pre = self.forward(z)
        slopes = [(u > 0).to(u) if self.beta is None else (self.beta * u).sigmoid() for u in pre]
        return logits, self.back(slopes, y)

    def masked(self, z: Tensor, y: Tensor, sharp: Tensor, spread: Sequence[Tensor]) -> Pair:
        """Logits, and the map of derivatives that rise over a part of each unit's spread."""
        logits, pre = self.forward(z)
        own = 0.0 if self.beta is None else 1 / self.beta  # a softplus takes some room itself
        width = [own + s / _wide(sharp, s) for s in spread]
        return logits, self.back([(u / w).sigmoid() for u, w in zip(pre, width, strict=True)], y)


class Overlap:
    """Top-k intersection with clean maps; soft: of ranks, by a sigmoid of log |g| above the cut."""

    def __init__(self, clean: Tensor) -> None:
        order = clean.abs().sort(dim=1, descending=True, stable=True).indices
        self.top = torch.zeros_like(clean, dtype=torch.bool).scatter_(1, order[:, :K], True)

    def score(self, g: Tensor) -> Pair:
        """The score, and a finer one that decides between equals."""
        h = g.abs()
        cut = h.topk(K, 1).values[:, -1:]
        above = h.clamp(min=TINY).log() - cut.clamp(min=TINY).log()
        return ((h >= cut) & self.top).sum(1).to(g) / K, self._signed(above / 0.1)

    def soft(self, g: Tensor, heat: Tensor, relative: Tensor) -> Tensor:
        """The score with a slope."""
        h = g.abs().clamp(min=TINY).log()
        h = h - _wide(relative, h) * g.abs().mean(1, keepdim=True).log()
        cut = h.detach().topk(K + 1, 1).values[:, -2:].mean(1, keepdim=True)  # it stands still
        return self._signed((h - cut) / _wide(heat, h))

    def _signed(self, above: Tensor) -> Tensor:
        q = above.sigmoid()
        return torch.where(self.top, q, -q).sum(1)


class Angle:
    """Cosine with clean maps."""

    def __init__(self, clean: Tensor) -> None:
        self.clean = clean

    def score(self, g: Tensor) -> Pair:
        value = cosine_similarity(g.double(), self.clean.double()).to(g)
        return value, value

    def soft(self, g: Tensor, heat: Tensor, relative: Tensor) -> Tensor:
        return cosine_similarity(g, self.clean)


GOALS: dict[str, Callable[[Tensor], Overlap | Angle]] = {"top-k": Overlap, "cosine": Angle}


class Task:
    """Images under attack: what points are allowed, and what they are worth."""

    def __init__(self, net: Written, x: Tensor, y: Tensor, eps: float, goal: str) -> None:
        self.net, self.x, self.y, self.eps = net, x, y, eps
        reach = eps * (1 - 1e-6)  # x + eps is rounded, perhaps up
        self.low, self.high = (x - reach).clamp(0, 1), (x + reach).clamp(0, 1)
        logits, clean = net.real(x, y)
        self.label, self.goal = logits.argmax(1), GOALS[goal](clean.flatten(1))
        generator = Generator().manual_seed(5)
        with torch.no_grad():
            seen = [net.forward(self.noise(generator))[1] for _ in range(NOISES)]
        spread = [STRETCH * torch.stack(pre).std(0) for pre in zip(*seen, strict=True)]
        self.spread = [s.clamp(min=0.1 * s.mean().item()) for s in spread]

    def project(self, z: Tensor) -> Tensor:
        return torch.min(torch.max(z, self.low), self.high)

    def noise(self, generator: Generator | None) -> Tensor:
        return self.project(self.x + self.eps * (2 * _rand(self.x, generator=generator) - 1))

    def corner(self, generator: Generator | None) -> Tensor:
        return torch.where(_rand(self.x, generator=generator) < 0.5, self.low, self.high)

    def lead(self, logits: Tensor) -> Tensor:
        """How far the predicted class of the image is ahead of the others."""
        column = self.label[:, None]
        return logits.gather(1, column)[:, 0] - logits.scatter(1, column, -1e9).amax(1)

    def score(self, z: Tensor) -> Pair:
        """The scores of the real network; infinite where the prediction changed or the map is 0."""
        logits, g = self.net.real(z, self.y)
        allowed = (logits.argmax(1) == self.label) & (g != 0).flatten(1).any(1)
        value, fine = self.goal.score(g.flatten(1))
        return torch.where(allowed, value, torch.inf), fine

    def slope(self, z: Tensor, heat: Tensor, sharp: Tensor, relative: Tensor) -> Tensor:
        """Where the score of the masked map rises; minus where the lead does, if it is short."""
        z = z.detach().requires_grad_()
        logits, g = self.net.masked(z, self.y, sharp, self.spread)
        value = self.goal.soft(g.flatten(1), heat, relative)
        (rise,) = torch.autograd.grad(value.sum(), z, retain_graph=True)
        rise, lead = _scaled(rise), self.lead(logits)
        if bool((lead < LEAD).any()):
            (back,) = torch.autograd.grad(lead[lead < LEAD].sum(), z)
            rise = rise - _scaled(back)
        return rise


class Best:
    """The best points so far."""

    def __init__(self, task: Task, z: Tensor) -> None:
        self.task, self.z = task, z.clone()
        self.value, self.fine = task.score(z)

    def see(self, z: Tensor, *, ties: bool = False) -> None:
        """Take points with a lower score; with `ties` also equal ones with a lower fine score."""
        value, fine = self.task.score(z)
        better = value < self.value
        if ties:
            better |= (value == self.value) & (fine < self.fine)
        self.value, self.fine = (
            torch.where(better, new, old) for new, old in ((value, self.value), (fine, self.fine))
        )
        self.z = torch.where(_wide(better, z), z, self.z)


def descend(task: Task, z: Tensor, chains: Sequence[Chain], steps: int) -> Best:
    """Go down by signs of a momentum; the rows of z belong to the chains in turn, equally many each."""
    best, move = Best(task, task.x), torch.zeros_like(z)
    best.see(z)
    per_chain = len(z) // len(chains)
    rows = partial(torch.repeat_interleave, repeats=per_chain)
    relative = rows(z.new_tensor([chain.relative for chain in chains]))
    ends = [z.new_tensor([chain[:3] for chain in chains])[..., i].T for i in (0, 1)]
    for i in range(steps):
        share = i / max(1, steps - 1)
        heat, sharp, step = map(rows, ends[0] * (ends[1] / ends[0]) ** share)
        move = MOMENTUM * move + task.slope(z, heat, sharp, relative)
        z = task.project(z - task.eps * _wide(step, z) * move.sign())
        best.see(z)
    return best


def near_boundary(task: Task, steps: int = 15) -> Tensor:
    """Points on the way to another class, the last ones where the prediction still holds."""
    z = kept = task.x
    for _ in range(steps):
        z = z.detach().requires_grad_()
        lead = task.lead(task.net.forward(z)[0])
        kept = torch.where(_wide(lead > 0.05, z), z.detach(), kept)
        (rise,) = torch.autograd.grad(lead.sum(), z)
        z = task.project(z - task.eps / 6 * rise.sign())
    return kept


def search(best: Best, tries: int, generator: Generator | None) -> None:
    """Random changes, judged by the real network: pixels against the slope, now and then a square."""
    task, one, zero = best.task, best.z[:, :1, :1, :1], best.z.new_zeros(1)
    draw = partial(_rand, generator=generator)
    for i in range(tries):
        if i % 4 == 0:
            heat, sharp = 0.05 * 10 ** draw(zero), 5 * 20 ** draw(zero)
            slope = task.slope(best.z, heat, sharp, zero)
        if i % 4 == 3:
            move = _square(best.z, generator) * (draw(one) - 0.5).sign()
        else:
            rank = (slope.abs() * draw(slope)).flatten(1)  # strong slopes more often
            share = 10 ** (-2.2 + 1.9 * draw(one).flatten(1))  # of the pixels, .006 to .5
            last = (share * rank.shape[1]).long().clamp(min=1)
            cut = rank.sort(dim=1, descending=True).values.gather(1, last)
            move = (rank >= cut).view_as(slope) * -slope.sign()
        length = 2 * task.eps * 10 ** (-1.5 * draw(one))
        best.see(task.project(best.z + length * move), ties=True)


@dataclass(frozen=True)
class Masks:
    """The attack, called as those of the package are.

    `steps` of each of the four descents, `cold` of each of the two that follow, `tries` of the search.
    """

    eps: float
    goal: str = "top-k"
    steps: int = 90
    cold: int = 60
    tries: int = 120

    def __call__(
        self, model: Classifier, x: Tensor, y: Tensor, /, *, generator: Generator | None = None
    ) -> Tensor:
        if not isinstance(model, SmallCNN):
            raise TypeError(f"Expected model to be a SmallCNN, got {type(model).__name__}")
        net, n, chains = Written(model), len(x), len(CHAINS)
        task = Task(net, x, y, self.eps, self.goal)
        starts = [x, x, task.corner(generator), near_boundary(task)]
        if self.goal == "cosine":  # it has no slope at the image
            starts[:2] = task.noise(generator), task.corner(generator)
        side_by_side = x.repeat(chains, 1, 1, 1), y.repeat(chains)
        whole = Task(net, *side_by_side, self.eps, self.goal)
        best = descend(whole, torch.cat(starts), CHAINS, self.steps)
        winner = best.value.view(chains, n).argmin(0)
        z = best.z[winner * n + torch.arange(n, device=x.device)]
        for chain in COLD:
            best = descend(task, z, [chain], self.cold)
            z = best.z
        search(best, self.tries, generator)
        return best.z


def _rand(like: Tensor, *, generator: Generator | None) -> Tensor:
    return torch.rand(like.shape, generator=generator, dtype=like.dtype).to(like.device)


def _wide(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.ndim - 1))


def _scaled(slope: Tensor) -> Tensor:
    return slope / slope.abs().mean((1, 2, 3), keepdim=True).clamp(min=1e-20)


def _square(like: Tensor, generator: Generator | None) -> Tensor:
    """1 on a square of 1 to 5 pixels a side, at a place of its own in each image, 0 elsewhere."""
    side, (n, size) = int(torch.randint(1, 6, (1,), generator=generator)), like.shape[::3]
    first = torch.randint(size - side + 1, (2, n, 1), generator=generator)
    rows, columns = (torch.arange(size) >= first) & (torch.arange(size) < first + side)
    inside: Tensor = rows[:, None, :, None] & columns[:, None, None, :]
    return inside.to(like)
