"""What certificates cost, beside the passes that they cannot do without."""

from collections.abc import Iterable, Sequence
from copy import deepcopy
from functools import partial

import torch
from torch import Tensor, nn

from attrlib import attributions, certificates
from tests.speed_measure import LONGEST, Case, Work, fastest, passes

IMAGES, SAMPLES, RADIUS = 4, 512, 4.0
BOX_LIMITS = {
    torch.float32: 8.0,
    torch.float64: 5.0,
}  # bounds are in float64, whatever the images are


def certificate_cases(
    model: nn.Module, x: Tensor, y: Tensor, *, rows: Sequence[int]
) -> Iterable[Case]:
    """Yield bounds of a batch beside its gradient, and certificates by smoothing beside their passes.

    `rows` are the numbers of rows of a pass that are tried for the bare work.
    """
    for dtype, limit in BOX_LIMITS.items():
        net, images = deepcopy(model).to(dtype), x.to(dtype)
        bounds: Work = partial(certificates.gradient_bounds, net, images, y, eps=8 / 255)
        bare = partial(passes, net, images, y, times=1)
        name = f"gradient_bounds, {str(dtype).removeprefix('torch.')} images"
        yield Case(name, len(x), bounds, ("1 pass", bare), limit=limit)
    few, classes = x[:IMAGES], y[:IMAGES]
    noise = torch.Generator(device=x.device).manual_seed(0)

    def drawn(size: int) -> None:
        """Passes and noise of the ball, in float64, image by image."""
        for image, label in zip(few, classes, strict=True):
            for part in range(0, SAMPLES, size):
                shape = (min(size, SAMPLES - part), *image.shape)
                step = torch.randn(shape, generator=noise, device=x.device, dtype=torch.float64)
                share = torch.rand(len(step), generator=noise, device=x.device) ** (
                    1 / image.numel()
                )
                step *= (RADIUS * share / step.flatten(1).norm(dim=1)).view(-1, 1, 1, 1)
                passes(model, (image + step).to(x), label.expand(len(step)), times=1)

    best = fastest({size: partial(drawn, size) for size in rows}, device=x.device)
    for interval in (certificates.betting, certificates.bernstein):
        certify = partial(
            certificates.certify,
            certificates.normalized(attributions.gradient),
            model,
            few,
            classes,
            radius=RADIUS,
            eps=0.1,
            samples=SAMPLES,
            alpha=0.001,
            interval=interval,
            generator=torch.Generator().manual_seed(0),
        )
        name = f"certify, {SAMPLES} samples, {interval.__name__}"
        yield Case(
            name,
            IMAGES,
            certify,
            (f"{SAMPLES} passes and noise, {best} rows", partial(drawn, best)),
            longest=LONGEST / 2,
        )
