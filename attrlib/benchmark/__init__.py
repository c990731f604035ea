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
from attrlib.benchmark.board import COLUMNS, Board, Column, Entry, Measured, Ranks, boards, ranks
from attrlib.benchmark.certificate_soundness import (
    ADVERSARIES,
    RADIUS,
    SoundnessSetting,
    soundness,
    soundness_settings,
)
from attrlib.benchmark.cluster import on_cluster
from attrlib.benchmark.colour import cifar
from attrlib.benchmark.densities import DensityRun, density, density_recipe, density_runs
from attrlib.benchmark.exported import export
from attrlib.benchmark.grid import BUDGETS, FULL, GRIDS, SMALL, Block
from attrlib.benchmark.harmless import benign
from attrlib.benchmark.imagenet import (
    LENS_K,
    LensSetting,
    imagenet_accuracy,
    imagenet_lens,
    lens_settings,
)
from attrlib.benchmark.methods import Variant, frontier, variants
from attrlib.benchmark.own import as_rows, check_row, load_row, own_row
from attrlib.benchmark.played import GAME_PAIRS, games
from attrlib.benchmark.sampled_changes import sampling
from attrlib.benchmark.sentences import WORD_MAPS, sentences
from attrlib.benchmark.trained import calibration_error, recipes
from attrlib.benchmark.transferred import transfer, transfer_targets

__all__ = [
    "ADVERSARIES",
    "ATTRIBUTIONS",
    "BUDGETS",
    "COLUMNS",
    "FULL",
    "GAME_PAIRS",
    "GRIDS",
    "LENS_K",
    "OBJECTIVES",
    "RADIUS",
    "SMALL",
    "WORD_MAPS",
    "Block",
    "Board",
    "Column",
    "DensityRun",
    "Entry",
    "K",
    "LensSetting",
    "Measured",
    "Ranks",
    "Setting",
    "SoundnessSetting",
    "Variant",
    "as_rows",
    "benign",
    "boards",
    "calibration_error",
    "check_row",
    "cifar",
    "density",
    "density_recipe",
    "density_runs",
    "export",
    "frontier",
    "games",
    "imagenet_accuracy",
    "imagenet_lens",
    "lens_settings",
    "load_row",
    "on_cluster",
    "own_row",
    "provenance",
    "ranks",
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
