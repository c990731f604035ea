"""Captum and Quantus have the same scores of change at the same points, where definitions agree."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from captum import metrics as captum
from torch import Tensor, nn

from attrlib import attributions, sensitivity
from tests import oracles
from tests.sensitivity_oracles import RADIUS, SAMPLES, SCORES, neighbours

# Quantus imports OpenCV, which cannot be loaded where the system has no libGL.
quantus = pytest.importorskip("quantus", exc_type=ImportError)


@pytest.fixture
def net() -> nn.Module:
    return oracles.softplus_net().eval()


def _captum_noise(z: Tensor) -> Callable[..., Tensor]:
    """Our points, in the order in which Captum asks for them: all of one image, one after the other."""
    return lambda inputs, radius=None: z.transpose(0, 1).flatten(0, 1)


def test_captum_has_the_same_sensitivity_and_infidelity(net: nn.Module) -> None:
    x, y = oracles.images(), oracles.labels()
    z = neighbours(x, seed=3)

    def explain(inputs: Any, target: Tensor) -> Any:
        """Of the images in a tuple, of the points without."""
        if isinstance(inputs, tuple):
            return tuple(attributions.gradient(net, part, target) for part in inputs)
        return attributions.gradient(net, inputs, target)

    options: dict[str, Any] = {"radius": RADIUS, "samples": SAMPLES}
    theirs = captum.sensitivity_max(
        explain, x, _captum_noise(z), n_perturb_samples=SAMPLES, target=y
    )
    ours = sensitivity.max_sensitivity(
        attributions.gradient, net, x, y, **options, generator=oracles.seeded(3)
    )
    torch.testing.assert_close(ours, theirs)
    rows = neighbours(x, seed=3, own=False).transpose(0, 1).flatten(0, 1)

    def change(inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs - rows, rows

    for scaled in (False, True):
        missed = captum.infidelity(
            net,
            change,
            x,
            attributions.gradient(net, x, y),
            target=y,
            n_perturb_samples=SAMPLES,
            normalize=scaled,
        )
        ours = sensitivity.infidelity(
            attributions.gradient,
            net,
            x,
            y,
            **options,
            scaled=scaled,
            generator=oracles.seeded(3),
        )
        torch.testing.assert_close(ours, missed)


def test_captum_has_the_same_infidelity_of_squares(net: nn.Module) -> None:
    x, y, size = oracles.images(), oracles.labels(), 6
    corners = [(i, j) for i in range(3) for j in range(3)]
    masks = torch.zeros(len(corners), 1, 8, 8)
    for mask, (i, j) in zip(masks, corners, strict=True):
        mask[:, i : i + size, j : j + size] = 1
    every = masks.repeat(len(x), 1, 1, 1)  # Captum: all of one image, one after the other
    for scaled in (False, True):
        theirs = captum.infidelity(
            net,
            lambda inputs: (every, inputs * (1 - every)),
            x,
            attributions.input_x_gradient(net, x, y),
            target=y,
            n_perturb_samples=len(corners),
            normalize=scaled,
        )
        ours = sensitivity.square_infidelity(
            attributions.input_x_gradient, net, x, y, size=size, scaled=scaled
        )
        torch.testing.assert_close(ours, theirs)


def _points_in_turn(z: Tensor) -> Callable[..., np.ndarray]:
    """Our points as a perturbation of Quantus, which asks for one of each image at a time."""
    turn: Iterator[Tensor] = iter(z)
    return lambda arr, **ignored: next(turn).flatten(1).numpy()


def _explained(model: nn.Module, inputs: Any, targets: Any, **ignored: Any) -> np.ndarray:
    x, y = torch.as_tensor(inputs), torch.as_tensor(targets)
    return attributions.gradient(model, x.to(torch.get_default_dtype()), y).numpy()


def _asked(metric: Any, net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    found = metric(
        model=net,
        x_batch=x.numpy(),
        y_batch=y.numpy(),
        a_batch=attributions.gradient(net, x, y).numpy(),
        explain_func=_explained,
        device="cpu",
        channel_first=True,
    )
    return torch.tensor(np.array(found))


THEIRS = {
    "max_sensitivity": ("MaxSensitivity", {}),
    "average_sensitivity": ("AvgSensitivity", {}),
    "local_lipschitz": ("LocalLipschitzEstimate", {"normalise": False}),
    "relative_input_stability": ("RelativeInputStability", {}),
    "relative_output_stability": ("RelativeOutputStability", {}),
}


@pytest.mark.parametrize("name", THEIRS)
def test_quantus_has_the_same_scores(name: str, net: nn.Module) -> None:
    x = oracles.images()
    y = net(x).argmax(1)  # relative stability has no value in Quantus where the prediction changes
    z = neighbours(x, seed=3)
    theirs, options = THEIRS[name]
    metric = getattr(quantus, theirs)(
        nr_samples=SAMPLES, perturb_func=_points_in_turn(z), disable_warnings=True, **options
    )
    ours = SCORES[name](
        attributions.gradient,
        net,
        x,
        y,
        radius=RADIUS,
        samples=SAMPLES,
        generator=oracles.seeded(3),
    )
    assert (ours > 0).all()
    torch.testing.assert_close(ours, _asked(metric, net, x, y), rtol=1e-6, atol=0)


def test_quantus_has_the_same_continuity(net: nn.Module) -> None:
    x, y = oracles.images(), oracles.labels()
    x.view(4, -1)[:, 0] = 0  # its black is the smallest pixel
    steps = 8  # of 2 columns, from -6 to 8
    metric = quantus.Continuity(nr_steps=steps, abs=False, normalise=False, disable_warnings=True)
    shifts = [shift for shift in range(-6, 9, 2) if shift]
    ours = sensitivity.continuity(attributions.gradient, net, x, y, shifts=shifts)
    torch.testing.assert_close(ours, _asked(metric, net, x, y), rtol=1e-6, atol=0)


def test_quantus_scores_depend_on_the_other_images_where_it_normalises(net: nn.Module) -> None:
    x, y = oracles.images(), oracles.labels()
    brighter = x.clone()
    brighter[0] = 0.5
    scores = [
        _asked(quantus.Continuity(nr_steps=8, disable_warnings=True), net, images, y)[1:]
        for images in (x, brighter)
    ]
    assert not torch.allclose(*scores, rtol=1e-3)
    own = [
        sensitivity.continuity(attributions.gradient, net, images, y)[1:]
        for images in (x, brighter)
    ]
    assert torch.equal(*own)
