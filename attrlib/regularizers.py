"""Terms of a training loss: one frozen dataclass per published method, one value per sample."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from attrlib import _check
from attrlib.types import Classifier, Inputs, Labels, PerSample


@dataclass(frozen=True, kw_only=True)
class CrossEntropy:
    r"""The ordinary classification loss, at the clean input.

    $$\ell(x, y) = -\log \mathrm{softmax}(f(x))_y$$

    Cost: one forward pass, and one backward pass in the weights.
    """

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
        logits = model(x)
        _check.logits(logits, y)
        return functional.cross_entropy(logits, y, reduction="none")
