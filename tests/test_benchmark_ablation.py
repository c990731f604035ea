"""The terms of the ablation: distances of maps, and the search that drives maps apart."""

from functools import partial

import pytest
import torch
from torch import nn

from attrlib import attributions, metrics
from attrlib.attacks import PGD, LinfBall
from attrlib.benchmark.ablation import (
    Contrast,
    MapAttack,
    MapDistance,
    SoftKendall,
    l2_distance,
    pearson_distance,
)
from attrlib.regularizers import AdversarialCrossEntropy, CrossEntropy
from attrlib.training import Loss
from attrlib.types import Attack, Term
from tests import oracles, term_oracles

BALL = LinfBall(eps=0.1)
IG = partial(attributions.integrated_gradients, steps=2)
TERMS = {
    "l2": MapDistance(attribution=IG, distance=l2_distance),
    "pearson": MapDistance(attribution=IG, distance=pearson_distance),
    "kendall": SoftKendall(attribution=IG, pairs=400),
    "contrast": Contrast(attribution=IG),
}
every_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS.keys())


def test_distances_are_those_of_the_maps() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    z = BALL.sample(x, oracles.seeded(5))
    a, b = (IG(model, v, y) for v in (x, z))
    torch.testing.assert_close(TERMS["l2"](model, x, y, z=z), (a - b).flatten(1).norm(dim=1))
    torch.testing.assert_close(TERMS["pearson"](model, x, y, z=z), (1 - metrics.pearson(a, b)) / 2)


def test_a_sharp_soft_kendall_on_all_pairs_is_kendall() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    z = oracles.images(seed=7)
    term = SoftKendall(attribution=IG, sharpness=1e6, pairs=60_000)
    value = term(model, x, y, z=z, generator=oracles.seeded(0))
    tau = metrics.kendall(*(IG(model, v, y)[:, 0] for v in (x, z)))
    pairs = 64 / 63  # a pair of an entry with itself counts 0
    torch.testing.assert_close(pairs * (1 - value), tau, rtol=0, atol=0.02)
    assert ((tau > 0.1) & (tau < 0.9)).all()


def test_contrast_is_the_cross_entropy_of_finding_the_own_map() -> None:
    model, y = term_oracles.net(), torch.tensor([0, 0, 0, 1])
    x = oracles.images(4)
    z = BALL.sample(x, oracles.seeded(5))
    a, b = (IG(model, v, y) for v in (x, z))
    value = Contrast(attribution=IG, temperature=0.5)(model, x, y, z=z)
    own = [metrics.cosine(a[:3], b[i : i + 1].expand(3, -1, -1, -1)) / 0.5 for i in range(3)]
    right = torch.stack([odds.logsumexp(0) - odds[i] for i, odds in enumerate(own)])
    torch.testing.assert_close(value[:3], right)
    assert value[3] == 0  # the only one of its class


def test_contrast_of_equal_maps_is_the_logarithm_of_their_number() -> None:
    model, y = term_oracles.net(), torch.zeros(5, dtype=torch.int64)
    x = oracles.images(1).expand(5, -1, -1, -1)
    value = Contrast(attribution=IG, clean=True)(model, x, y)
    torch.testing.assert_close(value, torch.full_like(value, 5).log())
    with pytest.raises(ValueError, match="temperature"):
        Contrast(attribution=IG, temperature=0.0)


@every_term
def test_the_weights_get_the_derivative(term: Term) -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    assert isinstance(term, Term)
    z = BALL.sample(x, oracles.seeded(5))
    analytic, numeric = term_oracles.slopes(
        lambda: term(model, x, y, z=z, generator=oracles.seeded(0)), model
    )
    torch.testing.assert_close(analytic, numeric, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="Expected z, the adversarial example"):
        term(model, x, y)


@every_term
def test_a_head_of_zeros_leaves_finite_derivatives(term: Term) -> None:
    model, x, y = term_oracles.net().float(), oracles.images().float(), oracles.labels()
    nn.init.zeros_(model.layers[-1].weight)
    value = term(model, x, y, z=1 - x, generator=oracles.seeded(0))
    grads = torch.autograd.grad(value.sum(), list(model.parameters()), materialize_grads=True)
    assert torch.isfinite(value).all()
    assert all(torch.isfinite(g).all() for g in grads)


def test_the_search_beats_random_points_and_keeps_the_budget() -> None:
    model, x, y = term_oracles.net(), oracles.images(16), oracles.labels(16)
    settings = {"attribution": attributions.gradient, "distance": pearson_distance}
    term = MapDistance(**settings)
    found, both = (
        MapAttack(**settings, ball=BALL, steps=10, step_size=0.025, prediction=prediction)
        for prediction in (False, True)
    )
    assert isinstance(found, Attack)
    z, w = (attack(model, x, y, generator=oracles.seeded(0)) for attack in (found, both))
    assert torch.equal(BALL.project(z, x), z)
    random = term(model, x, y, z=BALL.sample(x, oracles.seeded(1)))
    assert (term(model, x, y, z=z) > random).all()
    loss = [CrossEntropy()(model, v, y).mean() for v in (z, w)]
    assert loss[1] > 1.5 * loss[0]


def test_a_relu_network_is_searched_on_a_softplus_copy() -> None:
    model, x, y = term_oracles.net(nn.ReLU), oracles.images(), oracles.labels()
    settings = {"attribution": attributions.gradient, "distance": pearson_distance}
    search = {"ball": BALL, "steps": 5, "step_size": 0.04}
    for prediction in (False, True):
        attack = MapAttack(**settings, **search, prediction=prediction)
        with pytest.raises(
            ValueError, match=r"Expected model with a second derivative, .* \(or beta\)"
        ):
            attack(model, x, y, generator=oracles.seeded(0))
    z = MapAttack(**settings, **search, beta=10.0)(model, x, y, generator=oracles.seeded(0))
    start = BALL.sample(x, oracles.seeded(0))
    values = [MapDistance(**settings)(model, x, y, z=v).mean() for v in (z, start)]
    assert values[0] > 1.2 * values[1]
    with pytest.raises(TypeError, match=r"torch.nn.Module \(or no beta\), got function"):
        MapAttack(**settings, **search, beta=10.0)(lambda x: model(x), x, y)


def test_the_losses_of_aat_and_of_its_adversarial_form() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    settings = {"attribution": attributions.gradient, "distance": pearson_distance}
    search = {"ball": BALL, "steps": 2, "step_size": 0.05}
    for base, prediction in ((CrossEntropy(), False), (AdversarialCrossEntropy(), True)):
        loss = Loss(
            terms={"base": base, "distance": MapDistance(**settings)},
            weights={"base": 1.0, "distance": 2.0},
            attack=MapAttack(**settings, **search, weight=2.0, prediction=prediction),
        )
        total, values = loss(model, x, y, generator=oracles.seeded(0))
        torch.testing.assert_close(total, values["base"] + 2 * values["distance"])
        assert (values["distance"] > 0).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_settings_are_named() -> None:
    with pytest.raises(ValueError, match="Expected pairs to be an integer >= 1, got 0"):
        SoftKendall(attribution=IG, pairs=0)
    with pytest.raises(ValueError, match=r"Expected sharpness > 0, got 0"):
        SoftKendall(attribution=IG, sharpness=0)
    with pytest.raises(ValueError, match=r"Expected weight > 0, got 0"):
        MapAttack(attribution=IG, distance=l2_distance, ball=BALL, steps=1, step_size=0.1, weight=0)


def test_igs_own_example_serves_the_penalties() -> None:
    model, x, y = term_oracles.net(), oracles.images(), oracles.labels()
    loss = Loss(
        terms={"adversarial": AdversarialCrossEntropy(), **TERMS},
        weights=dict.fromkeys(("adversarial", *TERMS), 1.0),
        attack=PGD(ball=BALL, steps=2, step_size=0.05),
    )
    _, values = loss(model, x, y, generator=oracles.seeded(0))
    alone = values.pop("contrast")  # 0 for the only image of a class
    assert all((value > 0).all() for value in values.values())
    assert (alone >= 0).all()
