"""Classifiers that take pixels in [0, 1], and copies of any network that can be differentiated twice.

No shipped model mixes the rows of a batch or behaves
differently in train and eval mode, so explanations mean the same in both.
"""

from attrlib.models.networks import LeNet, Normalize, SmallCNN, imagenet, randomize
from attrlib.models.smooth import smoothed, with_softplus
from attrlib.models.soft import softened
from attrlib.models.text import TextCNN

__all__ = [
    "LeNet",
    "Normalize",
    "SmallCNN",
    "TextCNN",
    "imagenet",
    "randomize",
    "smoothed",
    "softened",
    "with_softplus",
]
