"""Every shipped checkpoint as a frozen value: the setting, and the function that turns it into a file."""

from collections.abc import Mapping
from types import MappingProxyType

from attrlib.recipes.cifar import CIFAR
from attrlib.recipes.images import IMAGES, planted_blocks
from attrlib.recipes.recipe import Recipe, fit
from attrlib.recipes.texts import TEXTS, tweets

RECIPES: Mapping[str, Recipe] = MappingProxyType({**IMAGES, **CIFAR, **TEXTS})

__all__ = ["CIFAR", "RECIPES", "TEXTS", "Recipe", "fit", "planted_blocks", "tweets"]
