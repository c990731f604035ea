"""The attack on identification: optima known in closed form, rows cut along, and bad input."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from attrlib import metrics
from attrlib.attacks import Cosine, Identification, L2Ball, LinfBall, TargetMap
from attrlib.attributions import gradient
from attrlib.maps import to_heatmap
from tests import oracles
from tests.attack_oracles import Bowl, attack, zeros
from tests.oracles import seeded


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, 2, 6, 6, generator=seeded(seed))


def test_values_are_the_formula() -> None:
    a, b, others = maps(3), maps(3, seed=1), maps(3, 4, seed=2)
    value = Identification(others=others, temperature=0.3)(a, b)
    for i in range(3):
        h = [to_heatmap(m[None]) for m in (b[i], a[i], *others[i])]
        to_own, *to_others = (float(metrics.cosine(h[0], m)) for m in h[1:])
        loss = [0.3 * math.log1p(math.exp((to_own - s) / 0.3)) for s in to_others]
        assert float(value[i]) == pytest.approx(-sum(loss) / 4)


def test_it_grows_on_the_way_to_another_map() -> None:
    a, others = maps(1).abs(), maps(1, 1, seed=2).abs()
    objective = Identification(others=others)
    way = [objective(a, (1 - t) * a + t * others[:, 0]) for t in torch.linspace(0, 1, 6)]
    assert (torch.cat(way).diff() > 0).all()


def test_a_cold_one_counts_the_others_behind() -> None:
    # The map is like other 0 only: with margins of one size, 1 - cos, the count is what is left.
    own, first, *rest = torch.eye(6).view(6, 1, 1, 1, 6)
    others = torch.stack([first, *rest], 1)
    value = Identification(others=others, temperature=1e-3)(own, own)
    assert float(value) == pytest.approx(-1)
    half = Identification(others=others, temperature=1e-3)(own, own + first)
    assert float(half) == pytest.approx(-(4 * 0.5**0.5 + 1e-3 * math.log(2)) / 5)


def test_the_attack_turns_the_map_as_far_as_the_ball_allows(dtype: torch.dtype) -> None:
    # The map of a bowl is the image. In the plane of its own and the other map, the best point of the
    # ball lies on the tangent: it turns by arcsin(eps / ‖x‖), whatever the temperature.
    x = torch.tensor([0.6, 0.4], dtype=dtype).view(1, 1, 1, 2)
    other = torch.tensor([0.3, 0.7], dtype=dtype).view(1, 1, 1, 1, 2)
    eps = 0.1
    for temperature in (0.01, 1):
        z = attack(
            objective=Identification(others=other, temperature=temperature),
            ball=L2Ball(eps=eps),
            steps=200,
            step_size=0.004,
        )(Bowl(), x, zeros(x), generator=seeded(0))
        turned = math.atan2(*z.flatten().flip(0).tolist()) - math.atan2(0.4, 0.6)
        assert turned == pytest.approx(math.asin(eps / float(x.norm())), abs=1e-3)


def test_two_images_are_taken_for_each_other(dtype: torch.dtype) -> None:
    x = torch.tensor([[0.6, 0.4, 0.5], [0.4, 0.6, 0.5]], dtype=dtype).view(2, 1, 1, 3)
    y = zeros(x)
    run = attack(
        objective=Identification(others=x.flip(0)[:, None]), ball=LinfBall(eps=0.15), steps=20
    )
    z = run(Bowl(), x, y, generator=seeded(0))
    a, b = (gradient(Bowl(), at, y)[:, 0] for at in (x, z))
    for control in (metrics.identification, metrics.rank_one):
        assert control(a, a, y, score=metrics.cosine).tolist() == [1, 1]
        assert control(a, b, y, score=metrics.cosine).tolist() == [0, 0]
    assert run.objective(x, z).min() > run.objective(x, x).max()


def test_the_cosine_alone_leaves_maps_with_their_images(dtype: torch.dtype) -> None:
    # Away from the own map is not towards those of others: the objective has to name them.
    x = oracles.images(6).to(dtype)
    y, a = zeros(x), x[:, 0]  # of a bowl
    others = torch.stack([x[torch.arange(6) != i] for i in range(6)])
    left = []
    for objective in (Cosine(), Identification(others=others)):
        run = attack(objective=objective, ball=LinfBall(eps=0.3), steps=30)
        b = run(Bowl(), x, y, generator=seeded(0))[:, 0]
        left.append(float(metrics.identification(a, b, y, score=metrics.cosine).mean()))
    assert left[0] > 0.8
    assert left[1] < 0.2


# --- rows and derivatives -------------------------------------------------------------------------


@pytest.mark.parametrize("index", [torch.tensor([2, 0]), torch.tensor([True, False, True])])
def test_rows_are_cut_along(index: Tensor) -> None:
    a, b = maps(3), maps(3, seed=1)
    pictures = torch.rand(3, 6, 6, generator=seeded(4))
    for objective in (
        Identification(others=maps(3, 4, seed=2), temperature=0.2),
        Identification(others=maps(1, 4, seed=2)),
        TargetMap(target=pictures),
        TargetMap(target=pictures[:1]),
        TargetMap(target=pictures[0]),
    ):
        torch.testing.assert_close(
            objective.rows(index)(a[index], b[index]), objective(a, b)[index]
        )
    # One set for all stays one set, whatever the rows.
    shared = Identification(others=maps(1, 4, seed=2)), TargetMap(target=pictures[:1])
    assert all(
        objective.rows(torch.tensor([], dtype=torch.int64)) is objective for objective in shared
    )


def test_the_prepared_objective_is_the_same() -> None:
    a, b = maps(3), maps(3, seed=1)
    objective = Identification(others=maps(3, 4, seed=2))
    assert torch.equal(objective.against(a)(b), objective(a, b))
    assert not objective.against(a.requires_grad_())(b).requires_grad


@pytest.mark.parametrize("scale", [1, 1e-30])
def test_slopes_are_finite_everywhere(scale: float) -> None:
    a, b = maps(4).float(), maps(4, seed=1).float() * scale
    others = maps(4, 2, seed=2).float()
    a[1] = b[2] = others[3, 0] = 0
    b.requires_grad_()
    value = Identification(others=others, temperature=1e-4)(a, b)
    (slope,) = torch.autograd.grad(value.sum(), b)
    assert torch.isfinite(value).all()
    assert torch.isfinite(slope).all()
    assert not slope[2].any()  # nothing to gain where there is no map


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"others": [1.0]}, TypeError, "others to be a torch.Tensor, got list"),
        ({"others": maps(3, 2).long()}, TypeError, "others to be a floating-point tensor"),
        ({"others": maps(3)}, ValueError, r"others of shape \(n, m, .* got \(3, 2, 6, 6\)"),
        ({"others": maps(3, 2)[:, :0]}, ValueError, r"others to be a non-empty batch"),
        ({"others": maps(3, 2) / 0}, ValueError, "others to be finite"),
        ({"others": maps(3, 2), "temperature": 0}, ValueError, "temperature > 0, got 0"),
    ],
)
def test_bad_settings_are_named(
    settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"Expected {message}"):
        Identification(**settings)


def test_others_that_do_not_fit_are_named() -> None:
    a, b = maps(3), maps(3, seed=1)
    for others in (maps(2, 4), maps(3, 4)[..., :5], maps(3, 4)[:, :, :1]):
        with pytest.raises(ValueError, match=r"Expected others to fit maps \(3, 2, 6, 6\), got"):
            Identification(others=others)(a, b)
