"""Metrics of words: padding is never ranked, and neighbours are positions or synonyms."""

from functools import partial

import pytest
import torch
from torch import Tensor

from attrlib import metrics
from attrlib.types import Metric
from tests.oracles import seeded

LENGTHS = torch.tensor([5, 2, 5, 3])
WORDS = torch.arange(5) < LENGTHS[:, None]


def maps(seed: int) -> Tensor:
    """Signed heatmaps of four sentences, zero at the padding."""
    return torch.randn(4, 1, 5, generator=seeded(seed)) * WORDS[:, None]


@pytest.mark.parametrize(
    "score",
    [metrics.kendall, metrics.spearman, metrics.cosine, partial(metrics.topk_intersection, k=2)],
)
def test_padding_does_not_count(score: Metric) -> None:
    a, b = maps(0), maps(1)
    values = metrics.OnWords(score=score, words=WORDS)(a, b)
    for row, count in enumerate(LENGTHS.tolist()):
        alone = score(a[row : row + 1, :, :count], b[row : row + 1, :, :count])
        torch.testing.assert_close(values[row : row + 1], alone)
    wider = torch.cat([a, torch.zeros(4, 1, 3)], 2), torch.cat([b, torch.zeros(4, 1, 3)], 2)
    mask = torch.cat([WORDS, torch.zeros(4, 3, dtype=torch.bool)], 1)
    torch.testing.assert_close(metrics.OnWords(score=score, words=mask)(*wider), values)


def test_what_padding_would_do() -> None:
    """Ties of zeros lift a rank correlation, and stand above words with a negative score."""
    a, b = torch.tensor([[[2.0, 1.0, 0, 0, 0]]]), torch.tensor([[[1.0, 2.0, 0, 0, 0]]])
    words = torch.tensor([[True, True, False, False, False]])
    assert metrics.OnWords(score=metrics.kendall, words=words)(a, b).item() == -1
    assert metrics.kendall(a, b).item() > 0.5
    top = partial(metrics.topk_intersection, k=1)
    assert metrics.OnWords(score=top, words=words)(-a, -b).item() == 0
    assert top(-a, -b).item() == 1


def test_short_sentences_have_no_score() -> None:
    top = partial(metrics.topk_intersection, k=2)
    values = metrics.OnWords(score=top, words=WORDS, least=3)(maps(0), maps(1))
    assert values.isnan().tolist() == [False, True, False, False]


def test_on_words_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"Expected a of shape \(4, 1, 5\), got \(4, 1, 4\)"):
        metrics.OnWords(score=metrics.kendall, words=WORDS)(maps(0)[..., :4], maps(1)[..., :4])
    with pytest.raises(TypeError, match="Expected words to be a boolean tensor"):
        metrics.OnWords(score=metrics.kendall, words=LENGTHS[:, None])
    with pytest.raises(ValueError, match=r"Expected words of shape \(n, words\), got \(4,\)"):
        metrics.OnWords(score=metrics.kendall, words=LENGTHS > 3)
    with pytest.raises(ValueError, match="Expected least to be an integer >= 1, got 0"):
        metrics.OnWords(score=metrics.kendall, words=WORDS, least=0)


# Words 2 and 3 are synonyms, and so are 4 and 5.
TABLE = torch.tensor([[0], [0], [3], [2], [5], [4], [0]])


def test_neighbours_by_hand() -> None:
    before, after = torch.tensor([[2, 4, 6, 0]]), torch.tensor([[5, 2, 6, 0]])
    places = metrics.word_neighbours(before, after, window=0)
    assert places.int().tolist() == [[[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]
    near = metrics.word_neighbours(before, after, window=0, table=TABLE)
    # 2 before is the 2 at place 1; 4 before has the synonym 5 at place 0.
    assert near.int().tolist() == [[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]]
    wide = metrics.word_neighbours(before, after, window=5)
    assert wide.int().sum() == 9
    assert wide[0, :3, :3].all()


@pytest.mark.parametrize("window", [0, 1])
def test_lens_of_words_is_lens_where_neighbours_are_places(window: int) -> None:
    a, b = (torch.rand(6, 1, 5, generator=seeded(i)) for i in range(2))
    ids = torch.randint(1, 7, (6, 5), generator=seeded(2))
    near = metrics.word_neighbours(ids, ids, window=window)
    expected = metrics.lens_recall(a, b, k=2, window=window)
    torch.testing.assert_close(metrics.word_lens_recall(a, b, k=2, near=near), expected)


def test_a_synonym_elsewhere_counts() -> None:
    a, b = torch.tensor([[[9.0, 1.0, 2.0, 0.0]]]), torch.tensor([[[1.0, 9.0, 2.0, 0.0]]])
    ids = torch.tensor([[2, 3, 6, 0]])
    lens = partial(metrics.word_lens_recall, a, b, k=1)
    assert lens(near=metrics.word_neighbours(ids, ids, window=0)).item() == 0
    assert lens(near=metrics.word_neighbours(ids, ids, window=0, table=TABLE)).item() == 1


def test_padding_is_never_among_the_highest_words() -> None:
    a = torch.tensor([[[-2.0, -1.0, 0.0, 0.0]]])
    near = metrics.word_neighbours(*[torch.tensor([[2, 6, 0, 0]])] * 2, window=0)
    assert metrics.word_lens_recall(a, -3 - a, k=1, near=near).item() == 0
    assert metrics.word_lens_recall(a, a, k=2, near=near).item() == 1
    assert metrics.word_lens_recall(a, a, k=3, near=near).isnan().all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_neighbours_name_what_is_wrong() -> None:
    ids = torch.tensor([[2, 3, 0]])
    with pytest.raises(ValueError, match="Expected other with the padding of ids, got sentences"):
        metrics.word_neighbours(ids, torch.tensor([[2, 3, 4]]), window=0)
    with pytest.raises(ValueError, match="Expected window to be an integer >= 0, got -1"):
        metrics.word_neighbours(ids, ids, window=-1)
    with pytest.raises(ValueError, match="Expected ids from 0 to 6, got 7"):
        metrics.word_neighbours(ids + 5 * (ids == 2), ids, window=0, table=TABLE)
    near = metrics.word_neighbours(ids, ids, window=0)
    with pytest.raises(ValueError, match=r"Expected heatmaps \(n, 1, words\) and near of shape"):
        metrics.word_lens_recall(torch.rand(1, 1, 4), torch.rand(1, 1, 4), k=1, near=near)


def test_agreement_with_ratings_by_hand() -> None:
    valence = torch.tensor([torch.nan, torch.nan, 3.0, -2.0, 1.0, torch.nan])
    ids = torch.tensor([[2, 3, 4, 5], [2, 3, 4, 0], [2, 5, 5, 0], [2, 2, 5, 0]])
    a = torch.tensor(
        [[[3.0, 1.0, 2.0, 9.0]], [[1.0, 3.0, 2.0, 0.0]], [[1.0, 2.0, 3.0, 0.0]], [[1.0, 2.0, 0, 0]]]
    )
    tau = metrics.valence_agreement(a, ids, valence=valence)
    assert tau[:2].tolist() == [1, -1]
    assert tau[2:].isnan().all()  # one rated word; two with one rating
    with pytest.raises(ValueError, match="Expected ids from 0 to 4, got 5"):
        metrics.valence_agreement(a, ids, valence=valence[:5])
    with pytest.raises(ValueError, match=r"Expected a of shape \(4, 1, 4\), got \(4, 1, 3\)"):
        metrics.valence_agreement(a[..., :3], ids, valence=valence)
