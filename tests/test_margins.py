"""Attacks on the margin, with and without gradients, and on the density: optima known in closed form."""

import pytest
import torch
import torchattacks
from torch import Tensor, nn

from attrlib import energy
from attrlib.attacks import PGD, DensityAttack, L2Ball, LinfBall, MarginPGD, Square
from tests import oracles, term_oracles
from tests.oracles import seeded


def _two_classes() -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """A linear model, images away from 0 and 1, labels, and the slope of the other class's lead."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    nn.init.normal_(model[1].weight, generator=seeded(3))
    nn.init.zeros_(model[1].bias)
    x, y = 0.4 + 0.2 * oracles.images(4), torch.tensor([0, 1, 0, 1])
    weight = model[1].weight.detach()
    return model, x, y, (weight[1 - y] - weight[y]).view_as(x)


def _margin(model: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    logits = model(z).detach()
    own = logits.gather(1, y[:, None])[:, 0]
    return own - logits.scatter(1, y[:, None], -torch.inf).amax(1)


# --- with gradients -------------------------------------------------------------------------------


@pytest.mark.parametrize("ball", [LinfBall(eps=0.1), L2Ball(eps=0.5)], ids=["linf", "l2"])
def test_the_margin_of_a_linear_model_falls_to_its_lowest(ball: LinfBall | L2Ball) -> None:
    model, x, y, push = _two_classes()
    z = MarginPGD(ball=ball, steps=40, step_size=ball.eps / 4)(model, x, y, generator=seeded(0))
    best = ball.project(x + ball.eps * ball.steepest(push), x)
    torch.testing.assert_close(_margin(model, z, y), _margin(model, best, y))


def test_more_restarts_are_never_worse_and_the_image_counts() -> None:
    model, x, y = term_oracles.net(nn.ReLU), oracles.images(), oracles.labels()
    one, five = (
        _margin(
            model,
            MarginPGD(ball=LinfBall(eps=0.1), steps=5, step_size=0.05, restarts=count)(
                model, x, y, generator=seeded(0)
            ),
            y,
        )
        for count in (1, 5)
    )
    assert (five <= one).all()
    assert (five < one).any()
    assert (one <= _margin(model, x, y)).all()
    frozen = MarginPGD(ball=LinfBall(eps=0.0), steps=1, step_size=0.1)
    assert torch.equal(frozen(model, x, y), x)


def test_the_margin_has_a_slope_where_the_cross_entropy_has_none() -> None:
    model, x, _, _ = _two_classes()
    model, x = model.float(), x.float()
    y = model(x).argmax(1)
    with torch.no_grad():
        model[1].weight.mul_(1e3)  # sure to the last digit of float32
    ball = LinfBall(eps=0.3)
    plain = PGD(ball=ball, steps=10, step_size=0.1)(model, x, y)
    assert torch.equal(plain, x)
    z = MarginPGD(ball=ball, steps=10, step_size=0.1)(model, x, y, generator=seeded(0))
    assert (model(z).argmax(1) != y).all()


# --- without gradients ----------------------------------------------------------------------------


def test_squares_come_close_to_the_lowest_margin_of_a_linear_model() -> None:
    model, x, y, push = _two_classes()
    # So sure of the labels that no row is ever done.
    sure = lambda v: model(v) + 1e3 * nn.functional.one_hot(y, 2)  # noqa: E731
    z = Square(eps=0.1, queries=1000)(sure, x, y, generator=seeded(0))
    fallen = _margin(model, x, y) - _margin(model, z, y)
    most = 0.1 * push.abs().flatten(1).sum(1)
    assert (fallen > 0.9 * most).all()
    assert (fallen <= most + 1e-9).all()


def test_queries_are_counted_and_end_when_all_predictions_are_wrong() -> None:
    model, x, y, _ = _two_classes()
    spy = term_oracles.Recorder(model)
    y = model(x).argmax(1)
    Square(eps=1e-6, queries=30)(spy, x, y, generator=seeded(0))
    assert len(spy.points) == 1 + 30
    spy = term_oracles.Recorder(model)
    z = Square(eps=0.5, queries=500)(spy, x, y, generator=seeded(0))
    assert (model(z).argmax(1) != y).all()
    assert len(spy.points) < 100
    sizes = [len(p) for p in spy.points]
    assert sizes == sorted(sizes, reverse=True)


def test_wrong_predictions_stay_and_budgets_hold(dtype: torch.dtype) -> None:
    model, x, y, _ = _two_classes()
    model, x = model.to(dtype), x.to(dtype)
    wrong = 1 - model(x).argmax(1)
    assert torch.equal(Square(eps=0.1, queries=20)(model, x, wrong, generator=seeded(0)), x)
    x = (x * 0).bernoulli(0.5, generator=seeded(1))  # black and white: half of each step is cut
    y = model(x).argmax(1)
    for attack in (
        Square(eps=0.1, queries=50),
        MarginPGD(ball=LinfBall(eps=0.1), steps=3, step_size=0.1),
        DensityAttack(ball=LinfBall(eps=0.1), steps=3, step_size=0.1),
    ):
        z = attack(model, x, y, generator=seeded(0))
        assert ((z - x).abs() <= 0.1).all()
        assert z.min() >= 0
        assert z.max() <= 1
        assert not torch.equal(z, x)


def test_as_strong_as_the_one_of_torchattacks() -> None:
    torch.set_default_dtype(torch.float32)  # theirs draws in it; conftest's fixture puts it back
    model = term_oracles.net(nn.ReLU).float().eval()
    x = oracles.images(64).float()
    y = model(x).argmax(1)
    kept = []
    for eps in (0.05, 0.1):
        theirs = torchattacks.Square(model, eps=eps, n_queries=200, n_restarts=1, seed=0)
        z = Square(eps=eps, queries=200)(model, x, y, generator=seeded(0))
        rates = [float((model(v).argmax(1) == y).float().mean()) for v in (z, theirs(x, y))]
        assert abs(rates[0] - rates[1]) < 0.1
        kept.append(rates[0])
    assert 1 > kept[0] > kept[1]


class Stairs(nn.Module):
    """A linear model of rounded pixels: no gradient anywhere, and no robustness."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model((20 * x).floor() / 20 + 0 * x)


def test_squares_find_what_gradients_hide() -> None:
    plain, x, _, _ = _two_classes()
    model = Stairs(plain)
    y = model(x).argmax(1)
    by_gradient = PGD(ball=LinfBall(eps=0.2), steps=20, step_size=0.05)(model, x, y)
    assert (model(by_gradient).argmax(1) == y).all()
    z = Square(eps=0.2, queries=300)(model, x, y, generator=seeded(0))
    assert (model(z).argmax(1) != y).all()


# --- on the density -------------------------------------------------------------------------------


def test_a_linear_density_goes_to_the_farther_end() -> None:
    model, y = oracles.linear_net((1, 2, 2)), torch.zeros(2, dtype=torch.int64)
    weight = model[1].weight[0].view(1, 2, 2).detach()
    at_the_top = (weight > 0).to(weight)  # nothing to gain upwards
    x = torch.stack([at_the_top, 1 - at_the_top])
    attack = DensityAttack(ball=LinfBall(eps=0.2), steps=4, step_size=0.1, density=energy.joint)
    z = attack(model, x, y)
    torch.testing.assert_close(z, (x + 0.2 * torch.stack([-1 * weight.sign(), weight.sign()])))
    shift = (energy.joint(model, z, y) - energy.joint(model, x, y)).detach()
    torch.testing.assert_close(shift.abs(), 0.2 * weight.abs().sum().expand(2))


@pytest.mark.parametrize(
    "density", [energy.marginal, energy.conditional, energy.centered], ids=lambda d: d.__name__
)
def test_each_density_moves_farther_than_by_noise(density: energy.Density) -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    ball = L2Ball(eps=0.5)
    z = DensityAttack(ball=ball, steps=10, step_size=0.1, density=density)(model, x, y)
    noisy = ball.sample(x, seeded(0))
    found, chance = (energy.density_shift(model, x, v, y, density=density) for v in (z, noisy))
    assert (found > 3 * chance).all()


def test_a_density_without_slope_stays() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    nn.init.zeros_(model.layers[-1].weight)
    z = DensityAttack(ball=LinfBall(eps=0.1), steps=2, step_size=0.1)(model, x, y)
    assert torch.equal(z, x)


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    model, x, y, _ = _two_classes()
    with pytest.raises(ValueError, match=r"Expected eps >= 0, got -0\.1"):
        Square(eps=-0.1)
    with pytest.raises(ValueError, match="Expected queries to be an integer >= 1, got 0"):
        Square(eps=0.1, queries=0)
    with pytest.raises(ValueError, match="Expected share strictly between 0 and 1, got 1"):
        Square(eps=0.1, share=1)
    with pytest.raises(
        ValueError, match=r"Expected x of shape \(n, channels, h, w\), got \(4, 64\)"
    ):
        Square(eps=0.1)(model, x.flatten(1), y)
    for attack in (Square(eps=0.1), MarginPGD(ball=LinfBall(eps=0.1), steps=1, step_size=0.1)):
        with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\], got \["):
            attack(model, 2 * x, y)
    ball = LinfBall(eps=0.1)
    with pytest.raises(ValueError, match="Expected restarts to be an integer >= 1, got 0"):
        MarginPGD(ball=ball, steps=1, step_size=0.1, restarts=0)
    for kind in (MarginPGD, DensityAttack):
        with pytest.raises(ValueError, match="Expected steps to be an integer >= 1, got 0"):
            kind(ball=ball, steps=0, step_size=0.1)
        with pytest.raises(ValueError, match="Expected step_size > 0, got 0"):
            kind(ball=ball, steps=1, step_size=0)
