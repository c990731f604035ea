"""One training loop for every method: a loss is a sum of named terms, a run can be killed and resumed.

The only module that calls `backward`, steps an optimizer or changes a model's mode.
"""

from attrlib.training.evaluation import correct, evaluate, only_correct
from attrlib.training.loop import History, TrainConfig, train
from attrlib.training.loss import Loss
from attrlib.training.modes import eval_mode

__all__ = [
    "History",
    "Loss",
    "TrainConfig",
    "correct",
    "eval_mode",
    "evaluate",
    "only_correct",
    "train",
]
