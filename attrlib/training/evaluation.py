"""Scores of a model, image by image."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from attrlib import _check, _model
from attrlib.data import Images, Texts
from attrlib.training.batches import inputs
from attrlib.training.modes import eval_mode
from attrlib.types import Classifier, Inputs, Labels, PerSample

Rows = TypeVar("Rows", Images, Texts)
Score = Callable[[Classifier, Tensor, Tensor], Tensor]


def evaluate(
    model: nn.Module,
    data: Images | Texts,
    scores: Mapping[str, Score],
    *,
    batch_size: int = 256,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> dict[str, Tensor]:
    """Return each score of each image, computed in eval mode, batch by batch.

    Args:
        model: The network; moved to `device`.
        data: Images, or sentences for a network that embeds them.
        scores: Name to score, `(model, x, y) -> (n,)`, such as `correct`.
        batch_size: Images at a time, >= 1.
        device: Where to compute.
        progress: Show a progress bar.

    Returns:
        Name to values (n,) on the CPU; not averaged.

    Raises:
        ValueError: If the data or the scores are empty, `batch_size` is below 1, or a score does not
            give one value per image.
    """
    _check.count(batch_size=batch_size)
    if len(data) == 0:
        raise ValueError("Expected data with at least one image, got 0")
    if not scores:
        raise ValueError("Expected at least one score, got none")
    model.to(device)
    columns: dict[str, list[Tensor]] = {name: [] for name in scores}
    with eval_mode(model):
        for start in tqdm(range(0, len(data), batch_size), desc="evaluate", disable=not progress):
            x, y = inputs(model, data[start : start + batch_size], device)
            for name, score in scores.items():
                values = score(model, x.detach().clone(), y)  # a model may work in place
                if values.shape != y.shape:
                    raise ValueError(
                        f"Expected scores[{name!r}] to give shape {tuple(y.shape)}, "
                        f"got {tuple(values.shape)}"
                    )
                columns[name].append(values.detach().cpu())
    return {name: torch.cat(column) for name, column in columns.items()}


@torch.no_grad()
def correct(model: Classifier, x: Inputs, y: Labels) -> PerSample:
    """Return 1 where the highest logit is the label's, else 0; the mean is the accuracy.

    Args:
        model: Maps a batch to logits (n, classes).
        x: Inputs (n, …), pixels in [0, 1].
        y: True classes, int64 (n,).

    Returns:
        Zeros and ones (n,). Not differentiable.

    Raises:
        ValueError: If a label is not a class of the model, the model has one logit, or batch
            normalisation in train mode.
    """
    _model.independent(model)
    logits = _model.logits(model, x, y, classes=2)
    return (logits.argmax(1) == y).to(x.dtype)


def only_correct(model: nn.Module, data: Rows, *, device: str | torch.device = "cpu") -> Rows:
    """Return the images that a model classifies correctly, in their order.

    Explanations are compared on these: a wrong prediction raises other questions.

    Args:
        model: The network; moved to `device`.
        data: Images or sentences.
        device: Where to compute.

    Returns:
        The rows of `data` whose highest logit is the label's.

    Raises:
        ValueError: If the data are empty or none is classified correctly.
    """
    hits = evaluate(model, data, {"correct": correct}, device=device)["correct"]
    if not hits.any():
        raise ValueError(f"Expected data with a correctly classified image, got 0 of {len(data)}")
    return data[hits.nonzero()[:, 0]]
