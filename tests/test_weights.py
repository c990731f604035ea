"""Networks whose weights or layers do not fit what is asked of them: the error says which, and why."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import _model, attacks, attributions, faithfulness, training
from tests import oracles

_BALL = attacks.LinfBall(eps=0.1)
CALLS: dict[str, Callable[..., Any]] = {
    "gradient": attributions.gradient,
    "SmoothGrad": partial(attributions.smooth_grad, sigma=0.1, samples=2),
    "PGD": attacks.PGD(ball=_BALL, steps=2, step_size=0.05),
    "AttributionAttack": attacks.AttributionAttack(
        attribution=attributions.gradient,
        objective=attacks.TopK(k=4),
        ball=_BALL,
        steps=2,
        step_size=0.05,
    ),
    "correct": training.correct,
    "insertion": lambda model, x, y: faithfulness.insertion(model, x, y, x[:, 0], steps=4),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 3)).eval()


def _inputs() -> tuple[Tensor, Tensor]:
    return oracles.images(), oracles.labels()


@pytest.mark.parametrize(
    "layer", [nn.MultiheadAttention(4, 2, dropout=0.1), nn.LSTM(4, 4, 2, dropout=0.1), nn.RReLU()]
)
def test_noise_inside_a_layer_is_found_in_train_mode(layer: Any) -> None:
    model = nn.Sequential(layer)
    with pytest.raises(ValueError, match=f"got {type(layer).__name__} '0' in train mode; call"):
        _model.settled(model)
    _model.settled(model.eval())
    layer.dropout, layer.lower = 0.0, getattr(layer, "upper", 0.0)
    _model.settled(model.train())


@every_call
def test_weights_of_another_type_or_place_are_named(call: Callable[..., Any]) -> None:
    with pytest.raises(
        ValueError,
        match=r"Expected x with the dtype of the model's weights, torch.float32, got torch.float64",
    ):
        call(_net().float(), *_inputs())
    with pytest.raises(
        ValueError, match="Expected x with the device of the model's weights, meta, got cpu"
    ):
        call(_net().to("meta"), *_inputs())


@every_call
def test_weights_of_inference_mode_are_named(call: Callable[..., Any]) -> None:
    x, y = _inputs()
    with torch.inference_mode():
        model = _net()
    if call in (CALLS["correct"], CALLS["insertion"]):
        call(model, x, y)  # they take no gradient
        return
    with pytest.raises(ValueError, match=r"weights made outside torch.inference_mode\(\), got inf"):
        call(model, x, y)
    with torch.no_grad():
        call(_net(), x, y)


def test_other_errors_of_a_model_pass_through() -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        _model.logits(nn.Sequential(nn.Flatten(), nn.Linear(5, 3)), oracles.images())
