"""ART: gradients that look like the image, by a triplet loss (Singh et al. 2020)."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from attrlib import _check, _model
from attrlib.attacks import Ball, Cosine, ascend
from attrlib.maps import topk_mask
from attrlib.models import smoothed
from attrlib.regularizers._derivatives import adversarial
from attrlib.types import Classifier, Inputs, Labels, PerSample

_distance = Cosine()


@dataclass(frozen=True, kw_only=True)
class AttributionTriplet:
    r"""A triplet loss: the image shall be closer to the gradient of its class than to the runner-up's.

    $$\frac12 \sum_{u \in \{x, z\}} \log\Big(1 + \exp\big(
      \max_{v} d(u, g^+(v)) - \min_{v} d(u, g^-(v)) \big)\Big)$$

    $$v \in \{x, z\}$$

    with $d(a, b) = 1 - \cos(a, b)$, the gradient $g^+ = \nabla f_y$ of the label's logit and $g^-$ of the
    highest other logit, at the image and at the adversarial example. If both gradients stay close to
    their images, they are close to each other.

    Used beside `AdversarialCrossEntropy`, with `TripletAttack` as the attack of the `Loss`, so that both
    share one adversarial example; the term itself does not search.

    The gradients come from a softplus copy of a ReLU network with the same weights, see `smoothed`;
    the classification loss keeps the network as it is.

    Cost: on a batch of both points, one forward pass and two backward passes, and a backward pass
    through all three.

    Attributes:
        beta: Sharpness β of the softplus, > 0; None differentiates the model itself, for networks
            that are smooth already.

    Source: Singh et al. 2020, the loss of ART, with the mining and β = 50 of the authors' code. Differs:
    images and gradients are in pixels, where the code compares standardised images with gradients in
    them; where an image or a gradient is all zero, d is 0 and has no gradient.
    """

    beta: float | None = 50.0

    def __post_init__(self) -> None:
        """Check the sharpness."""
        _check_beta(self.beta)

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
        """Return the triplet loss of each sample, in [log(1 + e⁻²), log(1 + e²)]; log 2 is a draw.

        Args:
            model: Maps a batch to logits (n, classes); a `torch.nn.Module` unless `beta` is None.
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Adversarial examples, in the shape of `x`.
            generator: Ignored.

        Returns:
            Losses (n,), differentiable in the weights.

        Raises:
            TypeError: If `beta` is given and the model is not a `torch.nn.Module`.
            ValueError: If `z` is missing or of another shape, a label is not a class of the model, the
                model has fewer than two classes, no ReLU to replace, or batch normalisation in train
                mode.
        """
        both = torch.cat([x, adversarial(z, x)]).detach().requires_grad_()
        own, other = _gradients(_smooth(model, self.beta), both, y.repeat(2))
        losses = []
        for anchor in both.detach().chunk(2):
            near = torch.maximum(*(_distance(anchor, g) for g in own.chunk(2)))
            far = torch.minimum(*(_distance(anchor, g) for g in other.chunk(2)))
            losses.append(functional.softplus(near - far))
        return torch.stack(losses).mean(0)


@dataclass(frozen=True, kw_only=True)
class TripletAttack:
    r"""Make the image look less like the gradient of its class: the attack that ART trains against.

    $$\max_{z \in B_\epsilon(x)} \log\Big(1 + \exp\big(
      d(z_S, g^+_S(z)) - d(z_S, g^-_S(z)) \big)\Big)$$

    in the words of `AttributionTriplet`, on the set $S$ of the k entries with the largest $|g^+|$ at the
    random starting point, on the network itself. The last point is returned, whether the prediction
    changed or not.

    Cost: a forward and a backward pass; then, for each step, one forward pass and two backward passes,
    and a backward pass through all three.

    Attributes:
        ball: `LinfBall` or `L2Ball`.
        steps: Number of steps, >= 1.
        step_size: Length of a step in the norm of the ball, in pixel units, > 0.
        k: Entries in the set S, 1 to the number of entries of an image, over all channels.
        beta: As in `AttributionTriplet`.

    Source: Singh et al. 2020, the attack in the training of ART, as in the authors' code. Differs: in
    pixels; called in eval mode by `Loss`.
    """

    ball: Ball
    steps: int
    step_size: float
    k: int
    beta: float | None = 50.0

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.count(steps=self.steps, k=self.k)
        _check.positive(step_size=self.step_size)
        _check_beta(self.beta)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Inputs:
        """Return adversarial images.

        Args:
            model: Maps a batch to logits (n, classes); a `torch.nn.Module` unless `beta` is None.
            x: Images (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            generator: Source of the random starts; None is torch's global generator.

        Returns:
            Images exactly within the ball; detached.

        Raises:
            TypeError: If `x` is not floating-point, `y` not int64, or `beta` is given and the model is
                not a `torch.nn.Module`.
            ValueError: If shapes disagree, a label is not a class of the model, `x` is not in [0, 1],
                `k` exceeds the entries of an image, a gradient is not finite, or as
                `AttributionTriplet`.
        """
        _check.labelled(x, y)
        _check.pixels(x=x)
        _check.recording(x)
        _model.settled(model)
        x = x.detach()
        start = self.ball.sample(x, generator)
        own, _ = _gradients(model, start.clone().requires_grad_(), y)
        chosen = topk_mask(own.detach().abs().flatten(1)[:, None], k=self.k).view_as(x)
        return ascend(
            partial(_triplet, _smooth(model, self.beta), y, chosen),
            x,
            ball=self.ball,
            steps=self.steps,
            step_size=self.step_size,
            start=start,
        )


def _triplet(model: Classifier, y: Labels, chosen: Tensor, z: Inputs) -> PerSample:
    """The triplet loss at one point, on the chosen entries."""
    own, other = _gradients(model, z, y)
    near, far = (_distance(chosen * z, chosen * g) for g in (own, other))
    return functional.softplus(near - far)


def _gradients(model: Classifier, x: Inputs, y: Labels) -> tuple[Inputs, Inputs]:
    """Gradients in `x` of the label's logit and of the highest other one; differentiable."""
    _model.independent(model)
    with torch.enable_grad():
        logits = _model.logits(model, x, y, classes=2, twice=True)
        own = logits.gather(1, y[:, None])
        rival = logits.detach().scatter(1, y[:, None], -torch.inf).argmax(1, keepdim=True)
        other = logits.gather(1, rival)
        first, second = (_model.slope(v.sum(), x, create_graph=True) for v in (own, other))
    return first, second


def _smooth(model: Classifier, beta: float | None) -> Classifier:
    """The model with softplus for ReLU and its own weights, so that they get the derivatives."""
    if beta is None:
        return model
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"Expected model to be a torch.nn.Module (or beta=None), got {type(model).__name__}"
        )
    _model.independent(model)
    # functional_call refuses nn.DataParallel.
    model = model.module if isinstance(model, nn.DataParallel) else model
    twin = smoothed(model, beta)
    names = (name for name, _ in twin.named_parameters())
    weights: dict[str, Tensor] = dict(zip(names, model.parameters(), strict=True))
    return partial(functional_call, twin, weights)


def _check_beta(beta: float | None) -> None:
    if beta is not None:
        _check.positive(beta=beta)
