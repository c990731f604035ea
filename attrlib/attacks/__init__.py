"""Attacks: small changes of an image that change its explanation, or its prediction.

An attack holds its settings and is called with `(model, x, y, *, generator=None)`. Images stay in [0, 1]
and exactly within the budget of a ball. Gradients come from the ascent of an objective; nothing of the
model or of the caller's tensors is touched. Use models in eval mode.

The attacks on sentences take and give word numbers instead of images: see `SynonymAttack`.
"""

from attrlib.attacks.ascent import ascend
from attrlib.attacks.attribution import AttributionAttack, UnattackedWarning
from attrlib.attacks.balls import Ball, L2Ball, LinfBall, WordBall
from attrlib.attacks.crossing import Crossing
from attrlib.attacks.densities import DensityAttack
from attrlib.attacks.identification import Identification
from attrlib.attacks.margins import MarginPGD, Square
from attrlib.attacks.methods import KLPGD, PGD, RandomSign
from attrlib.attacks.objectives import Cosine, MassCenter, TargetMap, TopK
from attrlib.attacks.ranks import Order, Rank
from attrlib.attacks.suite import SUITE, standard
from attrlib.attacks.synonyms import AllSynonyms, RandomSynonyms, SynonymAttack
from attrlib.attacks.worst import WorstOf

__all__ = [
    "KLPGD",
    "PGD",
    "SUITE",
    "AllSynonyms",
    "AttributionAttack",
    "Ball",
    "Cosine",
    "Crossing",
    "DensityAttack",
    "Identification",
    "L2Ball",
    "LinfBall",
    "MarginPGD",
    "MassCenter",
    "Order",
    "RandomSign",
    "RandomSynonyms",
    "Rank",
    "Square",
    "SynonymAttack",
    "TargetMap",
    "TopK",
    "UnattackedWarning",
    "WordBall",
    "WorstOf",
    "ascend",
    "standard",
]
