"""A batch as the network takes it."""

import torch
from torch import Tensor, nn

from attrlib.data import Images, Texts


def inputs(
    model: nn.Module, batch: Images | Texts, device: str | torch.device
) -> tuple[Tensor, Tensor]:
    """The inputs and labels of a batch on a device: pixels as they are, word numbers embedded by `model`.

    Word vectors are weights, so a loss of embedded sentences has a derivative in them; what an attack
    or a penalty takes as a constant, it detaches.
    """
    x, y = batch.x.to(device), batch.y.to(device)
    if not isinstance(batch, Texts):
        return x, y
    embed = getattr(model, "embed", None)
    if embed is None:
        raise ValueError(
            f"Expected model that embeds sentences, such as TextCNN, got {type(model).__name__}"
        )
    embedded: Tensor = embed(x)
    return embedded, y
