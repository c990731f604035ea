"""The recipes of networks for CIFAR-10: four methods of the book, to see what carries over."""

import functools
from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from attrlib.attacks import PGD, LinfBall
from attrlib.data import cifar10
from attrlib.models import LeNet
from attrlib.recipes.recipe import Recipe
from attrlib.regularizers import (
    AdversarialCrossEntropy,
    CrossEntropy,
    IntegratedGradientRegularizer,
    LocalGradientAlignment,
)
from attrlib.training import Loss, TrainConfig

_BALL = LinfBall(eps=8 / 255)
_PGD = PGD(ball=_BALL, steps=7, step_size=2 / 255, random_start=True)

CIFAR: Mapping[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in [
            Recipe(
                name="natural-cifar",
                model=LeNet,
                data=cifar10,
                config=TrainConfig(epochs=8, batch_size=64, lr=3e-3),
                loss=Loss(terms={"cross_entropy": CrossEntropy()}, weights={"cross_entropy": 1.0}),
                source="Ordinary training on CIFAR-10; like the other three of this set a short run, not "
                "tuned.",
            ),
            Recipe(
                name="madry-cifar",
                model=LeNet,
                data=cifar10,
                config=TrainConfig(epochs=4, batch_size=64, lr=3e-3),
                loss=Loss(
                    terms={"adversarial": AdversarialCrossEntropy()},
                    weights={"adversarial": 1.0},
                    attack=_PGD,
                ),
                start="natural-cifar",
                source="Adversarial training, Madry et al. 2018, with their eps, steps and step size for "
                "CIFAR-10; four epochs from natural-cifar, for its cost.",
            ),
            Recipe(
                name="lga-cifar",
                model=functools.partial(LeNet, activation=functools.partial(nn.Softplus, beta=10)),
                data=cifar10,
                config=TrainConfig(epochs=4, batch_size=64, lr=3e-3),
                loss=Loss(
                    terms={
                        "cross_entropy": CrossEntropy(),
                        "penalty": LocalGradientAlignment(l2=0.1, cosine=10.0, ball=_BALL),
                    },
                    weights={"cross_entropy": 1.0, "penalty": 1.0},
                    ramps={"penalty": 0.2},
                ),
                source="Local gradient alignment, Joo et al. 2023, with the settings of lga and the ball "
                "of madry-cifar; four epochs, for its cost.",
            ),
            Recipe(
                name="igr-cifar",
                model=LeNet,
                data=cifar10,
                config=TrainConfig(epochs=1, batch_size=64, lr=1e-3),
                loss=Loss(
                    terms={
                        "adversarial": AdversarialCrossEntropy(),
                        "penalty": IntegratedGradientRegularizer(steps=3),
                    },
                    weights={"adversarial": 1.0, "penalty": 1.0},
                    attack=_PGD,
                ),
                start="madry-cifar",
                source="Integrated gradient regularizer, Wang and Kong 2022, on adversarial training; "
                "one epoch from madry-cifar, for its cost.",
            ),
        ]
    }
)
