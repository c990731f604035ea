"""Studies that are too long for a chapter: each writes one table to `results/`, row by row.

A study that is stopped goes on where it was: rows that are in the table already are not made again.
"""

from attrlib.benchmark._table import provenance
from attrlib.benchmark.attack_strength import (
    ATTRIBUTIONS,
    OBJECTIVES,
    K,
    Setting,
    strength,
    strength_settings,
)
from attrlib.benchmark.imagenet import (
    LENS_K,
    LensSetting,
    imagenet_accuracy,
    imagenet_lens,
    lens_settings,
)

__all__ = [
    "ATTRIBUTIONS",
    "LENS_K",
    "OBJECTIVES",
    "K",
    "LensSetting",
    "Setting",
    "imagenet_accuracy",
    "imagenet_lens",
    "lens_settings",
    "provenance",
    "strength",
    "strength_settings",
]
