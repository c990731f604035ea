"""Attacks on the explanation of a sentence: words are replaced by synonyms, and the prediction stays.

They work on word numbers (n, words), 0 after the last word: `attack(model, ids, y, generator=…)` gives
word numbers. The model maps embedded inputs (n, channels, 1, words) to logits, and has a function
`embed(ids)` that makes these. Attributions explain embedded inputs; their maps are cut to the words of a
sentence before they are scored, so that padding is never ranked. Otherwise the rules are those of
`AttributionAttack`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attrlib import _check, _random, _words
from attrlib.attacks._sentences import (
    Candidates,
    Champions,
    Judge,
    first,
    neighbours,
)
from attrlib.attacks.attribution import warn_unattacked
from attrlib.types import Attribution, Ids, Labels, Metric, Objective, TextClassifier

_STUCK = "no word may be replaced, or their map is zero or not finite"


@dataclass(frozen=True, kw_only=True, eq=False)
class SynonymAttack:
    r"""Replace words by synonyms, one at a time, so that the explanation changes and the label stays.

    $$\min_{z \in S(x)} s\big(A(x), A(z)\big) \quad \text{such that} \quad
      \arg\max f(z) = \arg\max f(x)$$

    with the sentences $S(x)$ in which at most a budget of words is replaced, each by one of its
    substitutes. From `x` on, a step replaces one more word: of all candidates of a sentence the `beam`
    lowest in score go on, those that keep the prediction first. The result is the lowest of all that
    keep it, or the sentence itself if none is lower. A greedy search has a beam of 1. Of equal scores, as
    sets of words often have, the one with the lower cosine of the signed maps goes first. Nothing is
    drawn at random; a stochastic attribution gets the same noise for all candidates of a sentence.

    How good: one word at a time finds the optimum where one word is replaced. On 30 tweets, against every
    sentence and three shipped networks, the top 3 of a greedy search were up to .067 too high for three
    words and could lie above the best of as many random draws; those of a beam of 4 up to .011.

    Cost: with V substitutes for all words of a sentence, a budget of B and a beam of b, at most
    V + (B - 1) b V maps and forward passes of single sentences, which share passes; see `evaluations`.
    With an objective, one derivative of the map for each of the b sentences, and `tried` maps, a step.

    Attributes:
        attribution: Whose maps are changed.
        score: Metric that is minimised. One whose first parameter is annotated `Heatmaps` gets heatmaps
            (n, 1, words), any other gets signed maps (n, channels, 1, words), of sentences of equally
            many words, without padding.
        table: Substitutes of each word (vocabulary, m), int64, filled up with 0.
        budget: Words that may be replaced: an integer >= 1; or a fraction strictly between 0 and 1, the
            largest share of the words of a sentence, rounded down.
        beam: Sentences that go on from step to step, >= 1.
        objective: Ranks candidates by the first-order gain of the objective, the change of the embedded
            inputs times its gradient, and only the first are tried; None tries all. A sentence where the
            gradient is zero or not finite has all tried.
        tried: Candidates of a sentence that are tried at a step, >= 1; with an objective only.
        surrogate: Function from the model to a twice differentiable one that has the gradient of the
            objective, such as `partial(smoothed, beta=30)`; None takes the model itself, whose gradient
            map has none if it is made of ReLUs.
        keep_label: Keep the predicted class of `x`, which need not be `y`; False drops the condition.
        batch_size: Sentences in one pass, >= 1; None chooses. Sets speed and memory, not the result.

    Source: Ivankay et al. 2022, word substitutions against explanations with a budget of 15 % of the
    words, of which the abstract and public code were at hand. Differs: the score is any metric, all words
    are tried or ranked together with their substitutes, and a beam.
    """

    attribution: Attribution
    score: Metric
    table: Tensor = field(repr=False)
    budget: float
    beam: int = 1
    objective: Objective | None = None
    tried: int | None = None
    surrogate: Callable[[Any], TextClassifier] | None = None
    keep_label: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        _words.check_table(self.table)
        _words.check_budget(self.budget)
        _check.count(beam=self.beam)
        _check.batch_size(self.batch_size)
        if (self.objective is None) != (self.tried is None):
            missing = "objective" if self.objective is None else "tried"
            raise ValueError(f"Expected objective and tried together, got no {missing}")
        if self.tried is not None:
            _check.count(tried=self.tried)
        if self.surrogate is not None and self.objective is None:
            raise ValueError("Expected objective for a surrogate, got none")

    def __call__(
        self,
        model: TextClassifier,
        ids: Ids,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Ids:
        """Return sentences whose explanations differ from those of `ids`.

        Args:
            model: Maps embedded inputs to logits (n, classes), and `embed` maps `ids` to these.
            ids: Word numbers (n, words), int64, 0 after the last word.
            y: Classes to explain, int64 (n,).
            generator: Source of the noise of stochastic attributions; None is torch's global generator.

        Returns:
            Word numbers like `ids`, within the budget. Sentences that could not be attacked come back
            unchanged: those of which no word may be replaced, or whose map is zero or not finite, are
            named in an `UnattackedWarning`.

        Raises:
            TypeError: If `ids` or `y` is not int64.
            ValueError: If shapes disagree, a sentence is empty, a number is not in the table or followed
                by a word after padding, or a label is not a class of the model.
        """
        judge, limit, stuck = _begin(self, model, ids, y, generator)
        warn_unattacked(stuck, _STUCK)
        rows = torch.arange(len(ids), device=ids.device)
        states = Candidates(ids, rows)[~stuck]
        best = Champions(ids, judge(Candidates(ids, rows)).score)
        twin = model if self.surrogate is None else self.surrogate(model)
        steps = int(limit.max())
        for step in range(steps):
            found, state = neighbours(states, ids, limit, self.table)
            if len(found.ids) == 0:
                break
            if self.objective is not None and self.tried is not None:
                slopes = judge.slopes(twin, states, self.objective, step / max(1, steps - 1))
                gains = judge.gains(states, slopes, found, state)
                found = found[self._promising(found.owner, gains)]
            found = found.distinct()
            verdict = judge(found)
            best.consider(found, verdict)
            states = found[first(verdict.order(found.owner), found.owner, count=self.beam)]
        return best.ids

    def evaluations(self, ids: Ids) -> Tensor:
        """Return how many changed sentences are scored for each one, at most.

        Args:
            ids: Word numbers (n, words).

        Returns:
            Counts (n,), int64: the fair number of draws for `RandomSynonyms`. The search scores fewer
            where the beam meets a sentence twice, and none of the words that are replaced already.

        Raises:
            TypeError: If `ids` is not int64.
            ValueError: As the call.
        """
        _words.check_ids(ids, len(self.table))
        limit, options = _words.allowed(ids, self.budget), _words.options(ids, self.table)
        substitutes = (options != _words.PADDING).sum((1, 2))
        steps = torch.minimum(limit, (options != _words.PADDING).any(2).sum(1))
        step = substitutes if self.tried is None else substitutes.clamp(max=self.tried)
        later = self.beam * substitutes if self.tried is None else step
        return step * (steps > 0) + later * (steps - 1).clamp(min=0)

    def _promising(self, owner: Tensor, gains: Tensor) -> Tensor:
        """The candidates to try: those of each owner with the highest gain."""
        known = gains.nan_to_num(0, 0, 0)
        rows = (-known).argsort(stable=True)
        rows = rows[owner[rows].argsort(stable=True)]
        chosen = torch.zeros_like(owner, dtype=torch.bool)
        chosen[first(rows, owner, count=self.tried or len(owner))] = True
        slope = torch.zeros(int(owner.max()) + 1, dtype=torch.bool, device=owner.device)
        slope[owner[known != 0]] = True
        return (chosen | ~slope[owner]).nonzero()[:, 0]


@dataclass(frozen=True, kw_only=True, eq=False)
class RandomSynonyms:
    r"""Replace random words by random synonyms: the control for `SynonymAttack`.

    Each draw replaces as many words as the budget allows and as have substitutes, all choices equally
    likely. The best of several draws that keep the prediction is returned, by the rules of
    `SynonymAttack`; the fair number of draws is its `evaluations`.

    Attributes:
        attribution: Maps that the score compares.
        score: Metric that is minimised, see `SynonymAttack`.
        table: Substitutes of each word (vocabulary, m), int64, filled up with 0.
        budget: Words that are replaced, or the largest share of the words, see `SynonymAttack`.
        draws: Draws for each sentence, >= 1.
        keep_label: Keep the predicted class.
        batch_size: Sentences in one pass, >= 1; None chooses.

    Source: ours, the twin of `RandomSign`.
    """

    attribution: Attribution
    score: Metric
    table: Tensor = field(repr=False)
    budget: float
    draws: int
    keep_label: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        _words.check_table(self.table)
        _words.check_budget(self.budget)
        _check.count(draws=self.draws)
        _check.batch_size(self.batch_size)

    def __call__(
        self,
        model: TextClassifier,
        ids: Ids,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Ids:
        """Return sentences with random synonyms.

        Args:
            model: As of `SynonymAttack`.
            ids: Word numbers (n, words), int64, 0 after the last word.
            y: Classes to explain, int64 (n,).
            generator: Source of the draws; None is torch's global generator.

        Returns:
            Word numbers like `ids`, within the budget; as of `SynonymAttack`.

        Raises:
            TypeError: As `SynonymAttack`.
            ValueError: As `SynonymAttack`.
        """
        judge, limit, stuck = _begin(self, model, ids, y, generator)
        warn_unattacked(stuck, _STUCK)
        rows = torch.arange(len(ids), device=ids.device)
        best = Champions(ids, judge(Candidates(ids, rows)).score)
        options = _words.options(ids, self.table)
        for _ in range(0 if bool(stuck.all()) else self.draws):
            drawn = Candidates(_drawn(ids, options, limit, generator), rows)[~stuck]
            best.consider(drawn, judge(drawn))
        return best.ids


@dataclass(frozen=True, kw_only=True, eq=False)
class AllSynonyms:
    r"""Try every sentence within the budget: the optimum that `SynonymAttack` looks for.

    Their number is $\sum_{t \le B} e_t(m_1, \dots, m_n)$, with the elementary symmetric polynomials of
    the numbers of substitutes: it grows as the B-th power. Where it can be paid, the result is a
    certificate as well: no other sentence within the budget that keeps the prediction scores lower.

    Attributes:
        attribution: Maps that the score compares.
        score: Metric that is minimised, see `SynonymAttack`.
        table: Substitutes of each word (vocabulary, m), int64, filled up with 0.
        budget: Words that may be replaced, or the largest share of the words, see `SynonymAttack`.
        limit: Sentences tried for each one, at most.
        keep_label: Keep the predicted class.
        batch_size: Sentences in one pass, >= 1; None chooses.
    """

    attribution: Attribution
    score: Metric
    table: Tensor = field(repr=False)
    budget: float
    limit: int = 20_000
    keep_label: bool = True
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Check the settings."""
        _words.check_table(self.table)
        _words.check_budget(self.budget)
        _check.count(limit=self.limit)
        _check.batch_size(self.batch_size)

    def __call__(
        self,
        model: TextClassifier,
        ids: Ids,
        y: Labels,
        /,
        *,
        generator: torch.Generator | None = None,
    ) -> Ids:
        """Return the sentences within the budget that score lowest.

        Args:
            model: As of `SynonymAttack`.
            ids: Word numbers (n, words), int64, 0 after the last word.
            y: Classes to explain, int64 (n,).
            generator: Source of the noise of stochastic attributions; None is torch's global generator.

        Returns:
            Word numbers like `ids`, as of `SynonymAttack`; of equal scores the lowest cosine.

        Raises:
            TypeError: As `SynonymAttack`.
            ValueError: As `SynonymAttack`, or if a sentence has more than `limit` others in its budget.
        """
        judge, limit, stuck = _begin(self, model, ids, y, generator)
        counts = self.evaluations(ids)
        if int(counts.max()) > self.limit:
            raise ValueError(
                f"Expected at most {self.limit} sentences within the budget of each, got "
                f"{int(counts.max())} in row {int(counts.argmax())}; lower budget or raise limit"
            )
        warn_unattacked(stuck, _STUCK)
        rows = torch.arange(len(ids), device=ids.device)
        best = Champions(ids, judge(Candidates(ids, rows)).score)
        for row in rows[~stuck][:, None]:  # the sentences of one at a time, for the memory
            states = Candidates(ids[row], row)
            for _ in range(int(limit[row])):
                found, _ = neighbours(states, ids, limit, self.table)
                if len(found.ids) == 0:
                    break
                states = found.distinct()
                best.consider(states, judge(states))
        return best.ids

    def evaluations(self, ids: Ids) -> Tensor:
        """Return how many other sentences are within the budget of each.

        Args:
            ids: Word numbers (n, words).

        Returns:
            Counts (n,), int64; the largest number of that type where there are more.

        Raises:
            TypeError: If `ids` is not int64.
            ValueError: As the call.
        """
        _words.check_ids(ids, len(self.table))
        counts = (_words.options(ids, self.table) != _words.PADDING).sum(2)
        found = []
        for numbers, limit in zip(counts.tolist(), _words.allowed(ids, self.budget), strict=True):
            ways = [1] + [0] * int(limit)  # by the number of words that are replaced
            for m in numbers:
                ways = [a + m * b for a, b in zip(ways, [0, *ways], strict=False)]
            found.append(min(sum(ways) - 1, torch.iinfo(torch.int64).max))
        return torch.tensor(found, dtype=torch.int64, device=ids.device)


def _begin(
    attack: SynonymAttack | RandomSynonyms | AllSynonyms,
    model: TextClassifier,
    ids: Tensor,
    y: Tensor,
    generator: torch.Generator | None,
) -> tuple[Judge, Tensor, Tensor]:
    """What scores sentences, the words of each that may be replaced, and which cannot be attacked."""
    _words.check_ids(ids, len(attack.table))
    if len(ids) == 0:
        raise ValueError(f"Expected ids of at least one sentence, got shape {tuple(ids.shape)}")
    if not callable(getattr(model, "embed", None)):
        raise TypeError(
            "Expected model with a function embed(ids) that gives its inputs, as models.TextCNN has, "
            f"got {type(model).__name__} without one"
        )
    judge = Judge(
        model,
        ids,
        y,
        attribution=attack.attribution,
        score=attack.score,
        keep_label=attack.keep_label,
        batch_size=attack.batch_size,
        generator=generator,
    )
    limit = _words.allowed(ids, attack.budget)
    replaceable = (_words.options(ids, attack.table) != _words.PADDING).flatten(1).any(1)
    return judge, limit, ~((limit > 0) & replaceable & judge.alive)


def _drawn(
    ids: Tensor, options: Tensor, limit: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Sentences with random words replaced: as many as are allowed and have substitutes."""
    known = options != _words.PADDING
    if not bool(known.any()):
        return ids
    like = torch.empty(options.shape, dtype=torch.float64, device=ids.device)
    key = _random.uniform_like(like, generator=generator).masked_fill(~known, -torch.inf)
    substitute = options.gather(2, key.argmax(2, keepdim=True))[..., 0]
    order = _random.uniform_like(like[..., 0], generator=generator)
    place = order.masked_fill(~known.any(2), torch.inf).argsort(1).argsort(1)
    return torch.where((place < limit[:, None]) & known.any(2), substitute, ids)
