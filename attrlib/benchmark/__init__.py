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
from attrlib.benchmark.imagenet import imagenet_accuracy

__all__ = [
    "ATTRIBUTIONS",
    "OBJECTIVES",
    "K",
    "Setting",
    "imagenet_accuracy",
    "provenance",
    "strength",
    "strength_settings",
]
