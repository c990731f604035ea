"""Certificates of sentences: by hand, against every sentence of the set, and what they refuse."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import attributions, certificates, maps, metrics
from tests.interval_oracles import inside
from tests.sentence_oracles import WORDS, Bag, Sentences, others, sentences, table

every_net = pytest.mark.parametrize(
    "net", [Sentences, partial(Sentences, nn.Softplus)], ids=["relu", "softplus"]
)


def word_gradients_bounds(model: Any, x: Tensor, y: Tensor, **box: Any) -> Any:
    """Bounds of `word_integrated_gradients`, from padding."""
    start = torch.zeros_like(x)
    start[:, -1:] = x[:, -1:]
    return certificates.integrated_gradients_bounds(model, x, y, baseline=start, steps=3, **box)


MAPS: dict[str, tuple[Callable[..., Any], Callable[..., Tensor]]] = {
    "gradient": (certificates.gradient_bounds, attributions.gradient),
    "input x gradient": (certificates.input_x_gradient_bounds, attributions.input_x_gradient),
    "integrated gradients": (
        word_gradients_bounds,
        partial(attributions.word_integrated_gradients, steps=3),
    ),
}
every_map = pytest.mark.parametrize(("bounds", "attribution"), MAPS.values(), ids=MAPS.keys())


def embedded(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """Embedded inputs and predictions."""
    with torch.no_grad():
        x = model.embed(ids)
        return x, model(x).argmax(1)


# --- every sentence of the set --------------------------------------------------------------------


@every_net
@every_map
@pytest.mark.parametrize("seed", range(2))
def test_no_sentence_is_outside_the_bounds(
    net: Callable[..., Any],
    bounds: Callable[..., Any],
    attribution: Callable[..., Tensor],
    seed: int,
) -> None:
    model = net(seed=seed)
    x, y = embedded(model, sentences())
    box = certificates.synonym_box(model, sentences(), table=table())
    lower, upper = bounds(model, x, y, box=box)
    wide = bounds(model, x, y, box=(box.lower, box.upper))
    down, up = certificates.logit_bounds(model, x, box=box)
    assert bool((wide[0] <= lower + 1e-12).all() and (upper <= wide[1] + 1e-12).all())
    assert float((upper - lower).sum()) < 0.95 * float((wide[1] - wide[0]).sum())
    padding = (sentences() == 0)[:, None, None].expand_as(lower)
    assert bool((lower[padding] == 0).all() and (upper[padding] == 0).all())
    for i, row in enumerate(sentences()):
        every = torch.tensor(list(others(row, table(), WORDS)))
        z, _ = embedded(model, every)
        a = attribution(model, z, y[i].expand(len(z)))
        assert inside(lower[i], a, upper[i])
        assert inside(down[i], model(z).detach(), up[i])


@every_net
@pytest.mark.parametrize("budget", [1, 2, 0.5, None])
def test_no_sentence_within_the_budget_keeps_fewer_words(
    net: Callable[..., Any], budget: float | None
) -> None:
    model = net(seed=2)
    x, y = embedded(model, sentences())
    heat = maps.to_heatmap(attributions.gradient(model, x, y))
    share = certificates.certified_words(model, sentences(), y, table=table(), k=2, budget=budget)
    label = certificates.certified_label(model, sentences(), table=table(), budget=budget)
    assert 0 < float(share.mean()) < 1
    for i, row in enumerate(sentences()):
        length = int((row != 0).sum())
        allowed = {1: 1, 2: 2, 0.5: length // 2, None: WORDS}[budget]
        every = torch.tensor(list(others(row, table(), allowed)))
        z, decisions = embedded(model, every)
        there = maps.to_heatmap(attributions.gradient(model, z, y[i].expand(len(z))))
        here = heat[i, None].expand_as(there)
        kept = metrics.topk_intersection(here[..., :length], there[..., :length], k=2)
        assert float(share[i]) <= float(kept.min())
        assert not label[i] or bool((decisions == y[i]).all())
    assert budget != 1 or float(label.mean()) > 0.5


def test_a_larger_budget_certifies_less() -> None:
    model = Sentences(seed=3)
    _, y = embedded(model, sentences())
    of = partial(certificates.certified_words, model, sentences(), y, table=table(), k=2)
    one, two, every = of(budget=1), of(budget=2), of()
    assert bool((one >= two).all() and (two >= every).all())
    assert torch.equal(of(budget=WORDS), every)
    assert float(one.sum()) > float(every.sum())


def test_another_map_is_certified() -> None:
    model = Sentences(nn.Softplus)
    _, y = embedded(model, sentences())
    bounds, attribution = MAPS["integrated gradients"]
    share = certificates.certified_words(
        model, sentences(), y, table=table(), k=2, budget=1, attribution=attribution, bounds=bounds
    )
    x, _ = embedded(model, sentences())
    heat = maps.to_heatmap(attribution(model, x, y))
    for i, row in enumerate(sentences()):
        length = int((row != 0).sum())
        z, _ = embedded(model, torch.tensor(list(others(row, table(), 1))))
        there = maps.to_heatmap(attribution(model, z, y[i].expand(len(z))))
        here = heat[i, None].expand_as(there)
        kept = metrics.topk_intersection(here[..., :length], there[..., :length], k=2)
        assert float(share[i]) <= float(kept.min())


# --- by hand --------------------------------------------------------------------------------------


def test_the_hull_and_the_columns_by_hand() -> None:
    model = Bag([0.0, 9.0, 3.0, -2.0, 5.0])
    substitutes = torch.zeros(5, 2).long()
    substitutes[2] = torch.tensor([3, 4])
    ids = torch.tensor([[2, 3, 2, 0]])
    box = certificates.synonym_box(model, ids, table=substitutes)
    assert box.choices.shape == (1, 3, 2, 1, 4)
    assert box.lower[0, :, 0].tolist() == [[-2, -2, -2, 0], [1, 1, 1, 0]]
    assert box.upper[0, :, 0].tolist() == [[5, -2, 5, 0], [1, 1, 1, 0]]
    places = torch.tensor([[True, True, False, False]])
    some = certificates.synonym_box(model, ids, table=substitutes, places=places)
    assert some.lower[0, 0, 0].tolist() == [-2, -2, 3, 0]
    x, _ = embedded(model, ids)
    lower, upper = certificates.logit_bounds(model, x, box=box)
    assert lower[0].tolist() == pytest.approx([-2, -8 / 3])  # means of (-2, -2, -2), (5, -2, 5)
    assert upper[0].tolist() == pytest.approx([8 / 3, 2])
    low, high = certificates.gradient_bounds(model, x, torch.tensor([0]), box=box)
    assert low[0, :, 0].flatten().tolist() == pytest.approx([1 / 3] * 3 + [0] * 5)
    torch.testing.assert_close(low, high)
    low, high = certificates.input_x_gradient_bounds(model, x, torch.tensor([0]), box=box)
    assert low[0, 0, 0].tolist() == pytest.approx([-2 / 3, -2 / 3, -2 / 3, 0])
    assert high[0, 0, 0].tolist() == pytest.approx([5 / 3, -2 / 3, 5 / 3, 0])


def test_columns_know_that_the_entries_of_a_word_belong_together() -> None:
    """The vectors (1, 1) and (-1, -1) under x - y: always 0, and within 2 of it for their hull."""

    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Conv2d(2, 1, (1, 1), bias=False)
            with torch.no_grad():
                self.kernel.weight.copy_(torch.tensor([1.0, -1]).view(1, 2, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return self.kernel(x).flatten(1)

    x = torch.ones(1, 2, 1, 1)
    box = certificates.Columns(choices=torch.stack([x, -x], 1))
    lower, upper = certificates.logit_bounds(Difference(), x, box=box)
    assert [lower.item(), upper.item()] == pytest.approx([0, 0], abs=1e-12)
    lower, upper = certificates.logit_bounds(Difference(), x, box=(-x, x))
    assert [lower.item(), upper.item()] == pytest.approx([-2, 2])


@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}, {"groups": 2}])
@pytest.mark.parametrize("dims", [1, 2])
def test_columns_through_any_convolution(options: dict[str, int], dims: int) -> None:
    """Every choice of columns is inside, and the ends of one output are attained."""
    kind = (nn.Conv1d, nn.Conv2d)[dims - 1]
    noise = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = kind(2, 4, 3, padding=1, **options)
    model = nn.Sequential(layer, nn.Flatten())
    shape = (2, 5) if dims == 1 else (2, 3, 5)
    choices = torch.randn(1, 2, *shape, generator=noise)
    box = certificates.Columns(choices=choices)
    lower, upper = certificates.logit_bounds(model, choices[:, 0], box=box)
    picks = torch.cartesian_prod(*[torch.arange(2)] * 5).view(32, 1, *[1] * (dims - 1), 5)
    z = torch.where(picks == 0, choices[:, 0], choices[:, 1])
    values = model(z).detach()
    torch.testing.assert_close(lower[0], values.amin(0), rtol=0, atol=1e-10)
    torch.testing.assert_close(upper[0], values.amax(0), rtol=0, atol=1e-10)
    assert bool((lower[0] <= values).all() and (values <= upper[0]).all())


def test_columns_are_forgotten_where_they_mix() -> None:
    """After a slice, a product and a copy columns stand; after another step the box counts alone."""
    x = torch.ones(1, 2, 1, 3)
    box = certificates.Columns(choices=torch.stack([x, -x], 1))
    kernel = torch.tensor([1.0, -1]).view(1, 2, 1, 1)

    def width(change: Callable[[Tensor], Tensor]) -> float:
        def model(x: Tensor) -> Tensor:
            return nn.functional.conv2d(change(x), kernel).flatten(1)

        lower, upper = certificates.logit_bounds(model, x, box=box)
        return float((upper - lower).max())

    steps: list[Callable[[Tensor], Tensor]] = [
        lambda x: x[:, :, :, 1:],
        lambda x: (2 * x).clone(),
        lambda x: x[..., :2] * torch.ones(1, 1, 1, 2),
    ]
    assert all(width(step) < 1e-12 for step in steps)
    mixed: list[Callable[[Tensor], Tensor]] = [
        lambda x: x.transpose(1, 3)[:, :2],
        lambda x: x[:, :, 0, :, None].transpose(2, 3),
        lambda x: x.add_(0),
        lambda x: x + 0 * x,
    ]
    assert all(width(step) >= 2 for step in mixed)


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_bad_box_is_named() -> None:
    model = Sentences()
    x, y = embedded(model, sentences())
    box = (x - 1, x + 1)
    for given, words in (
        ({}, "Expected eps or box, got neither"),
        ({"eps": 0.1, "box": box}, "Expected eps or box, got both"),
        ({"box": (x + 1, x + 2)}, "Expected lower <= x <= upper, got 4 of 4 samples outside"),
        ({"box": (x + 1, x - 1)}, "Expected lower <= x <= upper, got 4 of 4 samples outside"),
        ({"box": (x[:2], x[:2])}, "Expected lower and upper and x to have one shape"),
        ({"box": (x * torch.nan, x)}, "Expected lower to be finite"),
        (
            {"box": certificates.Columns(choices=torch.stack([x + 1, x + 2], 1))},
            "4 of 4 samples outside",
        ),
        ({"box": box}, "__gt__ with more than one outcome|gt with more than one outcome"),
    ):
        with pytest.raises(ValueError, match=words):
            certificates.gradient_bounds(model, x, y, **given)
        with pytest.raises(ValueError, match=words):
            certificates.logit_bounds(model, x, **given)
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\]"):
        certificates.gradient_bounds(model, x, y, eps=0.1)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_sentences_and_settings_are_named() -> None:
    model, ids = Sentences(), sentences()
    _, y = embedded(model, ids)
    empty, high = ids.clone(), ids.clone()
    empty[0], high[0, 0] = 0, 12
    call = partial(certificates.certified_words, table=table(), k=2)
    for function in (
        lambda bad: call(model, bad, y),
        lambda bad: certificates.certified_label(model, bad, table=table()),
        lambda bad: certificates.synonym_box(model, bad, table=table()),
    ):
        with pytest.raises(ValueError, match="Expected ids with a word first, got 1 rows"):
            function(empty)
        with pytest.raises(ValueError, match="Expected ids from 0 to 11, got 12"):
            function(high)
        with pytest.raises(TypeError, match=r"Expected ids to be an int64 tensor, got torch.float"):
            function(ids.double())
    for options, words in (
        ({"k": 0}, "Expected k to be an integer from 1 to 3, got 0"),
        ({"k": 4}, "Expected k to be an integer from 1 to 3, got 4"),
        ({"budget": 0}, "Expected budget to be a number of words >= 1, .* got 0"),
        ({"budget": -2}, "got -2"),
        ({"budget": 1.0}, r"got 1\.0"),
        ({"limit": 0}, "Expected limit to be an integer >= 1, got 0"),
        ({"budget": 2, "limit": 5}, "Expected at most 5 sets of 2 places .* got 10 in row 0"),
        ({"table": table()[0]}, r"Expected table of substitutes \(vocabulary, m\)"),
    ):
        with pytest.raises(ValueError, match=words):
            call(model, ids, y, **options)
    with pytest.raises(TypeError, match="Expected places to be a boolean tensor"):
        certificates.synonym_box(model, ids, table=table(), places=ids)
    with pytest.raises(ValueError, match="Expected places and ids to have one shape"):
        certificates.synonym_box(model, ids, table=table(), places=ids[:2] > 0)


def test_without_synonyms_everything_is_certain() -> None:
    model = Sentences()
    _, y = embedded(model, sentences())
    none = torch.zeros(12, 0).long()
    for budget in (1, None):
        share = certificates.certified_words(model, sentences(), y, table=none, k=2, budget=budget)
        assert share.tolist() == [1, 1, 1, 1]
        label = certificates.certified_label(model, sentences(), table=none, budget=budget)
        assert label.tolist() == [1, 1, 1, 1]
