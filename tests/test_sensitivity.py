"""Scores of change: maps and models that change by a known amount."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import _random, attributions, sensitivity
from attrlib.types import Norm
from tests import oracles
from tests.sensitivity_oracles import RADIUS, SAMPLES, SCORES, Squares, constant, neighbours

every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())


def _length(rows: Tensor) -> Tensor:
    return rows.flatten(2).norm(dim=2)


# --- closed forms ---------------------------------------------------------------------------------


@every_score
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_gradient_of_a_linear_model_does_not_change(
    score: Callable[..., Tensor], norm: Norm, generator: torch.Generator
) -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    value = score(attributions.gradient, model, x, y, radius=RADIUS, norm=norm, generator=generator)
    assert torch.equal(value, torch.zeros(4))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_quadratic_model_gives_exact_values(norm: Norm) -> None:
    model, x, y = Squares(), oracles.images(), oracles.labels()
    options: dict[str, Any] = {"radius": RADIUS, "samples": SAMPLES, "norm": norm}
    change = _length(neighbours(x, seed=3, norm=norm) - x) / x.flatten(1).norm(dim=1)

    def value(score: Callable[..., Tensor]) -> Tensor:
        return score(attributions.gradient, model, x, y, **options, generator=oracles.seeded(3))

    torch.testing.assert_close(value(sensitivity.max_sensitivity), change.amax(0))
    torch.testing.assert_close(value(sensitivity.average_sensitivity), change.mean(0))
    torch.testing.assert_close(value(sensitivity.local_lipschitz), y + 1.0)
    torch.testing.assert_close(value(sensitivity.relative_input_stability), torch.ones(4))
    # All logits change by c·(|z|² - |x|²) / 2.
    z = neighbours(x, seed=3, norm=norm)
    energy = (z.flatten(2).square().sum(2) - x.flatten(1).square().sum(1)).abs() / 2
    logits = energy * torch.arange(1.0, oracles.CLASSES + 1).norm()
    expected = (_length((z - x) / x) / logits).amax(0)
    torch.testing.assert_close(value(sensitivity.relative_output_stability), expected)


def test_a_quadratic_model_has_the_lipschitz_constant_of_its_hessian(
    generator: torch.Generator,
) -> None:
    model = oracles.Quadratic()
    x, y = 0.2 + 0.6 * torch.rand(3, 5, generator=generator), oracles.labels(3)
    value = sensitivity.local_lipschitz(
        attributions.gradient, model, x, y, radius=0.1, samples=1000, generator=generator
    )
    largest = torch.linalg.matrix_norm(model.h[y].detach(), ord=2)
    assert (value <= largest + 1e-9).all()
    assert (value > 0.95 * largest).all()


@every_score
def test_a_map_that_ignores_the_image_is_called_perfect(
    score: Callable[..., Tensor], generator: torch.Generator
) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    value = score(constant(0.5), model, x, y, radius=RADIUS, samples=3, generator=generator)
    assert torch.equal(value, torch.zeros(4))
    assert torch.equal(sensitivity.continuity(constant(0.5), model, x, y), torch.zeros(4))
    wrong = sensitivity.infidelity(constant(0.5), model, x, y, radius=RADIUS, generator=generator)
    own = sensitivity.infidelity(
        attributions.gradient, model, x, y, radius=RADIUS, generator=generator
    )
    assert (wrong > 10 * own).all()


@every_score
def test_own_noise_of_a_map_is_no_change(
    score: Callable[..., Tensor], generator: torch.Generator
) -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()

    def noise(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return _random.normal_like(x, generator=generator)

    for batch_size in (None, 3, 5):
        value = score(noise, model, x, y, radius=RADIUS, batch_size=batch_size, generator=generator)
        assert torch.equal(value, torch.zeros(4))


def test_more_samples_find_more(generator: torch.Generator) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    for score in (sensitivity.max_sensitivity, sensitivity.local_lipschitz):
        few, many = (
            score(
                attributions.gradient,
                model,
                x,
                y,
                radius=RADIUS,
                samples=samples,
                generator=oracles.seeded(5),
            )
            for samples in (2, 50)
        )
        assert (many >= few).all()
        assert (many > few).any()


@every_score
def test_points_do_not_depend_on_the_size_of_a_pass(score: Callable[..., Tensor]) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    attribution = partial(attributions.smooth_grad, sigma=0.1, samples=2)
    first, *others = (
        score(
            attribution,
            model,
            x,
            y,
            radius=RADIUS,
            samples=SAMPLES,
            batch_size=batch_size,
            generator=oracles.seeded(5),
        )
        for batch_size in (None, 1, 3, 4, 9)
    )
    for other in others:
        torch.testing.assert_close(other, first)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_are_pixels_within_the_radius(norm: Norm, generator: torch.Generator) -> None:
    model, x, y = oracles.linear_net(), oracles.images().round(decimals=1), oracles.labels()
    seen: list[Tensor] = []

    def attribution(
        model: nn.Module, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        seen.append(x)
        return attributions.gradient(model, x, y)

    radius = 0.3
    sensitivity.max_sensitivity(
        attribution, model, x, y, radius=radius, samples=6, norm=norm, generator=generator
    )
    assert torch.equal(seen[0], x)
    (z,) = seen[1:]  # all 24 in one pass
    assert z.shape == (24, 1, 8, 8)
    assert 0 <= z.min()
    assert z.max() <= 1
    change = (z.view(6, 4, 64) - x.view(4, 64)).flatten(0, 1)
    lengths = change.norm(dim=1) if norm == "l2" else change.abs().amax(1)
    assert 0.9 * radius < lengths.max() <= radius
    assert (z == 0).any()


def test_samples_that_change_the_prediction_are_left_out() -> None:
    class Half(nn.Module):
        """Its first logit is ahead where the image is as bright as it was."""

        def forward(self, x: Tensor) -> Tensor:
            mean = x.flatten(1).mean(1)
            return torch.stack([mean, torch.full_like(mean, 0.5), 0 * mean], dim=1)

    x, y = torch.full((2, 1, 8, 8), 0.5) + 1e-9, torch.zeros(2, dtype=torch.int64)
    options: dict[str, Any] = {"radius": RADIUS, "samples": SAMPLES}
    z = neighbours(x, seed=3)
    kept = z.flatten(2).mean(2) > 0.5
    assert kept.any(0).all()
    assert not kept.all(0).any()
    a, b = x * 1, z
    expected = torch.where(kept, _length((b - a) / a) / _length((z - x) / x), 0).amax(0)

    def itself(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return x.clone()

    value = sensitivity.relative_input_stability(
        itself, Half(), x, y, **options, generator=oracles.seeded(3)
    )
    torch.testing.assert_close(value, expected)
    # No sample keeps the prediction: the other logit is ahead everywhere but at x.
    for score in (sensitivity.relative_input_stability, sensitivity.relative_output_stability):
        lonely = score(itself, Peak(), x, y, **options, generator=oracles.seeded(3))
        assert lonely.isnan().all()


class Peak(nn.Module):
    """The first class at grey images only."""

    def forward(self, x: Tensor) -> Tensor:
        far = (x - 0.5).flatten(1).abs().amax(1) - 1e-6
        return torch.stack([-far, far], dim=1)


def test_a_map_of_zeros_has_no_relative_change(generator: torch.Generator) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    for score in (sensitivity.max_sensitivity, sensitivity.average_sensitivity):
        value = score(constant(0), model, x, y, radius=RADIUS, generator=generator)
        assert value.isnan().all()


# --- quotients ------------------------------------------------------------------------------------


def test_quotients_by_hand() -> None:
    a, b = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 3.0], [1.0, 0.0]])
    x, z = torch.tensor([[0.5, 0.2], [0.5, 0.5]]), torch.tensor([[0.5, 0.1], [0.5, 0.5]])
    change = sensitivity.relative_change(a, b)
    torch.testing.assert_close(change, torch.tensor([0.2, torch.nan]), equal_nan=True)
    for order in (1, 2):
        quotient = sensitivity.lipschitz_quotient(a, b, x, z, order=order)
        torch.testing.assert_close(quotient, torch.tensor([10, torch.nan]), equal_nan=True)
    both = sensitivity.lipschitz_quotient(a[:1], a[:1] + 1, x[:1], z[:1], order=1)
    torch.testing.assert_close(both, torch.tensor([20.0]))
    inputs = sensitivity.relative_input_quotient(a, b, x, z, floor=0.01)
    torch.testing.assert_close(inputs, torch.tensor([0.25 / 0.5, 100 / 0.01]))
    outputs = sensitivity.relative_output_quotient(a, b, 2 * x, 2 * z, floor=0.01)
    torch.testing.assert_close(outputs, torch.tensor([0.25 / 0.2, 100 / 0.01]))


@pytest.mark.usefixtures("unchecked_shapes")
def test_quotients_name_what_is_wrong() -> None:
    a = torch.rand(2, 3)
    with pytest.raises(ValueError, match="Expected a and b to have one shape"):
        sensitivity.relative_change(a, a[:, 1:])
    with pytest.raises(ValueError, match="Expected x and z to have one shape"):
        sensitivity.lipschitz_quotient(a, a, a, a[:, 1:])
    with pytest.raises(ValueError, match="Expected f and g to have one shape"):
        sensitivity.relative_output_quotient(a, a, a, a[:, 1:])
    with pytest.raises(ValueError, match="Expected b to be finite"):
        sensitivity.relative_input_quotient(a, a / 0, a, a)
    with pytest.raises(ValueError, match="Expected floor > 0, got 0"):
        sensitivity.relative_input_quotient(a, a, a, a, floor=0)
    with pytest.raises(ValueError, match="Expected order to be an integer from 1 to 2, got 3"):
        sensitivity.lipschitz_quotient(a, a, a, a, order=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="Expected a to be a floating-point tensor"):
        sensitivity.relative_change(a.long(), a)


# --- continuity -----------------------------------------------------------------------------------


def test_continuity_of_known_maps() -> None:
    x, y = oracles.images(), oracles.labels()
    linear = oracles.linear_net()
    assert torch.equal(sensitivity.continuity(attributions.gradient, linear, x, y), torch.zeros(4))
    # Moved by the whole width, an image is black, and so is the map of squares.
    away = sensitivity.continuity(attributions.gradient, Squares(), x, y, shifts=[8])
    rows = x.flatten(1)
    torch.testing.assert_close(away, (y + 1) * rows.norm(p=1, dim=1) / rows.norm(dim=1))
    # By one column, by hand.
    right = torch.cat([torch.zeros(4, 1, 8, 1), x[..., :-1]], dim=3)
    left = torch.cat([x[..., 1:], torch.zeros(4, 1, 8, 1)], dim=3)
    for shifts, moved in (([1], (right,)), ([-1], (left,)), ([-1, 1], (left, right))):
        value = sensitivity.continuity(attributions.gradient, Squares(), x, y, shifts=shifts)
        changes = [(z - x).flatten(1) for z in moved]
        quotients = [(y + 1) * c.norm(p=1, dim=1) / c.norm(dim=1) for c in changes]
        torch.testing.assert_close(value, torch.stack(quotients).amax(0))


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_shifts_are_named() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    continuity = partial(sensitivity.continuity, attributions.gradient)
    with pytest.raises(ValueError, match="Expected shifts to be an integer from -8 to 8, got 9"):
        continuity(model, x, y, shifts=[1, 9])
    for none in ((), (0, 1)):
        with pytest.raises(ValueError, match="Expected shifts to be numbers other than 0, got"):
            continuity(model, x, y, shifts=none)
    with pytest.raises(ValueError, match=r"Expected x to be images \(n, channels, h, w\), got"):
        continuity(oracles.Quadratic(), torch.rand(3, 5), oracles.labels(3))


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    "score", [*SCORES.values(), sensitivity.infidelity], ids=[*SCORES, "infidelity"]
)
def test_bad_settings_are_named(score: Callable[..., Tensor]) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    bound = partial(score, attributions.gradient, model)
    with pytest.raises(ValueError, match="Expected radius > 0, got 0"):
        bound(x, y, radius=0)
    with pytest.raises(ValueError, match="Expected samples to be an integer >= 1, got 0"):
        bound(x, y, radius=0.1, samples=0)
    with pytest.raises(ValueError, match="Expected batch_size to be an integer >= 1, got 0"):
        bound(x, y, radius=0.1, batch_size=0)
    with pytest.raises(ValueError, match="Expected norm to be one of linf, l2, got 'l1'"):
        bound(x, y, radius=0.1, norm="l1")
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\], got"):
        bound(2 * x, y, radius=0.1)
    with pytest.raises(ValueError, match=r"call model.eval\(\)"):
        score(attributions.gradient, nn.Sequential(nn.Dropout(), model).train(), x, y, radius=0.1)
