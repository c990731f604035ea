"""Faithfulness: linear models, on which every area is known, and images of a single pixel."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attrlib import attributions, faithfulness, maps, metrics
from attrlib.types import Inputs, Labels
from tests import oracles

# Quantus imports OpenCV, which cannot be loaded where the system has no libGL.
quantus = pytest.importorskip("quantus", exc_type=ImportError)

SHAPE = (2, 4, 4)  # two channels: a pixel goes in with both
logit_in = partial(faithfulness.insertion, output="logit", steps=16)
logit_out = partial(faithfulness.deletion, output="logit", steps=16)


def _case(n: int = 3) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model, images, labels, and what each pixel adds to the logit against black."""
    model = oracles.linear_net(SHAPE)
    x, y = oracles.images(n, channels=2, size=4), oracles.labels(n)
    parts = (model[1].weight[y].view(-1, *SHAPE) * x).sum(1).detach()
    return model, x, y, parts


def _logit(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return model(x).gather(1, y[:, None])[:, 0].detach()


# --- insertion and deletion -----------------------------------------------------------------------


def test_insertion_into_a_linear_model() -> None:
    model, x, y, parts = _case()
    h = oracles.images(3, size=4, seed=7)[:, 0]
    order = h.flatten(1).argsort(dim=1, descending=True)
    # The pixel that goes in as number q counts from its place to the end: (16 - q + 1/2) / 16.
    weights = (16 - torch.arange(1, 17) + 0.5) / 16
    bias = model[1].bias[y].detach()
    expected = bias + (parts.flatten(1).gather(1, order) * weights).sum(1)
    torch.testing.assert_close(logit_in(model, x, y, h), expected)
    # What is in and what is left out add up to the image, at each step.
    both = logit_in(model, x, y, h) + logit_out(model, x, y, h)
    torch.testing.assert_close(both, _logit(model, x, y) + bias)


def test_the_order_comes_from_the_map_of_the_changed_image() -> None:
    model, x, y, _ = _case()
    z = oracles.images(3, channels=2, size=4, seed=8)
    area = partial(
        faithfulness.adversarial_insertion, attribution=attributions.input_x_gradient, steps=16
    )
    own = maps.to_heatmap(attributions.input_x_gradient(model, x, y))
    other = maps.to_heatmap(attributions.input_x_gradient(model, z, y))
    insert = partial(faithfulness.insertion, steps=16)
    assert torch.equal(area(model, x, y, x), insert(model, x, y, own))
    assert torch.equal(area(model, x, y, z), insert(model, x, y, other))
    assert not torch.equal(area(model, x, y, z), area(model, x, y, x))
    # It is the pixels of x that go in: with all of them in, the model sees x.
    first, last = (area(model, v, y, z, output="logit", steps=1) for v in (x, torch.zeros_like(x)))
    torch.testing.assert_close(2 * first, _logit(model, x, y) + last)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_changed_image_of_another_shape_is_refused() -> None:
    model, x, y, _ = _case()
    with pytest.raises(ValueError, match=r"Expected z of shape \(3, 2, 4, 4\), got \(2, 2, 4, 4\)"):
        faithfulness.adversarial_insertion(model, x, y, x[:2], attribution=attributions.gradient)


def test_the_contributions_are_the_best_order_of_a_linear_model() -> None:
    model, x, y, parts = _case(1)
    keep = torch.zeros(4, 4)
    keep[1, 1:3] = keep[2, 1:3] = 1
    x = x * keep  # 4 pixels that count, so that all their orders can be tried
    parts = parts * keep
    best, worst = logit_in(model, x, y, parts), logit_in(model, x, y, -parts)
    inside = keep.flatten().nonzero().flatten()
    values = []
    for order in itertools.permutations(range(1, 5)):
        h = torch.zeros(16)
        h[inside] = torch.tensor(order).to(h)
        values.append(logit_in(model, x, y, h.view(1, 4, 4)).item())
    assert best.item() >= max(values) - 1e-12
    assert worst.item() <= min(values) + 1e-12
    assert logit_out(model, x, y, parts).item() < logit_out(model, x, y, -parts).item()


@pytest.mark.parametrize("output", ["probability", "logit"])
def test_deletion_is_insertion_backwards(output: faithfulness.Output) -> None:
    model, x, y, _ = _case()
    h = oracles.images(3, size=4, seed=7)[:, 0]
    options = {"output": output, "steps": 8, "baseline": torch.full((1, *SHAPE), 0.3)}
    torch.testing.assert_close(
        faithfulness.deletion(model, x, y, h, **options),
        faithfulness.insertion(model, x, y, -h, **options),
    )


@pytest.mark.parametrize("steps", [4, 9, 36])
def test_deletion_of_grey_images_is_the_pixel_flipping_of_quantus(steps: int) -> None:
    """Where the definitions agree: entries are pixels, and a number hides them.

    Elsewhere they do not. Quantus hides with the smallest pixel of the image under the name "black",
    counts every channel of a pixel as a feature of its own, and its area leaves out the untouched image
    and is not divided by the number of steps; version 0.6 cannot compute it with NumPy 2.4 and later.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 20), nn.Softplus(), nn.Linear(20, 10)).eval()
    x, y, h = oracles.images(3, size=6), oracles.labels(3), oracles.images(3, size=6, seed=7)[:, 0]
    flipping = quantus.PixelFlipping(
        features_in_step=36 // steps, perturb_baseline=0.0, disable_warnings=True
    )
    for area, order in ((faithfulness.deletion, h), (faithfulness.insertion, -h)):
        batch = {"x_batch": x, "y_batch": y, "a_batch": h[:, None]}
        arrays = {name: value.numpy() for name, value in batch.items()}
        curve = flipping(model=model, **arrays, device="cpu", softmax=True)
        untouched = model(x).softmax(1).gather(1, y[:, None])
        points = torch.cat([untouched.detach(), torch.tensor(np.array(curve))], dim=1)
        expected = torch.trapezoid(points, dim=1) / steps
        torch.testing.assert_close(area(model, x, y, order, steps=steps), expected)


def test_one_step_is_the_mean_of_the_ends() -> None:
    model, x, y, h = _case()
    baseline = torch.full((1, *SHAPE), 0.4)
    ends = (model(x).softmax(1), model(baseline.expand_as(x)).softmax(1))
    expected = sum(p.gather(1, y[:, None])[:, 0].detach() for p in ends) / 2
    for score in (faithfulness.insertion, faithfulness.deletion):
        torch.testing.assert_close(score(model, x, y, h, baseline=baseline, steps=1), expected)
    # An image that is the baseline has a flat curve.
    flat = baseline.expand_as(x)
    torch.testing.assert_close(
        faithfulness.insertion(model, flat, y, h, baseline=baseline, steps=5),
        model(flat).softmax(1).gather(1, y[:, None])[:, 0].detach(),
    )


class Corner(nn.Module):
    """Logits that see the upper left pixel only."""

    def forward(self, x: Tensor) -> Tensor:
        seen = x[:, 0, 0, 0]
        return torch.stack([torch.zeros_like(seen), seen], dim=1)


@pytest.mark.parametrize("steps", [1, 3, 7, 16])
def test_uneven_steps_weigh_by_their_pixels(steps: int) -> None:
    x, y = torch.ones(1, 1, 4, 4), torch.tensor([1])
    counts = [step * 16 // steps for step in range(steps + 1)]
    for place in (0, 5, 15):
        h = torch.arange(16.0, 0, -1)
        h[0] = 15.5 - place  # the corner goes in after `place` others
        value = faithfulness.insertion(
            Corner(), x, y, h.view(1, 4, 4), steps=steps, output="logit"
        ).item()
        after = [float(count > place) for count in counts]
        pieces = zip(itertools.pairwise(after), itertools.pairwise(counts), strict=True)
        expected = sum(
            (low + high) / 2 * (end - start) / 16 for (low, high), (start, end) in pieces
        )
        assert value == pytest.approx(expected, abs=1e-12)


def test_ties_go_in_from_the_first_pixel_and_none_is_dropped() -> None:
    x, y = torch.ones(1, 1, 4, 4), torch.tensor([1])
    tied = torch.zeros(1, 4, 4)
    score = partial(faithfulness.insertion, Corner(), steps=16, output="logit")
    assert score(x, y, tied).item() == pytest.approx(15.5 / 16)
    assert faithfulness.deletion(
        Corner(), x, y, tied, steps=16, output="logit"
    ).item() == pytest.approx(0.5 / 16)


def test_only_the_order_of_a_map_counts() -> None:
    model, x, y, h = _case()
    for score in (logit_in, logit_out):
        assert torch.equal(score(model, x, y, h), score(model, x, y, (3 * h).exp() - 2))


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named() -> None:
    model, x, y, h = _case()
    for score in (logit_in, logit_out):
        with pytest.raises(
            ValueError, match="Expected steps to be an integer from 1 to 16, got 17"
        ):
            score(model, x, y, h, steps=17)
        with pytest.raises(
            ValueError, match="Expected output to be one of probability, logit, got"
        ):
            score(model, x, y, h, output="loss")
        with pytest.raises(ValueError, match=r"Expected x of shape \(3, channels, 4, 3\) to fit h"):
            score(model, x, y, h[:, :, 1:])
        with pytest.raises(ValueError, match="Expected h to be finite"):
            score(model, x, y, h / 0)
        with pytest.raises(ValueError, match=r"Expected baseline of shape .* or one row of it"):
            score(model, x, y, h, baseline=x[:2])
        with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
            score(model, x, y + 3, h)


# --- random perturbations -------------------------------------------------------------------------


def test_a_linear_model_has_a_perfectly_stable_gradient(generator: torch.Generator) -> None:
    model, x, y, _ = _case()
    value = faithfulness.random_perturbation_similarity(
        model,
        x,
        y,
        attribution=attributions.gradient,
        metric=metrics.cosine,
        eps=0.5,
        generator=generator,
    )
    torch.testing.assert_close(value, torch.ones(3))


def test_input_times_gradient_of_a_linear_model_moves_with_the_pixels() -> None:
    model, x, y, _ = _case()
    weight = model[1].weight[y].view(-1, *SHAPE).detach()
    draws, eps = 4, 0.2
    value = faithfulness.random_perturbation_similarity(
        model,
        x,
        y,
        attribution=attributions.input_x_gradient,
        metric=metrics.cosine,
        eps=eps,
        draws=draws,
        generator=oracles.seeded(5),
    )
    source = oracles.seeded(5)
    torch.randint(2**62, (), generator=source)  # the seed of the attribution's own noise
    clean, expected = (weight * x).abs().sum(1), torch.zeros(3)
    for _ in range(draws):
        noise = 2 * torch.rand(x.shape, generator=source) - 1
        z = (x + eps * noise).clamp(0, 1)
        expected += metrics.cosine(clean, (weight * z).abs().sum(1)) / draws
    torch.testing.assert_close(value, expected)
    assert (value < 1).all()


def test_no_noise_gives_the_best_value_of_a_stochastic_attribution() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    stability = partial(
        faithfulness.random_perturbation_similarity,
        model,
        x,
        y,
        attribution=partial(attributions.smooth_grad, sigma=0.2, samples=2),
        metric=partial(metrics.topk_intersection, k=9),
        draws=5,
    )
    assert torch.equal(stability(eps=0, generator=oracles.seeded(0)), torch.ones(4))
    assert stability(eps=0.3, generator=oracles.seeded(0)).mean() < 0.95


def test_noisy_copies_are_pixels_within_eps(generator: torch.Generator) -> None:
    model, x, y = oracles.softplus_net(), oracles.images().round(decimals=1), oracles.labels()
    seen: list[Tensor] = []

    def attribution(
        model: nn.Module, x: Inputs, y: Labels, *, generator: torch.Generator | None = None
    ) -> Tensor:
        seen.append(x)
        return attributions.gradient(model, x, y)

    faithfulness.random_perturbation_similarity(
        model,
        x,
        y,
        attribution=attribution,
        metric=metrics.cosine,
        eps=0.3,
        draws=3,
        generator=generator,
    )
    assert len(seen) == 4
    assert torch.equal(seen[0], x)
    for z in seen[1:]:
        assert 0 <= z.min()
        assert z.max() <= 1
        assert 0.2 < (z - x).abs().max() <= 0.3 + 1e-12


def test_a_copy_without_a_score_leaves_none(generator: torch.Generator) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()

    def attribution(
        model: nn.Module, x: Inputs, y: Labels, *, generator: torch.Generator | None = None
    ) -> Tensor:
        a = attributions.gradient(model, x, y)
        a[1] = 0
        return a

    value = faithfulness.random_perturbation_similarity(
        model,
        x,
        y,
        attribution=attribution,
        metric=metrics.kendall,
        eps=0.1,
        draws=2,
        generator=generator,
    )
    assert value.isnan().tolist() == [False, True, False, False]


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_settings_are_named() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    stability = partial(
        faithfulness.random_perturbation_similarity,
        attribution=attributions.gradient,
        metric=metrics.cosine,
    )
    with pytest.raises(ValueError, match="Expected eps >= 0, got -1"):
        stability(model, x, y, eps=-1)
    with pytest.raises(ValueError, match="Expected draws to be an integer >= 1, got 0"):
        stability(model, x, y, eps=0.1, draws=0)
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\], got"):
        stability(model, 2 * x, y, eps=0.1)
    assert not math.isnan(stability(model, x, y, eps=0.1, generator=oracles.seeded(0)).sum())
