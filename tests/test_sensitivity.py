"""Scores of change: maps that change by a known amount, then Captum and Quantus at the same points."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from captum import metrics as captum
from torch import Tensor, nn

from attrlib import _random, attributions, sensitivity
from attrlib.attacks import L2Ball, LinfBall
from attrlib.types import Attribution, Norm
from tests import oracles

# Quantus imports OpenCV, which cannot be loaded where the system has no libGL.
quantus = pytest.importorskip("quantus", exc_type=ImportError)

RADIUS, SAMPLES = 0.04, 7
SCORES = {
    "max_sensitivity": sensitivity.max_sensitivity,
    "average_sensitivity": sensitivity.average_sensitivity,
    "local_lipschitz": sensitivity.local_lipschitz,
    "relative_input_stability": sensitivity.relative_input_stability,
    "relative_output_stability": sensitivity.relative_output_stability,
}
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())


class Squares(nn.Module):
    """f_c(x) = (c + 1)·|x|² / 2: its gradient is (c + 1)·x, with the Lipschitz constant c + 1."""

    def forward(self, x: Tensor) -> Tensor:
        energy = x.flatten(1).square().sum(1, keepdim=True) / 2
        return energy * torch.arange(1, oracles.CLASSES + 1).to(x)


def _neighbours(x: Tensor, *, seed: int, norm: Norm = "linf", own: bool = True) -> Tensor:
    """The points (samples, n, …) that scores with this seed look at."""
    source = oracles.seeded(seed)
    if own:
        torch.randint(2**62, (), generator=source)  # the seed of the attribution's own noise
    ball = LinfBall(eps=RADIUS) if norm == "linf" else L2Ball(eps=RADIUS)
    return torch.stack([ball.sample(x, source) for _ in range(SAMPLES)])


def _length(rows: Tensor) -> Tensor:
    return rows.flatten(2).norm(dim=2)


def _constant(value: float) -> Attribution:
    """A map that is the same for every image."""

    def attribution(
        model: Any, x: Tensor, y: Tensor, *, generator: torch.Generator | None = None
    ) -> Tensor:
        return torch.full_like(x, value)

    return attribution


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
    change = _length(_neighbours(x, seed=3, norm=norm) - x) / x.flatten(1).norm(dim=1)

    def value(score: Callable[..., Tensor]) -> Tensor:
        return score(attributions.gradient, model, x, y, **options, generator=oracles.seeded(3))

    torch.testing.assert_close(value(sensitivity.max_sensitivity), change.amax(0))
    torch.testing.assert_close(value(sensitivity.average_sensitivity), change.mean(0))
    torch.testing.assert_close(value(sensitivity.local_lipschitz), y + 1.0)
    torch.testing.assert_close(value(sensitivity.relative_input_stability), torch.ones(4))
    # All logits change by c·(|z|² - |x|²) / 2.
    z = _neighbours(x, seed=3, norm=norm)
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
    value = score(_constant(0.5), model, x, y, radius=RADIUS, samples=3, generator=generator)
    assert torch.equal(value, torch.zeros(4))
    assert torch.equal(sensitivity.continuity(_constant(0.5), model, x, y), torch.zeros(4))
    wrong = sensitivity.infidelity(_constant(0.5), model, x, y, radius=RADIUS, generator=generator)
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
    z = _neighbours(x, seed=3)
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
        value = score(_constant(0), model, x, y, radius=RADIUS, generator=generator)
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


# --- infidelity -----------------------------------------------------------------------------------


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
    z = _neighbours(x, seed=3, own=False).flatten(2)
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
        _constant(0), model, x, y, **options, generator=oracles.seeded(0)
    )
    assert (nothing > one).all()
    plain = sensitivity.infidelity(
        _constant(0), model, x, y, radius=RADIUS, generator=oracles.seeded(0)
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
        sensitivity.square_infidelity(_constant(torch.nan), model, x, y, size=2)
    with pytest.raises(ValueError, match="Expected size to be an integer from 1 to 8, got 9"):
        squares(model, x, y, size=9)
    with pytest.raises(ValueError, match=r"Expected baseline of shape"):
        squares(model, x, y, size=2, baseline=x[:2])
    with pytest.raises(ValueError, match=r"Expected x to be images \(n, channels, h, w\), got"):
        squares(oracles.Quadratic(), torch.rand(3, 5), oracles.labels(3), size=1)


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


# --- other libraries ------------------------------------------------------------------------------


@pytest.fixture
def net() -> nn.Module:
    return oracles.softplus_net().eval()


def _captum_noise(z: Tensor) -> Callable[..., Tensor]:
    """Our points, in the order in which Captum asks for them: all of one image, one after the other."""
    return lambda inputs, radius=None: z.transpose(0, 1).flatten(0, 1)


def test_captum_has_the_same_sensitivity_and_infidelity(net: nn.Module) -> None:
    x, y = oracles.images(), oracles.labels()
    z = _neighbours(x, seed=3)

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
    rows = _neighbours(x, seed=3, own=False).transpose(0, 1).flatten(0, 1)

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
    z = _neighbours(x, seed=3)
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
