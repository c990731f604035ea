"""The findings of a report in plain words, and what they do not say."""

from scipy import stats

from attrlib.commands.findings import CHANGE_NAMES, Facts, Mean

_BENIGN = ("brightness", "jpeg", "shift")
_SCORE = "topk_intersection"
_GRADES = (  # share of the top set that is left, beyond chance
    (
        0.1,
        "Unrelated maps share about as much: within this budget nearly all of what the map showed can "
        "be replaced.",
    ),
    (0.5, "Most of what the map showed can be replaced within this budget."),
    (0.8, "A good part of the map can be replaced within this budget."),
    (1.1, "Most of the map withstood this suite, which is no proof."),
)
_FEW = 20  # pictures


def findings(facts: Facts) -> list[str]:
    """Return what was found.

    Args:
        facts: What the rows say together.
    """
    parts = (_accuracy, _attack, _noise, _benign, _identity, _certificate, _notes)
    return [text for part in parts for text in part(facts)]


def limits(facts: Facts) -> list[str]:
    """Return what the findings do not say.

    Args:
        facts: What the rows say together.
    """
    n = len(facts.table)
    said = [
        "Scores after the attack are upper bounds on robustness: a stronger attack may find less. A low "
        "score is a fact, a high one is no proof.",
        f"{_pictures(n)} {'says' if n == 1 else 'say'} nothing about pictures of another kind. Intervals "
        "speak of other pictures like these, not of other trainings of the network"
        + (", and with so few pictures they are wide." if n < _FEW else "."),
        "Nothing here says that a map is right. A map can be steady and wrong, and one that is the same "
        "for all pictures is perfectly steady; identification guards against the second only.",
        f"All numbers are about one map ({facts.options.attribution}), one budget and these scores. "
        "Others need a run of their own.",
        "The attack looks for a small top-k share. The other scores after it are what it leaves by the "
        "way: an attack made for one of them may leave less.",
    ]
    if any(row["certificate"] == "smoothing" for row in facts.table):
        said.append(
            "The certificate by smoothing is about another map, the average over large noise, and an l2 "
            "budget. It is no floor under the attacked scores."
        )
    if facts.options.suite == "quick":
        said.append("The quick suite is for a first look: publish numbers of the others.")
    return said


def _accuracy(facts: Facts) -> list[str]:
    if facts.accuracy is None:
        return [
            "Accuracy is not known: names of folders are only names, until --classes FILE says which "
            "class of the network each of them means."
        ]
    hits, n = facts.accuracy
    ends = stats.binomtest(hits, n).proportion_ci(method="wilson")
    return [
        f"The network is right on {hits} of {_pictures(n)}: accuracy {hits / n:.2f} (95 % interval "
        f"{ends.low:.2f} to {ends.high:.2f})."
    ]


def _attack(facts: Facts) -> list[str]:
    if "attack" not in facts.scores:
        return ["The network could not be attacked. The notes on the pictures say why."]
    mean, chance = facts.scores["attack"][_SCORE], facts.chance.get(_SCORE, 0.0)
    same, n = facts.kept("attack")
    where = "in each pixel" if facts.options.norm == "linf" else "in l2 norm"
    left = (mean.value - chance) / (1 - chance) if chance < 1 else 1.0
    grade = next(text for limit, text in _GRADES if left < limit)
    return [
        f"The attack changes pictures by at most {facts.options.eps:.3g} {where} and leaves the "
        f"prediction of {same} of {_pictures(n)} as it is. Of the {facts.k} most important pixels, a "
        f"share of {mean} is still among the {facts.k} most important.{_known(facts, mean)} By chance "
        f"it would be {chance:.2f}. {grade}"
    ]


def _noise(facts: Facts) -> list[str]:
    if "noise" not in facts.scores:
        return []
    mean = facts.scores["noise"][_SCORE]
    said = f"Plain noise of the same size leaves a share of {mean}"
    if "attack" not in facts.scores:
        return [f"{said}.{_known(facts, mean)}"]
    gap = mean.value - facts.scores["attack"][_SCORE].value
    if gap < 0.1:
        said += ", about as much as the attack: hardly any search is needed."
    else:
        said += f". The difference, {gap:.2f}, takes an attacker who looks for it."
    return [said + _known(facts, mean)]


def _benign(facts: Facts) -> list[str]:
    known = {name: facts.scores[name][_SCORE].value for name in _BENIGN if name in facts.scores}
    if not known:
        return []
    listed = "; ".join(f"{CHANGE_NAMES[name]}: {value:.2f}" for name, value in known.items())
    said = f"Changes that nobody makes in order to deceive leave these shares: {listed}."
    worst = min(known, key=lambda name: known[name])
    if known[worst] < 0.5:
        said += (
            f" “{CHANGE_NAMES[worst]}” alone replaces more than half of the top set: such maps need no "
            "attacker to mislead."
        )
    return [said]


def _identity(facts: Facts) -> list[str]:
    if "attack" not in facts.scores:
        return []
    if "attack" not in facts.identification:
        return ["Identification is not available: it needs two pictures of one class."]
    mean = facts.identification["attack"]
    return [
        f"Identification after the attack is {mean}: how often a changed map is more like the clean map "
        "of its own picture than like that of another picture of its class, by the top-k score. Chance "
        f"is 0.50.{_known(facts, mean)}"
    ]


def _certificate(facts: Facts) -> list[str]:
    if not facts.scores:
        return []
    kinds = {row["certificate"] for row in facts.table} - {""}
    if not kinds:
        return [f"There is no certificate. {facts.reason}".rstrip()]
    return _intervals(facts) if "interval" in kinds else _smoothing(facts)


def _intervals(facts: Facts) -> list[str]:
    eps, mean, useful = facts.widest("topk")
    if not useful:
        return [
            f"Interval bounds prove nothing here, not even for changes of {eps:.2g} in each "
            "pixel: they are too wide for this network, which is no sign that it is fragile. "
            "--certificate smoothing tries the other kind."
        ]
    return [
        f"Proved by interval bounds: under every change of at most {eps:.2g} in each pixel, on average a "
        f"share of at least {mean.value:.2f} of the top set stays; the bound is above 0 for {useful} of "
        f"{_pictures(len(mean.values))}."
    ]


def _smoothing(facts: Facts) -> list[str]:
    eps, mean, useful = facts.widest("cosine")
    if not useful:
        return [
            f"Smoothing proves nothing of use here: its bounds are not above {facts.floor:.2f}, which "
            "unrelated maps without signs reach, too. That is no sign that the network is fragile."
        ]
    return [
        "Proved by smoothing, for the map without its signs, averaged over large noise: within an l2 "
        f"budget of {eps:g} its cosine is at least {mean.value:.2f} on average; unrelated maps without "
        f"signs reach {facts.floor:.2f}, and the bound is above that for {useful} of "
        f"{_pictures(len(mean.values))}. Each bound may be wrong with the small probability that the "
        "settings name."
    ]


def _notes(facts: Facts) -> list[str]:
    noted = sum(bool(row["note"]) for row in facts.table)
    if not noted:
        return []
    return [f"{noted} of {_pictures(len(facts.table))} have a note on what could not be done."]


def _known(facts: Facts, mean: Mean) -> str:
    """Over how many pictures a mean is, where it is not over all."""
    known, n = len(mean.values), len(facts.table)
    return "" if known == n else f" It is known for {known} of {_pictures(n)}."


def _pictures(n: int) -> str:
    return "1 picture" if n == 1 else f"{n} pictures"
