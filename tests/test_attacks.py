"""Attacks reach optima known in closed form, keep their budgets, and name what is wrong."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from attrlib import attributions, metrics
from attrlib.attacks import (
    PGD,
    Ball,
    Cosine,
    L2Ball,
    LinfBall,
    MassCenter,
    RandomSign,
    TargetMap,
    TopK,
    ascend,
)
from attrlib.attributions import gradient, integrated_gradients, smooth_grad, uni_grad
from attrlib.maps import to_heatmap
from attrlib.models import with_softplus
from tests import oracles
from tests.attack_oracles import Bowl, Spy, Touchy, attack, zeros
from tests.oracles import seeded

BALLS = pytest.mark.parametrize("ball", [LinfBall(eps=0.1), L2Ball(eps=0.5)], ids=["linf", "l2"])


# --- closed forms ---------------------------------------------------------------------------------


def test_ascent_reaches_the_corner_of_a_linear_objective(dtype: torch.dtype) -> None:
    x, w = oracles.images(3).to(dtype), torch.randn(1, 8, 8, generator=seeded(0)).to(dtype)
    objective = lambda z: (w * z).flatten(1).sum(1)  # noqa: E731
    z = ascend(objective, x, ball=LinfBall(eps=0.3), steps=4, step_size=0.1)
    torch.testing.assert_close(z, (x + 0.3 * w.sign()).clamp(0, 1))
    z = ascend(objective, 0.3 + 0.4 * x, ball=L2Ball(eps=0.2), steps=4, step_size=0.1)
    torch.testing.assert_close(z, 0.3 + 0.4 * x + 0.2 * w / w.norm(), rtol=0, atol=1e-6)


@BALLS
def test_ascent_finds_the_top_of_a_hill_inside(ball: Ball, dtype: torch.dtype) -> None:
    x = torch.full((2, 1, 2, 2), 0.5, dtype=dtype)
    top = x + 0.05 * torch.tensor([1.0, -1.0, 0.5, 1.0], dtype=dtype).view(1, 1, 2, 2)
    hill = lambda z: -(z - top).square().flatten(1).sum(1)  # noqa: E731
    z = ascend(hill, x, ball=ball, steps=300, step_size=1e-3)
    assert (z - top).abs().max() < 2e-3


@BALLS
def test_pgd_reaches_the_optimum_on_a_linear_model(ball: Ball, dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).to(dtype)
    x, y = 0.5 + 0.2 * (oracles.images(4).to(dtype) - 0.5), torch.tensor([0, 1, 0, 1])
    weight = model[1].weight.detach()
    push = (weight[1 - y] - weight[y]).view_as(x)
    best = ball.project(x + ball.eps * ball.steepest(push), x)  # type: ignore[attr-defined]
    z = PGD(ball=ball, steps=20, step_size=ball.eps / 4)(model, x, y)  # type: ignore[attr-defined]
    torch.testing.assert_close(z, best, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_pgd_equals_torchattacks(norm: str) -> None:
    model = oracles.softplus_net(beta=10).float()
    x, y = oracles.images(6).float(), oracles.labels(6)
    if norm == "linf":
        theirs = torchattacks.PGD(model, eps=0.1, alpha=0.03, steps=7, random_start=False)
        ours = PGD(ball=LinfBall(eps=0.1), steps=7, step_size=0.03)
    else:
        theirs = torchattacks.PGDL2(model, eps=0.4, alpha=0.1, steps=7, random_start=False)
        ours = PGD(ball=L2Ball(eps=0.4), steps=7, step_size=0.1)
        x = 0.4 + 0.2 * x  # where [0, 1] does not bind: they scale first and clamp then
    torch.testing.assert_close(ours(model, x, y), theirs(x, y), rtol=0, atol=2e-6)


def test_top_k_attack_reaches_the_optimum(dtype: torch.dtype) -> None:
    x = torch.tensor([0.3, 0.4, 0.6, 0.5, 0.2, 0.35], dtype=dtype).view(1, 1, 2, 3)
    z = attack(objective=TopK(k=2))(Bowl(), x, zeros(x), generator=seeded(0))
    push = torch.tensor([1.0, 1, -1, -1, 1, 1], dtype=dtype).view_as(x)
    torch.testing.assert_close(z, x + 0.1 * push)


def test_cosine_attack_reaches_the_tangent(dtype: torch.dtype) -> None:
    x = 0.4 + 0.2 * oracles.images(3).to(dtype)
    ball = L2Ball(eps=0.5)
    z = attack(objective=Cosine(), ball=ball, steps=200)(Bowl(), x, zeros(x), generator=seeded(0))
    steepest = (1 - (0.5 / x.flatten(1).norm(dim=1)).square()).sqrt()
    assert (metrics.cosine(x, z) - steepest).abs().max() < 1e-3


def test_mass_centre_attack_finds_the_better_end(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.4, 0.6], [0.7, 0.3]], dtype=dtype).view(2, 1, 1, 2)
    z = attack(objective=MassCenter(), restarts=8)(Bowl(), x, zeros(x), generator=seeded(0))
    ends = [x + 0.1 * s * torch.tensor([1.0, -1.0], dtype=dtype) for s in (1, -1)]
    shift = [metrics.center_shift(x[:, 0], end[:, 0]) for end in ends]
    best = torch.maximum(*shift)
    torch.testing.assert_close(metrics.center_shift(x[:, 0], z[:, 0]), best)


def test_target_map_is_drawn(dtype: torch.dtype) -> None:
    x = torch.full((2, 1, 4, 4), 0.5, dtype=dtype)
    target = (torch.arange(16) % 3 + 8).to(dtype).view(4, 4)  # values within 0.1 of their mean
    goal = TargetMap(target=target)
    z = attack(objective=goal, steps=60, step_size=5e-3)(Bowl(), x, zeros(x), generator=seeded(0))
    assert goal(x, x).max() < -5e-3
    assert goal(x, z).min() > -1e-4


def test_the_affine_gradient_of_a_quadratic_model(dtype: torch.dtype) -> None:
    model = oracles.Quadratic(5).to(dtype)
    x, y = 0.5 + 0.1 * torch.rand(3, 5, generator=seeded(0)).to(dtype), torch.tensor([0, 1, 2])
    ball = LinfBall(eps=0.05)
    found = attack(objective=Cosine(), ball=ball, steps=60, step_size=5e-3, restarts=5)
    z = found(model, x, y, generator=seeded(0))
    # The cosine of a linear function is lowest at a corner of the cube: look at all of them.
    corners = torch.cartesian_prod(*[torch.tensor([-0.05, 0.05])] * 5).to(dtype)
    a = model.gradient(x, y)
    label = model(x).argmax(1)
    for i in range(3):
        points = x[i] + corners
        kept = model(points).argmax(1) == label[i]
        values = metrics.cosine(a[i].expand(32, 5), model.gradient(points, y[i].expand(32)))[kept]
        reached = metrics.cosine(a[i : i + 1], model.gradient(z[i : i + 1], y[i : i + 1]))
        assert 1 - reached >= (1 - values.min()) / 1.25


# --- what every attack keeps ----------------------------------------------------------------------


@BALLS
@pytest.mark.parametrize(
    "attribution",
    [
        gradient,
        attributions.input_x_gradient,
        partial(integrated_gradients, steps=4),
        partial(smooth_grad, sigma=0.1, samples=4),
        partial(uni_grad, radius=0.2, samples=4),
    ],
    ids=["gradient", "input_x_gradient", "ig", "smooth_grad", "uni_grad"],
)
def test_every_attribution_is_attacked_within_the_budget(
    attribution: Any,
    ball: Ball,
    dtype: torch.dtype,
) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images(5).to(dtype), oracles.labels(5)
    for objective in (TopK(k=9), MassCenter(), Cosine()):
        found = attack(attribution=attribution, objective=objective, ball=ball, restarts=2)
        z = found(model, x, y, generator=seeded(0))
        size = (z - x).abs() if isinstance(ball, LinfBall) else (z - x).flatten(1).norm(dim=1)
        assert (size <= ball.eps).all()  # type: ignore[attr-defined]
        assert torch.equal(model(z).argmax(1), model(x).argmax(1))
        a, b, c = (
            attribution(model, q, y, generator=seeded(9)) for q in (x, z, ball.sample(x, seeded(3)))
        )
        assert (objective(a, b) > objective(a, a)).all()
        assert objective(a, b).mean() > objective(a, c).mean()


def test_an_attack_works_where_gradients_are_switched_off(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images().to(dtype), oracles.labels()
    expected = attack()(model, x, y, generator=seeded(0))
    with torch.no_grad():
        assert torch.equal(attack()(model, x, y, generator=seeded(0)), expected)
    assert not expected.requires_grad


def test_a_zero_budget_changes_nothing(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images().to(dtype), oracles.labels()
    for ball in (LinfBall(eps=0.0), L2Ball(eps=0.0)):
        assert torch.equal(attack(ball=ball)(model, x, y, generator=seeded(0)), x)
        assert torch.equal(PGD(ball=ball, steps=2, step_size=0.1)(model, x, y), x)
    assert torch.equal(RandomSign(eps=0.0)(model, x, y, generator=seeded(0)), x)


@pytest.mark.parametrize(
    ("steps", "shares"), [(9, [3, 3, 3]), (10, [4, 3, 3]), (11, [4, 4, 3]), (3, [1, 1, 1])]
)
def test_surrogates_share_the_steps_in_order(steps: int, shares: list[int]) -> None:
    spy, x = Spy(), oracles.images()
    twins = [oracles.softplus_net(beta=beta) for beta in (1, 2, 3)]
    surrogates = tuple((lambda _, twin=twin: twin) for twin in twins)
    found = attack(attribution=spy, steps=steps, surrogates=surrogates, restarts=2)
    found(oracles.softplus_net(), x, oracles.labels(), generator=seeded(0))
    assert [spy.models.count(twin) for twin in twins] == [2 * share for share in shares]
    once = [twin for twin, share in zip(twins, shares, strict=True) for _ in range(share)]
    assert spy.models == once + once
    # The next surrogate goes on where the last one stopped: never back to x within a start.
    assert not any(torch.equal(point, x) for point in spy.climbed[1:steps])


def test_pgd_starts_where_it_is_told(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images().to(dtype), oracles.labels()
    fixed = PGD(ball=LinfBall(eps=0.1), steps=1, step_size=1e-3)
    assert (fixed(model, x, y) - x).abs().max() <= 0.0011
    free = PGD(ball=LinfBall(eps=0.1), steps=1, step_size=1e-3, random_start=True)
    one, other = (free(model, x, y, generator=seeded(seed)) for seed in (0, 1))
    assert (one - x).abs().max() > 0.05
    assert not torch.equal(one, other)


# --- scores ---------------------------------------------------------------------------------------


def test_scores_get_the_kind_of_map_they_ask_for(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images().to(dtype), oracles.labels()
    seen = []

    def plain(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a.shape)
        return metrics.cosine(a, b)

    for score in (
        metrics.kendall,
        partial(metrics.topk_intersection, k=9),
        partial(partial(metrics.topk_intersection), k=9),
        metrics.cosine,
        plain,
        lambda a, b: metrics.spearman(to_heatmap(a), to_heatmap(b)),
    ):
        z = attack(score=score)(model, x, y, generator=seeded(0))
        assert not torch.equal(z, x)
    assert set(seen) == {x.shape}


def test_the_chosen_score_is_the_one_that_is_minimised(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images(8).to(dtype), oracles.labels(8)
    scores = {"kendall": metrics.kendall, "top": partial(metrics.topk_intersection, k=5)}
    found = {
        name: attack(score=score, steps=40)(model, x, y, generator=seeded(0))
        for name, score in scores.items()
    }
    a = to_heatmap(gradient(model, x, y))
    for name, score in scores.items():
        values = {k: score(a, to_heatmap(gradient(model, z, y))) for k, z in found.items()}
        others = [value for k, value in values.items() if k != name]
        assert all((values[name] <= other).all() for other in others)
    assert not torch.equal(found["kendall"], found["top"])


def test_random_sign_is_the_control(dtype: torch.dtype) -> None:
    model, y = oracles.softplus_net().to(dtype), oracles.labels(40)
    x = oracles.images(40).to(dtype)
    z = RandomSign(eps=0.04)(model, x, y, generator=seeded(0))
    torch.testing.assert_close((z - x).abs(), torch.full_like(x, 0.04))
    assert ((z > x).double().mean() - 0.5).abs() < 0.05
    assert ((z - x).abs() <= 0.04).all()
    a = gradient(model, x, y)

    def kept(draws: int) -> Tensor:
        control = RandomSign(eps=0.04, draws=draws, score=metrics.cosine, attribution=gradient)
        best = control(model, x, y, generator=seeded(0))
        assert torch.equal(model(best).argmax(1), model(x).argmax(1))
        return metrics.cosine(a, gradient(model, best, y))

    few, many = kept(2), kept(20)
    assert (many <= few).all()  # the first draws are the same
    assert many.mean() < few.mean()
    touchy = Touchy(x)
    control = RandomSign(eps=0.04, draws=3, score=metrics.cosine, attribution=gradient)
    assert torch.equal(control(touchy, x, zeros(x), generator=seeded(0)), x)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"steps": 0}, ValueError, "steps to be an integer >= 1, got 0"),
        ({"steps": 2.5}, ValueError, "steps to be an integer"),
        ({"step_size": 0.0}, ValueError, "step_size > 0, got 0.0"),
        ({"step_size": -1.0}, ValueError, "step_size > 0"),
        ({"restarts": 0}, ValueError, "restarts to be an integer >= 1, got 0"),
        ({"surrogates": [with_softplus]}, TypeError, "surrogates to be a tuple of functions"),
        ({"surrogates": (30,)}, TypeError, "surrogates to be a tuple of functions"),
        (
            {"surrogates": (partial(with_softplus, beta=1.0),) * 3, "steps": 2},
            ValueError,
            "steps >= 3, one for each surrogate, got 2",
        ),
    ],
)
def test_bad_settings_are_named_when_the_attack_is_made(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"Expected {message}"):
        attack(**changes)
    if set(changes) <= {"steps", "step_size"}:
        with pytest.raises(error, match=f"Expected {message}"):
            PGD(**{"ball": LinfBall(eps=0.1), "steps": 1, "step_size": 0.1} | changes)
        with pytest.raises(error, match=f"Expected {message}"):
            ascend(
                lambda z: z.flatten(1).sum(1),
                oracles.images(),
                **{"ball": LinfBall(eps=0.1), "steps": 1, "step_size": 0.1} | changes,
            )


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"eps": -1.0}, "eps >= 0, got -1.0"),
        ({"eps": 0.1, "draws": 0}, "draws to be an integer >= 1, got 0"),
        ({"eps": 0.1, "draws": 2}, "score and attribution for draws > 1, got 2"),
        ({"eps": 0.1, "score": metrics.cosine}, "score and attribution together, got no attr"),
        ({"eps": 0.1, "attribution": gradient}, "score and attribution together, got no score"),
    ],
)
def test_bad_noise_is_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"Expected {message}"):
        RandomSign(**settings)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    "found",
    [
        attack(),
        PGD(ball=LinfBall(eps=0.1), steps=2, step_size=0.1),
        PGD(ball=LinfBall(eps=0.1), steps=2, step_size=0.1, random_start=True),
        RandomSign(eps=0.1),
        RandomSign(eps=0.1, draws=2, score=metrics.cosine, attribution=gradient),
    ],
    ids=lambda found: type(found).__name__,
)
def test_bad_images_are_named(found: Callable[..., Tensor]) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    for bad in (x + 1, x - 1, 255 * x):
        with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\], got \["):
            found(model, bad, y)
    with pytest.raises(ValueError, match=r"Expected x to be finite, got NaN"):
        found(model, x / 0 * 0, y)
    with pytest.raises(TypeError, match="Expected y to be an int64 tensor"):
        found(model, x, y.double())
    with pytest.raises(ValueError, match=r"Expected y of shape \(4,\)"):
        found(model, x, y[:2])


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_parts_are_named() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match=r"Expected k to be an integer from 1 to 64, got 65"):
        attack(objective=TopK(k=65))(model, x, y)
    total = lambda a, b: (a - b).sum()  # noqa: E731
    with pytest.raises(ValueError, match=r"Expected objective of one value .* got shape \(\)"):
        attack(objective=total, score=metrics.cosine)(model, x, y, generator=seeded(0))
    with pytest.raises(
        ValueError, match=r"Expected score of one value .* 4 samples, got shape \(\)"
    ):
        attack(score=total)(model, x, y, generator=seeded(0))
    with pytest.raises(ValueError, match=r"Expected objective of one value .* \(4, 1, 8, 8\)"):
        ascend(lambda z: z, x, ball=LinfBall(eps=0.1), steps=1, step_size=0.1)
    with pytest.raises(ValueError, match=r"Expected start and x to have one shape"):
        ascend(
            lambda z: z.flatten(1).sum(1),
            x,
            ball=LinfBall(eps=0.1),
            steps=1,
            step_size=0.1,
            start=x[:2],
        )
    flat = x.flatten(1)
    with pytest.raises(ValueError, match=r"Expected a to be maps \(n, channels, h, w\)"):
        attack()(oracles.linear_net((64,)), flat, y)
    with pytest.raises(RuntimeError, match=r"outside torch.inference_mode"), torch.inference_mode():
        PGD(ball=LinfBall(eps=0.1), steps=1, step_size=0.1)(model, x, y)
