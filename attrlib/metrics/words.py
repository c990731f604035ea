"""Heatmaps of sentences: padding left out, neighbours among words, and the judgement of people."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attrlib import _check, _words
from attrlib.maps import topk_mask
from attrlib.metrics import _pairs
from attrlib.metrics.correlations import kendall
from attrlib.types import Heatmaps, Ids, Metric, Near, PerSample


@dataclass(frozen=True, kw_only=True, eq=False)
class OnWords:
    """A metric of heatmaps (n, 1, words) that never sees the padding.

    Padding is no word: counted, its zeros would be ties at the end of every ranking, or stand above words
    that speak against a class. Sentences of one length are compared together, cut to their words.

    Attributes:
        score: Metric of heatmaps, such as `partial(topk_intersection, k=3)`.
        words: Where the words are, boolean (n, words), for the rows of the maps in their order.
        least: Fewest words for which the score has a meaning, >= 1: with `topk_intersection` more than
            k, since a sentence of k words has one set of k. Shorter sentences get NaN.

    Raises:
        TypeError: If `words` is not boolean.
        ValueError: If `words` is not (n, words), or `least` is below 1; in the call, if the maps do not
            fit `words`.

    >>> from functools import partial
    >>> from attrlib.metrics import topk_intersection
    >>> words = torch.tensor([[True, True, False]])
    >>> a, b = torch.tensor([[[-1.0, -2.0, 0.0]]]), torch.tensor([[[-3.0, -4.0, 0.0]]])
    >>> OnWords(score=partial(topk_intersection, k=1), words=words)(a, b).item()
    1.0
    """

    score: Metric
    words: Tensor = field(repr=False)
    least: int = 1

    def __post_init__(self) -> None:
        """Check the settings."""
        _check.boolean(words=self.words)
        _check.count(least=self.least)
        if self.words.ndim != 2:
            raise ValueError(f"Expected words of shape (n, words), got {tuple(self.words.shape)}")

    def __call__(self, a: Heatmaps, b: Heatmaps) -> PerSample:
        """Return the score of each pair of maps; NaN for a sentence with too few words."""
        _pairs.heatmaps(a, b)
        if a.shape != (len(self.words), 1, self.words.shape[1]):
            wanted = (len(self.words), 1, self.words.shape[1])
            raise ValueError(f"Expected a of shape {wanted}, got {tuple(a.shape)}")
        values = a.new_full((len(a),), torch.nan)
        length = self.words.sum(1)
        for count in sorted(set(length.tolist())):
            if count >= self.least:
                rows = length == count
                real = self.words[rows]
                cut = (maps[rows, 0][real].view(-1, 1, count) for maps in (a, b))
                values[rows] = self.score(*cut).to(values)
        return values


def word_neighbours(ids: Ids, other: Ids, *, window: int, table: Tensor | None = None) -> Near:
    r"""Return which words of a changed sentence are near which words of the sentence before.

    $$N_{ij} = \big[\,|i - j| \le w\,\big] \ \text{or}\ \big[\,v_j \text{ is } u_i \text{ or a synonym of
    it}\,\big]$$

    for the words $u$ of `ids` and $v$ of `other`. Padding is near nothing.

    Args:
        ids: Word numbers (n, words) before the change.
        other: Word numbers after it, with the same padding.
        window: Positions w >= 0 that count as near; 0 is the same position only.
        table: Synonyms of each word (vocabulary, m), filled up with 0, as `data.synonyms` gives them;
            None leaves them, and equal words elsewhere, out.

    Returns:
        Booleans (n, words, words); entry (i, j) is about word i before and word j after.

    Raises:
        TypeError: If numbers are not int64.
        ValueError: If shapes or paddings disagree, or a number is out of range.

    >>> ids = torch.tensor([[2, 3, 4]])
    >>> word_neighbours(ids, ids, window=0).int().tolist()
    [[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]
    """
    _check.count(window=window, low=0)
    vocabulary = torch.iinfo(torch.int64).max if table is None else len(table)
    for sentences in (ids, other):
        _words.check_ids(sentences, vocabulary)
    _check.same_shape(other=other, ids=ids)
    real = ids != _words.PADDING
    if not torch.equal(real, other != _words.PADDING):
        raise ValueError("Expected other with the padding of ids, got sentences of other lengths")
    place = torch.arange(ids.shape[1], device=ids.device)
    near = ((place[:, None] - place).abs() <= window).expand(len(ids), -1, -1)
    if table is not None:
        _words.check_table(table)
        near = near | (ids[:, :, None] == other[:, None])
        for substitute in table.to(ids.device)[ids].unbind(2):
            near = near | (substitute[:, :, None] == other[:, None])
    return near & real[:, :, None] & real[:, None]


def word_lens_recall(a: Heatmaps, b: Heatmaps, *, k: int, near: Near) -> PerSample:
    r"""Return the share of the k highest words of `b` that are near one of the k highest of `a`.

    $$\frac{|N(S) \cap T|}{k}, \qquad N(S) = \{j : N_{ij} \text{ for some } i \in S\}$$

    with the sets $S$ of `a` and $T$ of `b`. This is `lens_recall` with any relation in place of the
    square window: with `word_neighbours` and no table both agree, and with a table a synonym counts
    wherever it stands. Its level by chance grows with the relation, as that of LENS does with the window.

    Args:
        a: Heatmaps (n, 1, words), by custom before a change.
        b: Heatmaps of the same shape.
        k: Words per set, >= 1.
        near: The relation, as `word_neighbours` gives it. A word is padding if it is not near itself.

    Returns:
        Values (n,) in [0, 1]; NaN for sentences with fewer than k words. Ties go to the lower index. Not
        symmetric. Not differentiable.

    Raises:
        TypeError: If `near` is not boolean.
        ValueError: If shapes disagree, a map holds NaN, or `k` is out of range.

    Source: ours, after LENS of Kamath et al. 2024; text similarities that forgive synonyms are of the
    same spirit.
    """
    _pairs.heatmaps(a, b)
    _check.boolean(near=near)
    if a.shape[1] != 1 or near.shape != (len(a), a.shape[2], a.shape[2]):
        raise ValueError(
            f"Expected heatmaps (n, 1, words) and near of shape (n, words, words), "
            f"got {tuple(a.shape)} and {tuple(near.shape)}"
        )
    real = near.diagonal(dim1=1, dim2=2)
    s, t = (topk_mask(_below(maps, real), k=k)[:, 0] for maps in (a, b))
    found = (near & s[:, :, None]).any(1) & t
    return (found.sum(1).to(a) / k).masked_fill(real.sum(1) < k, torch.nan)


def valence_agreement(a: Heatmaps, ids: Ids, *, valence: Tensor) -> PerSample:
    r"""Return the rank correlation of signed word scores and human ratings of the same words.

    $$\tau_b\big((a_j)_{j \in J}, (v_{w_j})_{j \in J}\big)$$

    with the words $J$ of a sentence that people have rated. The scores must be signed and for the
    class of positive words: explain that class for all sentences, whatever their label, and reduce
    channels by `to_heatmap(mode="sum")`. People rated words by themselves; a "not" before them is not
    seen. Most sentences have few rated words, so look at the mean over many, or at pooled words.

    Args:
        a: Signed heatmaps (n, 1, words).
        ids: Word numbers (n, words).
        valence: Rating of each word (vocabulary,), NaN where there is none, as `data.valence` gives it.

    Returns:
        Values (n,) in [-1, 1]: 1 for the same order, 0 on average for unrelated scores. NaN where fewer
        than two words are rated, or all ratings or all scores are equal.

    Raises:
        TypeError: If `ids` is not int64.
        ValueError: If shapes disagree, a map holds NaN, or a number is not in the vocabulary.

    Source: ours, with Kendall's τ_b.
    """
    _check.heatmaps(a=a)
    _words.check_ids(ids, len(valence))
    if a.shape != (len(ids), 1, ids.shape[1]):
        raise ValueError(f"Expected a of shape {(len(ids), 1, ids.shape[1])}, got {tuple(a.shape)}")
    rating = valence.to(a)[ids]
    rated = ~rating.isnan() & (ids != _words.PADDING)
    return OnWords(score=kendall, words=rated, least=2)(a, rating.nan_to_num(0)[:, None])


def _below(a: Tensor, real: Tensor) -> Tensor:
    """Heatmaps in which every padding is lower than every word."""
    return a.masked_fill(~real[:, None], float(a.min()) - 1)
