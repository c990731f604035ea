r"""Certificates for sentences: what no replacement of words by synonyms can do to an explanation.

Each word stands for a finite set: itself and its substitutes. The vectors of such a set lie in a box,
their hull, which is bounded like a box of images (`interval`). A convolution that sees the word vectors
first is bounded better: each column of its kernel meets one word of a set, and over a set the least and
the greatest product are known, so that only the words of one window are taken as independent, not the
entries of a vector.

With a budget of B words each choice of B places has its own box, in which only the words there can be
replaced, and the least over all of them is certified. Their number grows as the B-th power. Where that is
too many, all words may be replaced at once; where the sentences themselves are few, `attacks.AllSynonyms`
tries them all and needs no bounds.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from attrlib import _check, _model, _words, attributions
from attrlib.certificates.boxes import accuracy_in_box, certified_topk
from attrlib.certificates.interval import Columns, Ends, gradient_bounds, logit_bounds
from attrlib.types import Attribution, Ids, Labels, PerSample, TextClassifier

_AT_ONCE = 512  # sets of places whose boxes exist at a time


def synonym_box(
    model: TextClassifier, ids: Ids, *, table: Tensor, places: Tensor | None = None
) -> Columns:
    """Return the box of all sentences in which words are replaced by their substitutes.

    Args:
        model: A classifier whose `embed` gives one column for each word.
        ids: Word numbers (n, words), int64, 0 after the last word.
        table: Substitutes of each word (vocabulary, m), int64, filled up with 0.
        places: Where words may be replaced, bool (n, words); None is everywhere.

    Returns:
        Columns to choose from, m + 1 for each word; `lower` and `upper` are the hull. For `box=…` of
        `gradient_bounds` and its kin, at `x = model.embed(ids)`.

    Raises:
        TypeError: If `ids` or `table` is not int64, or `places` not boolean.
        ValueError: If a shape is wrong, a sentence is empty, or a number is not in the table.
    """
    _words.check_table(table)
    _words.check_ids(ids, len(table))
    options = _words.options(ids, table)
    if places is not None:
        _check.boolean(places=places)
        _check.same_shape(places=places, ids=ids)
        options = options.masked_fill(~places[..., None], _words.PADDING)
    # Where a word has fewer substitutes than others, itself once more.
    known = torch.where(options == _words.PADDING, ids[..., None], options)
    every = torch.cat([ids[..., None], known], dim=2).transpose(1, 2)
    with torch.no_grad():
        columns = model.embed(every.flatten(0, 1))
    return Columns(choices=columns.view(*every.shape[:2], *columns.shape[1:]))


def certified_words(
    model: TextClassifier,
    ids: Ids,
    y: Labels,
    *,
    table: Tensor,
    k: int,
    budget: float | None = None,
    attribution: Attribution = attributions.gradient,
    bounds: Callable[..., Ends] = gradient_bounds,
    limit: int = 2_000,
) -> PerSample:
    r"""Return the share of the k highest words that stay among the k highest, whatever is replaced.

    $$\min_{J} \; \mathrm{certified\_topk}\big(\underline a_J, \overline a_J, A(x)\big)$$

    over the sets $J$ of places within the budget, with bounds of the map over the box in which the words
    there can be replaced. Padding is never ranked. The promise holds for every sentence within the
    budget, whether the prediction stays or not.

    Cost: that of `bounds` for each set of places, $\binom{r}{B}$ of them with r words that have
    substitutes, and for one box without a budget.

    Args:
        model: As of `gradient_bounds`, with `embed`.
        ids: Word numbers (n, words), int64, 0 after the last word.
        y: Classes to explain, int64 (n,).
        table: Substitutes of each word (vocabulary, m), int64, filled up with 0.
        k: Words per set, 1 to those of the shortest sentence.
        budget: Words that may be replaced: an integer >= 1, or the largest share of the words of a
            sentence, between 0 and 1; None is all.
        attribution: The map that is certified. Words are ranked by the sum of its absolute values in a
            column.
        bounds: Bounds of that map, called as `bounds(model, x, y, box=…)`.
        limit: Sets of places of one sentence, at most.

    Returns:
        Values (n,) in [0, 1], at most `topk_intersection` of the heatmaps of the words for any sentence
        within the budget. Not differentiable.

    Raises:
        TypeError: If `ids`, `y` or `table` is not int64.
        ValueError: As `synonym_box` and `gradient_bounds`; if `k` or `budget` is out of range, or there
            are more than `limit` sets.
    """
    _words.check_table(table)
    _words.check_ids(ids, len(table))
    lengths = (ids != _words.PADDING).sum(1)
    _check.count(k=k, high=int(lengths.min()))
    with torch.no_grad():
        x = model.embed(ids)
    _check.labelled(x, y)
    a = attribution(model, x, y)
    least = torch.ones_like(a[:, 0, 0, 0])
    for rows, places in _places(ids, table, budget, limit):
        box = synonym_box(model, ids[rows], table=table, places=places)
        lower, upper = bounds(model, x[rows], y[rows], box=box)
        for length in torch.unique(lengths[rows]).tolist():
            own = lengths[rows] == length
            cut = (part[own, ..., :length] for part in (lower, upper, a[rows]))
            found = certified_topk(*cut, k=k).to(least)
            least = least.scatter_reduce(0, rows[own], found, "amin")
    return least


def certified_label(
    model: TextClassifier,
    ids: Ids,
    *,
    table: Tensor,
    budget: float | None = None,
    limit: int = 2_000,
) -> PerSample:
    """Return whether the prediction stays, whatever is replaced, 1 or 0.

    Args:
        model: As of `gradient_bounds`, with `embed`.
        ids: Word numbers (n, words), int64, 0 after the last word.
        table: Substitutes of each word (vocabulary, m), int64, filled up with 0.
        budget: Words that may be replaced, as of `certified_words`; None is all.
        limit: Sets of places of one sentence, at most.

    Returns:
        Values (n,), 1 where every sentence within the budget is classified as `ids` is, 0 where that is
        not proved. Times whether the prediction is right, their mean is the certified accuracy. Not
        differentiable.

    Raises:
        TypeError: If `ids` or `table` is not int64.
        ValueError: As `certified_words`.
    """
    _words.check_table(table)
    _words.check_ids(ids, len(table))
    with torch.no_grad():
        x = model.embed(ids)
        label = _model.decision(model, x)
    least = torch.ones_like(x[:, 0, 0, 0])
    for rows, places in _places(ids, table, budget, limit):
        box = synonym_box(model, ids[rows], table=table, places=places)
        lower, upper = logit_bounds(model, x[rows], box=box)
        found = accuracy_in_box(lower, upper, label[rows])
        least = least.scatter_reduce(0, rows, found, "amin")
    return least


def _places(
    ids: Ids, table: Tensor, budget: float | None, limit: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Sets of places that cover all within the budget, bool (r, words), and the row of each (r,)."""
    _check.count(limit=limit)
    allowed = (ids != _words.PADDING).sum(1)
    if budget is not None:
        _words.check_budget(budget)
        allowed = _words.allowed(ids, budget)
    replaceable = (_words.options(ids, table) != _words.PADDING).any(2)
    counts = torch.minimum(allowed, replaceable.sum(1))
    sets: list[tuple[int, tuple[int, ...]]] = []
    for row, count in enumerate(counts.tolist()):
        free = replaceable[row].nonzero()[:, 0].tolist()
        if math.comb(len(free), count) > limit:
            raise ValueError(
                f"Expected at most {limit} sets of {count} places in a sentence, got "
                f"{math.comb(len(free), count)} in row {row}; lower budget, raise limit or leave "
                "budget out, so that all words may be replaced at once"
            )
        sets += [(row, chosen) for chosen in itertools.combinations(free, count)]
    for start in range(0, len(sets), _AT_ONCE):
        part = sets[start : start + _AT_ONCE]
        places = torch.zeros(len(part), ids.shape[1], dtype=torch.bool)
        for number, (_, chosen) in enumerate(part):
            places[number, list(chosen)] = True
        rows = torch.tensor([row for row, _ in part])
        yield rows.to(ids.device), places.to(ids.device)
