"""One test for each way in which published attack code goes wrong, and looks weaker than it could be."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import checkpoints, data, metrics
from attrlib.attacks import (
    Cosine,
    LinfBall,
    MassCenter,
    Order,
    RandomSign,
    Rank,
    TargetMap,
    TopK,
    UnattackedWarning,
    ascend,
    standard,
)
from attrlib.attacks.ascent import compared
from attrlib.attributions import gradient, input_x_gradient, integrated_gradients, smooth_grad
from attrlib.maps import to_heatmap
from attrlib.models import with_softplus
from tests import oracles
from tests.attack_oracles import Bowl, Spy, Touchy, attack, zeros
from tests.oracles import seeded


@pytest.fixture(scope="module")
def fashion() -> tuple[nn.Module, Tensor, Tensor]:
    """The trained network and 24 validation images it has right, in float32."""
    model = checkpoints.load("natural").model
    images = data.fashion_mnist("val")[::25]
    with torch.no_grad():
        rows = (model(images.x).argmax(1) == images.y).nonzero()[:24, 0]
    return model, images.x[rows], images.y[rows]


def left(model: nn.Module, x: Tensor, y: Tensor, z: Tensor, *, map_of: Any = gradient) -> float:
    """Mean top-100 intersection that an attack left."""
    a, b = (to_heatmap(map_of(model, q, y)) for q in (x, z))
    return float(metrics.topk_intersection(a, b, k=100).mean())


# --- one test for each way published attacks go wrong ---------------------------------------------


def test_the_sign_is_right_for_every_objective(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images(8).to(dtype), oracles.labels(8)
    a = gradient(model, x, y)
    target = torch.rand(8, 8, generator=seeded(5)).to(dtype)
    for objective in (TopK(k=9), TopK(k=9, window=1), TargetMap(target=target)):
        # A score that keeps the last point: what counts is where the ascent itself goes.
        z = ascend(
            lambda z, objective=objective: objective(a, gradient(model, z, y)),
            x,
            ball=LinfBall(eps=0.1),
            steps=5,
            step_size=5e-3,
        )
        assert (objective(a, gradient(model, z, y)) > objective(a, a)).all()


def test_the_best_point_is_kept_and_not_the_last(dtype: torch.dtype) -> None:
    x, spy = oracles.images(8).to(dtype), Spy()
    goal = TargetMap(target=x[0, 0])
    # Steps this long overshoot the target and swing around it.
    found = attack(attribution=spy, objective=goal, ball=LinfBall(eps=0.5), step_size=0.3)
    z = found(Bowl(), x, zeros(x), generator=seeded(0))
    path = torch.stack([goal(x, point) for point in spy.scored])
    torch.testing.assert_close(goal(x, z), path.amax(0))
    assert (path.amax(0) > path[-1]).any()


def test_restarts_differ_and_never_hurt(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images(8).to(dtype), oracles.labels(8)
    spy = Spy()
    attack(attribution=spy, steps=2, restarts=4)(model, x, y, generator=seeded(0))
    starts = spy.climbed[::2]
    assert torch.equal(starts[0], x)
    for i in range(1, 4):
        assert (starts[i] - x).abs().max() > 0.09
        assert all(not torch.equal(starts[i], other) for other in starts[:i])
    goal = TopK(k=5).against(gradient(model, x, y))
    change = [
        goal(gradient(model, attack(restarts=r)(model, x, y, generator=seeded(0)), y))
        for r in (1, 3, 9)
    ]
    assert (change[0] <= change[1]).all()
    assert (change[1] <= change[2]).all()
    assert change[2].mean() > change[0].mean()


@pytest.mark.parametrize("objective", [MassCenter(), Cosine()], ids=["mass centre", "cosine"])
def test_a_zero_gradient_at_the_start_does_not_stop_the_attack(
    objective: MassCenter | Cosine, dtype: torch.dtype
) -> None:
    x = 0.2 + 0.5 * oracles.images(3).to(dtype)
    at_x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(objective(x, gradient(Bowl(), at_x, zeros(x))).sum(), at_x)
    assert slope.abs().max() < 1e-7
    z = attack(objective=objective)(Bowl(), x, zeros(x), generator=seeded(0))
    assert (objective(x, z) > 1e-3).all()


def test_a_blunt_surrogate_is_weaker(fashion: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, x, y = fashion
    settings = {"objective": TopK(k=100), "steps": 20, "ball": LinfBall(eps=8 / 255)}
    result = {
        beta: left(
            model,
            x,
            y,
            attack(
                **settings,
                step_size=8 / 255 * 0.15,
                surrogates=(partial(with_softplus, beta=beta),),
            )(model, x, y, generator=seeded(0)),
        )
        for beta in (1.0, 10.0)
    }
    assert result[10.0] < result[1.0] - 0.05


def test_a_first_order_attack_on_integrated_gradients_is_weaker(
    fashion: tuple[nn.Module, Tensor, Tensor],
) -> None:
    model, x, y = fashion
    full = partial(integrated_gradients, steps=8)

    def first_order(model: Any, x: Tensor, y: Tensor, *, generator: Any = None) -> Tensor:
        # Published: the gradient on the path is taken for a constant, only the factor is followed.
        slope = full(model, x, y).detach() / x.detach().clamp(min=1e-9)
        return x * slope

    result = [
        left(
            model,
            x,
            y,
            attack(
                attribution=attribution,
                objective=TopK(k=100),
                steps=20,
                step_size=0.015,
                surrogates=(partial(with_softplus, beta=30.0),),
            )(model, x, y, generator=seeded(0)),
            map_of=full,
        )
        for attribution in (full, first_order)
    ]
    assert result[0] < result[1] - 0.03


@pytest.mark.parametrize(
    "attribution",
    [gradient, partial(smooth_grad, sigma=0.1, samples=2), lambda m, x, y, **_: x.detach()],
    ids=["relu", "relu smooth_grad", "detached"],
)
def test_an_objective_without_gradient_raises_and_does_not_count_as_robust(
    attribution: Any,
    dtype: torch.dtype,
) -> None:
    model = oracles.softplus_net().to(dtype)
    relu = nn.Sequential(*[nn.ReLU() if isinstance(m, nn.Softplus) else m for m in model.layers])
    x, y = oracles.images().to(dtype), oracles.labels()
    for restarts in (1, 2):
        with pytest.raises(ValueError, match=r"Expected an objective with a gradient.*surrogates"):
            attack(attribution=attribution, restarts=restarts)(relu, x, y, generator=seeded(0))
    if attribution is gradient:
        softened = attack(surrogates=(partial(with_softplus, beta=10.0),))
        assert not torch.equal(softened(relu, x, y, generator=seeded(0)), x)


def test_a_gradient_that_is_not_a_number_raises() -> None:
    # In float32 the second derivative of a Softplus without its linear part overflows.
    def twin(threshold: float) -> nn.Module:
        net = oracles.softplus_net().float()
        for parent in net.modules():
            for name, child in parent.named_children():
                if isinstance(child, nn.Softplus):
                    setattr(parent, name, nn.Softplus(beta=100, threshold=threshold))
                if isinstance(child, nn.Conv2d):
                    child.weight.data *= 20
        return net

    x, y = oracles.images().float(), oracles.labels()
    for threshold in (20, 200):
        found = attack(surrogates=(lambda _, threshold=threshold: twin(threshold),))
        if threshold == 20:
            assert not torch.equal(found(twin(20), x, y, generator=seeded(0)), x)
            continue
        with pytest.raises(ValueError, match=r"objective to be finite, got NaN .* in 4 of 4"):
            found(twin(20), x, y, generator=seeded(0))


def test_the_predicted_class_is_kept_whatever_is_explained(
    fashion: tuple[nn.Module, Tensor, Tensor],
) -> None:
    model, x, y = fashion
    other = (y + 1) % 10
    surrogates = (partial(with_softplus, beta=30.0),)
    usual = {"ball": LinfBall(eps=0.1), "objective": TopK(k=100), "surrogates": surrogates}
    z = attack(**usual)(model, x, other, generator=seeded(0))
    assert torch.equal(model(z).argmax(1), model(x).argmax(1))
    assert left(model, x, other, z) < 0.6
    free = attack(**usual, keep_label=False)(model, x, other, generator=seeded(0))
    assert not torch.equal(model(free).argmax(1), model(x).argmax(1))


def test_a_sample_that_cannot_be_attacked_comes_back_unchanged(dtype: torch.dtype) -> None:
    x = oracles.images().to(dtype)
    # No other point keeps the prediction; for the rows that are not known, every point does.
    model, y = Touchy(x[:2]), zeros(x)
    z = attack()(model, x, y, generator=seeded(0))
    assert torch.equal(z[:2], x[:2])
    assert ((z != x).flatten(1).any(1)).tolist() == [False, False, True, True]
    # A map of zeros has no importance to move: black images, explained by themselves.
    dark = x.clone()
    dark[1] = 0
    for objective in (TopK(k=5), Rank(k=5), MassCenter(), Cosine(), Order()):
        with pytest.warns(UnattackedWarning, match=r"1 of 4 rows .* unchanged \(1\): their map"):
            z = attack(objective=objective)(Bowl(), dark, y, generator=seeded(0))
        assert ((z != dark).flatten(1).any(1)).tolist() == [True, False, True, True]


def test_noise_is_fresh_for_steps_and_common_for_scores(dtype: torch.dtype) -> None:
    model, x, y = oracles.softplus_net().to(dtype), oracles.images().to(dtype), oracles.labels()
    spy = Spy()
    attack(attribution=spy, restarts=2)(model, x, y, generator=seeded(0))
    drawn = [float(value) for value in spy.noise]
    scores = [drawn[0], *drawn[2::2]]  # the clean map, then a step and a score in turn
    steps = drawn[3::2]
    assert len(spy.scored) > 20
    assert len(set(drawn)) == len(spy.climbed) + 1
    assert max(drawn.count(value) for value in drawn) == len(spy.scored)
    assert len(scores) + len(steps) == len(drawn) - 1


def test_common_noise_keeps_luck_out_of_the_score(dtype: torch.dtype) -> None:
    """A stochastic map of a linear model never changes; unequal noise would make it look attacked."""
    model = oracles.softplus_net().to(dtype)
    noisy = partial(smooth_grad, sigma=0.3, samples=2)
    x, y = oracles.images().to(dtype), oracles.labels()
    tiny = attack(attribution=noisy, ball=LinfBall(eps=1e-6), step_size=1e-7)
    z = tiny(model, x, y, generator=seeded(0))
    a, b = (noisy(model, q, y, generator=seeded(1)) for q in (x, z))
    assert (metrics.cosine(a, b) > 0.9999).all()


def test_a_row_without_gradient_leaves_the_others_alone(dtype: torch.dtype) -> None:
    x = oracles.images(3).to(dtype)
    noisy = partial(smooth_grad, sigma=0.1, samples=2)
    found = attack(attribution=noisy, objective=MassCenter())
    one = found(Bowl(), x, zeros(x), generator=seeded(0))
    x[1] = 0
    other = found(Bowl(), x, zeros(x), generator=seeded(0))
    assert torch.equal(one[[0, 2]], other[[0, 2]])


def test_a_map_that_vanishes_does_not_pass_for_a_change(dtype: torch.dtype) -> None:
    """All pixels of a zero map are tied, and the first ones of a tie would be its top k."""

    class Gate(nn.Module):
        """Explained by the image, but for images darker than those it was given: by nothing."""

        def forward(self, x: Tensor) -> Tensor:
            bright = x.detach().flatten(1).mean(1, keepdim=True) >= 0.5
            return torch.where(bright, x.square().flatten(1).sum(1, keepdim=True), 1.0)

    x = torch.linspace(0.3, 0.9, 64, dtype=dtype).view(1, 1, 8, 8)
    overlap = partial(metrics.topk_intersection, k=5)
    value = compared(overlap, gradient(Gate(), x, zeros(x)))
    assert value(gradient(Gate(), x - 0.2, zeros(x))).isnan().all()
    assert value(gradient(Gate(), x, zeros(x))) == 1
    z = RandomSign(eps=0.2, draws=50, score=overlap, attribution=gradient)(
        Gate(), x, zeros(x), generator=seeded(0)
    )
    assert (gradient(Gate(), z, zeros(x)) != 0).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_without_a_budget_everything_stays_as_it_is(norm: Any, dtype: torch.dtype) -> None:
    """No slope is needed for that: maps of a network with kinks have none at so small a distance."""
    x = oracles.images(2).to(dtype)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3)).to(dtype)
    z = standard(eps=0.0, attribution=gradient, k=5, norm=norm)(net, x, zeros(x))
    assert torch.equal(z, x)
    assert z.data_ptr() != x.data_ptr()
    x[1] = 0
    noisy = attack(objective=MassCenter(), ball=LinfBall(eps=0), attribution=input_x_gradient)
    with pytest.warns(UnattackedWarning, match="1 of 2 rows"):
        assert torch.equal(noisy(Bowl(), x, zeros(x)), x)
