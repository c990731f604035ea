"""Terms of a training loss: one frozen dataclass per published method, one value per sample."""

from attrlib.regularizers.cross_entropy import AdversarialCrossEntropy, CrossEntropy
from attrlib.regularizers.ssr import SmoothSurface, loss_hessian_eigenvalue

__all__ = [
    "AdversarialCrossEntropy",
    "CrossEntropy",
    "SmoothSurface",
    "loss_hessian_eigenvalue",
]
