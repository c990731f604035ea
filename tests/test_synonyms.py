"""Attacks on sentences: against the optimum by a loop, by hand, what they promise, and their errors."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import attacks, attributions, maps, metrics, models
from attrlib.attacks import AllSynonyms, RandomSynonyms, SynonymAttack, UnattackedWarning
from tests import oracles
from tests.sentence_oracles import Bag, Sentences, optimum, others, sentences, table

TOP = partial(metrics.topk_intersection, k=2)
NOISY = partial(attributions.smooth_grad, sigma=0.5, samples=3)
KINDS: dict[str, Callable[..., Any]] = {
    "greedy": SynonymAttack,
    "beam": partial(SynonymAttack, beam=3),
    "guided": partial(SynonymAttack, objective=attacks.TopK(k=2), tried=3),
    "random": partial(RandomSynonyms, draws=5),
    "all": AllSynonyms,
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def made(kind: Callable[..., Any], **options: Any) -> Any:
    settings: dict[str, Any] = {
        "attribution": attributions.gradient,
        "score": metrics.kendall,
        "table": table(),
        "budget": 2,
    }
    return kind(**(settings | options))


def explained(model: nn.Module) -> Tensor:
    """The prediction for each sentence."""
    with torch.no_grad():
        return model(model.embed(sentences())).argmax(1)


def scores(model: nn.Module, z: Tensor, y: Tensor, score: Callable[..., Tensor]) -> list[float]:
    """Of each changed sentence, on its words alone."""
    found = []
    for row, ids in enumerate(sentences()):
        length = int((ids != 0).sum())
        heat = [
            maps.to_heatmap(
                attributions.gradient(model, model.embed(words[None]).detach(), y[row, None])
            )[..., :length]
            for words in (ids, z[row])
        ]
        found.append(float(score(*heat)))
    return found


# --- the optimum ----------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [TOP, metrics.kendall], ids=["topk", "kendall"])
@pytest.mark.parametrize("budget", [1, 2, 6])
@pytest.mark.parametrize("keep_label", [True, False])
def test_all_sentences_give_the_optimum(
    score: Callable[..., Tensor], budget: int, keep_label: bool
) -> None:
    model = Sentences(seed=1)
    y = explained(model)
    z = made(AllSynonyms, score=score, budget=budget, keep_label=keep_label)(model, sentences(), y)
    expected = [
        optimum(model, row, y[i, None], attributions.gradient, score, budget, keep_label=keep_label)
        for i, row in enumerate(sentences())
    ]
    assert scores(model, z, y, score) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_one_word_is_found_by_a_greedy_search(seed: int) -> None:
    model = Sentences(seed=seed)
    y = explained(model)
    best, found = (made(k, budget=1)(model, sentences(), y) for k in (AllSynonyms, SynonymAttack))
    assert torch.equal(best, found)


def test_a_wide_beam_finds_the_optimum_and_a_greedy_search_may_not() -> None:
    gaps = {1: 0.0, 60: 0.0}
    for seed in range(4):
        model = Sentences(seed=seed)
        y = explained(model)
        best = made(AllSynonyms, budget=3)(model, sentences(), y)
        lowest = scores(model, best, y, metrics.kendall)
        for beam in gaps:
            z = made(SynonymAttack, budget=3, beam=beam)(model, sentences(), y)
            found = scores(model, z, y, metrics.kendall)
            gaps[beam] += sum(found) - sum(lowest)
            assert all(a >= b - 1e-12 for a, b in zip(found, lowest, strict=True))
    assert gaps[60] == pytest.approx(0)
    assert gaps[1] > 0.1


def test_the_search_is_lower_than_random_synonyms() -> None:
    sums = {"search": 0.0, "one draw": 0.0, "draws": 0.0}
    for seed in range(4):
        model = Sentences(seed=seed)
        y = explained(model)
        search = made(SynonymAttack)
        draws = int(search.evaluations(sentences()).max())
        for name, attack in (
            ("search", search),
            ("one draw", made(RandomSynonyms, draws=1)),
            ("draws", made(RandomSynonyms, draws=draws)),
        ):
            z = attack(model, sentences(), y, generator=oracles.seeded(0))
            sums[name] += sum(scores(model, z, y, metrics.kendall))
    assert sums["search"] <= sums["draws"] < sums["one draw"] - 1


# --- by hand --------------------------------------------------------------------------------------


def _values(score: Callable[..., Tensor], **options: Any) -> list[int]:
    """A linear network, whose input × gradient is the value of the word: 3, 2 and 1, or 4 and 0."""
    model, ids = Bag([0.0, 9.0, 3.0, 2.0, 1.0, 4.0, 0.5]), torch.tensor([[2, 3, 4, 0]])
    substitutes = torch.zeros(7, 2, dtype=torch.int64)
    substitutes[3, 0], substitutes[4] = 5, torch.tensor([6, 5])
    attack = made(
        SynonymAttack,
        attribution=attributions.input_x_gradient,
        score=score,
        table=substitutes,
        **{"budget": 1} | options,
    )
    return attack(model, ids, torch.tensor([0]))[0].tolist()


def test_the_best_substitute_by_hand() -> None:
    assert _values(partial(metrics.topk_intersection, k=1)) == [2, 3, 5, 0]  # 4 above 3; cosine
    assert _values(metrics.cosine) == [2, 3, 5, 0]
    assert _values(metrics.kendall) == [2, 3, 5, 0]  # (3, 2, 4): two pairs of three turned
    assert _values(metrics.kendall, budget=2) == [2, 5, 5, 0]  # (3, 4, 4): two turned, one tied


def test_of_equal_scores_the_cosine_decides() -> None:
    calls = []

    def score(a: Tensor, b: Tensor) -> Tensor:
        calls.append(len(b))
        return torch.where((a != b).flatten(1).any(1), 0.5, 1.0).to(a)

    assert _values(score) == [2, 3, 5, 0]
    assert calls == [1, 3]  # the sentence, and its three candidates in one pass


def test_nothing_lower_leaves_the_sentence() -> None:
    assert _values(lambda a, b: torch.ones(len(a)).to(a)) == [2, 3, 4, 0]


def test_the_gradient_ranks_candidates() -> None:
    """Mass outside the first word: the substitute 5 for word 4 gains most, and is tried alone."""
    seen: list[int] = []

    def score(a: Tensor, b: Tensor) -> Tensor:
        seen.append(len(b))
        return metrics.cosine(a, b)

    found = _values(score, objective=attacks.TopK(k=1), tried=1)
    assert found == [2, 3, 5, 0]
    assert seen == [1, 1]


def test_without_a_slope_all_candidates_are_tried() -> None:
    model = Sentences()  # the gradient map of a ReLU network is flat
    y = explained(model)
    options: dict[str, Any] = {"objective": attacks.TopK(k=2), "tried": 1}
    plain, flat = (made(SynonymAttack, **o)(model, sentences(), y) for o in ({}, options))
    assert torch.equal(plain, flat)
    smooth = partial(models.smoothed, beta=5.0)
    guided = made(SynonymAttack, surrogate=smooth, **options)(model, sentences(), y)
    assert not torch.equal(plain, guided)


# --- what is promised -----------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("attribution", [attributions.gradient, NOISY], ids=["gradient", "noisy"])
def test_sentences_stay_within_the_budget_and_the_class(
    kind: Callable[..., Any], attribution: Callable[..., Tensor]
) -> None:
    model = Sentences(nn.Softplus, seed=2)
    ids, y = sentences(), 1 - explained(model)  # the class that is not predicted
    attack = made(kind, attribution=attribution)
    z = attack(model, ids, y, generator=oracles.seeded(0))
    assert z.dtype == torch.int64
    assert not torch.equal(z, ids)
    for row, words in zip(ids, z.tolist(), strict=True):
        assert words in list(others(row, table(), 2))
    with torch.no_grad():
        assert torch.equal(model(model.embed(z)).argmax(1), explained(model))
    assert torch.equal(z, attack(model, ids, y, generator=oracles.seeded(0)))
    assert torch.equal(ids, sentences())
    assert torch.equal(attack.table, table())


@every_kind
@pytest.mark.parametrize("attribution", [attributions.gradient, NOISY], ids=["gradient", "noisy"])
def test_the_size_of_a_pass_does_not_matter(
    kind: Callable[..., Any], attribution: Callable[..., Tensor]
) -> None:
    model = Sentences(nn.Softplus)
    y = explained(model)
    one, other = (
        made(kind, attribution=attribution, batch_size=size)(
            model, sentences(), y, generator=oracles.seeded(0)
        )
        for size in (1, 50)
    )
    assert torch.equal(one, other)


@every_kind
def test_a_sentence_does_not_depend_on_the_others(kind: Callable[..., Any]) -> None:
    model = Sentences(nn.Softplus)
    ids, y = sentences(), explained(model)
    attack = made(kind, attribution=NOISY)
    together = attack(model, ids, y, generator=oracles.seeded(0))
    for row in range(len(ids)):
        changed = ids.roll(1, 0)
        changed[row] = ids[row]
        labels = y.roll(1)
        labels[row] = y[row]
        alone = attack(model, changed, labels, generator=oracles.seeded(0))
        assert torch.equal(alone[row], together[row])


def test_candidates_meet_the_noise_of_their_sentence() -> None:
    """So a sentence that is put in its own place is as like as can be, in every row of a pass."""

    def drawn(model: nn.Module, x: Tensor, y: Tensor, *, generator: Any) -> Tensor:
        return attributions.gradient(model, x, y) + attacks.LinfBall(eps=0.2).sample(
            torch.full_like(x, 0.5), generator
        )

    ids = sentences()[:, :3].repeat(2, 1)  # the map of a linear network is its noise alone
    attack = made(SynonymAttack, attribution=drawn, budget=1, score=metrics.cosine)
    z = attack(Bag([0.0] * 12), ids, torch.zeros(8).long(), generator=oracles.seeded(1))
    assert torch.equal(z, ids)  # every candidate has the map of its sentence: none is lower


def test_padding_is_never_ranked() -> None:
    shapes: list[tuple[int, ...]] = []

    def score(a: Tensor, b: Tensor) -> Tensor:
        shapes.append(tuple(b.shape[1:]))
        return metrics.cosine(a, b)

    model = Sentences()
    z = made(SynonymAttack, score=score)(model, sentences(), explained(model))
    assert torch.equal(z == 0, sentences() == 0)
    assert {shape[-1] for shape in shapes} == {3, 4, 5, 6}
    wide = nn.functional.pad(sentences(), (0, 3))
    wider = made(SynonymAttack)(model, wide, explained(model))
    assert torch.equal(wider[:, :6], made(SynonymAttack)(model, sentences(), explained(model)))


@pytest.mark.parametrize(
    ("budget", "expected"), [(1, 1), (3, 3), (99, 5), (0.2, 1), (0.5, 2), (0.6, 3), (0.79, 3)]
)
def test_a_budget_is_a_number_or_a_share_rounded_down(budget: float, expected: int) -> None:
    ids = torch.tensor([[2, 3, 4, 5, 6, 0, 0]])
    model = Sentences(nn.Softplus)
    y = torch.tensor([0])
    for kind in (SynonymAttack, RandomSynonyms):
        options = {} if kind is SynonymAttack else {"draws": 30}
        attack = made(
            kind,
            budget=budget,
            keep_label=False,
            score=lambda a, b: -(a != b).sum((1, 2, 3)) * 1.0,
            **options,
        )
        z = attack(model, ids, y, generator=oracles.seeded(0))
        assert int((z != ids).sum()) <= expected
    count = made(AllSynonyms, budget=budget).evaluations(ids)
    assert int(count) == sum(1 for _ in others(ids[0], table(), expected)) - 1


def test_evaluations_are_what_is_scored() -> None:
    model, y = Sentences(), explained(Sentences())
    for options in ({}, {"beam": 2}, {"budget": 1}, {"objective": attacks.TopK(k=2), "tried": 2}):
        count = [0]

        def score(a: Tensor, b: Tensor, count: list[int] = count) -> Tensor:
            count[0] += len(b)
            return metrics.cosine(a, b)

        attack = made(
            SynonymAttack,
            attribution=attributions.input_x_gradient,
            score=score,
            **{"budget": 3} | options,
        )
        attack(model, sentences(), y)
        expected = int(attack.evaluations(sentences()).sum()) + 4  # the sentences themselves
        assert count[0] <= expected
        if options == {"budget": 1}:
            assert count[0] == expected
    every = made(AllSynonyms).evaluations(sentences())
    assert every.tolist() == [sum(1 for _ in others(row, table(), 2)) - 1 for row in sentences()]


# --- what cannot be attacked, and bad input -------------------------------------------------------


@every_kind
def test_sentences_without_synonyms_come_back_and_are_named(kind: Callable[..., Any]) -> None:
    model = Sentences()
    ids = sentences()
    ids[1] = torch.tensor([1, 10, 11, 1, 0, 0])  # unknown words, and words without substitutes
    with pytest.warns(UnattackedWarning, match=r"1 of 4 rows .* unchanged \(1\): no word may be"):
        z = made(kind)(model, ids, explained(model), generator=oracles.seeded(0))
    assert torch.equal(z[1], ids[1])
    assert not torch.equal(z[0], ids[0])
    for empty in (torch.zeros(12, 3).long(), torch.zeros(12, 0).long()):
        with pytest.warns(UnattackedWarning, match="4 of 4 rows"):
            z = made(kind, table=empty)(model, ids, explained(model), generator=oracles.seeded(0))
        assert torch.equal(z, ids)


@every_kind
def test_a_share_of_a_short_sentence_may_be_no_word(kind: Callable[..., Any]) -> None:
    model = Sentences()
    with pytest.warns(UnattackedWarning, match=r"\(1, 2\)"):
        z = made(kind, budget=0.2)(
            model, sentences(), explained(model), generator=oracles.seeded(0)
        )
    assert torch.equal(z[1:3], sentences()[1:3])


@every_kind
def test_a_map_of_zeros_comes_back_and_is_named(kind: Callable[..., Any]) -> None:
    def map_of(model: nn.Module, x: Tensor, y: Tensor, *, generator: Any = None) -> Tensor:
        a = attributions.input_x_gradient(model, x, y)
        return torch.where((x[:, -1].sum((1, 2)) == 3)[:, None, None, None], a * 0, a)

    model = Sentences()
    with pytest.warns(UnattackedWarning, match=r"\(2\)"):
        z = made(kind, attribution=map_of)(
            model, sentences(), explained(model), generator=oracles.seeded(0)
        )
    assert torch.equal(z[2], sentences()[2])


@pytest.mark.usefixtures("unchecked_shapes")
@every_kind
def test_bad_sentences_are_named(kind: Callable[..., Any]) -> None:
    model, ids = Sentences(), sentences()
    y, attack = explained(model), made(kind)
    empty, late, low, high = (ids.clone() for _ in range(4))
    empty[2], late[2, 4], low[0, 0], high[3, 1] = 0, 5, -1, 12
    for bad, words in (
        (empty, "Expected ids with a word first, got 1 rows that begin with padding"),
        (late, "Expected ids with padding after the last word only"),
        (low, "Expected ids from 0 to 11, got -1"),
        (high, "Expected ids from 0 to 11, got 12"),
        (ids[0], r"Expected ids of shape \(n, words\), got \(6,\)"),
        (ids[:, :0], r"Expected ids of shape \(n, words\), got \(4, 0\)"),
        (ids[:0], r"Expected ids of at least one sentence, got shape \(0, 6\)"),
    ):
        with pytest.raises(ValueError, match=words):
            attack(model, bad, y)
    with pytest.raises(TypeError, match=r"Expected ids to be an int64 tensor, got torch.float64"):
        attack(model, ids.double(), y)
    with pytest.raises(ValueError, match=r"Expected y of shape \(4,\), got \(3,\)"):
        attack(model, ids, y[:3])
    with pytest.raises(ValueError, match="Expected y from 0 to 1, got 2"):
        attack(model, ids, torch.full_like(y, 2))
    with pytest.raises(TypeError, match=r"Expected model with a function embed\(ids\)"):
        attack(nn.Identity(), ids, y)


@pytest.mark.usefixtures("unchecked_shapes")
@every_kind
def test_bad_settings_are_named(kind: Callable[..., Any]) -> None:
    for budget in (0, -1, 0.0, -0.2, 1.0, 1.5, float("nan"), True, "2"):
        with pytest.raises(ValueError, match="Expected budget to be a number of words >= 1"):
            made(kind, budget=budget)
    wide, own = table(), table()
    wide[3, 1], own[0, 0] = 12, 4
    for bad, words in (
        (torch.zeros(12).long(), r"Expected table .* \(vocabulary, m\), got shape \(12,\)"),
        (torch.zeros(0, 3).long(), r"got shape \(0, 3\)"),
        (wide, "Expected table of word numbers from 0 to 11, got 12"),
        (-table(), "got -9"),
        (own, "Expected table without substitutes for padding"),
    ):
        with pytest.raises(ValueError, match=words):
            made(kind, table=bad)
    with pytest.raises(TypeError, match=r"Expected table to be an int64 tensor, got torch.float64"):
        made(kind, table=table().double())
    with pytest.raises(ValueError, match="Expected batch_size to be an integer >= 1, got 0"):
        made(kind, batch_size=0)


def test_options_of_one_attack_are_checked() -> None:
    for options, words in (
        ({"beam": 0}, "Expected beam to be an integer >= 1, got 0"),
        ({"tried": 3}, "Expected objective and tried together, got no objective"),
        ({"objective": attacks.TopK(k=1)}, "Expected objective and tried together, got no tried"),
        ({"objective": attacks.TopK(k=1), "tried": 0}, "Expected tried to be an integer >= 1"),
        ({"surrogate": models.smoothed}, "Expected objective for a surrogate, got none"),
    ):
        with pytest.raises(ValueError, match=words):
            made(SynonymAttack, **options)
    with pytest.raises(ValueError, match="Expected draws to be an integer >= 1, got 0"):
        made(RandomSynonyms, draws=0)
    attack = made(AllSynonyms, limit=30)
    with pytest.raises(
        ValueError, match=r"Expected at most 30 sentences .* got 41 in row 0; lower"
    ):
        attack(Sentences(), sentences(), explained(Sentences()))
