"""What bounds of entries say about order, soft stability, and the first-order estimate."""

import itertools
import math
from functools import partial

import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from attrlib import attributions, metrics
from attrlib.certificates import (
    Certificate,
    Gaussian,
    UniformBall,
    certified_kendall,
    certified_pixels,
    certified_topk_overlap,
    certify,
    first_order_estimate,
    soft_stability,
    sparsified,
    stability_samples,
)
from tests import oracles


def _box(generator: torch.Generator, n: int = 40, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    a = torch.rand(n, size, generator=generator)
    down, up = (0.3 * torch.rand(n, size, generator=generator) for _ in range(2))
    return a - down, a + up, a


# --- order ----------------------------------------------------------------------------------------


def test_levines_condition() -> None:
    """Rank i against rank 2k - i + 1, for Gaussian noise and ρ/σ = .3."""
    mean, law = torch.tensor([0.9, 0.7, 0.5, 0.3]), Gaussian(sigma=1.0)
    moved = law.lowest(mean, 2 * 0.3, 1)
    assert moved.tolist() == pytest.approx([0.7522, 0.4699, 0.2743, 0.1304], abs=5e-5)
    low, high = law.lowest(mean, 0.3, 1), 1 - law.lowest(1 - mean, 0.3, 1)
    for k in (1, 2):
        pairs = [moved[i] > mean[2 * k - 1 - i] for i in range(k)]
        expected = max([i + 1 for i in range(k) if pairs[i]], default=0) / k
        found = certified_topk_overlap(low[None], high[None], mean[None].double(), k=k)
        assert found.item() == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3, 4, 6, 8])
def test_overlap_is_the_least_over_the_corners(k: int, generator: torch.Generator) -> None:
    low, high, a = _box(generator, n=12)
    found = certified_topk_overlap(low, high, a, k=k)
    corners = torch.tensor(list(itertools.product([False, True], repeat=8)))
    for i in range(len(a)):
        maps = torch.where(corners, high[i], low[i])
        same = metrics.topk_intersection(a[i].expand(256, 8)[:, None], maps[:, None], k=k)
        assert found[i].item() == pytest.approx(same.min().item())


def test_kendall_is_below_all_maps_in_the_box(generator: torch.Generator) -> None:
    low, high, a = _box(generator, n=10)
    bound = certified_kendall(low, high, a)
    slow = torch.stack(
        [torch.stack([low[:, i] > high[:, j] for i in range(8) if i != j]).sum(0) for j in range(8)]
    ).sum(0)
    torch.testing.assert_close(bound, 2 * slow.to(a) / 28 - 1)
    closest = 2.0
    for _ in range(30):
        ends = (torch.rand(a.shape, generator=generator) * 1.2 - 0.1).clamp(0, 1)
        tau = metrics.kendall(a[:, None], (low + (high - low) * ends)[:, None])
        assert (tau >= bound - 1e-9).all()
        closest = min(closest, (tau - bound).min().item())
    assert closest < 0.3
    assert (certified_kendall(a, a, a) == 1).all()


def test_pixels_by_hand() -> None:
    low = torch.tensor([[0.6, 0.1, 0.4, 0.5]])
    pixels = certified_pixels(low, torch.tensor([[0.9, 0.3, 0.6, 0.8]]))
    assert pixels.inside.tolist() == [[True, False, False, False]]
    assert pixels.outside.tolist() == [[False, True, False, False]]


class _Steps(nn.Module):
    """Logits whose gradient falls from pixel to pixel and is the same for all images."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        weights = torch.arange(flat.shape[1], 0, -1).to(flat)
        return torch.cat([(weights * flat).sum(1, keepdim=True), 0 * flat[:, :1]], 1)


def _certified(**law: float) -> Certificate:
    g = sparsified(attributions.gradient, k=3)
    x, y = oracles.images(2), torch.zeros(2, dtype=torch.int64)
    return certify(
        g, _Steps(), x, y, eps=0.05, samples=400, alpha=0.01, generator=oracles.seeded(0), **law
    )


@pytest.mark.parametrize("law", [{"radius": 4.0}, {"sigma": 0.5}])
def test_sets_of_a_constant_order_are_certified(law: dict[str, float]) -> None:
    """Noise changes nothing, so only the samples and the law limit what is certain."""
    c = _certified(**law)
    lower, upper = c.entries(0.05)
    pick = stats.beta.ppf(0.01 / 128, 400, 1)  # all of 400 draws, 64 pixels, two sides
    here = torch.tensor([pick], dtype=torch.float64)
    assert lower.max().item() == pytest.approx(c.law.lowest(here, 0.05, 64).item())
    assert (certified_topk_overlap(lower, upper, c.mean, k=3) == 1).all()
    pixels = certified_pixels(lower, upper)
    assert torch.equal(pixels.inside, c.mean == 1)
    assert torch.equal(pixels.outside, c.mean == 0)
    tau = certified_kendall(lower, upper, c.mean)
    assert tau.tolist() == pytest.approx([2 * 3 * 61 / (64 * 63 / 2) - 1] * 2)
    wide = c.entries(1.9)
    assert (wide[0] <= lower).all()
    assert (wide[1] >= upper).all()
    assert (certified_topk_overlap(*wide, c.mean, k=3) == 0).all()


def test_gaussian_noise_keeps_more_of_a_set() -> None:
    """At equal lost volume: probabilities near 1 move less."""
    mean = torch.tensor([0.99], dtype=torch.float64)
    ball, law = UniformBall(radius=4.0), Gaussian(sigma=4.0 / math.sqrt(786))
    assert ball.lost(0.1, 784) == pytest.approx(law.lost(0.1, 784), abs=1e-3)
    assert law.lowest(mean, 0.1, 784) > 0.94
    assert ball.lowest(mean, 0.1, 784) < 0.72


@pytest.mark.parametrize("call", [partial(certified_topk_overlap, k=2), certified_kendall])
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_boxes_are_named(call: partial[Tensor], generator: torch.Generator) -> None:
    low, high, a = _box(generator)
    with pytest.raises(
        ValueError, match="Expected a between lower and upper, got 1 entries outside"
    ):
        call(low, high, a + torch.eye(40, 8) * (torch.arange(40) == 3)[:, None])
    with pytest.raises(ValueError, match="Expected lower <= upper, got 320 entries"):
        call(high, low, a)
    with pytest.raises(ValueError, match="Expected lower and a to have one shape"):
        call(low, high, a[:, 1:])
    with pytest.raises(ValueError, match="Expected lower to be finite"):
        call(low * torch.nan, high, a)
    with pytest.raises(TypeError, match="Expected a to be a floating-point tensor"):
        call(low, high, a.long())
    with pytest.raises(ValueError, match="Expected k to be an integer from 1 to 8, got 9"):
        certified_topk_overlap(low, high, a, k=9)


# --- soft stability -------------------------------------------------------------------------------


class _Count(nn.Module):
    """Class 1 where more than `limit` pixels are shown."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        shown = (x.flatten(1) > 0).sum(1, keepdim=True).to(x)
        return torch.cat([self.limit + 0.5 - shown, shown - self.limit - 0.5], 1)


def _stable(limit: int, samples: int = 2000, **options: object) -> object:
    x, kept = torch.ones(2, 1, 3, 3), torch.zeros(2, 3, 3, dtype=torch.bool)
    kept[0, 0], kept[1] = True, True
    settings = {"additions": 2, "samples": samples, "alpha": 0.01, "generator": oracles.seeded(0)}
    return soft_stability(_Count(limit), x, kept, **(settings | options))


def test_stability_by_counting_sets() -> None:
    """6 hidden pixels: 1 set of none, 6 of one, 15 of two; with a limit of 4 those of two change it."""
    result = _stable(4)
    assert result.rate[0].item() == pytest.approx(7 / 22, abs=4 * 0.5 / math.sqrt(2000))
    assert result.lower[0] <= 7 / 22
    known = stats.binomtest(round(result.rate[0].item() * 2000), 2000, alternative="greater")
    assert result.lower[0].item() == pytest.approx(known.proportion_ci(0.99, "exact").low)
    assert result.rate[1] == 1  # nothing is hidden
    assert _stable(5, samples=50).rate.tolist() == [1, 1]
    assert _stable(3, additions=0, samples=50).rate.tolist() == [1, 1]
    never = _stable(3, samples=300)
    assert never.rate[0].item() == pytest.approx(1 / 22, abs=0.06)


def test_stability_does_not_depend_on_the_batch() -> None:
    whole, parts = _stable(4, samples=99), _stable(4, samples=99, batch_size=5)
    assert torch.equal(whole.rate, parts.rate)


def test_stability_with_a_baseline_and_many_pixels() -> None:
    model, x = oracles.softplus_net(), oracles.images()
    kept = x[:, 0] > 0.5
    ask = partial(soft_stability, model, x, kept, alpha=0.05, additions=30, samples=20)
    result = ask(generator=oracles.seeded(0))
    assert ((result.rate >= result.lower) & (result.lower >= 0)).all()
    own = ask(baseline=x, generator=oracles.seeded(0))  # hiding nothing changes nothing
    assert (own.rate == 1).all()


def test_samples_of_stability() -> None:
    assert stability_samples(0.05, alpha=0.01) == math.ceil(math.log(200) / 0.005)
    with pytest.raises(ValueError, match="Expected error strictly between 0 and 1, got 0"):
        stability_samples(0, alpha=0.1)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_explanations_are_named() -> None:
    x = torch.ones(2, 1, 3, 3)
    ask = partial(soft_stability, _Count(4), generator=oracles.seeded(0))
    good = {"additions": 1, "samples": 2, "alpha": 0.1}
    mask = torch.ones(2, 3, 3, dtype=torch.bool)
    with pytest.raises(TypeError, match=r"Expected kept to be a boolean tensor, got torch.float"):
        ask(x, mask.float(), **good)
    with pytest.raises(ValueError, match=r"Expected images .* got \(2, 1, 3, 3\) and \(1, 3, 3\)"):
        ask(x, mask[:1], **good)
    for change, message in [
        ({"additions": -1}, "Expected additions to be an integer >= 0, got -1"),
        ({"samples": 0}, "Expected samples to be an integer >= 1, got 0"),
        ({"alpha": 1.0}, "Expected alpha strictly between 0 and 1, got 1.0"),
        ({"batch_size": 0}, "Expected batch_size to be an integer >= 1, got 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            ask(x, mask, **(good | change))


# --- the estimate ---------------------------------------------------------------------------------


def test_first_order_estimate_of_a_quadratic_is_exact() -> None:
    """The gradient of a quadratic is linear, with the symmetric H for its Jacobian."""
    model = oracles.Quadratic()
    x, y = torch.rand(3, 5, generator=oracles.seeded(1)), oracles.labels(3)
    sigma = torch.linalg.matrix_norm(model.h[y].detach(), 2)
    ask = partial(first_order_estimate, attributions.gradient, model, x, y, steps=200)
    found = ask(eps=0.3, generator=oracles.seeded(0))
    torch.testing.assert_close(found.change, 0.3 * sigma, rtol=1e-4, atol=1e-6)
    share = found.change / model.gradient(x, y).detach().norm(dim=1)
    expected = torch.where(share < 1, (1 - share**2).clamp(min=0).sqrt(), -1)
    torch.testing.assert_close(found.cosine, expected)
    cube = ask(eps=0.3, norm="linf", generator=oracles.seeded(0))
    torch.testing.assert_close(cube.change, found.change * math.sqrt(5))
    assert not found.change.requires_grad


def test_first_order_estimate_where_nothing_moves() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    found = first_order_estimate(
        attributions.gradient, model, x, y, eps=0.5, generator=oracles.seeded(0)
    )
    assert found.change.tolist() == [0] * 4
    assert found.cosine.tolist() == [1] * 4


def test_bad_estimates_are_named() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    ask = partial(first_order_estimate, generator=oracles.seeded(0))
    with pytest.raises(ValueError, match=r"Expected eps >= 0, got -1.0"):
        ask(attributions.gradient, model, x, y, eps=-1.0)
    with pytest.raises(ValueError, match="Expected steps to be an integer >= 1, got 0"):
        ask(attributions.gradient, model, x, y, eps=0.1, steps=0)
    with pytest.raises(ValueError, match="Expected attribution that is differentiable in x"):
        ask(sparsified(attributions.gradient, k=3), model, x, y, eps=0.1)
