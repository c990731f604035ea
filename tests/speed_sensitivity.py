"""What scores that sample cost, beside their passes and beside Quantus."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from attrlib import attributions, sensitivity
from tests.speed_measure import LONGEST, Case, passes

SAMPLES, RADIUS, SIZE = 20, 8 / 255, 4
STEPS = 28  # of the shifts of Quantus, of which one changes nothing
LIMIT, WITH_PREDICTIONS, THEIRS_LIMIT = 1.15, 1.5, 0.5


def sensitivity_cases(model: nn.Module, x: Tensor, y: Tensor) -> Iterable[Case]:
    """Yield scores of a batch beside gradients of as many images, and beside Quantus on the CPU.

    Quantus is given the same gradient. It works in NumPy, one sample of all images at a time, and checks
    each image for a change. As it needs at most four times the bare passes, nothing can be ten times as
    fast.
    """
    arrays = {"x_batch": x.cpu().numpy(), "y_batch": y.cpu().numpy(), "a_batch": None}
    options = {"device": x.device.type, "channel_first": True, "explain_func": explained}
    found: dict[str, Any] = {}
    if (quantus := _quantus()) is not None:
        usual = {"disable_warnings": True, "normalise": False}
        found = {
            "max_sensitivity": quantus.MaxSensitivity(nr_samples=SAMPLES, **usual),
            "local_lipschitz": quantus.LocalLipschitzEstimate(nr_samples=SAMPLES, **usual),
            "relative_input_stability": quantus.RelativeInputStability(nr_samples=SAMPLES, **usual),
            "continuity": quantus.Continuity(nr_steps=STEPS, abs=False, **usual),
        }
    width = x.shape[3]
    step = (2 * width + 1) // STEPS
    shifts = [shift for k in range(STEPS) if (shift := (k + 1) * step - width)]
    sampled = {"radius": RADIUS, "samples": SAMPLES}
    for score, settings, count in (
        (sensitivity.max_sensitivity, sampled, SAMPLES),
        (sensitivity.local_lipschitz, sampled, SAMPLES),
        (sensitivity.relative_input_stability, sampled, SAMPLES),
        (sensitivity.continuity, {"shifts": shifts}, len(shifts)),
    ):
        name = score.__name__
        asks = score is sensitivity.relative_input_stability  # a forward pass for each prediction
        metric = found.get(name)
        yield Case(
            f"{name}, {count} images near each",
            len(x),
            partial(score, attributions.gradient, model, x, y, **settings),
            (f"{count + 1} passes", partial(passes, model, x, y, times=count + 1)),
            metric and (f"quantus {name}", partial(metric, model=model, **arrays, **options)),
            limit=WITH_PREDICTIONS if asks else LIMIT,
            longest=LONGEST / 2,
            theirs_limit=THEIRS_LIMIT,
        )


def explained(model: nn.Module, inputs: Any, targets: Any, **ignored: Any) -> np.ndarray:
    """The gradient as Quantus asks for it."""
    weight = next(model.parameters())
    x, y = torch.as_tensor(inputs).to(weight), torch.as_tensor(targets).to(weight.device)
    return attributions.gradient(model, x, y).cpu().numpy()


def _quantus() -> Any:
    """The library, or None where it cannot be loaded: it needs the system's libGL."""
    try:
        import quantus
    except ImportError:
        return None
    return quantus
