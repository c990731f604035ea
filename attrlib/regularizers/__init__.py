"""Terms of a training loss: one frozen dataclass per published method, one value per sample."""

from attrlib.regularizers.aligned import AlignmentAttack
from attrlib.regularizers.art import AttributionTriplet, TripletAttack
from attrlib.regularizers.cross_entropy import AdversarialCrossEntropy, CrossEntropy
from attrlib.regularizers.curvature import Curvature, HessianNorm, InputGradientNorm
from attrlib.regularizers.density import (
    DoubleBackward,
    FiniteDifference,
    GaugeRatio,
    MarginalDensitySmoothing,
    RandomProjection,
)
from attrlib.regularizers.igr import IntegratedGradientRegularizer
from attrlib.regularizers.interval import IntervalBounds
from attrlib.regularizers.lga import LocalGradientAlignment
from attrlib.regularizers.mart import Mart
from attrlib.regularizers.rar import IGNorm, IGSumNorm
from attrlib.regularizers.ssr import SmoothSurface, loss_hessian_eigenvalue
from attrlib.regularizers.trades import Trades

__all__ = [
    "AdversarialCrossEntropy",
    "AlignmentAttack",
    "AttributionTriplet",
    "CrossEntropy",
    "Curvature",
    "DoubleBackward",
    "FiniteDifference",
    "GaugeRatio",
    "HessianNorm",
    "IGNorm",
    "IGSumNorm",
    "InputGradientNorm",
    "IntegratedGradientRegularizer",
    "IntervalBounds",
    "LocalGradientAlignment",
    "MarginalDensitySmoothing",
    "Mart",
    "RandomProjection",
    "SmoothSurface",
    "Trades",
    "TripletAttack",
    "loss_hessian_eigenvalue",
]
