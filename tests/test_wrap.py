"""Methods of other libraries as attributions: their maps, what is refused, what stays untouched."""

from functools import partial

import pytest
import torch
from captum import attr as captum
from torch import Tensor, nn
from torch.nn import functional

from attrlib import attacks, checkpoints, metrics
from attrlib.attributions import gradient, wrap
from attrlib.models import SmallCNN, with_softplus
from tests import oracles
from tests.rows import deep_lift


@wrap
def guided_backprop(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return captum.GuidedBackprop(model).attribute(x, target=y)


@wrap
def grad_cam(model: SmallCNN, x: Tensor, y: Tensor) -> Tensor:
    heat = captum.LayerGradCam(model, model.layers[3]).attribute(x, target=y)
    return functional.interpolate(heat, x.shape[2:], mode="bilinear")


def _relu_net(channels: int = 1) -> SmallCNN:
    return SmallCNN(size=8, channels=channels, classes=3, generator=oracles.seeded(0))


# --- maps -----------------------------------------------------------------------------------------


def test_deep_lift_of_a_linear_net_is_weight_times_difference() -> None:
    @wrap
    def from_grey(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return captum.DeepLift(model).attribute(x, torch.full_like(x, 0.3), target=y)

    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    weights = model[1].weight.detach()[y].view_as(x)
    torch.testing.assert_close(from_grey(model, x, y), weights * (x - 0.3))


def test_deep_lift_adds_up_to_the_difference_of_the_logits() -> None:
    model, x, y = _relu_net(), oracles.images(), oracles.labels()
    with torch.no_grad():
        gap = (model(x) - model(torch.zeros_like(x))).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(deep_lift(model, x, y).flatten(1).sum(1), gap)


def test_guided_backprop_is_the_gradient_where_nothing_is_negative() -> None:
    model, x, y = _relu_net(), oracles.images(), oracles.labels()
    assert not torch.allclose(guided_backprop(model, x, y), gradient(model, x, y))
    with torch.no_grad():
        for p in model.parameters():
            p.abs_()
    torch.testing.assert_close(guided_backprop(model, x, y), gradient(model, x, y))


def test_one_channel_is_given_to_all() -> None:
    model, x, y = _relu_net(channels=2), oracles.images(channels=2), oracles.labels()
    a = grad_cam(model, x, y)
    assert a.shape == x.shape
    assert torch.equal(a[:, 0], a[:, 1])
    a[0, 0] = 7.0  # two arrays, not two views of one
    assert (a[0, 1] != 7).all()


def test_lrp_of_zennit_keeps_the_sum() -> None:
    explainers = pytest.importorskip("zennit.attribution")
    from zennit import composites, rules

    @wrap
    def lrp(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        epsilon = composites.LayerMapComposite([(nn.Linear, rules.Epsilon(1e-9))])
        with explainers.Gradient(model, epsilon) as explain:
            scores = model(x)
            return explain(x, scores.detach() * functional.one_hot(y, scores.shape[1]))[1]

    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    with torch.no_grad():
        model[1].bias.zero_()
        logit = model(x).gather(1, y[:, None])[:, 0]
    torch.testing.assert_close(lrp(model, x, y).flatten(1).sum(1), logit, rtol=1e-4, atol=1e-6)


# --- attacks --------------------------------------------------------------------------------------


def test_an_attack_by_gradients_is_refused_with_the_reason() -> None:
    attack = attacks.AttributionAttack(
        attribution=deep_lift,
        objective=attacks.TopK(k=9),
        ball=attacks.LinfBall(eps=0.1),
        steps=2,
        step_size=0.05,
    )
    with pytest.raises(
        ValueError, match=r"deep_lift cannot be differentiated .* score this one on the points"
    ):
        attack(_relu_net(), oracles.images(), oracles.labels(), generator=oracles.seeded(0))


def test_it_is_scored_on_points_found_without_its_gradient() -> None:
    model, x, y = _relu_net(), oracles.images(), oracles.labels()
    one, best = (
        attacks.RandomSign(eps=0.05, draws=n, score=metrics.cosine, attribution=guided_backprop)(
            model, x, y, generator=oracles.seeded(0)
        )
        for n in (1, 8)
    )
    clean = guided_backprop(model, x, y)
    first, last = (metrics.cosine(clean, guided_backprop(model, z, y)) for z in (one, best))
    assert (last <= first).all()
    assert (last < first).any()
    found = attacks.AttributionAttack(
        attribution=gradient,
        objective=attacks.TopK(k=9),
        ball=attacks.LinfBall(eps=0.1),
        steps=3,
        step_size=0.05,
        keep_label=False,
        surrogates=(partial(with_softplus, beta=10.0),),
    )(model, x, y, generator=oracles.seeded(0))
    assert (metrics.cosine(clean, guided_backprop(model, found, y)) < 1).any()


def test_without_a_graph_a_leaf_is_welcome() -> None:
    model, x, y = _relu_net(), oracles.images(), oracles.labels()
    with torch.no_grad():
        a = deep_lift(model, x.clone().requires_grad_(), y)
    assert torch.equal(a, deep_lift(model, x, y))


# --- what stays as it was -------------------------------------------------------------------------


def test_a_method_that_spoils_what_it_is_given_spoils_copies() -> None:
    model, x, y = _relu_net().eval(), oracles.images(), oracles.labels()
    weights, before = [p.detach().clone() for p in model.parameters()], (x.clone(), y.clone())

    def spoils(net: nn.Module, z: Tensor, c: Tensor) -> Tensor:
        net.train().register_forward_hook(lambda *_: None)
        net(z).sum().backward()
        with torch.no_grad():
            z.zero_()
            c.zero_()
            for p in net.parameters():
                p.zero_()
        raise KeyError("and stops")

    with pytest.raises(KeyError, match="and stops"):
        wrap(spoils)(model, x, y)
    assert not any(m.training or m._forward_hooks for m in model.modules())
    for p, values in zip(model.parameters(), weights, strict=True):
        assert p.grad is None
        assert torch.equal(p, values)
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


def test_a_model_that_keeps_activations_is_copied() -> None:
    class Keeps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = _relu_net()

        def forward(self, x: Tensor) -> Tensor:
            self.kept = self.net(x)
            return self.kept

    model, x, y = Keeps(), oracles.images(), oracles.labels()
    model(x)
    torch.testing.assert_close(guided_backprop(model, x, y), guided_backprop(model.net, x, y))


def test_noise_follows_the_generator() -> None:
    @wrap
    def noisy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return torch.randn_like(x)

    call = partial(noisy, _relu_net(), oracles.images(), oracles.labels())
    before = torch.get_rng_state()
    first, again, other = (call(generator=oracles.seeded(seed)) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        expected = torch.randn(first.shape)
        torch.manual_seed(4)
        assert torch.equal(call(), expected)


# --- names and errors -----------------------------------------------------------------------------


def test_the_name_is_that_of_the_method() -> None:
    assert checkpoints.describe(grad_cam) == {"name": "grad_cam"}

    def bound(model: nn.Module, x: Tensor, y: Tensor, *, times: int) -> Tensor:
        return times * x

    assert wrap(partial(bound, times=2)).__name__ == "partial"


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_methods_are_named() -> None:
    call = (oracles.linear_net(), oracles.images(), oracles.labels())
    with pytest.raises(TypeError, match="Expected method to be a function, got int"):
        wrap(3)

    def flat(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x.flatten(1)

    with pytest.raises(ValueError, match=r"Expected flat to return .* got \(4, 64\)"):
        wrap(flat)(*call)

    def pair(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x, x

    with pytest.raises(TypeError, match=r"Expected pair to return a torch.Tensor, got tuple"):
        wrap(pair)(*call)
