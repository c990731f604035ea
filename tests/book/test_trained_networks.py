"""The cards of the trained networks say what is in the files."""

import sys
from dataclasses import dataclass

import pytest

from attrlib import checkpoints
from attrlib.attacks import PGD, LinfBall
from attrlib.recipes import RECIPES
from tests.book.building import ROOT

sys.path.append(str(ROOT / "tools" / "sphinx"))
from trained_networks import call, text

SMOOTH = {
    "softplus", "hessian", "lga", "interval-maps", "interval-wide", "density", "natural-block",
    "density-block", "text-lga", "lga-cifar", "aligned",
}  # fmt: skip
BETA = {"aligned": 3}
every_recipe = pytest.mark.parametrize("name", [n for n in RECIPES if n in checkpoints.names()])


def test_a_description_reads_like_the_call() -> None:
    attack = PGD(ball=LinfBall(eps=0.1), steps=7, step_size=1 / 3, random_start=True)
    read = call(checkpoints.describe(attack))
    assert read == "PGD(ball=LinfBall(eps=0.1), steps=7, step_size=0.3333, random_start=True)"
    assert checkpoints.describe(eval(read)) != checkpoints.describe(attack)  # four digits are shown
    assert call(checkpoints.describe(eval(read))) == read


def test_text_and_nothing_are_told_from_names() -> None:
    @dataclass(frozen=True)
    class Part:
        way: str
        other: int | None

    assert call(checkpoints.describe(Part("exact", None))) == "Part(way='exact', other=None)"


@every_recipe
def test_a_card_holds_what_was_trained(name: str) -> None:
    recipe = RECIPES[name]
    trained = [checkpoints.load(f"{name}-s{seed}") for seed in checkpoints.seeds(name)]
    card = "\n".join(text(recipe, trained))
    assert recipe.source in card
    for term, weight in zip(recipe.loss.terms.values(), recipe.loss.weights.values(), strict=True):
        assert f"{weight:g} · `{type(term).__name__}(" in card
    assert ("**Attack.**" in card) == (recipe.loss.attack is not None)
    assert ("**First weights.** random" in card) == (recipe.start is None)
    assert f"{recipe.config.epochs} epochs" in card
    for checkpoint, seed in zip(trained, checkpoints.seeds(name), strict=True):
        assert f"`{name}-s{seed}` ({checkpoint.metrics['test_accuracy']:.2%})" in card
        activation = checkpoints.describe(checkpoint.model.activation)
        assert activation["name"] == ("Softplus" if name in SMOOTH else "ReLU")
    shown = f"Softplus(beta={BETA.get(name, 10)})" if name in SMOOTH else "ReLU()"
    assert f"**Network.** `{shown}`" in card
    for term, share in recipe.loss.ramps.items():
        rising = f"`{type(recipe.loss.terms[term]).__name__}` rising over the first {share:.0%}"
        assert card.count(rising) == 1
