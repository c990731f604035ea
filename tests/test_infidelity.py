"""Infidelity: models whose logits a map foretells, or misses by a known amount."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from attrlib import attributions, sensitivity
from tests import oracles
from tests.sensitivity_oracles import RADIUS, SAMPLES, Squares, constant, neighbours


def test_the_gradient_of_a_linear_model_foretells_everything(generator: torch.Generator) -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    noise = sensitivity.infidelity(
        attributions.gradient, model, x, y, radius=RADIUS, generator=generator
    )
    squares = sensitivity.square_infidelity(attributions.input_x_gradient, model, x, y, size=3)
    for value in (noise, squares):
        torch.testing.assert_close(value, torch.zeros(4), atol=1e-20, rtol=0)
    wrong = sensitivity.square_infidelity(attributions.gradient, model, x, y, size=3)
    assert (wrong > 1e-3).all()


@pytest.mark.parametrize("scaled", [False, True])
def test_the_gradient_of_a_quadratic_model_misses_the_second_order(scaled: bool) -> None:
    model, x, y = Squares(), oracles.images(), oracles.labels()
    z = neighbours(x, seed=3, own=False).flatten(2)
    rows, c = x.flatten(1), y + 1.0
    foretold = c * ((rows - z) * rows).sum(2)
    change = c * (rows.square().sum(1) - z.square().sum(2)) / 2
    if not scaled:
        torch.testing.assert_close(foretold - change, c * (rows - z).square().sum(2) / 2)
    best = (foretold * change).sum(0) / foretold.square().sum(0) if scaled else 1.0
    value = sensitivity.infidelity(
        attributions.gradient,
        model,
        x,
        y,
        radius=RADIUS,
        samples=SAMPLES,
        scaled=scaled,
        generator=oracles.seeded(3),
    )
    torch.testing.assert_close(value, (best * foretold - change).square().mean(0))


def test_a_scaled_score_does_not_see_the_length_of_a_map(generator: torch.Generator) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()

    def longer(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return -7 * attributions.gradient(model, x, y)

    options: dict[str, Any] = {"radius": RADIUS, "scaled": True}
    one, other = (
        sensitivity.infidelity(a, model, x, y, **options, generator=oracles.seeded(0))
        for a in (attributions.gradient, longer)
    )
    torch.testing.assert_close(one, other)
    # A map of zeros foretells no change, whatever its scale.
    nothing = sensitivity.infidelity(
        constant(0), model, x, y, **options, generator=oracles.seeded(0)
    )
    assert (nothing > one).all()
    plain = sensitivity.infidelity(
        constant(0), model, x, y, radius=RADIUS, generator=oracles.seeded(0)
    )
    torch.testing.assert_close(nothing, plain)


def test_squares_by_hand() -> None:
    model, x, y = oracles.softplus_net(channels=2), oracles.images(channels=2), oracles.labels()
    grey = torch.full((1, 2, 8, 8), 0.3)
    a = attributions.integrated_gradients(model, x, y)
    for size in (5, 8):
        misses = []
        for i in range(9 - size):
            for j in range(9 - size):
                z = x.clone()
                z[:, :, i : i + size, j : j + size] = 0.3
                change = (model(x) - model(z)).gather(1, y[:, None])[:, 0].detach()
                misses.append(a[:, :, i : i + size, j : j + size].sum((1, 2, 3)) - change)
        value = sensitivity.square_infidelity(
            attributions.integrated_gradients, model, x, y, size=size, baseline=grey
        )
        torch.testing.assert_close(value, torch.stack(misses).square().mean(0))


def test_complete_maps_foretell_a_square_as_large_as_the_image() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    attribution = partial(attributions.integrated_gradients, steps=200)
    value = sensitivity.square_infidelity(attribution, model, x, y, size=8)
    torch.testing.assert_close(value, torch.zeros(4), atol=1e-8, rtol=0)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_maps_and_squares_are_named(generator: torch.Generator) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()

    def heat(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return x[:, 0]

    squares = partial(sensitivity.square_infidelity, attributions.gradient)
    with pytest.raises(ValueError, match=r"Expected maps of shape \(4, 1, 8, 8\), got \(4, 8, 8\)"):
        sensitivity.infidelity(heat, model, x, y, radius=RADIUS, generator=generator)
    with pytest.raises(ValueError, match=r"Expected maps to be finite"):
        sensitivity.square_infidelity(constant(torch.nan), model, x, y, size=2)
    with pytest.raises(ValueError, match="Expected size to be an integer from 1 to 8, got 9"):
        squares(model, x, y, size=9)
    with pytest.raises(ValueError, match=r"Expected baseline of shape"):
        squares(model, x, y, size=2, baseline=x[:2])
    with pytest.raises(ValueError, match=r"Expected x to be images \(n, channels, h, w\), got"):
        squares(oracles.Quadratic(), torch.rand(3, 5), oracles.labels(3), size=1)
