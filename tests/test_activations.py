"""Neurons that stay on: by hand, against the law of a wide random layer, and in any code."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import attributions, metrics
from attrlib.activations import consistency
from tests import oracles, term_oracles


def _at_angle(angle: float, *, n: int = 32, dim: int = 100) -> tuple[Tensor, Tensor]:
    """Pairs of points of length 1 at this angle."""
    x, way = torch.randn(2, n, dim, generator=oracles.seeded(1))
    x = functional.normalize(x)
    way = functional.normalize(way - (way * x).sum(1, keepdim=True) * x)
    return x, math.cos(angle) * x + math.sin(angle) * way


def _wide(width: int = 5000, *, dim: int = 100) -> nn.Sequential:
    net = nn.Sequential(nn.Linear(dim, width, bias=False), nn.ReLU(), nn.Linear(width, 1))
    generator = oracles.seeded(2)
    with torch.no_grad():
        for layer in (net[0], net[2]):
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
    return net


@pytest.mark.parametrize("angle", [0.1, 0.4, 0.8, 1.2, 2.5])
def test_a_wide_random_layer_follows_the_law_of_the_angle(angle: float) -> None:
    model, (x, z), y = _wide(), _at_angle(angle), torch.zeros(32).long()
    law = 1 - angle / math.pi
    value = consistency(model, x, z)
    assert ((value - law).abs() < 0.03).all()
    assert float(value.mean()) == pytest.approx(law, abs=0.005)
    gradients = (attributions.gradient(model, v, y) for v in (x, z))
    assert float(metrics.cosine(*gradients).mean()) == pytest.approx(law, abs=0.03)


class By(nn.Module):
    """Two layers, with their activation as it is written in a forward."""

    def __init__(self, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.activation = activation
        self.first = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]]))
        self.second = nn.Parameter(torch.tensor([[1.0, 0.0, 0.0, 0.0], [1.0, 0.0, -1.0, 0.0]]))

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.activation((x - 0.5) @ self.first.T) @ self.second.T + 0.1)


WAYS = {
    "module": nn.ReLU(),
    "in place": nn.ReLU(inplace=True),
    "functional": functional.relu,
    "functional in place": lambda u: functional.relu(u, inplace=True),
    "torch": torch.relu,
    "torch in place": torch.relu_,
    "method": lambda u: u.relu(),
    "method in place": lambda u: u.relu_(),
    "named": lambda u: functional.relu(input=u),
    "leaky": nn.LeakyReLU(0.0),
    "softplus": nn.Softplus(beta=1e6),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_two_layers_by_hand(way: Callable[[Tensor], Tensor]) -> None:
    x, z = torch.tensor([[0.9, 0.9], [0.6, 0.8]]), torch.tensor([[0.9, 0.3], [0.6, 0.7]])
    # First layer at x: (+ + + −) in both rows. At z: (+ − + −), of which two stay; (+ + + −), all stay.
    # Second layer at x: 0.5 and −0.3; 0.2 and −0.2. At z: 0.5 and 0.3; 0.2 and −0.1.
    first, second = 2 / math.sqrt(3 * 2), 1 / math.sqrt(1 * 2)
    expected = torch.tensor([(first + second) / 2, 1.0])
    torch.testing.assert_close(consistency(By(way), x, z), expected)


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_one_value_per_image_in_the_type_of_the_image(kind: torch.dtype) -> None:
    model, x = term_oracles.net(nn.ReLU).to(kind), oracles.images().to(kind)
    z = (x + 0.2 * torch.randn(x.shape, generator=oracles.seeded(3)).to(kind)).clamp(0, 1)
    value = consistency(model, x.requires_grad_(), z)
    assert value.shape == (4,)
    assert value.dtype == kind
    assert not value.requires_grad
    assert ((value > 0.5) & (value < 1)).all()
    assert torch.equal(consistency(model, x, x), torch.ones(4, dtype=kind))
    alone = torch.cat([consistency(model, x[i : i + 1], z[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(value, alone)


def test_a_small_step_switches_less_than_a_large_one() -> None:
    model, x = term_oracles.net(nn.ReLU), oracles.images()
    way = torch.randn(x.shape, generator=oracles.seeded(3))
    values = torch.stack([consistency(model, x, x + eps * way) for eps in (0.0, 0.05, 0.2, 0.8)])
    assert (values.diff(dim=0).mean(1) < 0).all()


def test_a_layer_that_is_off_is_undefined() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    x = torch.rand(3, 2, generator=oracles.seeded(0))
    assert consistency(model, x, x).isnan().all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    model, x = term_oracles.net(nn.ReLU), oracles.images()
    with pytest.raises(ValueError, match="Expected x and z to have one shape"):
        consistency(model, x, x[:1])
    with pytest.raises(ValueError, match="Expected z to be finite"):
        consistency(model, x, x / 0)
    with pytest.raises(
        ValueError, match=r"Expected model to call an activation .*, got Sequential"
    ):
        consistency(oracles.linear_net(), x, x)
    with pytest.raises(ValueError, match="without batch normalisation in train mode"):
        consistency(term_oracles.batch_norm_net(), x, x)
    noisy = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(), nn.ReLU())
    with pytest.raises(ValueError, match="Expected model that gives equal logits each time"):
        consistency(noisy, x, x)

    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1).T.relu().T

    with pytest.raises(ValueError, match=r"one row for each of 8 images, got shape \(64, 8\)"):
        consistency(Mixing(), x, x)
