"""Attention, compiled code and hand-written layers: a second derivative, or the way to one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from attrlib import attacks, attributions, data, regularizers, training
from attrlib._model import second_derivative
from tests import oracles

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

BALL = attacks.LinfBall(eps=0.1)
ATTACK = attacks.AttributionAttack(
    attribution=attributions.gradient,
    objective=attacks.TopK(k=9),
    ball=BALL,
    steps=2,
    step_size=0.05,
)


class Attention(nn.Module):
    """One head over four patches, with PyTorch's fused kernel."""

    def __init__(self, backend: SDPBackend | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.patch, self.head = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 3)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x).flatten(2).transpose(1, 2)[:, None].contiguous()
        if self.backend is None:
            h = functional.scaled_dot_product_attention(h, h, h)
        else:
            with sdpa_kernel(self.backend):
                h = functional.scaled_dot_product_attention(h, h, h)
        return self.head(functional.gelu(h[:, 0]).mean(1))


class Formula(Attention):
    """The same, written out."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = (h @ h.transpose(1, 2) / 8**0.5).softmax(-1) @ h
        return self.head(functional.gelu(h).mean(1))


TERMS: dict[str, Callable[..., Tensor]] = {
    "InputGradientNorm": regularizers.InputGradientNorm(),
    "Curvature": regularizers.Curvature(h=0.1),
    "HessianNorm": regularizers.HessianNorm(),
    "IGNorm": regularizers.IGNorm(ball=BALL, steps=1, step_size=0.1),
    "IGSumNorm": regularizers.IGSumNorm(ball=BALL, steps=1, step_size=0.1),
    "SmoothSurface": regularizers.SmoothSurface(),
    "SmoothSurface, matrix-free": regularizers.SmoothSurface(solver="matrix-free"),
    "LocalGradientAlignment": regularizers.LocalGradientAlignment(l2=0.1, cosine=1.0, ball=BALL),
    "IntegratedGradientRegularizer": lambda model, x, y: (
        regularizers.IntegratedGradientRegularizer()(model, x, y, z=x.flip(0))
    ),
    "AttributionTriplet": lambda model, x, y: regularizers.AttributionTriplet(beta=None)(
        model, x, y, z=x.flip(0)
    ),
}
every_term = pytest.mark.parametrize("call", TERMS.values(), ids=TERMS.keys())


@every_term
def test_terms_train_through_fused_attention(call: Callable[..., Any]) -> None:
    x, y = oracles.images(), oracles.labels()
    slopes = []
    for model in (Attention(), Formula()):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            slopes.append(torch.autograd.grad(call(model, x, y).sum(), model.patch.weight)[0])
    assert slopes[0].any()
    torch.testing.assert_close(*slopes)


def test_maps_of_fused_attention_are_attacked() -> None:
    x, y = oracles.images(), oracles.labels()
    one, other = (ATTACK(m, x, y, generator=oracles.seeded(0)) for m in (Attention(), Formula()))
    assert not torch.equal(one, x)
    torch.testing.assert_close(one, other)


def test_a_kernel_that_the_model_chooses_itself_is_named_with_the_remedy() -> None:
    model = Attention(SDPBackend.FLASH_ATTENTION)
    with pytest.raises(ValueError, match=r"second derivative, got .*sdpa_kernel\(SDPBackend.MATH"):
        ATTACK(model, oracles.images(), oracles.labels(), generator=oracles.seeded(0))


# PyTorch's own, where the input of compiled code is no leaf.
quiet = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")


@quiet
@every_term
def test_terms_train_through_a_compiled_model(call: Callable[..., Any]) -> None:
    net, x, y = oracles.softplus_net().eval(), oracles.images(), oracles.labels()
    compiled = torch.compile(net, backend="aot_eager")
    slopes = []
    for model in (net, compiled, nn.Sequential(compiled)):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            value = call(model, x, y).sum()
        slopes.append(torch.autograd.grad(value, net.layers[0].weight)[0])
    torch.testing.assert_close(slopes[0], slopes[1])
    torch.testing.assert_close(slopes[0], slopes[2])


@quiet
def test_maps_of_a_compiled_model_are_attacked() -> None:
    net, x, y = oracles.softplus_net().eval(), oracles.images(), oracles.labels()
    compiled = torch.compile(net, backend="aot_eager")
    one, other = (ATTACK(m, x, y, generator=oracles.seeded(0)) for m in (net, compiled))
    torch.testing.assert_close(one, other)


class Once(torch.autograd.Function):
    """A hand-written derivative that ends there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * grad


def test_a_layer_without_a_second_derivative_ends_training_in_one_sentence() -> None:
    head = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = head

        def forward(self, x: Tensor) -> Tensor:
            return self.head(Once.apply(x))

    images = data.Images(oracles.images(), oracles.labels(), ("a", "b", "c"))
    loss = training.Loss(terms={"slope": regularizers.InputGradientNorm()}, weights={"slope": 1.0})
    with pytest.raises(ValueError, match="Expected model to have a second derivative, got"):
        training.train(
            Model(),
            images,
            loss,
            config=training.TrainConfig(epochs=1),
            generator=oracles.seeded(0),
        )


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match=r"^out of memory$"), second_derivative():
        raise RuntimeError("out of memory")
