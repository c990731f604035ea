"""Momentum, shorter steps, margin, starts: by hand; and which rows an attack gives back unchanged."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import _random, metrics
from attrlib.attacks import (
    AttributionAttack,
    Cosine,
    Identification,
    LinfBall,
    Rank,
    TargetMap,
    TopK,
    UnattackedWarning,
    WorstOf,
)
from attrlib.attacks.ascent import climb
from attrlib.attributions import gradient
from attrlib.models import SmallCNN, with_softplus
from tests import oracles
from tests.attack_oracles import Bowl, Spy, Touchy, attack, zeros
from tests.oracles import seeded


class Free:
    """No budget at all; a step is the gradient itself, or its sign. Keeps the points that it is given."""

    def __init__(self, *, sign: bool = False) -> None:
        self.sign = sign
        self.points: list[Tensor] = []

    def project(self, z: Tensor, x: Tensor) -> Tensor:
        self.points.append(z.detach().clone())
        return z

    def sample(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return x

    def steepest(self, grad: Tensor) -> Tensor:
        return grad.sign() if self.sign else grad


class Fence(nn.Module):
    """Map of class 0 is the image; class 1 is ahead where the last pixel exceeds a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        own = x.square().flatten(1).sum(1) / 2
        return torch.stack([own, own - (self.limit - x.flatten(1)[:, -1])], 1)


class Shallow(nn.Module):
    """A single logit, a little above zero at the image it was given; the map is the image."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.level = x.square().sum() / 2 - 0.005

    def forward(self, x: Tensor) -> Tensor:
        return x.square().flatten(1).sum(1, keepdim=True) / 2 - self.level


# --- options of the ascent ------------------------------------------------------------------------


def test_momentum_adds_up_scaled_slopes(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 1, 1, 4, dtype=dtype)
    slopes = torch.tensor(
        [[[2.0, 0, -2, 0], [8, 8, 0, 0]], [[0, 4, 4, 0], [0, 0, 0, 0]]], dtype=dtype
    ).view(2, 2, 1, 1, 4)  # of step 0 and of step 1
    slope = lambda z, step: slopes[step]  # noqa: E731
    points = list(climb(slope, x, Free(), [0.1, 0.05], momentum=0.5))
    first = torch.tensor([[2.0, 0, -2, 0], [2, 2, 0, 0]], dtype=dtype)
    second = torch.tensor([[1.0, 2, 1, 0], [1, 1, 0, 0]], dtype=dtype)  # ½ first + scaled slope
    torch.testing.assert_close(points[0].flatten(1), 0.1 * first)
    torch.testing.assert_close(points[1].flatten(1), 0.1 * first + 0.05 * second)
    plain = list(climb(slope, x, Free(), [0.1, 0.05]))
    torch.testing.assert_close(plain[1].flatten(1), (0.1 * slopes[0] + 0.05 * slopes[1]).flatten(1))


@pytest.mark.parametrize("size", [1e-38, 1e38])
def test_momentum_takes_slopes_of_any_size(size: float) -> None:
    x = torch.zeros(1, 1, 1, 4)
    slope = torch.tensor([1.0, -1, 3, 0]).view(1, 1, 1, 4).float()
    (point,) = climb(lambda *_: size * slope, x.float(), Free(), [1.0], momentum=0.5)
    torch.testing.assert_close(point, slope / slope.abs().mean())


@pytest.mark.parametrize(("steps", "decay"), [(5, 0.1), (3, 4.0), (1, 0.5), (4, 1.0)])
def test_steps_shrink_geometrically(steps: int, decay: float, dtype: torch.dtype) -> None:
    x, ball = oracles.images(2).to(dtype), Free(sign=True)
    found = attack(ball=ball, steps=steps, step_size=1e-3, step_decay=decay)
    found(Bowl(), x, zeros(x), generator=seeded(0))
    path = torch.stack([x, *ball.points])
    lengths = path.diff(dim=0).abs().flatten(1).amax(1)
    expected = [1e-3 * decay ** (t / max(1, steps - 1)) for t in range(steps)]
    torch.testing.assert_close(lengths, x.new_tensor(expected), rtol=1e-6, atol=1e-9)


def test_a_margin_stays_inside_and_gets_further(dtype: torch.dtype) -> None:
    x = torch.tensor([0.6, 0.5, 0.5], dtype=dtype).view(1, 1, 1, 3)
    model, goal = Fence(limit=0.52), TopK(k=1)
    settings: dict[str, Any] = {"objective": goal, "steps": 30, "step_size": 0.015}
    reached = {}
    for margin in (0.0, 0.01):
        spy = Spy()
        found = attack(**settings, attribution=spy, margin=margin)
        z = found(model, x, zeros(x), generator=seeded(0))
        assert int(model(z).argmax(1)) == 0
        inside = [bool(model(point)[0, 0] > model(point)[0, 1]) for point in spy.climbed]
        assert sum(inside) < 3 if margin == 0 else sum(inside) > 15
        reached[margin] = (float(goal(x, z)), z.flatten().tolist())
    assert reached[0.01][0] > reached[0.0][0] + 0.1
    assert reached[0.01][1][:2] == pytest.approx([0.5, 0.6])  # the corner, but for the fence
    assert reached[0.01][1][2] < 0.52
    free = attack(**settings, keep_label=False)(model, x, zeros(x), generator=seeded(0))
    assert float(free.flatten()[2]) > 0.52


def test_a_margin_of_a_single_logit(dtype: torch.dtype) -> None:
    x = torch.tensor([0.6, 0.5, 0.5], dtype=dtype).view(1, 1, 1, 3)
    model, settings = Shallow(x), {"objective": TopK(k=2), "steps": 20}
    stuck = attack(**settings)(model, x, zeros(x), generator=seeded(0))
    assert torch.equal(stuck, x)  # each point on the way is beyond zero
    z = attack(**settings, margin=0.02)(model, x, zeros(x), generator=seeded(0))
    assert not torch.equal(z, x)
    assert float(model(z)) > 0


# --- starts ---------------------------------------------------------------------------------------


def test_a_start_is_not_lost(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images(6).to(dtype), oracles.labels(6)
    goal = TopK(k=5).against(gradient(model, x, y))
    good = attack(steps=30)(model, x, y, generator=seeded(0))
    # From there a step of this length leads nowhere good.
    poor = attack(steps=1, step_size=0.2)
    z = poor(model, x, y, start=good, generator=seeded(0))
    before, after = (goal(gradient(model, point, y)) for point in (good, z))
    assert (after >= before).all()
    assert (before > goal(gradient(model, poor(model, x, y, generator=seeded(0)), y))).any()
    on = attack(steps=5, step_size=2e-3)(model, x, y, start=good, generator=seeded(0))
    assert (goal(gradient(model, on, y)) > before).any()


def test_a_start_is_brought_into_the_ball_and_climbed_from(dtype: torch.dtype) -> None:
    x, spy = oracles.images(3).to(dtype), Spy()
    start = oracles.images(3, seed=8).to(dtype)
    found = attack(attribution=spy, steps=2, restarts=2)
    z = found(Bowl(), x, zeros(x), start=start, generator=seeded(0))
    near = LinfBall(eps=0.1).project(start, x)
    assert torch.equal(spy.climbed[0], near)
    assert (spy.climbed[2] - near).abs().max() > 0.01  # the second start is random
    assert any(torch.equal(point, near) for point in spy.scored)
    assert ((z - x).abs() <= 0.1).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_start_of_another_shape_is_named(dtype: torch.dtype) -> None:
    x = oracles.images(3).to(dtype)
    with pytest.raises(ValueError, match="Expected start and x to have one shape"):
        attack()(Bowl(), x, zeros(x), start=x[:2], generator=seeded(0))


def test_a_start_of_another_class_is_no_result(dtype: torch.dtype) -> None:
    x = oracles.images(2).to(dtype)
    start = (x + 0.05).clamp(0, 1)
    z = attack()(Touchy(x), x, zeros(x), start=start, generator=seeded(0))
    assert torch.equal(z, x)  # every other point is of another class
    free = attack(keep_label=False)(Touchy(x), x, zeros(x), start=start, generator=seeded(0))
    assert not torch.equal(free, x)


# --- what the defaults are ------------------------------------------------------------------------


def plain(
    model: nn.Module, x: Tensor, y: Tensor, *, betas: tuple[float, ...], generator: torch.Generator
) -> Tensor:
    """Sign ascent on the mass of the top 5 as it was before there were options: 7 steps, 2 starts."""
    ball, steps = LinfBall(eps=0.1), 7
    torch.randint(2**62, (), generator=generator)  # the seed of the scores
    clean = gradient(model, x, y)
    goal, label = TopK(k=5).against(clean), model(x).argmax(1)
    best, lowest = x.clone(), -goal(clean)
    twins: list[nn.Module] = [with_softplus(model, beta) for beta in betas] or [model]
    for restart in range(2):
        z = ball.sample(x, generator) if restart else x
        for step in range(steps):
            twin = twins[min(len(twins) - 1, step * len(twins) // steps)]
            point = z.clone().requires_grad_()
            (grad,) = torch.autograd.grad(goal(gradient(twin, point, y)).sum(), point)
            z = ball.project(z + 0.02 * grad.sign(), x)
            if restart == step == 0:
                ball.sample(x, generator)  # where a row without a slope would jump to
            value = -goal(gradient(model, z, y))
            better = (value < lowest) & (model(z).argmax(1) == label)
            lowest = torch.where(better, value, lowest)
            best = torch.where(better.view(-1, 1, 1, 1), z, best)
    return best


@pytest.mark.parametrize("betas", [(), (10.0, 30.0)], ids=["itself", "copies"])
def test_the_defaults_are_the_plain_ascent(betas: tuple[float, ...], dtype: torch.dtype) -> None:
    model = (
        oracles.softplus_net() if not betas else SmallCNN(size=8, classes=3, generator=seeded(0))
    )
    model, x, y = model.to(dtype), oracles.images(6).to(dtype), oracles.labels(6)
    copies = tuple(partial(with_softplus, beta=beta) for beta in betas)
    found = attack(steps=7, restarts=2, surrogates=copies)
    z = found(model, x, y, generator=seeded(3))
    assert torch.equal(z, plain(model, x, y, betas=betas, generator=seeded(3)))
    assert not torch.equal(z, x)
    for change in ({"momentum": 0.5}, {"step_decay": 0.5}, {"margin": 100.0}):
        assert not torch.equal(replace(found, **change)(model, x, y, generator=seeded(3)), z)


def test_surrogates_share_the_steps_and_the_first_get_what_is_left(dtype: torch.dtype) -> None:
    x, spy = oracles.images(2).to(dtype), Spy()
    twins = [Bowl() for _ in range(3)]
    makers = tuple(lambda _, twin=twin: twin for twin in twins)
    attack(attribution=spy, steps=8, restarts=2, surrogates=makers)(Bowl(), x, zeros(x))
    once = [0, 0, 0, 1, 1, 1, 2, 2]
    assert [next(i for i, t in enumerate(twins) if t is m) for m in spy.models] == once + once


class Falling:
    """Minus the mass of pixel 0, with a record of its progress; prepares nothing."""

    def __init__(self, seen: list[float], progress: float = -1.0) -> None:
        self.seen, self.progress = seen, progress

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        self.seen.append(self.progress)
        return -b.flatten(1)[:, 0] * (1 + self.progress)

    def at(self, progress: float) -> "Falling":
        return Falling(self.seen, progress)


@pytest.mark.parametrize("steps", [1, 5])
def test_an_objective_is_asked_for_its_form_at_each_step(steps: int, dtype: torch.dtype) -> None:
    seen: list[float] = []
    x = oracles.images(2).to(dtype)
    score = lambda a, b: b.flatten(1)[:, 0]  # noqa: E731
    found = attack(objective=Falling(seen), steps=steps, score=score)
    found(Bowl(), x, zeros(x), generator=seeded(0))
    assert seen == pytest.approx([t / max(1, steps - 1) for t in range(steps)])
    seen.clear()
    replace(found, score=None)(Bowl(), x, zeros(x), generator=seeded(0))
    assert seen.count(1.0) >= steps + 1  # points are compared in the last form


# --- some of the rows -----------------------------------------------------------------------------


def test_rows_cut_what_is_known_of_each_sample(dtype: torch.dtype) -> None:
    x = oracles.images(4).to(dtype)
    targets = oracles.images(4, seed=5).to(dtype)[:, 0]
    others = oracles.images(12, seed=6).to(dtype).view(4, 3, 1, 8, 8)
    goals = {
        TargetMap(target=targets): lambda goal, rows: torch.equal(goal.target, targets[rows]),
        TargetMap(target=targets[0]): lambda goal, rows: torch.equal(goal.target, targets[0]),
        Identification(others=others): lambda goal, rows: torch.equal(goal.others, others[rows]),
        Identification(others=others[:1]): lambda goal, rows: goal.others.shape[0] == 1,
    }
    mask = torch.tensor([True, False, False, True])
    for objective, right in goals.items():
        whole = attack(objective=objective)
        z = whole(Bowl(), x, zeros(x), generator=seeded(0))
        for rows in (torch.tensor([2, 0]), mask):
            part = whole.rows(rows)
            assert right(part.objective, rows)
            assert replace(part, objective=objective) == whole
            some = part(Bowl(), x[rows], zeros(x)[rows], generator=seeded(0))
            torch.testing.assert_close(some, z[rows])
    assert attack().rows(mask) == attack()
    kept = attack(score=metrics.cosine).rows(mask)
    assert kept.score is metrics.cosine


# --- rows that cannot be attacked -----------------------------------------------------------------


class Half(nn.Module):
    """‖x‖² / 2 for dark images, linear for bright ones, whose map is flat."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(1)
        bright = rows.detach().mean(1) > 0.75
        return torch.where(bright, rows.sum(1), rows.square().sum(1) / 2)[:, None]


def broken(
    model: Any, x: Tensor, y: Tensor, /, *, value: float, generator: torch.Generator | None = None
) -> Tensor:
    """The image as its map; that of a bright one is not finite (or its derivative, for value 0)."""
    bright = x.detach().flatten(1).mean(1) > 0.75
    return torch.stack(
        [
            row + (value * row).sqrt() if is_bright else row
            for row, is_bright in zip(x, bright, strict=True)
        ]
    )


def one_bright(dtype: torch.dtype) -> Tensor:
    x = 0.5 * oracles.images(3).to(dtype)
    x[1] = 0.9 - 0.05 * x[1]
    return x


def test_a_row_without_a_slope_is_named_and_decides_nothing(dtype: torch.dtype) -> None:
    x = one_bright(dtype)
    with pytest.warns(UnattackedWarning, match=r"1 of 3 rows .* \(1\): .* no slope") as caught:
        z = attack()(Half(), x, zeros(x), generator=seeded(0))
    assert ((z != x).flatten(1).any(1)).tolist() == [True, False, True]
    assert caught[0].message.rows == (1,)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="Expected an objective with a gradient, got zero"):
        attack()(Half(), x[1:2], zeros(x)[:1], generator=seeded(0))


@pytest.mark.parametrize("value", [0.0, float("nan")], ids=["derivative", "map"])
@pytest.mark.parametrize("objective", [TopK(k=5), Rank(k=5), Cosine()], ids=repr)
def test_a_row_that_is_not_a_number_is_named_and_stays(
    value: float, objective: Any, dtype: torch.dtype
) -> None:
    x = one_bright(dtype)
    found = attack(attribution=partial(broken, value=value), objective=objective, momentum=0.5)
    with pytest.warns(UnattackedWarning, match=r"1 of 3 rows .* \(1\): "):
        z = found(Bowl(), x, zeros(x), generator=seeded(0))
    assert torch.equal(z[1], x[1])
    whole = replace(found, attribution=gradient)(Bowl(), x, zeros(x), generator=seeded(0))
    torch.testing.assert_close(z[[0, 2]], whole[[0, 2]])
    alone = x[1:2], zeros(x)[1:2]
    if value == 0:
        with pytest.raises(ValueError, match=r"objective to be finite, got NaN .* in 1 of 1"):
            found(Bowl(), *alone, generator=seeded(0))
    else:
        with pytest.warns(UnattackedWarning, match="1 of 1"):
            assert torch.equal(found(Bowl(), *alone, generator=seeded(0)), alone[0])


def suite_of_one(found: AttributionAttack) -> WorstOf:
    return WorstOf(attacks=(found,), score=metrics.cosine)


@pytest.mark.parametrize("wrap", [lambda found: found, suite_of_one], ids=["one", "suite"])
def test_a_black_image_alone_comes_back(
    wrap: Callable[[AttributionAttack], Any], dtype: torch.dtype
) -> None:
    x = torch.zeros(1, 1, 8, 8, dtype=dtype)
    for objective in (TopK(k=5), Rank(k=5), Cosine()):
        with pytest.warns(UnattackedWarning, match=r"1 of 1 rows .* unchanged \(0\): their map"):
            z = wrap(attack(objective=objective))(Bowl(), x, zeros(x), generator=seeded(0))
        assert torch.equal(z, x)
        assert z.data_ptr() != x.data_ptr()


def test_a_warning_names_eight_rows_and_holds_all() -> None:
    x = torch.zeros(10, 1, 4, 4)
    with pytest.warns(
        UnattackedWarning, match=r"10 of 10 .* \(0, 1, 2, 3, 4, 5, 6, 7, …\)"
    ) as seen:
        attack()(Bowl(), x, zeros(x), generator=seeded(0))
    assert seen[0].message.rows == tuple(range(10))  # type: ignore[union-attr]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attack()(Bowl(), x + 0.1 * oracles.images(10, size=4), zeros(x), generator=seeded(0))


# --- noise of some of the rows --------------------------------------------------------------------


def test_noise_of_parts_of_parts_is_that_of_the_whole() -> None:
    x = torch.zeros(6, 2)
    whole = _random.normal_like(x, generator=seeded(0))
    outer, inner = torch.tensor([5, 1, 3, 0]), torch.tensor([2, 0])
    with _random.part(outer, of=6):
        assert torch.equal(_random.normal_like(x[:4], generator=seeded(0)), whole[outer])
        with _random.part(inner, of=4):
            got = _random.normal_like(x[:2], generator=seeded(0))
            assert torch.equal(got, whole[[3, 5]])
        with _random.part(slice(1, 3), of=4):
            assert torch.equal(_random.normal_like(x[:2], generator=seeded(0)), whole[[1, 3]])
        with pytest.raises(ValueError, match="Expected rows of 4 samples, got rows of 6"):
            with _random.part(inner, of=6):
                pass
        with pytest.raises(ValueError, match="Expected noise for 4 samples, got 3"):
            _random.normal_like(x[:3], generator=seeded(0))
    with _random.part(torch.arange(6) > 3, of=6):
        assert torch.equal(_random.normal_like(x[:2], generator=seeded(0)), whole[4:])
    assert torch.equal(_random.normal_like(x, generator=seeded(0)), whole)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"momentum": 1.0}, ValueError, "momentum < 1, got 1.0"),
        ({"momentum": -0.1}, ValueError, "momentum >= 0, got -0.1"),
        ({"momentum": float("nan")}, ValueError, "momentum >= 0, got nan"),
        ({"step_decay": 0.0}, ValueError, "step_decay > 0, got 0.0"),
        ({"margin": -1.0}, ValueError, "margin >= 0, got -1.0"),
        ({"surrogates": [gradient]}, TypeError, "surrogates to be a tuple of functions"),
        ({"steps": 1, "surrogates": (Bowl, Bowl)}, ValueError, "steps >= 2, one for each"),
    ],
)
def test_bad_options_are_named(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"Expected {message}"):
        attack(**change)
