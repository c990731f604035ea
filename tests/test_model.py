"""The caller's model: what it gives is checked, and neither it nor what it is shown changes."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, spectral_norm

from attrlib import (
    _model,
    attacks,
    attributions,
    data,
    faithfulness,
    metrics,
    regularizers,
    training,
)
from tests import oracles

pytestmark = pytest.mark.usefixtures("unchecked_shapes")

BALL = attacks.LinfBall(eps=0.1)
PGD = attacks.PGD(ball=BALL, steps=2, step_size=0.05)
KLPGD = attacks.KLPGD(ball=BALL, steps=2, step_size=0.05)
ATTACK = attacks.AttributionAttack(
    attribution=attributions.gradient,
    objective=attacks.TopK(k=9),
    ball=BALL,
    steps=2,
    step_size=0.05,
)
RANDOM = attacks.RandomSign(
    eps=0.1, draws=2, score=metrics.cosine, attribution=attributions.gradient
)
ALIGNMENT = regularizers.LocalGradientAlignment(l2=0.1, cosine=1.0, ball=BALL)
TRIPLET = regularizers.TripletAttack(ball=BALL, steps=2, step_size=0.05, k=20, beta=None)


def _insertion(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return faithfulness.insertion(model, x, y, x[:, 0].detach(), steps=4)


def _deletion(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return faithfulness.deletion(model, x, y, x[:, 0].detach(), steps=4)


def _similarity(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return faithfulness.random_perturbation_similarity(
        model, x, y, attribution=attributions.gradient, metric=metrics.cosine, eps=0.1, draws=2
    )


def _at_z(term: Any) -> Callable[[Any, Tensor, Tensor], Tensor]:
    return lambda model, x, y: term(model, x, y, z=x.flip(0))


def _eigenvalue(model: Any, x: Tensor, y: Tensor) -> Tensor:
    return regularizers.loss_hessian_eigenvalue(model, x)


CHOICES: dict[str, Callable[..., Any]] = {  # these need two classes
    "PGD": PGD,
    "KLPGD": KLPGD,
    "TripletAttack": TRIPLET,
    "correct": training.correct,
    "insertion": _insertion,
    "deletion": _deletion,
    "CrossEntropy": regularizers.CrossEntropy(),
    "AdversarialCrossEntropy": _at_z(regularizers.AdversarialCrossEntropy()),
    "Trades": _at_z(regularizers.Trades()),
    "Mart": _at_z(regularizers.Mart()),
    "AttributionTriplet": _at_z(regularizers.AttributionTriplet(beta=None)),
    "InputGradientNorm": regularizers.InputGradientNorm(),
    "Curvature": regularizers.Curvature(h=0.1),
    "IGNorm": regularizers.IGNorm(ball=BALL, steps=1, step_size=0.1),
    "IGSumNorm": regularizers.IGSumNorm(ball=BALL, steps=1, step_size=0.1),
    "SmoothSurface": regularizers.SmoothSurface(),
    "SmoothSurface, matrix-free": regularizers.SmoothSurface(solver="matrix-free"),
    "loss_hessian_eigenvalue": _eigenvalue,
}
LOGITS: dict[str, Callable[..., Any]] = {  # these explain one logit
    "target_logit": attributions.target_logit,
    "gradient": attributions.gradient,
    "input_x_gradient": attributions.input_x_gradient,
    "integrated_gradients": partial(attributions.integrated_gradients, steps=2),
    "smooth_grad": partial(attributions.smooth_grad, sigma=0.1, samples=2),
    "uni_grad": partial(attributions.uni_grad, radius=0.1, samples=2),
    "AttributionAttack": ATTACK,
    "RandomSign": RANDOM,
    "HessianNorm": regularizers.HessianNorm(),
    "LocalGradientAlignment": ALIGNMENT,
    "LocalGradientAlignment, detached": replace(ALIGNMENT, detach=True),
    "IntegratedGradientRegularizer": _at_z(regularizers.IntegratedGradientRegularizer()),
    "similarity": _similarity,
}
CALLS = CHOICES | LOGITS
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


def _named(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("call", [CALLS[name] for name in names], ids=names)


def _net() -> nn.Module:
    return oracles.softplus_net().eval()


# --- what it gives --------------------------------------------------------------------------------


@every_call
@pytest.mark.parametrize(
    ("wrap", "kind", "part"),
    [
        (lambda scores: (scores, scores), "tuple", r"\[0\]"),
        (lambda scores: [scores], "list", r"\[0\]"),
        (lambda scores: {"logits": scores}, "dict", r"\['logits'\]"),
        (lambda scores: OrderedDict(logits=scores), "OrderedDict", r"\.logits"),
        (lambda scores: SimpleNamespace(logits=scores), "SimpleNamespace", r"\.logits"),
        (lambda scores: None, "NoneType", ""),
    ],
)
def test_what_is_no_tensor_is_named_with_the_part_to_take(
    call: Callable[..., Any], wrap: Callable[[Tensor], Any], kind: str, part: str
) -> None:
    net = _net()
    with pytest.raises(ValueError, match=rf"model\(x\) to be logits .*got a {kind};.*{part}"):
        call(lambda z: wrap(net(z)), oracles.images(), oracles.labels())


@pytest.mark.parametrize("call", CHOICES.values(), ids=CHOICES.keys())
def test_a_single_logit_is_no_choice(call: Callable[..., Any]) -> None:
    net = _net()
    with pytest.raises(ValueError, match=r"at least 2 classes, got 1; a single logit s stands for"):
        call(lambda z: net(z)[:, :1], oracles.images(), torch.zeros(4, dtype=torch.int64))


@pytest.mark.parametrize("call", LOGITS.values(), ids=LOGITS.keys())
def test_a_single_logit_can_be_explained(call: Callable[..., Any]) -> None:
    net = _net()
    result = call(lambda z: net(z)[:, :1], oracles.images(), torch.zeros(4, dtype=torch.int64))
    assert result.isfinite().all()


def test_the_advice_for_a_single_logit_works() -> None:
    net, x, y = _net(), oracles.images(), torch.zeros(4, dtype=torch.int64)

    def two(z: Tensor) -> Tensor:
        s = net(z)[:, :1]
        return torch.cat([torch.zeros_like(s), s], dim=1)

    assert not torch.equal(PGD(two, x, y), x)
    assert torch.equal(training.correct(two, x, y), (net(x)[:, 0] <= 0).to(x))


@pytest.mark.parametrize("keep", [True, False])
def test_an_attack_keeps_the_sign_of_a_single_logit(keep: bool) -> None:
    net, x, y = _net(), oracles.images(8), torch.zeros(8, dtype=torch.int64)

    def close(z: Tensor) -> Tensor:  # all images just above the threshold
        return net(z)[:, :1] - net(x)[:, :1].detach() + 1e-4

    def model(z: Tensor) -> Tensor:
        return close(z)

    attack = attacks.AttributionAttack(
        attribution=attributions.gradient,
        objective=attacks.TopK(k=9),
        ball=BALL,
        steps=6,
        step_size=0.02,
        keep_label=keep,
    )
    z = attack(model, x, y, generator=oracles.seeded(0))
    assert bool((model(z) > 0).all()) == keep


def test_classes_are_no_logits() -> None:
    net = _net()
    with pytest.raises(ValueError, match=r"to be floating-point logits .*got torch.int64"):
        attributions.target_logit(
            lambda z: net(z).round().long(), oracles.images(), oracles.labels()
        )


# --- a graph to x ---------------------------------------------------------------------------------


class Deployed(nn.Module):
    """A network whose author switched gradients off."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _net()

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def _numpy(x: Tensor) -> Tensor:
    return torch.from_numpy(x.detach().cpu().numpy().copy()).to(x).flatten(1)[:, :3]


NO_GRAPH: dict[str, Callable[[Tensor], Tensor]] = {
    "no_grad": lambda z: Deployed()(z),
    "detached": lambda z: _net()(z.detach()),
    "numpy": _numpy,
    "rounded to bytes": lambda z: _net()((255 * z).to(torch.uint8).to(z) / 255),
}


@_named(
    *sorted(
        set(CALLS)
        - {"target_logit", "correct", "insertion", "deletion", "CrossEntropy"}
        - {"AdversarialCrossEntropy", "Trades", "Mart"}
    )
)
@pytest.mark.parametrize("model", NO_GRAPH.values(), ids=NO_GRAPH.keys())
def test_without_a_graph_to_x_there_is_no_gradient_and_no_attack(
    call: Callable[..., Any], model: Callable[[Tensor], Tensor]
) -> None:
    with pytest.raises(ValueError, match=r"Expected model\(x\) to be differentiable in x"):
        call(model, oracles.images(), oracles.labels())


@pytest.mark.parametrize("ball", [attacks.LinfBall(eps=0.1), attacks.L2Ball(eps=1.0)])
def test_an_ascent_without_a_graph_does_not_stay_silently_where_it_is(ball: attacks.Ball) -> None:
    x = oracles.images()
    with pytest.raises(ValueError, match="with no graph to x"):
        attacks.ascend(lambda z: z.detach().flatten(1).sum(1), x, ball=ball, steps=1, step_size=0.1)


# --- in-place work --------------------------------------------------------------------------------


class InPlace(nn.Module):
    """Standardises the caller's own tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _net()

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        x /= 0.25
        return self.body(x)


@every_call
@pytest.mark.parametrize("leaf", [False, True])
def test_in_place_work_changes_a_copy(call: Callable[..., Any], leaf: bool) -> None:
    model, y = InPlace().eval(), oracles.labels()
    x = oracles.images().requires_grad_(leaf)
    before = x.detach().clone()
    seed = {"generator": oracles.seeded(0)} if call in (RANDOM, KLPGD, TRIPLET, ATTACK) else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        result = call(model, x, y, **seed)
    assert torch.equal(x.detach(), before)
    seed = {"generator": oracles.seeded(0)} if seed else {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        wanted = call(lambda z: model.body((z - 0.5) / 0.25), x, y, **seed)
    torch.testing.assert_close(result, wanted)


@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.Hardtanh(0, 1, inplace=True)])
def test_a_layer_that_works_in_place_may_come_first(first: nn.Module) -> None:
    net, x, y = _net(), oracles.images(), oracles.labels()
    model = nn.Sequential(first, net)
    assert torch.equal(attributions.gradient(model, x, y), attributions.gradient(net, x, y))


def test_the_data_set_stays_as_it_was_also_under_scores_and_terms_of_the_user() -> None:
    model = InPlace().eval()
    images = data.Images(oracles.images(), oracles.labels(), ("a", "b", "c"))
    before = images.x.clone()

    def score(model: Any, x: Tensor, y: Tensor) -> Tensor:
        return model(x).amax(1)

    def term(model: Any, x: Tensor, y: Tensor, *, z: Any = None, generator: Any = None) -> Tensor:
        return functional.cross_entropy(model(x), y, reduction="none")

    scores = {"first": score, "correct": training.correct, "second": score}
    values = training.evaluate(model, images, scores)
    assert torch.equal(values["first"], values["second"])
    config = training.TrainConfig(epochs=1, batch_size=2, patience=1)
    loss = training.Loss(terms={"own": term}, weights={"own": 1.0})
    training.train(
        model, images, loss, config=config, generator=oracles.seeded(0), validation=images
    )
    assert torch.equal(images.x, before)


# --- modes ----------------------------------------------------------------------------------------


def _with(layer: nn.Module) -> nn.Sequential:
    body = nn.Sequential(nn.Conv2d(1, 4, 3), layer, nn.Softplus(), nn.Flatten(), nn.Linear(144, 3))
    return body.train()


def _method(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return model.forward


def _function(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda z: model(z)


def _partial(model: nn.Module) -> Callable[[Tensor], Tensor]:
    return partial(torch.func.functional_call, model, {})


def _several(model: nn.Module) -> Callable[[Tensor], Tensor]:
    nets = {"one": model}
    return lambda z: nets["one"](z)


class _Object:
    """A user's own ensemble."""

    def __init__(self, model: nn.Module) -> None:
        self.nets = [model]

    def __call__(self, z: Tensor) -> Tensor:
        return torch.stack([net(z) for net in self.nets]).mean(0)


WRAPS = [
    *(lambda model: model, nn.DataParallel, torch.compile, _method, _function, _partial),
    *(_several, _Object),
]


@every_call
def test_batch_statistics_in_train_mode_are_refused(call: Callable[..., Any]) -> None:
    if call in (CALLS[n] for n in ("CrossEntropy", "AdversarialCrossEntropy", "Trades", "Mart")):
        pytest.skip("trained in train mode; takes no derivative in x")
    model, x, y = _with(nn.BatchNorm2d(4)), oracles.images(), oracles.labels()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=r"BatchNorm2d '1'; call model\.eval\(\)"):
        call(model, x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(layer.training for layer in model.modules())
    call(model.eval(), x, y)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("wrap", WRAPS)
@_named("PGD", "AttributionAttack", "gradient", "correct", "insertion")
def test_a_wrapper_hides_no_mode(
    call: Callable[..., Any], wrap: Callable[[nn.Module], Any]
) -> None:
    model = _with(nn.BatchNorm2d(4))
    with pytest.raises(ValueError, match=r"BatchNorm2d '.*1'; call model\.eval\(\)"):
        call(wrap(model), oracles.images(), oracles.labels())
    assert model[1].num_batches_tracked == 0


@_named("PGD", "KLPGD", "AttributionAttack", "RandomSign", "TripletAttack", "insertion")
@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (lambda: nn.InstanceNorm2d(4, track_running_stats=True), "InstanceNorm2d"),
        (lambda: nn.Dropout(0.5), "Dropout"),
        (lambda: nn.Dropout2d(0.5), "Dropout2d"),
        (lambda: parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), "_SpectralNorm"),
        (lambda: spectral_norm(nn.Conv2d(4, 4, 1)), "Conv2d"),
        (nn.RReLU, "RReLU"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*spectral_norm.* is deprecated:FutureWarning")
def test_layers_that_change_from_call_to_call_are_refused(
    call: Callable[..., Any], layer: Callable[[], nn.Module], name: str
) -> None:
    model = _with(layer())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=f"got {name} '1.*' in train mode; call model.eval"):
        call(model, oracles.images(), oracles.labels())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@every_call
def test_batch_statistics_are_refused_in_eval_mode_where_there_are_no_others(
    call: Callable[..., Any],
) -> None:
    if call in (CALLS[n] for n in ("CrossEntropy", "AdversarialCrossEntropy", "Trades", "Mart")):
        pytest.skip("takes no derivative in x")
    model = _with(nn.BatchNorm2d(4, track_running_stats=False)).eval()
    with pytest.raises(ValueError, match="with track_running_stats=False; use group norm"):
        call(model, oracles.images(), oracles.labels())


@_named("PGD", "AttributionAttack", "gradient", "InputGradientNorm")
def test_layers_that_are_at_rest_are_welcome_in_train_mode(call: Callable[..., Any]) -> None:
    model = _with(nn.Sequential(nn.GroupNorm(2, 4), nn.Dropout(0.0), nn.BatchNorm2d(4).eval()))
    model[1][2].eval()
    assert call(model, oracles.images(), oracles.labels()).isfinite().all()


def test_lead_is_the_gap_to_the_best_other_class() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.5], [0.0, 4.0, -1.0]], dtype=torch.float64)
    assert _model.lead(scores, torch.tensor([0, 2])).tolist() == [0.5, -5.0]
    one = torch.tensor([[2.0], [-3.0], [2.0]], dtype=torch.float64)
    assert _model.lead(one, torch.tensor([1, 0, 0])).tolist() == [2.0, 3.0, -2.0]
