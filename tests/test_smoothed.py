"""Smooth copies: kinks as modules and as functions, and networks that resist copying."""

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm
from torch.utils.checkpoint import checkpoint

from attrlib import attacks, attributions, models, regularizers
from tests import oracles

BETA = 20.0
U = torch.linspace(-8, 8, 4001, dtype=torch.float64)


class Again(nn.Module):
    """A network whose activations are computed again for the backward pass."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = checkpoint(self.body, x, use_reentrant=False)
        return result


class Call(nn.Module):
    """A function as a layer of a user's own."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def _in_place(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The function by its side effect alone."""

    def call(x: Tensor) -> Tensor:
        x = x * 1
        function(x)
        return x

    return call


SLOPES = torch.tensor([0.1, 0.4, 0.7], dtype=torch.float64)
RELU = {
    "F.relu": functional.relu,
    "F.relu(inplace=True)": lambda x: functional.relu(x * 1, inplace=True),
    "torch.relu": torch.relu,
    "x.relu()": lambda x: x.relu(),
    "x.relu_()": _in_place(lambda x: x.relu_()),
    "F.relu_": _in_place(lambda x: functional.relu_(x)),
    "F.relu by its side effect": _in_place(lambda x: functional.relu(x, inplace=True)),
    "x.clamp(min=0)": lambda x: x.clamp(min=0),
    "x.clamp(0)": lambda x: x.clamp(0),
    "torch.clamp": lambda x: torch.clamp(x, min=0.0),
    "torch.clamp(input=)": lambda x: torch.clamp(input=x, min=0.0),
    "x.clamp_(min=0)": _in_place(lambda x: x.clamp_(min=0)),
    "x.clip(0, None)": lambda x: x.clip(0, None),
    "x.clamp_min(0)": lambda x: x.clamp_min(0),
}
OTHERS: dict[
    str, tuple[Callable[[Tensor], Tensor], float]
] = {  # and their height above, in log 2 / β
    "LeakyReLU": (nn.LeakyReLU(0.2), 0.8),
    "LeakyReLU in place": (_in_place(nn.LeakyReLU(0.2, inplace=True)), 0.8),
    "F.leaky_relu": (functional.leaky_relu, 0.99),
    "F.leaky_relu with a slope": (lambda x: functional.leaky_relu(x, negative_slope=0.5), 0.5),
    "RReLU": (nn.RReLU(0.1, 0.3).eval(), 0.8),
    "PReLU": (nn.PReLU(init=0.3).double(), 0.7),
    "F.prelu": (lambda x: functional.prelu(x, SLOPES[:1]), 0.9),
    "ReLU6": (nn.ReLU6(), 1),
    "F.relu6": (functional.relu6, 1),
    "Hardtanh": (nn.Hardtanh(-2, 3), 1),
    "F.hardtanh": (functional.hardtanh, 1),
    "Hardsigmoid": (nn.Hardsigmoid(), 1 / 6),
    "Hardswish": (nn.Hardswish(), 3 / 6),
    "Softshrink": (nn.Softshrink(1.0), 1),
    "F.softshrink": (functional.softshrink, 1),
    "Threshold": (nn.Threshold(2.0, 2.0), 1),
    "F.threshold in place": (_in_place(lambda x: functional.threshold_(x, -1.0, -1.0)), 1),
}


def _layer(function: Callable[[Tensor], Tensor]) -> nn.Module:
    return function if isinstance(function, nn.Module) else Call(function)


@pytest.mark.parametrize("function", RELU.values(), ids=RELU.keys())
def test_every_way_to_write_a_relu_is_the_softplus(function: Callable[[Tensor], Tensor]) -> None:
    u = U.clone().requires_grad_()
    value = models.smoothed(Call(function), BETA)(u)
    wanted = functional.softplus(u, beta=BETA)
    assert torch.equal(value, wanted)
    slopes = [torch.autograd.grad(v.sum(), u, create_graph=True)[0] for v in (value, wanted)]
    bends = [torch.autograd.grad(s.sum(), u)[0] for s in slopes]
    assert torch.equal(*slopes)
    assert torch.equal(*bends)


@pytest.mark.parametrize(("function", "height"), OTHERS.values(), ids=OTHERS.keys())
def test_other_kinks_are_rounded(function: Callable[[Tensor], Tensor], height: float) -> None:
    layer = _layer(function)
    u = U.clone().requires_grad_()
    twin = models.smoothed(layer, BETA)
    gap = (twin(U) - layer(U)).detach().abs().max()
    assert gap == pytest.approx(height * math.log(2) / BETA, rel=1e-3)
    (slope,) = torch.autograd.grad(twin(u).sum(), u, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), u)
    at = bend.abs().argmax()
    assert bend[at].abs() > height * BETA / 8
    # the slope is the derivative of the value, by differences
    torch.testing.assert_close(
        (slope[2:] + slope[:-2]) / 2,
        (twin(U)[2:] - twin(U)[:-2]) / (U[2] - U[0]),
        rtol=0,
        atol=0.01,
    )


@pytest.mark.parametrize("first", [nn.Identity(), nn.ReLU()])
def test_a_second_run_of_kinks_by_a_checkpoint_is_refused(first: nn.Module) -> None:
    x, again = (
        torch.rand(2, 4, generator=oracles.seeded(0)),
        partial(checkpoint, use_reentrant=False),
    )
    body = nn.Sequential(nn.Linear(4, 4).double(), first, Call(torch.relu))
    twin = models.smoothed(Call(lambda z: again(body, z)), BETA)
    with pytest.raises(ValueError, match=r"without torch.utils.checkpoint around .*, got relu; tu"):
        twin(x.requires_grad_())
    modules = nn.Sequential(nn.Linear(4, 4).double(), nn.ReLU())
    twin, plain = (models.smoothed(m, BETA) for m in (Again(modules), modules))
    torch.testing.assert_close(
        *(torch.autograd.grad(net(x).sum(), x)[0] for net in (twin, plain)), rtol=0, atol=0
    )
    with torch.autograd.graph.save_on_cpu():  # hooks around everything keep what they get
        assert models.smoothed(body, BETA)(x).requires_grad


def test_slopes_of_several_channels_meet_theirs() -> None:
    x = oracles.images(2, channels=3).double() - 0.5
    layer = nn.PReLU(3).double()
    with torch.no_grad():
        layer.weight.copy_(SLOPES)
    twin = models.smoothed(layer, 1e6)
    torch.testing.assert_close(twin(x), layer(x), rtol=0, atol=1e-5)
    flat = x.flatten(2).mean(2)
    torch.testing.assert_close(twin(flat), layer(flat), rtol=0, atol=1e-5)
    (slope,) = torch.autograd.grad(twin(x).sum(), twin.weight)
    torch.testing.assert_close(slope, x.clamp(max=0).sum((0, 2, 3)), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "function",
    [lambda x: x.clamp(min=0.5), lambda x: x.clamp(0, 1), lambda x: x.clamp(max=0), torch.tanh],
)
def test_what_is_no_relu_stays(function: Callable[[Tensor], Tensor]) -> None:
    twin = models.smoothed(nn.Sequential(nn.ReLU(), Call(function)), BETA)
    for _ in range(2):
        assert torch.equal(twin(U), function(functional.softplus(U, beta=BETA)))


@pytest.mark.parametrize(
    "smooth", [nn.GELU(), nn.SiLU(), nn.ELU(), nn.Mish(), Call(functional.gelu)]
)
def test_smooth_activations_stay_beside_relus(smooth: nn.Module) -> None:
    twin = models.smoothed(nn.Sequential(smooth, nn.ReLU()), BETA)
    assert torch.equal(twin(U), functional.softplus(smooth(U), beta=BETA))


@pytest.mark.parametrize(
    "smooth", [nn.GELU(), nn.Softplus(), Call(functional.gelu), nn.Linear(2, 2)]
)
def test_a_network_without_kinks_is_told_to_do_without(smooth: nn.Module) -> None:
    x = torch.zeros(1, 2)
    with pytest.raises(ValueError, match=r"with a kink, got .* with none; .* leave out surrogates"):
        models.smoothed(smooth, BETA)(x)
    with pytest.raises(ValueError, match="with none"):  # the layer of the user's own is asked again
        models.smoothed(nn.Sequential(smooth), BETA)(x)
    attack = attacks.AttributionAttack(
        attribution=attributions.gradient,
        objective=attacks.TopK(k=9),
        ball=attacks.LinfBall(eps=0.1),
        steps=2,
        step_size=0.05,
    )
    if not isinstance(smooth, nn.Linear):
        net = nn.Sequential(nn.Conv2d(1, 4, 3), smooth, nn.Flatten(), nn.Linear(144, 3))
        images = oracles.images()
        assert not torch.equal(attack(net, images, oracles.labels()), images)  # so the advice works


def test_functions_are_left_alone_outside_the_copy() -> None:
    layer = Call(functional.relu)
    twin = models.smoothed(layer, BETA)
    for _ in range(2):
        assert torch.equal(twin(U), functional.softplus(U, beta=BETA))
        assert torch.equal(layer(U), U.relu())
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        models.smoothed(nn.Sequential(layer, nn.Linear(3, 2)), BETA)(torch.zeros(1, 2))
    assert torch.equal(functional.relu(U), U.relu())


def test_a_copy_of_a_copy_has_its_own_weights() -> None:
    first = models.smoothed(nn.Sequential(nn.Linear(2, 2), Call(torch.relu)), BETA)
    second = copy.deepcopy(first)
    x = torch.rand(3, 2)
    assert torch.equal(first(x), second(x))
    with torch.no_grad():
        second[0].bias += 1
    assert torch.equal(second(x), functional.softplus(second[0](x), beta=BETA))
    assert not torch.equal(first(x), second(x))


def test_copies_within_copies_keep_their_own_sharpness() -> None:
    inner = models.smoothed(Call(torch.relu), 5.0)
    outer = models.smoothed(nn.Sequential(Call(torch.relu), inner), 50.0)
    wanted = functional.softplus(functional.softplus(U, beta=50.0), beta=5.0)
    assert torch.equal(outer(U), wanted)


def test_relu_modules_give_the_bits_they_gave() -> None:
    """The way of the first version: each module replaced, nothing else done."""
    net, x = models.SmallCNN(size=8, generator=oracles.seeded(0)), oracles.images()
    by_hand = copy.deepcopy(net)
    for place in (1, 3, 6):
        by_hand.layers[place] = nn.Softplus(beta=BETA)
    twin = models.with_softplus(net, BETA)
    assert repr(twin) == repr(by_hand)
    assert not twin._forward_hooks
    assert torch.equal(twin(x), by_hand(x))
    assert models.with_softplus is models.smoothed


# --- networks that resist -------------------------------------------------------------------------


def _net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


class Keeps(nn.Module):
    """Keeps what it computed, with the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _net()
        self.kept: dict[str, list[Tensor]] = {"all": []}

    def forward(self, x: Tensor) -> Tensor:
        self.features = self.body[:3](x)
        self.kept["all"] = [self.features, 2 * self.features]
        return self.body[3](self.features)


class Watcher:
    """Watches a network, and refers to it."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.seen = model, []

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self.seen.append(output)


def _hooked(hook: Callable[[nn.Module], Callable[..., None]]) -> nn.Module:
    net = _net()
    net[0].register_forward_hook(hook(net))
    return net


def _changed(change: Callable[[nn.Module], Any]) -> nn.Module:
    net = _net()
    changed = change(net[0])
    net[0] = changed if isinstance(changed, nn.Module) else net[0]
    return net


def _compiled_inside() -> nn.Module:
    net = _net()
    return nn.Sequential(torch.compile(net[:3], backend="aot_eager"), net[3])


def _compiled_in_place() -> nn.Module:
    net = _net()
    net.compile(backend="aot_eager")
    return net


NETS: dict[str, Callable[[], nn.Module]] = {
    "kept activations": Keeps,
    "a hook that keeps": lambda: _hooked(lambda net: lambda m, i, o: setattr(m, "seen", o)),
    "a hook with a state": lambda: _hooked(Watcher),
    "pruned": lambda: _changed(lambda m: prune.l1_unstructured(m, "weight", 0.5)),
    "weight_norm": lambda: _changed(weight_norm),
    "spectral_norm": lambda: _changed(spectral_norm).eval(),
    "parametrized by weight norm": lambda: _changed(parametrizations.weight_norm),
    "parametrized by spectral norm": lambda: _changed(parametrizations.spectral_norm).eval(),
    "orthogonal": lambda: _changed(parametrizations.orthogonal),
    "DataParallel": lambda: nn.DataParallel(_net()),
    "DataParallel of functions": lambda: nn.DataParallel(Call(_net()).eval()),
    "compiled": lambda: torch.compile(_net(), backend="aot_eager"),
    "compiled inside": _compiled_inside,
    "compiled in place": _compiled_in_place,
}


@pytest.mark.parametrize("make", NETS.values(), ids=NETS.keys())
@pytest.mark.filterwarnings("ignore:.*(weight|spectral)_norm.* is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_networks_that_have_run_are_copied_and_attacked(make: Callable[[], nn.Module]) -> None:
    model, x, y = make(), oracles.images(), oracles.labels()
    model(x)  # leaves tensors with a graph where there are any
    before = {name: value.detach().clone() for name, value in model.state_dict().items()}
    gaps = [(models.smoothed(model, beta)(x) - model(x)).abs().max() for beta in (10, 1e5)]
    assert gaps[1] < 0.05 * gaps[0]
    attack = attacks.AttributionAttack(
        attribution=attributions.gradient,
        objective=attacks.TopK(k=9),
        ball=attacks.LinfBall(eps=0.1),
        steps=3,
        step_size=0.05,
        surrogates=(partial(models.smoothed, beta=30),),
    )
    assert not torch.equal(attack(model, x, y, generator=oracles.seeded(0)), x)
    term = regularizers.AttributionTriplet(beta=30)
    weight = next(iter(model.parameters()))
    (slope,) = torch.autograd.grad(term(model, x, y, z=x.flip(0)).sum(), weight)
    assert slope.any()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_kept_tensors_are_the_callers_own() -> None:
    model = Keeps()
    model(oracles.images())
    twin = models.smoothed(model, BETA)
    assert torch.equal(twin.features, model.features)
    assert twin.features.is_leaf
    assert not model.features.is_leaf
    assert twin.kept["all"][0] is twin.features
    twin.features.detach().zero_()
    assert model.features.any()


class Locked(nn.Module):
    """Holds what no copy can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.rows = _net(), (i for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_cannot_be_copied_is_named() -> None:
    with pytest.raises(
        ValueError, match=r"Expected model that copy\.deepcopy can copy, got .*gener"
    ):
        models.smoothed(Locked(), BETA)
    with pytest.raises(TypeError, match=r"Expected model to be a torch\.nn\.Module, got function"):
        models.smoothed(lambda x: x, BETA)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.filterwarnings("ignore:.*torch.jit.* is not supported")
def test_scripted_networks_are_named() -> None:
    scripted = torch.jit.trace(_net(), oracles.images())
    with pytest.raises(
        ValueError, match=r"got one compiled by torch\.jit; give the model it was made"
    ):
        models.smoothed(nn.Sequential(scripted), BETA)
