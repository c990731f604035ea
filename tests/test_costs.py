"""Costs of maps and steps: what is counted and timed, not how long it takes here."""

import pytest
import torch
from torch import nn

from attrlib.benchmark import costs


def test_the_first_turn_is_not_counted() -> None:
    calls: list[int] = []
    assert costs.cpu_seconds(lambda: calls.append(1), turns=3) >= 0
    assert len(calls) == 4


def test_kept_numbers_are_those_of_the_layers() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU())
    assert costs.kept_numbers(net, torch.rand(5, 1, 2, 2)) == 4 + 3 + 3
    assert not any(layer._forward_hooks for layer in net)


def test_the_weights_grow_with_the_square_of_the_width(generator: torch.Generator) -> None:
    for width in (1, 8):
        net = costs.two_convolutions(width, generator=generator)
        found = sum(p.numel() for p in net.parameters())
        convolutions = 49 * width + (32 * width**2 + 2 * width)
        assert found == convolutions + 1280 * width + 10


def test_two_convolutions_follow_the_generator() -> None:
    first, second = (
        costs.two_convolutions(4, generator=torch.Generator().manual_seed(0)) for _ in range(2)
    )
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_takes_longer_than_a_bare_pass(generator: torch.Generator) -> None:
    net = costs.two_convolutions(4, generator=generator).float()
    x = torch.rand(2, 3, 32, 32, generator=generator, dtype=torch.float32)
    found = costs.pass_costs(net, x, torch.tensor([0, 1]))
    assert list(found) == ["bare pass", "gradient map", "attack step"]
    assert 0 < found["bare pass"] < found["attack step"]


def test_errors_name_the_argument() -> None:
    net, x = costs.two_convolutions(1), torch.rand(1, 3, 32, 32, dtype=torch.float32)
    with pytest.raises(ValueError, match="turns to be an integer >= 1, got 0"):
        costs.cpu_seconds(lambda: None, turns=0)
    with pytest.raises(ValueError, match="width to be an integer >= 1, got 0"):
        costs.two_convolutions(0)
    with pytest.raises(ValueError, match="eps"):
        costs.pass_costs(net.float(), x, torch.tensor([0]), eps=0.0)
