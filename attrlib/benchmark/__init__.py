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
from attrlib.benchmark.certificate_soundness import (
    ADVERSARIES,
    RADIUS,
    SoundnessSetting,
    soundness,
    soundness_settings,
)
from attrlib.benchmark.densities import DensityRun, density, density_recipe, density_runs
from attrlib.benchmark.imagenet import (
    LENS_K,
    LensSetting,
    imagenet_accuracy,
    imagenet_lens,
    lens_settings,
)
from attrlib.benchmark.methods import Variant, frontier, variants
from attrlib.benchmark.sampled_changes import sampling
from attrlib.benchmark.sentences import WORD_MAPS, sentences
from attrlib.benchmark.trained import BUDGETS, calibration_error, recipes
from attrlib.benchmark.transferred import transfer, transfer_targets

__all__ = [
    "ADVERSARIES",
    "ATTRIBUTIONS",
    "BUDGETS",
    "LENS_K",
    "OBJECTIVES",
    "RADIUS",
    "WORD_MAPS",
    "DensityRun",
    "K",
    "LensSetting",
    "Setting",
    "SoundnessSetting",
    "Variant",
    "calibration_error",
    "density",
    "density_recipe",
    "density_runs",
    "frontier",
    "imagenet_accuracy",
    "imagenet_lens",
    "lens_settings",
    "provenance",
    "recipes",
    "sampling",
    "sentences",
    "soundness",
    "soundness_settings",
    "strength",
    "strength_settings",
    "transfer",
    "transfer_targets",
    "variants",
]
