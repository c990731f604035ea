"""Terms of a loss."""

import dataclasses

import pytest
import torch

from attrlib.regularizers import AdversarialCrossEntropy, CrossEntropy
from attrlib.types import Term
from tests import oracles


def test_cross_entropy_is_minus_the_log_of_the_softmax() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    term = CrossEntropy()
    assert isinstance(term, Term)
    expected = -model(x).softmax(1).gather(1, y[:, None]).squeeze(1).log()
    torch.testing.assert_close(term(model, x, y), expected)
    assert torch.equal(term(model, x, y, z=1 - x, generator=oracles.seeded(0)), term(model, x, y))


def test_cross_entropy_reaches_the_weights_and_saturated_logits() -> None:
    model, x, y = oracles.linear_net().float(), oracles.images().float(), oracles.labels()
    with torch.no_grad():
        model[1].weight.mul_(1e6)
    value = CrossEntropy()(model, x, y)
    (grad,) = torch.autograd.grad(value.sum(), model[1].weight)
    assert torch.isfinite(value).all()
    assert torch.isfinite(grad).all()
    tied = CrossEntropy()(lambda x: torch.zeros(len(x), 3), x, y)
    torch.testing.assert_close(tied, torch.full((4,), 3.0).log())


def test_terms_are_frozen_and_equal_by_value() -> None:
    assert CrossEntropy() == CrossEntropy()
    with pytest.raises(dataclasses.FrozenInstanceError):
        CrossEntropy().weight = 1


@pytest.mark.usefixtures("unchecked_shapes")
def test_cross_entropy_names_a_bad_label() -> None:
    with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
        CrossEntropy()(oracles.linear_net(), oracles.images(), torch.tensor([0, 1, 2, 3]))


def test_adversarial_cross_entropy_is_cross_entropy_at_the_example() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    term, z = AdversarialCrossEntropy(), oracles.images().flip(0)
    assert isinstance(term, Term)
    assert torch.equal(term(model, x, y, z=z), CrossEntropy()(model, z, y))
    assert torch.equal(term(model, 0 * x, y, z=z), term(model, x, y, z=z))


@pytest.mark.usefixtures("unchecked_shapes")
def test_adversarial_cross_entropy_needs_an_example_of_the_same_shape() -> None:
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match=r"Expected z, the adversarial example .* got None"):
        AdversarialCrossEntropy()(model, x, y)
    with pytest.raises(ValueError, match="Expected z of shape"):
        AdversarialCrossEntropy()(model, x, y, z=x[:1])
