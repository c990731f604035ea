"""Sentences as word numbers: what the files hold, and what is refused."""

import re

import pytest
import torch

from attrlib import data
from attrlib.data.texts import SENTIMENTS, split_words

PARTS = {"tweets": (2229, 319, 636), "snippets": (1951, 279, 557)}
both = pytest.mark.parametrize("part", PARTS)


@both
def test_splits_hold_equal_shares_and_no_sentence_twice(part: str) -> None:
    splits = [data.sentiment(split, part=part) for split in ("train", "val", "test")]
    assert tuple(map(len, splits)) == PARTS[part]
    shares = [float(split.y.double().mean()) for split in splits]
    assert max(shares) - min(shares) < 0.002
    assert len({split.ids.shape[1] for split in splits}) == 1
    seen = [tuple(split_words(text)) for split in splits for text in split.texts]
    assert len(set(seen)) == len(seen)
    assert all(3 <= len(words) <= 40 for words in seen)
    again = data.sentiment("val", part=part)
    assert torch.equal(again.ids, splits[1].ids)
    assert again.texts == splits[1].texts


@both
def test_no_name_address_or_number_of_a_person_is_left(part: str) -> None:
    texts = [
        t for split in ("train", "val", "test") for t in data.sentiment(split, part=part).texts
    ]
    assert not [t for t in texts if re.search(r"@\w|https?:|www\.|(?<!\d)\d{3}-\d{4}(?!\d)", t)]
    assert all(t.isascii() for t in texts)


@both
def test_numbers_and_words_agree(part: str) -> None:
    test = data.sentiment("test", part=part)
    known = set(test.vocabulary[2:])
    for row in range(20):
        words = split_words(test.texts[row])
        seen = [word if word in known else "<unknown>" for word in words]
        assert list(test.words(row)) == seen
        assert test.ids[row, len(words) :].eq(0).all()


def test_the_vocabulary_is_that_of_the_training_split() -> None:
    train = data.sentiment("train")
    counts = torch.bincount(train.ids.flatten(), minlength=len(train.vocabulary))[2:]
    assert counts.min() == 2
    assert torch.equal(counts, counts.sort(descending=True).values)
    assert data.sentiment("test").vocabulary == train.vocabulary


def test_rows_are_chosen_as_of_images() -> None:
    test = data.sentiment("test")
    part = test[torch.tensor([3, 1])]
    assert part.texts == (test.texts[3], test.texts[1])
    assert torch.equal(part.ids, test.ids[[3, 1]])
    assert torch.equal(part.y, test.y[[3, 1]])
    assert len(test[:5]) == 5
    assert test[:5].classes == SENTIMENTS
    mask = test.y == 0
    assert len(test[mask]) == int(mask.sum())


def test_a_fingerprint_sees_one_word_and_one_label() -> None:
    test = data.sentiment("test")[:4]
    before = data.fingerprint(test)
    other = test.ids.clone()
    other[2, 0] += 256  # the same byte
    changed = data.Texts(other, test.y, test.classes, test.vocabulary, test.texts)
    assert data.fingerprint(changed) != before
    flipped = data.Texts(test.ids, 1 - test.y, test.classes, test.vocabulary, test.texts)
    assert data.fingerprint(flipped) != before
    assert data.fingerprint(data.sentiment("test")[:4]) == before


@both
def test_synonyms_are_mutual_and_never_the_word_padding_or_unknown(part: str) -> None:
    vocabulary = data.sentiment("val", part=part).vocabulary
    table = data.synonyms(vocabulary)
    assert table.dtype == torch.int64
    assert len(table) == len(vocabulary)
    assert table[:2].eq(0).all()
    assert not table.eq(1).any()
    assert not table.eq(torch.arange(len(table))[:, None])[2:].any()
    pairs = {(i, j) for i, row in enumerate(table.tolist()) for j in row if j}
    assert all((j, i) in pairs for i, j in pairs)
    assert len(pairs) == int((table > 0).sum())  # none twice
    filled = table > 0
    assert not (filled[:, 1:] & ~filled[:, :-1]).any()  # zeros come last
    rating = data.valence(vocabulary)
    signs = rating[:, None] * rating[table]
    assert not (signs[filled] < 0).any()


def test_known_words() -> None:
    vocabulary = ("<padding>", "<unknown>", "film", "movie", "awful", "terrible", "the", "xyzzy")
    table, rating = data.synonyms(vocabulary), data.valence(vocabulary)
    assert table.tolist() == [[0], [0], [3], [2], [5], [4], [0], [0]]
    assert rating[[4, 5]].tolist() == pytest.approx([-2.0, -2.1])
    assert rating[[0, 1, 2, 6, 7]].isnan().all()
    assert data.synonyms(("<padding>", "<unknown>", "xyzzy")).shape == (3, 0)


def test_sentences_of_ones_own() -> None:
    vocabulary = ("", "?", "good", "not", ":)", "!")
    ids = data.encode(["Not GOOD!", ":) :)"], vocabulary, words=4)
    assert ids.tolist() == [[3, 2, 5, 0], [4, 4, 0, 0]]
    assert data.encode(["gut"], vocabulary, words=1).tolist() == [[1]]  # unknown words are words
    assert split_words("it's <3, isn't it? 100%") == ["it's", "<3", "isn't", "it", "?"]


@pytest.mark.usefixtures("unchecked_shapes")
def test_what_cannot_be_encoded_is_named() -> None:
    vocabulary = ("", "?", "good")
    with pytest.raises(ValueError, match="Expected texts with at least one sentence, got none"):
        data.encode([], vocabulary, words=3)
    with pytest.raises(ValueError, match="Expected texts of 1 to 3 words, got 0 in '…'"):
        data.encode(["good", "…"], vocabulary, words=3)
    with pytest.raises(ValueError, match="Expected texts of 1 to 3 words, got 4 in 'a b c d'"):
        data.encode(["a b c d"], vocabulary, words=3)
    with pytest.raises(ValueError, match="Expected words to be an integer >= 1, got 0"):
        data.encode(["a"], vocabulary, words=0)
    with pytest.raises(TypeError, match="Expected texts to be a sequence of strings, got one"):
        data.encode("good", vocabulary, words=3)
    with pytest.raises(ValueError, match="Expected split to be one of train, val, test, got 'dev'"):
        data.sentiment("dev")
    with pytest.raises(
        ValueError, match="Expected part to be one of tweets, snippets, got 'films'"
    ):
        data.sentiment("test", part="films")


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_set_of_sentences_fits_together() -> None:
    ids, y = torch.tensor([[2, 0]]), torch.tensor([1])
    vocabulary = ("", "?", "good")
    data.Texts(ids, y, SENTIMENTS, vocabulary, ("good",))
    with pytest.raises(ValueError, match="Expected one text for each row, got 0 for 1 rows"):
        data.Texts(ids, y, SENTIMENTS, vocabulary, ())
    with pytest.raises(ValueError, match="Expected ids from 0 to 2, got 3"):
        data.Texts(ids + 1, y, SENTIMENTS, vocabulary, ("good",))
    with pytest.raises(ValueError, match=r"Expected y of shape \(1,\), got \(2,\)"):
        data.Texts(ids, y.repeat(2), SENTIMENTS, vocabulary, ("good",))
