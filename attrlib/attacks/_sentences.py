"""What the attacks on sentences share: scoring many changed sentences at once, and the best of each."""

import functools
from dataclasses import dataclass

import torch
from torch import Tensor

from attrlib import _check, _model, _passes, _random, _words
from attrlib.attacks.ascent import compared, defined, slope
from attrlib.attacks.objectives import against, at, cut
from attrlib.types import Attribution, Ids, Inputs, Labels, Metric, Objective, TextClassifier


@dataclass(frozen=True)
class Candidates:
    """Changed sentences.

    Attributes:
        ids: Their word numbers (r, words).
        owner: Which row of the batch each comes from (r,).
    """

    ids: Tensor
    owner: Tensor

    def __getitem__(self, rows: Tensor | slice) -> "Candidates":
        return Candidates(self.ids[rows], self.owner[rows])

    def distinct(self) -> "Candidates":
        """Each sentence once for each owner, in the order of owners."""
        both = torch.unique(torch.cat([self.owner[:, None], self.ids], dim=1), dim=0)
        return Candidates(both[:, 1:], both[:, 0])


@dataclass(frozen=True)
class Verdict:
    """What is known of candidates (r,): how alike their maps are, and whether the prediction stays.

    Attributes:
        score: The metric, minimised; NaN where a map is zero or not finite.
        cosine: Cosine with the clean map, which decides between equal scores.
        kept: Whether the model predicts what it predicts for the owner.
    """

    score: Tensor
    cosine: Tensor
    kept: Tensor

    def order(self, owner: Tensor) -> Tensor:
        """The rows by owner, those that keep the prediction first, then by score and by cosine."""
        keys = self.cosine, self.score, (~self.kept).to(self.score), owner.to(self.score)
        rows = torch.arange(len(owner), device=owner.device)
        for key in keys:
            rows = rows[key.nan_to_num(torch.inf)[rows].argsort(stable=True)]
        return rows


class Judge:
    """Scores changed sentences against their owners, on the real model, all with the same noise."""

    def __init__(
        self,
        model: TextClassifier,
        ids: Ids,
        y: Labels,
        *,
        attribution: Attribution,
        score: Metric,
        keep_label: bool,
        batch_size: int | None,
        generator: torch.Generator | None,
    ) -> None:
        _model.settled(model)
        self.y, self._model, self._ids = y, model, ids
        self._attribution, self._score = attribution, score
        self._seed = _random.seed(generator)
        self._device = "cpu" if generator is None else generator.device
        with torch.no_grad():
            x = self.embed(ids)
            _check.labelled(x, y)
            self.label = _model.decision(model, x) if keep_label else None
        self.limit = _passes.rows_at_once(x) if batch_size is None else batch_size
        every = Candidates(ids, torch.arange(len(ids), device=ids.device))
        self.clean = torch.cat([self.maps(part) for part in self.parts(every)])
        self.alive = defined(self.clean)

    def embed(self, ids: Tensor) -> Tensor:
        """Embedded inputs, detached."""
        return self._model.embed(ids).detach()

    def parts(self, candidates: Candidates) -> tuple[Candidates, ...]:
        """As many candidates as go through the model at once."""
        starts = range(0, len(candidates.ids), self.limit)
        return tuple(candidates[first : first + self.limit] for first in starts)

    def maps(self, candidates: Candidates) -> Tensor:
        """Signed maps of the real model, detached."""
        return self.explained(self._model, self.embed(candidates.ids), candidates.owner).detach()

    def explained(self, model: TextClassifier, x: Inputs, owner: Tensor) -> Tensor:
        """Maps of a model for the labels of the owners, each with the noise of its owner."""
        noise = torch.Generator(self._device).manual_seed(self._seed)
        with _random.part(owner, of=len(self._ids)):
            return self._attribution(model, x, self.y[owner], generator=noise)

    def __call__(self, candidates: Candidates) -> Verdict:
        """Judge candidates; maps are cut to the words of their sentence, so that no padding is ranked."""
        found = [self._judged(part) for part in self.parts(candidates)]
        return Verdict(*(torch.cat(values) for values in zip(*found, strict=True)))

    def slopes(
        self, model: TextClassifier, states: Candidates, objective: Objective, progress: float
    ) -> Tensor:
        """The gradient of an objective of the maps of a model, in the embedded inputs of the states."""

        def change(x: Tensor, owner: Tensor) -> Tensor:
            maps = self.explained(model, x, owner)
            values = maps.new_zeros(len(maps))
            for rows, owners, length in by_length(self._ids, owner):
                goal = against(cut(objective, owners), self.clean[owners, ..., :length])
                value = at(goal, progress)(maps[rows, ..., :length])
                values = values.index_put((rows,), value)
            return values

        return torch.cat(
            [
                slope(functools.partial(change, owner=part.owner), self.embed(part.ids))
                for part in self.parts(states)
            ]
        )

    def gains(self, states: Candidates, slopes: Tensor, found: Candidates, state: Tensor) -> Tensor:
        """What candidates gain over the states they come from, to first order."""
        gains = [
            ((self.embed(part.ids) - self.embed(states.ids[source])) * slopes[source])
            .flatten(1)
            .sum(1)
            for part, source in zip(self.parts(found), torch.split(state, self.limit), strict=True)
        ]
        return torch.cat(gains)

    def _judged(self, part: Candidates) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.maps(part)
        kept = torch.ones_like(part.owner, dtype=torch.bool)
        if self.label is not None:
            with torch.no_grad():
                kept = _model.decision(self._model, self.embed(part.ids)) == self.label[part.owner]
        score, cosine = maps.new_empty(len(maps)), maps.new_empty(len(maps))
        for rows, owner, length in by_length(self._ids, part.owner):
            a, b = self.clean[owner, ..., :length], maps[rows, ..., :length]
            score[rows] = compared(cut(self._score, owner), a)(b).to(score)
            cosine[rows] = torch.cosine_similarity(a.flatten(1), b.flatten(1))
        return score, cosine, kept


class Champions:
    """The best changed sentence of each row so far; at first the sentence itself."""

    def __init__(self, ids: Ids, score: Tensor) -> None:
        # Minus infinity: of two sentences with the score of the clean one, the clean one is better.
        self.ids, self._score = ids.clone(), score
        self._cosine = torch.full_like(score, -torch.inf)

    def consider(self, candidates: Candidates, verdict: Verdict) -> None:
        """Keep what scores lower and keeps the prediction; an undefined score is never lower."""
        rows = torch.arange(len(self.ids), device=self.ids.device)
        every = Candidates(
            torch.cat([self.ids, candidates.ids]), torch.cat([rows, candidates.owner])
        )
        all_of = Verdict(
            torch.cat([self._score, verdict.score]),
            torch.cat([self._cosine, verdict.cosine]),
            torch.cat([torch.ones_like(rows, dtype=torch.bool), verdict.kept]),
        )
        best = first(all_of.order(every.owner), every.owner, count=1)
        self.ids, self._score, self._cosine = (
            part[best] for part in (every.ids, all_of.score, all_of.cosine)
        )


def first(order: Tensor, owner: Tensor, *, count: int) -> Tensor:
    """Of rows ordered by owner, the first few of each owner."""
    sorted_owner = owner[order]
    place = torch.arange(len(order), device=order.device)
    place = place - torch.searchsorted(sorted_owner, sorted_owner)
    return order[place < count]


def neighbours(
    states: Candidates, ids: Ids, limit: Tensor, table: Tensor
) -> tuple[Candidates, Tensor]:
    """All sentences with one more word of the owner replaced, within a limit (n,); and their states."""
    own = ids[states.owner]
    found = _words.options(own, table)
    changed = states.ids != own
    free = (changed.sum(1) < limit[states.owner])[:, None] & ~changed
    state, place, option = ((found != _words.PADDING) & free[..., None]).nonzero(as_tuple=True)
    sentences = states.ids[state].scatter(1, place[:, None], found[state, place, option][:, None])
    return Candidates(sentences, states.owner[state]), state


def by_length(ids: Ids, owner: Tensor) -> list[tuple[Tensor, Tensor, int]]:
    """The rows whose owners have equally many words: their numbers, their owners and that number."""
    lengths = (ids != _words.PADDING).sum(1)[owner]
    groups = ((int(length), lengths == length) for length in torch.unique(lengths))
    return [(chosen.nonzero()[:, 0], owner[chosen], length) for length, chosen in groups]
