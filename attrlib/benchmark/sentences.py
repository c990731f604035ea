"""Do the findings about images hold for sentences? Networks of three seeds, attacked word by word."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from attrlib import _check, attributions, data, metrics, recipes, training
from attrlib._random import seeded
from attrlib.attacks import PGD, RandomSynonyms, SynonymAttack, WordBall
from attrlib.benchmark import _nets, _table
from attrlib.certificates import certified_label, certified_words
from attrlib.data.texts import split_words
from attrlib.maps import to_heatmap
from attrlib.models import TextCNN
from attrlib.types import Attribution, Metric

WORD_MAPS: Mapping[str, Attribution] = {
    "gradient": attributions.gradient,
    "input × gradient": attributions.input_x_gradient,
    "integrated gradients": functools.partial(attributions.word_integrated_gradients, steps=16),
}
"""Maps that are attacked."""

TOP = 3
"""Words of a sentence that count as important."""

FEWEST = 6
"""Words of the sentences that are attacked, at least."""

SWAPS = (1, 3)
"""Words that the attacks may replace."""

_Values = dict[str, float]


def sentences(
    path: str | Path,
    *,
    nets: str | Path,
    count: int = 100,
    seeds: tuple[int, ...] = (0, 1, 2),
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Measure the networks for sentences: accuracy, maps under attack, certificates, people's ratings.

    On the first test sentences that have at least six words, one of which has a synonym, and that all
    networks of a seed classify correctly. Attacks minimise the top-3 intersection; each attacked number
    stands beside that of random synonyms, the best of as many draws as the attack may try sentences, in
    the median.

    Args:
        path: Table to write, or to go on with; one row for each value.
        nets: Folder of the trained networks; those that are missing are trained, half a minute each.
        count: Sentences that are attacked, at most.
        seeds: Seeds of the networks.
        device: Where to compute.
        progress: Print each row as it is done.

    Raises:
        ValueError: If `count` is below 1.
    """
    _check.count(count=count)
    made = _cells(Path(nets), count, seeds, device)
    _table.fill(path, made, device=device, progress=progress)


def _cells(
    nets: Path, count: int, seeds: tuple[int, ...], device: str | torch.device
) -> Iterator[_table.Cell]:
    test = data.sentiment("test")
    yield _cell(_reference, recipe="tf-idf", seed="0")
    for seed in seeds:
        models = {name: _network(nets, name, seed, device) for name in recipes.TEXTS}
        chosen = _chosen(list(models.values()), test, device)[:count]
        for name, model in models.items():
            head = {"recipe": name, "seed": str(seed)}
            yield _cell(functools.partial(_of_network, model, test, chosen), **head)
            for title, attribution in WORD_MAPS.items():
                work = functools.partial(_of_map, model, attribution, test)
                yield _cell(work, **head, map=title)
                for swaps in SWAPS:
                    work = functools.partial(_attacked, model, attribution, chosen, swaps)
                    yield _cell(work, **head, map=title, swaps=str(swaps))


def _cell(
    work: Callable[[], _Values], *, recipe: str, seed: str, map: str = "", swaps: str = "0"
) -> _table.Cell:
    """A row for each value of one piece of work."""
    key = {"recipe": recipe, "seed": seed, "map": map, "swaps": swaps}

    def rows() -> Iterator[dict[str, str]]:
        for name, value in work().items():
            yield key | {"measure": name} | _table.rounded({"value": value})

    return _table.Cell(key, rows)


def _network(nets: Path, name: str, seed: int, device: str | torch.device) -> TextCNN:
    """A trained network of one seed, from the folder or made now."""
    file = nets / f"{name}-s{seed}.safetensors"
    recipe = recipes.RECIPES[name]
    if not file.exists():
        nets.mkdir(parents=True, exist_ok=True)
        splits = {split: recipe.data(split) for split in ("train", "val", "test")}
        start = nets / f"{recipe.start}-s{seed}.safetensors" if recipe.start else None
        recipes.fit(recipe, file, data=splits, seed=seed, start=start)
    model = _nets.named(nets, name, seed)[1].model
    if not isinstance(model, TextCNN):
        raise ValueError(f"Expected {file} to hold a TextCNN, got {type(model).__name__}")
    return model.to(device)


def _chosen(models: list[TextCNN], test: data.Texts, device: str | torch.device) -> data.Texts:
    """Long enough sentences with a synonym that all networks classify correctly."""
    fits = (test.ids > 0).sum(1) >= FEWEST
    fits &= (data.synonyms(test.vocabulary)[test.ids] > 0).any(2).any(1)
    for model in models:
        hits = training.evaluate(model, test, {"correct": training.correct}, device=device)
        fits &= hits["correct"] > 0
    return test[fits]


def _reference() -> _Values:
    """Accuracy of a linear classifier of words and pairs of words, weighted by their rarity."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    train, test = data.sentiment("train"), data.sentiment("test")
    words = TfidfVectorizer(tokenizer=split_words, token_pattern=None, ngram_range=(1, 2))
    line = LogisticRegression(C=10, class_weight="balanced", max_iter=2000)
    line.fit(words.fit_transform(train.texts), train.y.numpy())
    right = line.predict(words.transform(test.texts)) == test.y.numpy()
    majority = float(test.y.double().mean())
    return {"accuracy": float(right.mean()), "majority": max(majority, 1 - majority)}


def _of_network(model: TextCNN, test: data.Texts, chosen: data.Texts) -> _Values:
    """Accuracy, under attack by noise on all words, and where no single synonym changes the answer."""
    place = model.embedding.weight.device
    x, y = model.embed(test.ids.to(place)).detach(), test.y.to(place)
    attack = PGD(ball=WordBall(eps=0.1), steps=20, step_size=0.02)
    table = data.synonyms(test.vocabulary)
    kept = certified_label(model, chosen.ids.to(place), table=table, budget=1)
    return {
        "accuracy": _share(training.correct(model, x, y)),
        "attacked accuracy": _share(training.correct(model, attack(model, x, y), y)),
        "certified answer": _share(kept),
        "sentences": float(len(chosen)),
    }


def _of_map(model: TextCNN, attribution: Attribution, test: data.Texts) -> _Values:
    """How the signed scores of all rated words agree with the ratings."""
    place = model.embedding.weight.device
    ids, valence = test.ids.to(place), data.valence(test.vocabulary).to(place)
    positive = torch.ones_like(test.y, device=place)
    a = to_heatmap(attribution(model, model.embed(ids).detach(), positive), mode="sum")
    rated = ~valence[ids].isnan()
    pooled = metrics.spearman(a[:, 0][rated][None, None], valence[ids][rated][None, None])
    single = metrics.valence_agreement(a, ids, valence=valence)
    return {"ratings, pooled": _share(pooled), "ratings, by sentence": _share(single)}


def _attacked(model: TextCNN, attribution: Attribution, chosen: data.Texts, swaps: int) -> _Values:
    """Scores of the maps after synonyms, chosen by the attack and at random."""
    place = model.embedding.weight.device
    ids, y = chosen.ids.to(place), chosen.y.to(place)
    table = data.synonyms(chosen.vocabulary).to(place)
    top = functools.partial(metrics.topk_intersection, k=TOP)
    attack = SynonymAttack(attribution=attribution, score=top, table=table, budget=swaps)
    tries = max(1, int(attack.evaluations(ids).median()))
    control = RandomSynonyms(
        attribution=attribution, score=top, table=table, budget=swaps, draws=tries
    )
    found = {
        "attack": attack(model, ids, y),
        "random": control(model, ids, y, generator=seeded(0)),
    }
    before = attribution(model, model.embed(ids).detach(), y)
    values: _Values = {"tries": float(tries)}
    for way, z in found.items():
        after = attribution(model, model.embed(z).detach(), y)
        for name, score in _scores(ids, z, y, table):
            heats = name == "cosine"
            pair = (before, after) if heats else (to_heatmap(before), to_heatmap(after))
            values[f"{name}, {way}"] = _share(score(*pair))
        values[f"replaced, {way}"] = _share((z != ids).sum(1).double())
    if swaps == 1 and attribution is attributions.gradient:
        proved = certified_words(model, ids, y, table=table, k=TOP, budget=1)
        values["certified"] = _share(proved)
    return values


def _scores(ids: Tensor, z: Tensor, y: Tensor, table: Tensor) -> Iterator[tuple[str, Metric]]:
    words = ids > 0
    top = functools.partial(metrics.topk_intersection, k=TOP)
    yield "top-3", metrics.OnWords(score=top, words=words)
    yield "Kendall", metrics.OnWords(score=metrics.kendall, words=words)
    yield "Kendall, words kept", metrics.OnWords(score=metrics.kendall, words=words & (ids == z))
    yield "cosine", metrics.cosine
    for name, near in {"places": None, "places and synonyms": table}.items():
        relation = metrics.word_neighbours(ids, z, window=1, table=near)
        yield f"LENS, {name}", functools.partial(metrics.word_lens_recall, k=TOP, near=relation)
    # Of another length, a sentence would be told by its length alone.
    kind = y * ids.shape[1] + words.sum(1)
    yield "identified", lambda a, b: metrics.identification(a, b, kind, score=top)


def _share(values: Tensor) -> float:
    return float(values.double().nanmean())
