"""The classification loss, at the clean input and at an adversarial example."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.nn import functional

from attrlib import _model
from attrlib.regularizers._derivatives import adversarial
from attrlib.types import Classifier, Inputs, Labels, PerSample


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    r"""The ordinary classification loss, at the clean input.

    $$\ell(x, y) = -\log \mathrm{softmax}(f(x))_y$$

    Cost: one forward pass, and one backward pass in the weights.
    """

    half_safe: ClassVar[bool] = True

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
        """Return the loss of each sample, in nats, >= 0.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Ignored.
            generator: Ignored.

        Returns:
            Losses (n,), differentiable in `x` and the weights.

        Raises:
            ValueError: If a label is not a class of the model.
        """
        logits = _model.logits(model, x, y, classes=2)
        return functional.cross_entropy(logits, y, reduction="none")


@dataclass(frozen=True, kw_only=True)
class AdversarialCrossEntropy:
    r"""The classification loss at the adversarial example, used in place of the clean one.

    $$\ell(x, y) = -\log \mathrm{softmax}(f(z))_y, \qquad
    z \approx \arg\max_{z' \in B_\epsilon(x)} -\log \mathrm{softmax}(f(z'))_y$$

    Source: Madry et al. 2018, equation 2.1. The inner maximum is found by the attack of the `Loss`, such
    as `PGD`; the term itself does not search.

    Cost: one forward pass, and one backward pass in the weights; the attack comes on top.
    """

    half_safe: ClassVar[bool] = True

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
        """Return the loss of each sample at `z`, in nats, >= 0.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Adversarial examples, in the shape of `x`.
            generator: Ignored.

        Returns:
            Losses (n,), differentiable in the weights.

        Raises:
            ValueError: If `z` is missing or of another shape, or a label is not a class of the model.
        """
        return CrossEntropy()(model, adversarial(z, x), y)
