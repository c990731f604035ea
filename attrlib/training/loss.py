"""What is minimised: a weighted sum of terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from attrlib import _check
from attrlib.training.modes import eval_mode
from attrlib.types import Attack, Inputs, Labels, PerSample, Term


@dataclass(frozen=True)
class Loss:
    r"""A weighted sum of terms.

    $$\ell = \sum_t w_t \, r_t(s) \, \ell_t(x, y, z)$$

    with the weight $w_t$, and the ramp $r_t(s) = \min(1, s / \rho_t)$ at the share $s$ of the training
    steps done.

    Attributes:
        terms: Name to term; each gives one value per sample. Of a term with a method `at`, that for the
            share of the steps done is taken.
        weights: Name to weight, >= 0, for the same names. A term of weight 0 is watched: its value is
            logged, and no part of the sum, even where it is NaN.
        ramps: Name to the share of the steps, in (0, 1], over which a weight rises from 0; others are
            on from the start.
        attack: Makes the adversarial example `z`, once per step and in eval mode, for all terms.
    """

    terms: Mapping[str, Term]
    weights: Mapping[str, float]
    ramps: Mapping[str, float] = field(default_factory=dict)
    attack: Attack | None = None

    def __post_init__(self) -> None:
        """Check that the names agree and the numbers make sense."""
        if not self.terms or set(self.terms) != set(self.weights):
            raise ValueError(
                f"Expected weights for the terms {sorted(self.terms)}, got {sorted(self.weights)}"
            )
        if not set(self.ramps) <= set(self.terms):
            raise ValueError(
                f"Expected ramps for some of {sorted(self.terms)}, got {sorted(self.ramps)}"
            )
        for name, weight in self.weights.items():
            _check.nonnegative(**{f"weights[{name!r}]": weight})
        if not any(self.weights.values()):
            raise ValueError("Expected a weight > 0 for at least one term, got 0 for all")
        for name, share in self.ramps.items():
            _check.positive(**{f"ramps[{name!r}]": share})
            if share > 1:
                raise ValueError(f"Expected ramps[{name!r}] <= 1, got {share!r}")

    def __call__(
        self,
        model: nn.Module,
        x: Inputs,
        y: Labels,
        *,
        done: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> tuple[PerSample, dict[str, PerSample]]:
        """Return the weighted sum and each unweighted term, one value per sample.

        Args:
            model: Maps a batch to logits (n, classes).
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            done: Share of the training steps done, in [0, 1].
            generator: Source of all noise.

        Returns:
            The sum (n,), and name to values (n,). Differentiable in the weights.
        """
        z = None
        if self.attack is not None:
            with eval_mode(model):
                z = self.attack(model, x, y, generator=generator).detach()
        terms = {
            name: term.at(done) if hasattr(term, "at") else term
            for name, term in self.terms.items()
        }
        values = {name: term(model, x, y, z=z, generator=generator) for name, term in terms.items()}
        total = x.new_zeros(len(x))
        for name, value in values.items():
            if self.weights[name] == 0:
                continue
            ramp = min(1.0, done / self.ramps[name]) if name in self.ramps else 1.0
            total = total + self.weights[name] * ramp * value
        return total, values
