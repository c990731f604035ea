"""Terms that only an ablation needs: other inner searches and other distances of maps.

With the maps $A$ of an attribution and a distance D:

- AAT of Ivankay et al. 2020 is `CrossEntropy` and λ times `MapDistance` with `pearson_distance`, on the
  point that `MapAttack` finds;
- AdvAAT is the same with `AdversarialCrossEntropy`, on the point that `MapAttack` with `weight` λ and
  `prediction` finds;
- the l2, Pearson and rank penalties beside IGR are `MapDistance` with `l2_distance` or
  `pearson_distance`, and `SoftKendall`, on integrated gradients and the example of adversarial training;
- `Contrast` was tried for the recipe `aligned`: it asks that a map be its own image's.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from attrlib import _check, _model
from attrlib.attacks import Ball, Cosine, ascend
from attrlib.models import smoothed
from attrlib.regularizers import CrossEntropy
from attrlib.regularizers._derivatives import unit
from attrlib.types import Attribution, Classifier, Inputs, Labels, PerSample

Distance = Callable[[Inputs, Inputs], PerSample]

_distance = Cosine()


def l2_distance(a: Inputs, b: Inputs) -> PerSample:
    """The Euclidean distance of two maps, which falls when both shrink."""
    distance: PerSample = torch.linalg.vector_norm((a - b).flatten(1), dim=1)
    return distance


def pearson_distance(a: Inputs, b: Inputs) -> PerSample:
    """Half of one minus Pearson's correlation, in [0, 1]; 0 where a map is constant."""
    one, other = (m.flatten(1) - m.flatten(1).mean(1, keepdim=True) for m in (a, b))
    return _distance(one, other) / 2


@dataclass(frozen=True, kw_only=True)
class MapDistance:
    """D(A(x), A(z)), with the example `z` of the `Loss`; differentiable in the weights."""

    attribution: Attribution
    distance: Distance

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        z: Inputs | None = None,
        generator: torch.Generator | None = None,
    ) -> PerSample:
        """Return the distance of each sample."""
        return self.distance(*_maps(self.attribution, model, x, y, z, generator))


@dataclass(frozen=True, kw_only=True)
class SoftKendall:
    r"""One minus a smooth Kendall's tau of the signed maps, on random pairs of entries.

    $$1 - \frac1m \sum_{(i, j)} \tanh\big(s\,(a_i - a_j)\big) \tanh\big(s\,(b_i - b_j)\big)$$

    with maps of standard deviation 1, and the same pairs for all samples of a call. In [0, 2].
    """

    attribution: Attribution
    sharpness: float = 20.0
    pairs: int = 5000

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.positive(sharpness=self.sharpness)
        _check.count(pairs=self.pairs)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        z: Inputs | None = None,
        generator: torch.Generator | None = None,
    ) -> PerSample:
        """Return one minus the smooth tau of each sample; 1 where a map is constant."""
        maps = _maps(self.attribution, model, x, y, z, generator)
        place = x.device if generator is None else generator.device
        entries = x[:1].numel()
        chosen = torch.randint(entries, (2, self.pairs), generator=generator, device=place)
        i, j = chosen.to(x.device)
        signs = []
        for rows in (m.flatten(1) for m in maps):
            centred = rows - rows.mean(1, keepdim=True)
            variance = centred.square().mean(1, keepdim=True)
            rows = centred / torch.where(variance == 0, 1, variance).sqrt()
            signs.append((self.sharpness * (rows[:, i] - rows[:, j])).tanh())
        return 1 - (signs[0] * signs[1]).mean(1)


@dataclass(frozen=True, kw_only=True)
class Contrast:
    r"""How hard the map of an image is to find among the clean maps of its class in the batch.

    $$-\log \frac{\exp(\cos(a_i, b_i) / \tau)}{\sum_{j: y_j = y_i} \exp(\cos(a_j, b_i) / \tau)}$$

    with maps $a$ of the images, and $b$ of the examples `z` of the `Loss`, or $b = a$ with `clean`: then
    it only drives the clean maps of a class apart. 0 for the one image of a class, log n where n maps of
    a class are all the same. The value of a row depends on the other rows of its class, unlike a `Term`.

    After the loss of van den Oord et al. 2018, with maps in place of learnt features.
    """

    attribution: Attribution
    temperature: float = 0.1
    clean: bool = False

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.positive(temperature=self.temperature)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        z: Inputs | None = None,
        generator: torch.Generator | None = None,
    ) -> PerSample:
        """Return the cross-entropy of each sample, >= 0, in nats."""
        if self.clean:
            a = b = self.attribution(model, x.detach().requires_grad_(), y, generator=generator)
        else:
            a, b = _maps(self.attribution, model, x, y, z, generator)
        alike = unit(b).flatten(1) @ unit(a).flatten(1).T
        rivals = y[:, None] == y
        odds = (alike / self.temperature).masked_fill(~rivals, -torch.inf)
        return functional.cross_entropy(
            odds, torch.arange(len(y), device=y.device), reduction="none"
        )


@dataclass(frozen=True, kw_only=True)
class MapAttack:
    """Drive the maps apart, and with `prediction` raise the cross-entropy with them.

    Projected ascent from a random point on `weight` · D(A(x), A(z)), plus the cross-entropy at z.
    `beta` searches on a softplus copy, which a ReLU network needs; None on the network itself.
    """

    attribution: Attribution
    distance: Distance
    ball: Ball
    steps: int
    step_size: float
    weight: float = 1.0
    prediction: bool = False
    beta: float | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.count(steps=self.steps)
        _check.positive(step_size=self.step_size, weight=self.weight)
        if self.beta is not None:
            _check.positive(beta=self.beta)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return the last points, exactly within the ball; detached."""
        _check.labelled(x, y)
        x = x.detach()
        net = model
        if self.beta is not None:
            if not isinstance(model, nn.Module):
                kind = type(model).__name__
                raise TypeError(f"Expected model to be a torch.nn.Module (or no beta), got {kind}")
            net = smoothed(model, self.beta)
        clean = self.attribution(net, x, y, generator=generator)
        start = self.ball.sample(x, generator)

        def apart(z: Inputs) -> PerSample:
            return self.distance(clean, self.attribution(net, z, y, generator=generator))

        def objective(z: Inputs) -> PerSample:
            loss = CrossEntropy()(net, z, y) if self.prediction else 0
            return self.weight * apart(z) + loss

        with torch.enable_grad():
            leaf = start.clone().requires_grad_()
            slope = _model.slope(apart(leaf).sum(), leaf)
        if not bool(slope.any()):
            raise ValueError(
                "Expected model with a second derivative, softplus in place of ReLU (or beta), got "
                "maps whose distance has no slope in the whole batch"
            )
        return ascend(
            objective,
            x,
            ball=self.ball,
            steps=self.steps,
            step_size=self.step_size,
            start=start,
        )


def _maps(
    attribution: Attribution,
    model: Classifier,
    x: Inputs,
    y: Labels,
    z: Inputs | None,
    generator: torch.Generator | None,
) -> tuple[Inputs, Inputs]:
    """The maps of both points, differentiable in the weights."""
    if z is None:
        raise ValueError("Expected z, the adversarial example (give Loss an attack), got None")
    _check.same_shape(x=x, z=z)
    both = torch.cat([x, z]).detach().requires_grad_()
    a, b = attribution(model, both, y.repeat(2), generator=generator).chunk(2)
    return a, b
