"""The vocabulary of the package: what its functions take and return.

Shapes are annotations. Tests check them at every call; in ordinary use they cost nothing.
Axis names bind within one call, so `cosine(a: Inputs, b: Inputs)` says that the shapes agree.
"""

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Inputs: TypeAlias = Float[Tensor, "n *d"]
"""Images or maps, one row per sample; images are pixels in [0, 1], shaped (n, channels, h, w)."""

Ids: TypeAlias = Int[Tensor, "n words"]
"""Word numbers of sentences, int64: 0 is padding, which stands after the last word only."""

Near: TypeAlias = Bool[Tensor, "n words words"]
"""Which words of a changed sentence are near which words of the one before."""

Labels: TypeAlias = Int[Tensor, " n"]
"""Class indices, int64."""

Logits: TypeAlias = Float[Tensor, "n classes"]
"""Scores before the softmax."""

Heatmaps: TypeAlias = Float[Tensor, "n h w"]
"""Maps with the channels reduced to one non-negative number per pixel."""

Masks: TypeAlias = Bool[Tensor, "n h w"]
"""Sets of pixels."""

Centers: TypeAlias = Float[Tensor, "n 2"]
"""Points in the image plane: row and column, in pixels."""

PerSample: TypeAlias = Float[Tensor, " n"]
"""One number per sample; whoever reports it does the averaging."""

Norm: TypeAlias = Literal["l2", "linf"]


@runtime_checkable
class Classifier(Protocol):
    """Logits of a batch; in eval mode row i of the result depends on row i of `x` only.

    Wherever a model is called, what is no tensor of logits, has no graph to `x`, has one logit where
    classes are compared, or keeps batch statistics in train mode is refused with a `ValueError` that says
    what to do. A model may work in place, be compiled or wrapped: it is given a copy of `x`.
    """

    def __call__(self, x: Tensor, /) -> Tensor: ...


@runtime_checkable
class TextClassifier(Protocol):
    """A classifier of sentences: logits of embedded inputs (n, channels, 1, words), and what makes these.

    The embedded inputs of a sentence have one column for each word; which columns are padding, they say
    themselves, so that `embed` is all that is needed to explain, attack or bound word numbers.
    """

    def __call__(self, x: Tensor, /) -> Tensor: ...

    def embed(self, ids: Tensor, /) -> Tensor: ...


@runtime_checkable
class Attribution(Protocol):
    """One score per entry of `x` for the logit of class `y`; shape, dtype and device of `x`.

    Differentiable in `x`, and twice in the weights, exactly when `x` requires grad; a method of another
    library (`attributions.wrap`) refuses such an `x`.
    """

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor: ...


Metric: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Similarity of two batches of maps, one value per sample; higher is more alike, best value 1."""

Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""What an attack increases: of the signed maps at `x` and at `z`, one value per sample; larger is more
changed. Differentiable in the second map."""


@runtime_checkable
class Attack(Protocol):
    """A point near `x`; the same point for the same state of the generator."""

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor: ...


@runtime_checkable
class Term(Protocol):
    """One summand of a training loss, one value per sample; `z` is the shared adversarial example."""

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        /,
        *,
        z: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor: ...
