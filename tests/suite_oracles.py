"""What tests of several attacks share: a score, an attribution that counts, small networks."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from attrlib import metrics
from attrlib.attributions import gradient
from attrlib.maps import to_heatmap
from attrlib.models import SmallCNN
from tests import oracles
from tests.oracles import seeded

TOP5 = partial(metrics.topk_intersection, k=5)


def scores(model: Any, x: Tensor, y: Tensor, z: Tensor, score: Any = TOP5) -> Tensor:
    a, b = (gradient(model, q, y) for q in (x, z))
    return score(a, b) if score is metrics.cosine else score(to_heatmap(a), to_heatmap(b))


class Counting:
    """An attribution that counts its derivatives, and the rows of each."""

    def __init__(self, attribution: Any = gradient) -> None:
        self.attribution = attribution
        self.climbed: list[int] = []
        self.starts: list[Tensor] = []
        self.models: list[object] = []

    def __call__(
        self, model: Any, x: Tensor, y: Tensor, /, *, generator: torch.Generator | None = None
    ) -> Tensor:
        if x.requires_grad:
            self.climbed.append(len(x))
            self.starts.append(x.detach().clone())
            self.models.append(model)
        return self.attribution(model, x, y, generator=generator)


def relu_net(dtype: torch.dtype) -> SmallCNN:
    return SmallCNN(size=8, classes=3, generator=seeded(0)).to(dtype)


def setting(dtype: torch.dtype, n: int = 6) -> tuple[nn.Module, Tensor, Tensor]:
    return oracles.softplus_net().to(dtype), oracles.images(n).to(dtype), oracles.labels(n)
