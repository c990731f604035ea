"""MART: adversarial training that looks at the images which are misclassified (Wang et al. 2020)."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from attrlib import _check, _model
from attrlib.regularizers._derivatives import adversarial
from attrlib.types import Classifier, Inputs, Labels, PerSample


@dataclass(frozen=True, kw_only=True)
class Mart:
    r"""A margin loss at the adversarial example, and a divergence weighted by the doubt about `x`.

    $$-\log p_y(z) - \log\big(1.0001 - \max_{c \ne y} p_c(z)\big)
      + \lambda \, d(x, z) \, \big(1 - p_y(x)\big)$$

    $$d(x, z) = \mathrm{KL}\big(p(x) \,\|\, p(z)\big), \qquad p = \mathrm{softmax}(f)$$

    A whole objective, used without `CrossEntropy`. The second summand presses on the strongest wrong
    class; the last one counts an image the more the less sure the network is of it. All probabilities
    carry a gradient, the factor 1 − p_y(x) included.

    The inner maximum is the one of adversarial training, found by the attack of the `Loss`, `PGD` on the
    cross-entropy; the term itself does not search.

    Cost: two forward passes, and a backward pass through both; the attack comes on top. With seven steps
    of it a step takes about 1.1 times as long as one of adversarial training.

    Attributes:
        weight: Weight λ of the divergence, >= 0.

    Source: Wang et al. 2020, the loss BCE of MART, in the form of the authors' code, with its 1.0001 in
    place of 1 and the weight of its script, 5. Differs: logarithms of probabilities are exact, where the
    code adds 1e-12 to them.

    Raises:
        ValueError: If `weight` is negative.
    """

    weight: float = 5.0

    def __post_init__(self) -> None:
        """Check the weight."""
        _check.nonnegative(weight=self.weight)

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
        """Return the loss of each sample, in nats, >= −0.0001.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Adversarial examples, in the shape of `x`.
            generator: Ignored.

        Returns:
            Losses (n,), differentiable in `x` and the weights.

        Raises:
            ValueError: If `z` is missing or of another shape, or a label is not a class of the model.
        """
        z = adversarial(z, x)
        here = _model.logits(model, x, y, classes=2).log_softmax(1)
        there = _model.logits(model, z).log_softmax(1)
        own = y[:, None]
        rival = there.detach().scatter(1, own, -torch.inf).argmax(1, keepdim=True)
        margin = -there.gather(1, own) - (1.0001 - there.gather(1, rival).exp()).log()
        divergence = functional.kl_div(there, here, log_target=True, reduction="none").sum(1)
        doubt = -here.gather(1, own).squeeze(1).expm1()  # 1 - p without its rounding near 1
        return margin.squeeze(1) + self.weight * divergence * doubt
