"""What all terms of a loss promise, in one table: add a row for each new one."""

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from attrlib import energy, regularizers
from attrlib.attacks import LinfBall
from attrlib.checkpoints import describe
from attrlib.types import Term
from tests import oracles
from tests.term_oracles import batch_norm_net, net

N = 4
SEARCH = {"ball": LinfBall(eps=0.1), "steps": 2, "step_size": 0.05}


class Row(NamedTuple):
    """One term with its settings."""

    term: Term
    random: bool = False
    adversarial: bool = False  # reads z
    slopes: bool = True  # differentiates the model in its input


ROWS = {
    "CrossEntropy": Row(regularizers.CrossEntropy(), slopes=False),
    "AdversarialCrossEntropy": Row(
        regularizers.AdversarialCrossEntropy(), adversarial=True, slopes=False
    ),
    "Trades": Row(regularizers.Trades(), adversarial=True, slopes=False),
    "Mart": Row(regularizers.Mart(), adversarial=True, slopes=False),
    "IntegratedGradientRegularizer": Row(
        regularizers.IntegratedGradientRegularizer(steps=2), adversarial=True
    ),
    "IntervalBounds": Row(regularizers.IntervalBounds(eps=0.05, prediction=0.5, maps=1.0)),
    "LocalGradientAlignment": Row(
        regularizers.LocalGradientAlignment(l2=0.1, cosine=1.0, ball=LinfBall(eps=0.1)), random=True
    ),
    "LocalGradientAlignment, detached": Row(
        regularizers.LocalGradientAlignment(
            l2=0.1, cosine=0.0, ball=LinfBall(eps=0.1), detach=True
        ),
        random=True,
    ),
    "LocalGradientAlignment, adversarial": Row(
        regularizers.LocalGradientAlignment(
            l2=0.0, cosine=1.0, ball=LinfBall(eps=0.1), neighbour="adversarial"
        ),
        adversarial=True,
    ),
    "IGNorm": Row(regularizers.IGNorm(**SEARCH), random=True),
    "IGSumNorm": Row(regularizers.IGSumNorm(**SEARCH), random=True),
    "AttributionTriplet": Row(regularizers.AttributionTriplet(beta=None), adversarial=True),
    "InputGradientNorm": Row(regularizers.InputGradientNorm()),
    "HessianNorm": Row(regularizers.HessianNorm(probes=2), random=True),
    "Curvature": Row(regularizers.Curvature(h=0.5)),
    "MarginalDensitySmoothing": Row(regularizers.MarginalDensitySmoothing()),
    "MarginalDensitySmoothing, joint, difference": Row(
        regularizers.MarginalDensitySmoothing(
            density=energy.joint, estimator=regularizers.FiniteDifference(h=0.05)
        )
    ),
    "MarginalDensitySmoothing, projection": Row(
        regularizers.MarginalDensitySmoothing(
            estimator=regularizers.RandomProjection(sigma=0.05, draws=2)
        ),
        random=True,
    ),
    "GaugeRatio": Row(regularizers.GaugeRatio()),
    "SmoothSurface": Row(regularizers.SmoothSurface()),
    "SmoothSurface, matrix-free": Row(
        regularizers.SmoothSurface(solver="matrix-free", iterations=2)
    ),
}
NOT_TERMS = {
    "AlignmentAttack",
    "DoubleBackward",
    "FiniteDifference",
    "RandomProjection",
    "TripletAttack",
    "loss_hessian_eigenvalue",
}


def rows_where(condition: Callable[[Row], bool]) -> pytest.MarkDecorator:
    chosen = {name: row for name, row in ROWS.items() if condition(row)}
    return pytest.mark.parametrize("row", chosen.values(), ids=chosen.keys())


every_row = rows_where(lambda _: True)


class Case(NamedTuple):
    """Arguments for a row."""

    row: Row
    model: nn.Module
    x: Tensor
    y: Tensor
    z: Tensor

    def __call__(self, *, seed: int = 0) -> Tensor:
        return self.row.term(self.model, self.x, self.y, z=self.z, generator=oracles.seeded(seed))


def case(row: Row, *, n: int = N, kind: torch.dtype | None = None) -> Case:
    kind = kind or torch.get_default_dtype()
    x = oracles.images(n).to(kind)
    z = (x + 0.05 * torch.sign(oracles.images(n, seed=5) - 0.5).to(kind)).clamp(0, 1)
    return Case(row, net().to(kind), x, oracles.labels(n), z)


def test_no_term_is_missing() -> None:
    covered = {type(row.term).__name__ for row in ROWS.values()}
    assert covered | NOT_TERMS == set(regularizers.__all__)
    assert not covered & NOT_TERMS


@every_row
def test_frozen_keyword_only_and_equal_by_value(row: Row) -> None:
    assert isinstance(row.term, Term)
    fields = dataclasses.fields(row.term)
    copy = type(row.term)(**{f.name: getattr(row.term, f.name) for f in fields})
    assert copy == row.term
    assert hash(copy) == hash(row.term)
    assert all(f.kw_only for f in fields)
    with pytest.raises(dataclasses.FrozenInstanceError):
        row.term.anything = 1


@every_row
def test_a_checkpoint_can_name_it(row: Row) -> None:
    described = json.loads(json.dumps(describe(row.term)))
    assert described["name"] == type(row.term).__name__
    assert described.keys() == {"name", *(f.name for f in dataclasses.fields(row.term))}


@every_row
def test_all_calls_are_alike(row: Row) -> None:
    found = inspect.signature(type(row.term).__call__)
    assert found == inspect.signature(regularizers.CrossEntropy.__call__)


@every_row
def test_documented_with_equation_and_cost(row: Row) -> None:
    text = inspect.getdoc(type(row.term)) or ""
    assert text.count("$$") in (2, 4)  # one or two displayed formulas
    assert "\nCost" in text
    assert "\nSource: " in text or isinstance(row.term, regularizers.CrossEntropy)
    call = inspect.getdoc(type(row.term).__call__) or ""
    assert all(f"\n{part}:\n" in call for part in ("Args", "Returns", "Raises"))
    described = [line.split(":")[0].strip() for line in call.splitlines() if line[4:5].strip()]
    order = [name for name in described if name in ("model", "x", "y", "z", "generator")]
    assert order == ["model", "x", "y", "z", "generator"]


@every_row
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_one_finite_value_per_sample(row: Row, kind: torch.dtype) -> None:
    value = case(row, kind=kind)()
    assert value.shape == (N,)
    assert value.dtype == kind
    assert torch.isfinite(value).all()
    assert (value >= 0).all()
    assert case(row, n=1, kind=kind)().shape == (1,)


@every_row
def test_reaches_the_weights_but_only_with_grad_mode(row: Row) -> None:
    this = case(row)
    weights = list(this.model.parameters())
    tracked = this()
    grads = torch.autograd.grad(tracked.sum(), weights, materialize_grads=True)
    assert all(torch.isfinite(g).all() for g in grads)
    assert grads[0].abs().sum() > 0
    with torch.no_grad():
        plain = this()
    assert not plain.requires_grad
    torch.testing.assert_close(plain, tracked.detach())


@every_row
def test_a_row_does_not_depend_on_the_others(row: Row) -> None:
    this = case(row)
    first = this()
    for i in range(N):
        x, z = this.x.roll(1, dims=-1), this.z.roll(1, dims=-1)
        x[i], z[i] = this.x[i], this.z[i]
        changed = this._replace(x=x, z=z)()
        torch.testing.assert_close(changed[i], first[i])
        assert not torch.equal(changed, first)


@every_row
def test_noise_comes_from_the_generator_alone(row: Row) -> None:
    this = case(row)
    before = torch.get_rng_state()
    first = this(seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(this(seed=5), first)
    assert torch.equal(this(seed=6), first) != row.random


@every_row
@pytest.mark.parametrize("leaf", [False, True])
def test_nothing_of_the_caller_changes(row: Row, leaf: bool) -> None:
    this = case(row)
    this.x.requires_grad_(leaf)
    this.model.train()
    this.model.layers[0].eval()
    for number, p in enumerate(this.model.parameters()):
        p.grad = torch.full_like(p, number) if number % 2 else None
    given = (this.x, this.y, this.z, *this.model.parameters())
    before = [
        (t.detach().clone(), t._version, t.requires_grad, None if t.grad is None else t.grad + 0)
        for t in given
    ]
    modes = [m.training for m in this.model.modules()]
    this()
    assert [m.training for m in this.model.modules()] == modes
    for t, (values, version, requires_grad, grad) in zip(given, before, strict=True):
        assert torch.equal(t.detach(), values)
        assert (t._version, t.requires_grad) == (version, requires_grad)
        assert t.grad is None if grad is None else torch.equal(t.grad, grad)


@every_row
def test_the_same_in_train_and_in_eval_mode(row: Row) -> None:
    this = case(row)
    this.model.train()
    value = this()
    this.model.eval()
    assert torch.equal(this(), value)


@every_row
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_labels_are_named(row: Row) -> None:
    for label in (-1, oracles.CLASSES):
        with pytest.raises(ValueError, match=f"Expected y from 0 to 2, got {label}"):
            case(row)._replace(y=torch.full((N,), label))()


@rows_where(lambda row: row.adversarial)
def test_a_missing_example_is_named(row: Row) -> None:
    with pytest.raises(ValueError, match="Expected z, the adversarial example"):
        case(row)._replace(z=None)()


@rows_where(lambda row: not row.adversarial)
def test_others_ignore_the_example(row: Row) -> None:
    this = case(row)
    assert torch.equal(this._replace(z=None)(), this())


@rows_where(lambda row: row.slopes)
def test_batch_normalisation_in_train_mode_is_refused(row: Row) -> None:
    this = case(row)._replace(model=batch_norm_net())
    with pytest.raises(ValueError, match="without batch normalisation in train mode"):
        this()
