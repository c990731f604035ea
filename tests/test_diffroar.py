"""DiffROAR with students in closed form: a linear teacher, and images of one lit entry."""

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attrlib import attributions, faithfulness
from attrlib.data import Blocks, Images
from tests import oracles

NAMES = ("minus", "plus")


def _fit(images: Images) -> nn.Module:
    """The linear model of least squares, in closed form."""
    rows = torch.cat([images.x.flatten(1), torch.ones(len(images), 1)], 1)
    target = 2 * images.y.to(rows) - 1
    ridge = 1e-6 * torch.eye(rows.shape[1])
    weight = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ target)
    layer = nn.Linear(len(weight) - 1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([-weight[:-1], weight[:-1]]))
        layer.bias.copy_(torch.stack([-weight[-1], weight[-1]]))
    return nn.Sequential(nn.Flatten(), layer).eval()


# --- a linear teacher -----------------------------------------------------------------------------

WEIGHT = 0.7 ** torch.arange(20.0, dtype=torch.float64)


def _taught(n: int, seed: int) -> tuple[Images, Tensor]:
    """Normal entries, labels of a linear teacher, and what each entry adds to its logit."""
    x = torch.randn(n, 1, 4, 5, generator=oracles.seeded(seed), dtype=torch.float64)
    parts = x * WEIGHT.view(1, 1, 4, 5)
    return Images(x, (parts.flatten(1).sum(1) > 0).long(), NAMES), parts


def _score(order: Callable[[Tensor], Tensor], share: float = 0.25) -> Tensor:
    (train, a), (test, b) = _taught(1500, 0), _taught(500, 1)
    return faithfulness.diffroar(train, test, order(a), order(b), fit=_fit, share=share)


def test_the_order_of_a_linear_teacher() -> None:
    right, reverse = _score(lambda a: a), _score(lambda a: 1 / a)
    assert set(right.unique().tolist()) <= {-1.0, 0.0, 1.0}
    assert right.mean() > 0.25
    # No values are tied: what was on top is at the bottom, and both students are the same.
    assert torch.equal(reverse, -right)


def test_a_random_order_says_nothing_and_no_order_exactly_nothing() -> None:
    noise = oracles.seeded(7)
    random = _score(lambda a: torch.randn(a.shape, generator=noise, dtype=a.dtype))
    assert abs(float(random.mean())) < 4 / math.sqrt(500)
    assert not _score(torch.ones_like).any()


# --- one lit entry --------------------------------------------------------------------------------


def _one_lit(n: int, seed: int) -> Images:
    """x = y e_j with y = -1 or 1, as often, and any j."""
    place = torch.randint(10, (n,), generator=oracles.seeded(seed))
    y = torch.arange(n) % 2
    x = nn.functional.one_hot(place, 10).double() * (2 * y - 1)[:, None]
    return Images(x.view(n, 1, 2, 5), y, NAMES)


def test_a_gradient_that_leaks_to_all_places_scores_nothing() -> None:
    """After Shah et al. 2021: the student that is always right has the same gradient everywhere."""
    train, test = _one_lit(400, 0), _one_lit(200, 1)
    model = _fit(train)
    assert (model(test.x).argmax(1) == test.y).all()
    scores = {}
    for name, attribution in (
        ("gradient", attributions.gradient),
        ("input x gradient", attributions.input_x_gradient),
    ):
        a, b = (attribution(model, images.x, images.y) for images in (train, test))
        rounded = (a.round(decimals=3), b.round(decimals=3))
        scores[name] = faithfulness.diffroar(train, test, *rounded, fit=_fit, share=0.1)
    assert scores["gradient"].mean() == 0
    assert scores["input x gradient"].mean() == 0.5  # the entry itself, against a black image


def _step(x: Tensor, y: Tensor, net: nn.Module) -> Tensor:
    """A step of an attack on the cross-entropy, in the sup norm."""
    z = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(net(z), y, reduction="sum")
    return z.detach() + 0.2 * torch.autograd.grad(loss, z)[0].sign()


def _hidden_layer(*, eps: float, steps: int) -> tuple[nn.Module, Images]:
    """One layer of ReLU units, trained on all 20 images of one lit entry, or on attacked ones."""
    x = torch.cat([torch.eye(10), -torch.eye(10)]).double()
    y = torch.arange(20) // 10
    hidden, noise = 200, oracles.seeded(0)
    net = nn.Sequential(
        nn.Flatten(), nn.Linear(10, hidden), nn.ReLU(), nn.Linear(hidden, 2)
    ).double()
    with torch.no_grad():
        for weight in net.parameters():
            scale = 0.3 if weight.shape[-1] == 10 else hidden**-0.5
            weight.copy_(scale * torch.randn(weight.shape, generator=noise, dtype=weight.dtype))
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
    for _ in range(steps):
        z = x
        for _ in range(3 if eps else 0):
            z = _step(z, y, net).clamp(x - eps, x + eps)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(z), y).backward()
        optimizer.step()
    return net.eval(), Images(x.view(20, 1, 2, 5), y, NAMES)


def test_an_ordinary_gradient_misses_the_lit_entry_that_an_adversarial_one_finds() -> None:
    """After Shah et al. 2021, whose layer has 25,000 units."""
    place = torch.arange(20) % 10
    scores = {}
    for name, eps, steps in (("ordinary", 0.0, 500), ("adversarial", 0.45, 3000)):
        net, images = _hidden_layer(eps=eps, steps=steps)
        assert (net(images.x).argmax(1) == images.y).all()
        a = attributions.gradient(net, images.x, images.y).detach()
        found = a.abs().flatten(1).argmax(1) == place
        scores[name] = faithfulness.diffroar(images, images, a, a, fit=_fit, share=0.1)
        assert found.double().mean() <= 0.1 if name == "ordinary" else found.all()
    assert scores["ordinary"].mean() < 0
    assert scores["adversarial"].mean() == 0.5  # the lit entry itself, against a black image


# --- what is trained ------------------------------------------------------------------------------


def test_new_models_see_masked_images_alone() -> None:
    (train, a), (test, b) = _taught(40, 0), _taught(20, 1)
    seen = []

    def spy(images: Images) -> nn.Module:
        seen.append(images)
        return _fit(images)

    grey = torch.full((1, 1, 4, 5), 0.25, dtype=torch.float64)
    faithfulness.diffroar(train, test, a, b, fit=spy, share=0.3, baseline=grey)
    assert len(seen) == 2
    for images, best in zip(seen, (True, False), strict=True):
        assert torch.equal(images.y, train.y)
        stays = images.x != 0.25
        assert torch.equal(images.x[stays], train.x[stays])
        assert (stays.flatten(1).sum(1) == 6).all()
        order = a.abs().flatten(1).argsort(1, descending=best)
        assert stays.flatten(1).gather(1, order[:, :6]).all()


def test_images_may_know_more_than_pixels_and_labels() -> None:
    (train, a), (test, b) = _taught(40, 0), _taught(20, 1)
    null = torch.zeros(40, 4, 5, dtype=torch.bool)
    richer = Blocks(train.x, train.y, train.classes, null)
    one, other = (
        faithfulness.diffroar(images, test, a, b, fit=_fit, share=0.3) for images in (train, richer)
    )
    assert torch.equal(one, other)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    (train, a), (test, b) = _taught(8, 0), _taught(4, 1)
    score = partial(faithfulness.diffroar, fit=_fit, share=0.3)
    for share in (0, 1, 1.5):
        with pytest.raises(ValueError, match="Expected share strictly between 0 and 1, got"):
            score(train, test, a, b, share=share)
    with pytest.raises(ValueError, match=r"Expected a of shape \(8, 1, 4, 5\), got \(4, 1, 4, 5\)"):
        score(train, test, b, b)
    with pytest.raises(ValueError, match=r"Expected b of shape \(4, 1, 4, 5\), got \(8, 1, 4, 5\)"):
        score(train, test, a, a)
    with pytest.raises(ValueError, match="Expected b to be finite, got NaN"):
        score(train, test, a, b / 0 * 0)
    with pytest.raises(TypeError, match="Expected a to be a floating-point tensor, got"):
        score(train, test, a.long(), b)
    with pytest.raises(ValueError, match=r"Expected model\(x\) to be logits \(4, classes\), got"):
        score(train, test, a, b, fit=lambda _: nn.Identity())
    with pytest.raises(ValueError, match="Expected baseline of shape"):
        score(train, test, a, b, baseline=torch.zeros(2, 1, 4, 5))
