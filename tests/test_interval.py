"""The term for bounds: closed forms, its ramp, and training with it."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from attrlib import certificates, training
from attrlib.regularizers import CrossEntropy, IntervalBounds
from tests import oracles, term_oracles
from tests.interval_oracles import NETS, small


def _term(**changes: Any) -> IntervalBounds:
    return IntervalBounds(**{"eps": 0.05, "prediction": 0.7, "maps": 0.4} | changes)


# --- values ---------------------------------------------------------------------------------------


def test_the_value_of_a_linear_model_in_closed_form() -> None:
    """Its box of maps is a point, and each logit moves by eps times the sum of its weights."""
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    reach = 0.05 * model[1].weight.abs().sum(1)
    sign = 1 - 2 * functional.one_hot(y, oracles.CLASSES)
    wanted = 0.7 * functional.cross_entropy(model(x) + sign * reach, y, reduction="none")
    torch.testing.assert_close(_term()(model, x, y), wanted)


def test_one_hidden_unit_in_closed_form() -> None:
    """f(x) = (3 relu(2 x - 1), 0) at x = .5: logits in [0, 1.2], slopes in [0, 6]."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[1].weight.fill_(2.0)
        model[1].bias.fill_(-1.0)
        model[3].weight.copy_(torch.tensor([[3.0], [0.0]]))
        model[3].bias.zero_()
    x, y = torch.full((2, 1, 1, 1), 0.5), torch.tensor([0, 1])
    value = _term(eps=0.2)(model, x, y)
    worst = torch.tensor([[0.0, 0.0], [1.2, 0.0]])
    prediction = functional.cross_entropy(worst, y, reduction="none")
    maps = torch.tensor([6 / (3 + 1e-3), 0.0]).log1p()
    torch.testing.assert_close(value, 0.7 * prediction + 0.4 * maps)


def test_input_times_gradient_of_a_linear_model_in_closed_form() -> None:
    """Its slopes are its weights; the box of the input makes all of the width."""
    model, x, y = oracles.linear_net(), oracles.images(), oracles.labels()
    x[:, :, :2] = 0.0  # black
    low, high = (x - 0.05).clamp(min=0).flatten(1), (x + 0.05).clamp(max=1).flatten(1)
    slopes = model[1].weight[y]
    width = ((high - low) * slopes).norm(dim=1)
    length = ((high + low) / 2 * slopes).norm(dim=1)
    value = _term(prediction=0.0, of="input_x_gradient")(model, x, y)
    torch.testing.assert_close(value, 0.4 * (width / (length + 1e-3)).log1p())
    dark = _term(prediction=0.0, of="input_x_gradient")(model, 0 * x, y)
    wide = 0.05 * slopes.norm(dim=1)  # and the middle is half as long
    torch.testing.assert_close(dark, 0.4 * (wide / (wide / 2 + 1e-3)).log1p())
    assert (value < dark).all()
    assert not _term(prediction=0.0)(model, 0 * x, y).any()


def test_one_hidden_unit_times_its_input_in_closed_form() -> None:
    """f(x) = 3 relu(2 x - 1): slopes in [0, 6], the input in [.3, .7], their product in [0, 4.2]."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1))
    with torch.no_grad():
        model[1].weight.fill_(2.0)
        model[1].bias.fill_(-1.0)
        model[3].weight.fill_(3.0)
    x, y = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
    value = _term(eps=0.2, prediction=0.0, of="input_x_gradient")(model, x, y)
    torch.testing.assert_close(value, 0.4 * torch.tensor([4.2 / (2.1 + 1e-3)]).log1p())


@pytest.mark.parametrize("of", ["gradient", "input_x_gradient"])
@pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
def test_it_is_made_of_the_certificates(net: Any, of: str) -> None:
    bounds = getattr(certificates, f"{of}_bounds")
    model, x, y = net(), oracles.images(), oracles.labels()
    down, up = certificates.logit_bounds(model, x, eps=0.05)
    worst = up.scatter(1, y[:, None], down.gather(1, y[:, None]))
    lower, upper = (b.flatten(1) for b in bounds(model, x, y, eps=0.05))
    ratio = (upper - lower).norm(dim=1) / ((upper + lower).norm(dim=1) / 2 + 1e-3)
    prediction = functional.cross_entropy(worst, y, reduction="none")
    term = _term(of=of)
    torch.testing.assert_close(term(model, x, y), 0.7 * prediction + 0.4 * ratio.log1p())
    alone, none = replace(term, prediction=0.0), replace(term, maps=0.0)
    torch.testing.assert_close(alone(model, x, y), 0.4 * ratio.log1p())
    torch.testing.assert_close(none(model, x, y), 0.7 * prediction)


def test_without_a_box_it_is_the_cross_entropy() -> None:
    model, x, y = small(), oracles.images(), oracles.labels()
    value = _term(eps=0.0, prediction=1.0)(model, x, y)
    torch.testing.assert_close(value, CrossEntropy()(model, x, y))


# --- derivatives ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "maps", "of"),
    [
        (1.0, 0.0, "gradient"),
        (0.0, 1.0, "gradient"),
        (0.7, 0.4, "gradient"),
        (0.0, 1.0, "input_x_gradient"),
    ],
)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS.keys())
def test_the_gradient_in_the_weights_is_right(
    net: Any, prediction: float, maps: float, of: str
) -> None:
    model, x, y = net(), oracles.images(2), oracles.labels(2)
    term = _term(prediction=prediction, maps=maps, of=of, eps=0.01)
    analytic, measured = term_oracles.slopes(lambda: term(model, x, y), model)
    torch.testing.assert_close(analytic, measured, rtol=1e-5, atol=1e-6)
    assert analytic.abs() > 1e-4


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1.0, 1e4])
def test_saturated_and_tied_logits_have_finite_gradients_in_float32(scale: float) -> None:
    for activation in (nn.ReLU, partial(nn.Softplus, beta=10)):
        model = small(activation).float()
        with torch.no_grad():
            last = model.layers[-1]
            last.weight.mul_(scale)
            last.bias.mul_(0.0 if scale == 0 else 1.0)
        x, y = oracles.images().float(), oracles.labels()
        x[0] = 0.0
        x[1] = 1.0
        for eps in (0.0, 0.1):
            value = _term(eps=eps)(model, x, y)
            assert torch.isfinite(value).all()
            grads = torch.autograd.grad(
                value.sum(), list(model.parameters()), materialize_grads=True
            )
            assert all(torch.isfinite(g).all() for g in grads)


def test_a_network_that_is_off_everywhere_has_finite_gradients() -> None:
    model = small().float()
    with torch.no_grad():
        model.layers[-3].bias.fill_(-1e3)
    value = _term()(model, oracles.images().float(), oracles.labels())
    grads = torch.autograd.grad(value.sum(), list(model.parameters()), materialize_grads=True)
    assert all(torch.isfinite(g).all() for g in (value, *grads))


# --- the ramp, and training -----------------------------------------------------------------------


@pytest.mark.parametrize(("done", "share"), [(0, 0), (0.1, 0.2), (0.25, 0.5), (0.5, 1), (1.0, 1)])
def test_all_settings_rise_over_the_first_half(done: float, share: float) -> None:
    now = _term(of="input_x_gradient").at(done)
    assert now.of == "input_x_gradient"
    assert (now.eps, now.prediction, now.maps) == pytest.approx(
        (share * 0.05, share * 0.7, share * 0.4)
    )


def test_a_loss_takes_the_term_at_its_share_of_training() -> None:
    model, x, y = small(), oracles.images(), oracles.labels()
    loss = training.Loss(
        terms={"ce": CrossEntropy(), "bounds": _term()}, weights={"ce": 1.0, "bounds": 2.0}
    )
    for done in (0.0, 0.2, 1.0):
        total, values = loss(model, x, y, done=done)
        torch.testing.assert_close(values["bounds"], _term().at(done)(model, x, y))
        torch.testing.assert_close(total, values["ce"] + 2 * values["bounds"])
    assert not loss(model, x, y, done=0.0)[1]["bounds"].any()


def test_training_narrows_the_boxes() -> None:
    model, x, y = small(), oracles.images(16), oracles.labels(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    term, widths = _term(eps=0.02, prediction=1.0, maps=1.0), []
    for _ in range(60):
        lower, upper = certificates.gradient_bounds(model, x, y, eps=0.02)
        a = (lower + upper) / 2
        widths.append(((upper - lower).norm() / a.norm()).item())
        optimizer.zero_grad()
        (CrossEntropy()(model, x, y) + term(model, x, y)).mean().backward()
        optimizer.step()
    assert widths[-1] < widths[0] / 3


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": -0.1}, "Expected eps >= 0, got -0.1"),
        ({"eps": 1.0}, "Expected eps < 1, the whole range of pixels, got 1.0"),
        ({"prediction": -1.0}, "Expected prediction >= 0, got -1.0"),
        ({"maps": float("nan")}, "Expected maps >= 0, got nan"),
        ({"of": "lrp"}, "Expected of to be one of gradient, input_x_gradient, got 'lrp'"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _term(**changes)


def test_bad_inputs_are_named() -> None:
    x, y = oracles.images(), oracles.labels()
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\]"):
        _term()(small(), 2 * x, y)
    with pytest.raises(ValueError, match=r"got torch\.tanh in Tanh 'layers\.1'"):
        _term()(small(nn.Tanh), x, y)
