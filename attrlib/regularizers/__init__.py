"""Terms of a training loss: one frozen dataclass per published method, one value per sample."""

from attrlib.regularizers.cross_entropy import AdversarialCrossEntropy, CrossEntropy

__all__ = ["AdversarialCrossEntropy", "CrossEntropy"]
