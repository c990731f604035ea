"""Short sentences with human ratings, the words in them, and what may stand in a word's place."""

import functools
import gzip
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from attrlib import _check
from attrlib._words import PADDING, check_ids
from attrlib.data.images import Rows, Split
from attrlib.types import Ids, Labels

Part: TypeAlias = Literal["tweets", "snippets"]

UNKNOWN = 1
SENTIMENTS = ("negative", "positive")
_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*|[:;=8x]['-]?[()\[\]dp/|*o3]+(?![a-z])|<3|[!?]")


@dataclass(frozen=True, eq=False)
class Texts:
    """A labelled set of sentences.

    Attributes:
        ids: Word numbers (n, words), int64; after the last word of a sentence come zeros, the padding.
        y: Class indices (n,), int64.
        classes: Name of each class.
        vocabulary: Word of each number; 0 is padding, 1 stands for every unknown word.
        texts: The sentences as they were written.
    """

    ids: Ids = field(repr=False)
    y: Labels = field(repr=False)
    classes: tuple[str, ...]
    vocabulary: tuple[str, ...] = field(repr=False)
    texts: tuple[str, ...] = field(repr=False)

    def __post_init__(self) -> None:
        """Check that there is one label and one sentence for each row, and padding at the end only."""
        check_ids(self.ids, len(self.vocabulary))
        _check.labels(len(self.ids), y=self.y)
        if len(self.texts) != len(self.ids):
            raise ValueError(
                f"Expected one text for each row, got {len(self.texts)} for {len(self.ids)} rows"
            )

    @property
    def x(self) -> Ids:
        """The word numbers: what training takes as inputs."""
        return self.ids

    def __len__(self) -> int:
        """Return the number of sentences."""
        return len(self.y)

    def __getitem__(self, rows: Rows) -> "Texts":
        """Return the chosen rows, in the order given."""
        chosen = torch.arange(len(self))[rows].tolist()
        texts = tuple(self.texts[row] for row in chosen)
        return Texts(self.ids[rows], self.y[rows], self.classes, self.vocabulary, texts)

    def words(self, row: int) -> tuple[str, ...]:
        """Return the words of one sentence as the network sees them, without the padding."""
        return tuple(self.vocabulary[i] for i in self.ids[row].tolist() if i != PADDING)


def sentiment(split: Split = "train", *, part: Part = "tweets") -> Texts:
    """Return short sentences that about twenty people rated from -4 to 4, as negative or positive.

    Embedded: the sentences with 3 to 40 words whose mean rating is more than half a point from 0. Two
    thirds of the tweets and six in ten of the snippets are positive, in every split. Names of persons
    and addresses were taken out by the authors or by us, and sentences with words of hate left out.

    Args:
        split: `train`, `val` or `test`. Choices are made on `val`; `test` is for reported numbers.
        part: `tweets`, or `snippets` of reviews of electronics.

    Returns:
        Sentences with the words that occur twice in the `train` split of their part, the most frequent
        first. All splits of a part are equally wide.

    Raises:
        ValueError: If `split` or `part` is unknown.

    Source: Hutto and Gilbert 2014 (MIT licence).

    >>> sentiment("test").words(0)
    ('lmao', 'amazing', '!')
    """
    _check.one_of(("train", "val", "test"), split=split)
    _check.one_of(("tweets", "snippets"), part=part)
    rows = [row[1:] for row in _read("sentiment") if row[0] == part]
    vocabulary = _vocabulary(part)
    width = max(len(split_words(text)) for _, _, text in rows)
    chosen = [(float(rating), text) for name, rating, text in rows if name == split]
    texts = tuple(text for _, text in chosen)
    y = torch.tensor([int(rating > 0) for rating, _ in chosen])
    return Texts(encode(texts, vocabulary, words=width), y, SENTIMENTS, vocabulary, texts)


def encode(texts: Sequence[str], vocabulary: Sequence[str], *, words: int) -> Ids:
    """Return the word numbers of sentences.

    Args:
        texts: Sentences; letters count as small, and every sign but `!`, `?` and faces like `:)` is left
            out.
        vocabulary: Word of each number, beginning with two that stand for padding and unknown words.
        words: Width of the result, >= 1.

    Returns:
        Numbers (n, words): 1 for an unknown word, 0 after the last one.

    Raises:
        TypeError: If `texts` is one string.
        ValueError: If there is no text, or one has no word, or more than `words`.

    >>> encode(["Good, good film!"], ["", "?", "good", "!"], words=5).tolist()
    [[2, 2, 1, 3, 0]]
    """
    _check.count(words=words)
    if isinstance(texts, str):
        raise TypeError("Expected texts to be a sequence of strings, got one string")
    if not texts:
        raise ValueError("Expected texts with at least one sentence, got none")
    number = {word: i for i, word in enumerate(vocabulary) if i > UNKNOWN}
    ids = torch.full((len(texts), words), PADDING)
    for row, text in enumerate(texts):
        found = split_words(text)
        if not 1 <= len(found) <= words:
            raise ValueError(f"Expected texts of 1 to {words} words, got {len(found)} in {text!r}")
        ids[row, : len(found)] = torch.tensor([number.get(word, UNKNOWN) for word in found])
    return ids


def synonyms(vocabulary: Sequence[str]) -> Tensor:
    """Return which words of a vocabulary may stand in each word's place.

    Two words are synonyms if they share one of the three most frequent senses of one of them in WordNet,
    both are in the vocabulary, and no human rating calls one good and the other bad. Words of grammar
    have none. Whether a synonym fits the sentence is not asked.

    Args:
        vocabulary: Word of each number, as in `Texts`.

    Returns:
        Numbers (vocabulary, m) in increasing order, with zeros after the last one. A word is no synonym
        of itself; if i is one of j, then j is one of i.

    Source: WordNet, Miller 1995, cut to the words of `sentiment`.
    """
    number = {word: i for i, word in enumerate(vocabulary) if i > UNKNOWN}
    found = {
        number[word]: sorted(number[other] for other in others.split() if other in number)
        for word, _, others in _read("sentiment-words")
        if word in number
    }
    table = torch.zeros(len(vocabulary), max(map(len, found.values()), default=0)).long()
    for i, others in found.items():
        table[i, : len(others)] = torch.tensor(others)
    return table


def valence(vocabulary: Sequence[str]) -> Tensor:
    """Return how ten people rated each word by itself, from -4 (bad) to 4 (good).

    Args:
        vocabulary: Word of each number, as in `Texts`.

    Returns:
        Mean ratings (vocabulary,), NaN for words that were not rated.

    Source: the lexicon of Hutto and Gilbert 2014.
    """
    rated = {word: float(value) for word, value, _ in _read("sentiment-words") if value}
    return torch.tensor([rated.get(word, torch.nan) for word in vocabulary])


def split_words(text: str) -> list[str]:
    """Return the words of a sentence in small letters; `!`, `?` and faces like `:)` are words too.

    Args:
        text: Any text.

    >>> split_words("Don't worry, be HAPPY :)")
    ["don't", 'worry', 'be', 'happy', ':)']
    """
    return _WORD.findall(text.lower())


@functools.cache
def _vocabulary(part: str) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for name, split, _, text in _read("sentiment"):
        if (name, split) == (part, "train"):
            counts.update(split_words(text))
    words = sorted((word for word in counts if counts[word] > 1), key=lambda w: (-counts[w], w))
    return "<padding>", "<unknown>", *words


def _read(name: str) -> Iterator[list[str]]:
    raw = (files("attrlib") / "_assets" / "data" / f"{name}.tsv.gz").read_bytes()
    for line in gzip.decompress(raw).decode().splitlines():
        yield line.split("\t")
