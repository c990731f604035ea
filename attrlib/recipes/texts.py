"""The recipes of networks for sentences: three of the book's methods, moved to word vectors."""

import functools
from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from attrlib.attacks import PGD, WordBall
from attrlib.data import Split, Texts, sentiment
from attrlib.models import TextCNN
from attrlib.recipes.recipe import Recipe
from attrlib.regularizers import AdversarialCrossEntropy, CrossEntropy, LocalGradientAlignment
from attrlib.training import Loss, TrainConfig

_CONFIG = TrainConfig(epochs=6, batch_size=32, lr=3e-3)
_NOISE, _SYNONYM = (
    WordBall(eps=0.1),
    WordBall(eps=0.7),
)  # a fifth of a word vector; a median synonym
_VECTORS = ("embedding.weight",)


def tweets(split: Split = "train", *, full: bool = False) -> Texts:
    """Return the sentences of the recipes that begin with `text`: `sentiment` with its tweets.

    Args:
        split: `train`, `val` or `test`.
        full: Ignored: the whole set is embedded.

    Returns:
        Sentences.

    Raises:
        ValueError: If `split` is unknown.
    """
    return sentiment(split, part="tweets")


TEXTS: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in [
            Recipe(
                name="text-natural",
                model=TextCNN,
                data=tweets,
                config=_CONFIG,
                loss=Loss(terms={"cross_entropy": CrossEntropy()}, weights={"cross_entropy": 1.0}),
                source="Ordinary training on sentences; the number of epochs is the better of two on the "
                "validation split. The other recipes for sentences keep its word vectors, so that a "
                "budget means the same for all.",
            ),
            Recipe(
                name="text-adversarial",
                model=TextCNN,
                data=tweets,
                config=_CONFIG,
                start="text-natural",
                frozen=_VECTORS,
                loss=Loss(
                    terms={"adversarial": AdversarialCrossEntropy()},
                    weights={"adversarial": 1.0},
                    attack=PGD(ball=_NOISE, steps=5, step_size=0.05, random_start=True),
                ),
                source="Adversarial training, Madry et al. 2018, on word vectors as proposed by Miyato "
                "et al. 2017, with a budget for each word: of four, the largest that cost less than five "
                "points of accuracy on the validation split. Twice this budget cost eighteen.",
            ),
            Recipe(
                name="text-lga",
                model=functools.partial(
                    TextCNN, activation=functools.partial(nn.Softplus, beta=10)
                ),
                data=tweets,
                config=_CONFIG,
                start="text-natural",
                frozen=_VECTORS,
                loss=Loss(
                    terms={
                        "cross_entropy": CrossEntropy(),
                        "penalty": LocalGradientAlignment(l2=0.1, cosine=1.0, ball=_SYNONYM),
                    },
                    weights={"cross_entropy": 1.0, "penalty": 1.0},
                ),
                source="Local gradient alignment, Joo et al. 2023, with one uniform neighbour of each "
                "word, in a ball that reaches the median synonym, and a smooth activation; the better of "
                "two pairs of weights on the validation split.",
            ),
        ]
    }
)
