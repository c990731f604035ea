"""TRADES: adversarial training that trades accuracy for a smooth decision (Zhang et al. 2019)."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from attrlib import _model
from attrlib.regularizers._derivatives import adversarial
from attrlib.types import Classifier, Inputs, Labels, PerSample


@dataclass(frozen=True, kw_only=True)
class Trades:
    r"""How far the predicted probabilities move from `x` to the adversarial example.

    $$\mathrm{KL}\big(p(x) \,\|\, p(z)\big) = \sum_c p_c(x) \log \frac{p_c(x)}{p_c(z)}, \qquad
    p = \mathrm{softmax}(f)$$

    $$z \approx \arg\max_{z' \in B_\epsilon(x)} \mathrm{KL}\big(p(x) \,\|\, p(z')\big)$$

    Used beside `CrossEntropy`, which keeps the accuracy; its weight is the paper's 1/λ. The inner
    maximum is found by the attack of the `Loss`, `attacks.KLPGD`; the term itself does not search. Both
    probabilities carry a gradient.

    Cost: two forward passes, and a backward pass through both; the attack comes on top.

    Source: Zhang et al. 2019, algorithm 1, in the form of the authors' code: the paper writes a general
    loss between f(x) and f(z), and the code makes it this divergence. Some reimplementations take
    KL(p(z) ‖ p(x)) instead, which agrees to the second order only; PyTorch's `kl_div(a, b)`, with its
    arguments the other way round, invites the mistake.
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
        """Return the divergence of each sample, in nats, >= 0 up to rounding; 0 where z = x.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,); checked, and otherwise ignored.
            z: Adversarial examples, in the shape of `x`.
            generator: Ignored.

        Returns:
            Divergences (n,), differentiable in `x` and the weights.

        Raises:
            ValueError: If `z` is missing or of another shape, or a label is not a class of the model.
        """
        z = adversarial(z, x)
        here = _model.logits(model, x, y, classes=2).log_softmax(1)
        there = _model.logits(model, z).log_softmax(1)
        return functional.kl_div(there, here, log_target=True, reduction="none").sum(1)
