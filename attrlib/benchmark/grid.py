"""The grids, declared: recipes × maps × attacks × budgets × seeds.

Whoever asks what `results/recipes.csv` holds, or adds to it, reads or changes `FULL`. What matters most
comes first.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from attrlib import _check
from attrlib.attacks.suite import GOALS
from attrlib.benchmark import cells
from attrlib.recipes import RECIPES

BUDGETS = (8 / 255, 0.09, 0.1)
"""In each pixel; the last two lie inside and on the edge of the ball of the recipe `madry`."""

AVERAGED = ("integrated gradients", "SmoothGrad", "UniGrad")
OTHER_MAPS = (*AVERAGED, "input × gradient", "Grad-CAM", "LRP", "DeepLIFT")

TEN = ("natural", "softplus", "madry", "trades", "ig-sum-norm", "art", "hessian", "ssr-medium",
       "lga", "igr")  # fmt: skip
"""Recipes whose averaged maps are attacked directly: the two plain ones, and one of each method."""

_SIX = ("natural", "softplus", "madry", "igr", "lga", "hessian")


@dataclass(frozen=True, kw_only=True)
class Block:
    """Cells that differ in recipe, map and budget only.

    Attributes:
        attack: As in the column `attack`. `model`: accuracy, curvature and cost, without a map; `clean`:
            maps of another origin; `random`, `best random`, `mass`; or `[quick] [gradient] GOAL suite`
            with a goal of `attacks.standard`, such as `top-k suite`. With the word `gradient` the suite
            goes for the gradient, whatever map is scored.
        maps: Names of maps that are scored.
        eps: Budgets.
        recipes: Which ones; None for all that are shipped for Fashion-MNIST.
        seeds: Which ones; None for all that are shipped. A row of one seed has no interval over seeds.
        per_class: Of each class the first so many images of the list; None for the whole list.
        quantities: What is read at the points, names of `cells.QUANTITIES`.
        controls: Further attacks, whose points are scored on the same networks, images and maps, in the
            same cell. Where it has not the whole list, its number of images stands behind their names.
    """

    attack: str
    maps: tuple[str, ...] = ("gradient",)
    eps: tuple[float, ...] = (0.0,)
    recipes: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    per_class: int | None = None
    quantities: tuple[str, ...] = cells.QUANTITIES
    controls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check names and numbers."""
        for control in self.controls:
            cells.named(control)
        for name in self.maps:
            _check.one_of(self._known(), maps=name)
        for name in self.recipes or ():
            _check.one_of(tuple(RECIPES), recipes=name)
        for name in self.quantities:
            _check.one_of(cells.QUANTITIES, quantities=name)
        for eps in self.eps:
            _check.nonnegative(eps=eps)
        if self.per_class is not None:
            _check.count(per_class=self.per_class)

    def _known(self) -> tuple[str, ...]:
        """Maps that can be scored, or attacked if the attack goes for them."""
        if self.attack == "model":
            return ("none",)
        if self.attack == "clean":
            return ("gradient",)
        return ("gradient", *(OTHER_MAPS if cells.named(self.attack).on_gradient else AVERAGED))


_ENDS = (BUDGETS[0], BUDGETS[-1])
_FEW = (  # a choice, so that the table stays small
    "topk", "topk_chance", "lens_recall", "kendall", "cosine", "identification_topk",
    "identification_cosine", "specific_topk", "kept", "unchanged",
)  # fmt: skip

FULL: tuple[Block, ...] = (
    Block(attack="model", maps=("none",)),
    Block(attack="clean"),
    Block(attack="top-k suite", eps=BUDGETS),
    Block(attack="random", eps=BUDGETS),
    # other maps, at the points that were found on the gradient: nearly free
    Block(
        attack="gradient top-k suite", maps=OTHER_MAPS, eps=BUDGETS[:1], quantities=_FEW,
        controls=("random",),
    ),
    # the averaged maps themselves: each step takes 16 passes
    Block(
        attack="quick top-k suite", maps=AVERAGED, eps=BUDGETS[:1], recipes=TEN, seeds=(0,),
        per_class=3, quantities=_FEW, controls=("random", "gradient top-k suite"),
    ),
    # attacks on each other score
    *(
        Block(attack=f"{goal} suite", eps=_ENDS, seeds=(0,), per_class=5, quantities=_FEW)
        for goal in GOALS[1:]
    ),
    # noise that was chosen, beside one draw and the suite on the same images
    Block(
        attack="best random", eps=_ENDS, seeds=(0,), per_class=5, quantities=_FEW,
        controls=("random", "top-k suite"),
    ),
)  # fmt: skip
"""The whole grid, behind `results/recipes.csv`."""

_FIRST = (  # recipes of the first edition, by its score
    Block(
        attack="mass",
        eps=BUDGETS,
        recipes=(
            "natural", "softplus", "madry", "weight-decay", "trades", "ig-sum-norm", "art",
            "input-gradient", "cure", "hessian", "ssr-weak", "ssr-medium", "ssr-strong",
        ),
        quantities=("topk",),
    ),
)  # fmt: skip

SMALL: tuple[Block, ...] = (
    Block(attack="model", maps=("none",), recipes=_SIX, seeds=(0,)),
    Block(
        attack="quick top-k suite", eps=_ENDS, recipes=_SIX, seeds=(0,), per_class=3,
        controls=("random",),
    ),
    Block(
        attack="quick gradient top-k suite", maps=OTHER_MAPS, eps=BUDGETS[:1], recipes=_SIX,
        seeds=(0,), per_class=3, quantities=_FEW, controls=("random",),
    ),
    Block(
        attack="quick top-k suite", maps=AVERAGED, eps=BUDGETS[:1], recipes=_SIX[:3], seeds=(0,),
        per_class=3, quantities=_FEW, controls=("random",),
    ),
)  # fmt: skip
"""A look at all of it: quick attacks on one seed of six networks."""

GRIDS: Mapping[str, tuple[Block, ...]] = {"full": FULL, "small": SMALL, "first": _FIRST}
"""Grids by name: the table of recipes, a look at it in minutes, and the first attack of the book."""
