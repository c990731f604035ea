"""Attacks: small changes of an image that change its explanation, or its prediction.

An attack holds its settings and is called with `(model, x, y, *, generator=None)`. Images stay in [0, 1]
and exactly within the budget of a ball. Gradients come from the ascent of an objective; nothing of the
model or of the caller's tensors is touched. Use models in eval mode.
"""

from attrlib.attacks.ascent import ascend
from attrlib.attacks.balls import Ball, L2Ball, LinfBall
from attrlib.attacks.identification import Identification
from attrlib.attacks.methods import KLPGD, PGD, AttributionAttack, RandomSign
from attrlib.attacks.objectives import Cosine, MassCenter, TargetMap, TopK

__all__ = [
    "KLPGD",
    "PGD",
    "AttributionAttack",
    "Ball",
    "Cosine",
    "Identification",
    "L2Ball",
    "LinfBall",
    "MassCenter",
    "RandomSign",
    "TargetMap",
    "TopK",
    "ascend",
]
