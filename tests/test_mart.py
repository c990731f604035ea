"""MART: its loss by hand for three classes."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, kl_divergence

from attrlib.attacks import PGD, LinfBall
from attrlib.regularizers import AdversarialCrossEntropy, Mart
from attrlib.training import Loss
from tests import oracles, term_oracles


class Logs(nn.Module):
    """Logits that are the logarithms of the input: its entries are the probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log()


def test_three_classes_by_hand() -> None:
    x = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5], [0.25, 0.5, 0.25]])
    z = torch.tensor([[0.5, 0.2, 0.3], [0.1, 0.7, 0.2], [0.2, 0.4, 0.4]])
    y = torch.tensor([0, 0, 1])  # right, wrong, and tied
    value = Mart(weight=6.0)(Logs(), x, y, z=z)
    rivals, expected = (2, 1, 2), []
    for p, q, label, rival in zip(x.tolist(), z.tolist(), y.tolist(), rivals, strict=True):
        margin = -math.log(q[label]) - math.log(1.0001 - q[rival])
        divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected.append(margin + 6 * divergence * (1 - p[label]))
    torch.testing.assert_close(value, torch.tensor(expected))


def test_the_margin_counts_the_strongest_wrong_class_and_not_the_label() -> None:
    z, y = torch.tensor([[0.9, 0.06, 0.04]]), torch.tensor([0])
    value = Mart(weight=0.0)(Logs(), z, y, z=z)
    assert float(value) == pytest.approx(-math.log(0.9) - math.log(0.9401))
    with_the_label = -math.log(0.9) - math.log(0.1001)
    assert float(value) < with_the_label - 2


def test_a_sure_network_is_not_asked_to_agree_with_itself() -> None:
    x = torch.tensor([[1 - 1e-9, 0.6e-9, 0.4e-9], [0.4, 0.3, 0.3]])
    z, y = torch.tensor([[0.5, 0.3, 0.2], [0.4, 0.2, 0.4]]), torch.zeros(2).long()
    light, heavy = (Mart(weight=w)(Logs(), x, y, z=z) for w in (0.0, 5.0))
    divergence = kl_divergence(Categorical(probs=x), Categorical(probs=z))
    torch.testing.assert_close(heavy - light, 5 * divergence * torch.tensor([1e-9, 0.6]))


def test_the_divergence_is_that_of_the_example_from_the_image() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    z = oracles.images(seed=7)
    light, heavy = (Mart(weight=w)(model, x, y, z=z) for w in (0.0, 2.0))
    p, q = (Categorical(logits=model(v)) for v in (x, z))
    doubt = 1 - p.probs.gather(1, y[:, None]).squeeze(1)
    torch.testing.assert_close(heavy - light, 2 * kl_divergence(p, q) * doubt)
    assert not torch.allclose(heavy - light, 2 * kl_divergence(q, p) * doubt, rtol=1e-3)


def test_without_the_divergence_the_image_plays_no_part() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    values = [Mart(weight=0.0)(model, v, y, z=x) for v in (x, oracles.images(seed=7))]
    assert torch.equal(*values)
    assert (values[0] > AdversarialCrossEntropy()(model, x, y, z=x)).all()


def test_the_weights_get_the_derivative_of_all_probabilities() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    z = oracles.images(seed=7)
    analytic, numeric = term_oracles.slopes(lambda: Mart()(model, x, y, z=z), model)
    torch.testing.assert_close(analytic, numeric, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("scale", [0.0, 1e-6, 1e3, 1e6])
def test_gradients_are_finite_for_tied_and_saturated_logits(scale: float) -> None:
    model, x, y = oracles.linear_net().float(), oracles.images().float(), oracles.labels()
    with torch.no_grad():
        model[1].weight.mul_(scale)
        model[1].bias.mul_(scale)
    x = x.requires_grad_()
    value = Mart()(model, x, y, z=oracles.images(seed=7).float())
    assert value.dtype == torch.float32
    assert torch.isfinite(value).all()
    for grad in torch.autograd.grad(value.sum(), [x, *model.parameters()]):
        assert torch.isfinite(grad).all()
    if scale == 0:
        tied = math.log(3) - math.log(1.0001 - 1 / 3)
        torch.testing.assert_close(value, torch.full((4,), tied, dtype=torch.float32))


def test_the_lowest_value_is_that_of_a_sure_network() -> None:
    model, x = oracles.linear_net().float(), oracles.images().float()
    with torch.no_grad():
        model[1].weight.mul_(1e6)
    value = Mart()(model, x, model(x).argmax(1), z=x)
    torch.testing.assert_close(
        value, torch.full((4,), -1e-4, dtype=torch.float32), rtol=0, atol=1e-6
    )


def test_a_whole_loss() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    attack = PGD(ball=LinfBall(eps=0.1), steps=2, step_size=0.05)
    loss = Loss(terms={"objective": Mart()}, weights={"objective": 1.0}, attack=attack)
    total, _ = loss(model, x, y, generator=oracles.seeded(1))
    torch.testing.assert_close(total, Mart()(model, x, y, z=attack(model, x, y)))


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match=r"Expected weight >= 0, got -1\.0"):
        Mart(weight=-1.0)
    with pytest.raises(ValueError, match=r"Expected z of shape \(4, 1, 8, 8\), got \(1, 1, 8, 8\)"):
        Mart()(model, x, y, z=x[:1])
    with pytest.raises(ValueError, match=r"Expected model\(x\) to be logits .* at least 2 classes"):
        Mart()(lambda x: x.flatten(1).sum(1, keepdim=True), x, y, z=x)
