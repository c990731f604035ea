"""The attack that the options of `python -m attrlib attack` describe."""

import argparse
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attrlib import _check, _files, attacks, attributions, checkpoints, models
from attrlib.attacks.suite import EFFORTS, Goal
from attrlib.benchmark import Setting
from attrlib.types import Attack, Attribution, Classifier, Objective

_BOOK = Setting(study="")  # the effort that the strength study of the book found to be enough
_SUITE_HAS = (
    "steps",
    "step_size",
    "restarts",
    "beta",
    "momentum",
)  # options that a suite sets itself


def add_options(how: "argparse._ArgumentGroup") -> None:
    """Declare the options of an attack.

    Args:
        how: Where to declare them.
    """
    add_map_options(how)
    how.add_argument(
        "--objective",
        choices=("top-k", "rank", "mass-center", "cosine", "target-map"),
        default="top-k",
        help="what the attack goes for (default: top-k)",
    )
    how.add_argument(
        "--window", type=int, default=0, help="radius of the LENS window (default: 0); top-k, rank"
    )
    how.add_argument("--target", type=Path, help="picture that target-map draws into the map")
    add_budget_options(how)
    how.add_argument(
        "--suite",
        choices=EFFORTS,
        help="the attacks of attrlib.attacks.standard with this effort, in place of one attack with the "
        "settings below; for top-k (LENS recall with a window) or cosine",
    )
    how.add_argument("--steps", type=int, help=f"for each start (default: {_BOOK.steps})")
    how.add_argument("--step-size", type=float, help="pixel units (default: eps / 10)")
    how.add_argument("--restarts", type=int, help=f"number of starts (default: {_BOOK.restarts})")
    how.add_argument(
        "--beta",
        type=float,
        nargs="*",
        help="sharpness of the softplus surrogates, in order; none attacks the model itself "
        f"(default: {' '.join(f'{beta:g}' for beta in _BOOK.sharpness)})",
    )
    how.add_argument("--momentum", type=float, help="weight of the past, below 1 (default: 0)")


def add_map_options(how: "argparse._ArgumentGroup") -> None:
    """Declare the options of the maps.

    Args:
        how: Where to declare them.
    """
    how.add_argument(
        "--attribution",
        choices=sorted(_ATTRIBUTIONS),
        default="gradient",
        help="whose maps are changed (default: gradient)",
    )
    how.add_argument(
        "--samples", type=int, default=16, help="points on IG's path, or noisy copies (default: 16)"
    )
    how.add_argument(
        "--sigma", type=float, default=0.1, help="noise of smooth_grad, pixel units (default: 0.1)"
    )
    how.add_argument(
        "--radius",
        type=float,
        default=0.5,
        help="l2 radius of uni_grad, pixel units (default: 0.5)",
    )
    how.add_argument(
        "--k",
        type=int,
        help="pixels in the top set (default: 100; 2 %% of a large image, 25 %% of a tiny one)",
    )


def add_budget_options(how: "argparse._ArgumentGroup") -> None:
    """Declare the options of the budget.

    Args:
        how: Where to declare them.
    """
    how.add_argument(
        "--norm",
        choices=("linf", "l2"),
        default="linf",
        help="in which the budget is counted (default: linf)",
    )
    how.add_argument(
        "--eps", type=float, default=8 / 255, help="budget, pixel units (default: 8/255)"
    )


def top(options: argparse.Namespace, size: int) -> int:
    """Return the number of pixels in the top set, for maps of so many pixels.

    Raises:
        ValueError: If it is out of range.
    """
    k: int = max(min(100, size // 4), size // 50) if options.k is None else options.k
    _check.count(k=k, high=size)
    return k


def attribution(options: argparse.Namespace) -> Attribution:
    """Return the maps that are changed.

    Args:
        options: As `add_options` declares them.
    """
    return _ATTRIBUTIONS[options.attribution](options)


def attack(
    options: argparse.Namespace, k: int, *, target: Tensor | None = None
) -> Callable[[Attribution], Attack]:
    """Return what makes the attack of an attribution.

    Args:
        options: As `add_options` declares them.
        k: Pixels in the top set.
        target: The picture that is drawn (h, w), in [0, 1]; None if there is none.

    Raises:
        ValueError: If options contradict each other, or one is out of range.
    """
    if options.suite is not None:
        return _suite(options, k)
    single = {"steps": _BOOK.steps, "step_size": options.eps / 10, "restarts": _BOOK.restarts}
    single |= {"beta": list(_BOOK.sharpness), "momentum": 0.0}
    given = {name: getattr(options, name) for name in _SUITE_HAS}
    chosen = single | {name: value for name, value in given.items() if value is not None}
    chosen["surrogates"] = tuple(
        functools.partial(models.smoothed, beta=beta) for beta in chosen.pop("beta")
    )
    ball = (attacks.LinfBall if options.norm == "linf" else attacks.L2Ball)(eps=options.eps)
    objective = _objective(options, k, target)
    return lambda attribution: attacks.AttributionAttack(
        attribution=attribution, objective=objective, ball=ball, **chosen
    )


def _suite(options: argparse.Namespace, k: int) -> Callable[[Attribution], Attack]:
    both = [name for name in _SUITE_HAS if getattr(options, name) is not None]
    if both:
        named = ", ".join("--" + name.replace("_", "-") for name in both)
        raise ValueError(f"Expected --suite without the settings of a single attack, got {named}")
    goal: dict[str, Goal] = {"top-k": "lens" if options.window else "top-k", "cosine": "cosine"}
    if options.objective not in goal:
        raise ValueError(
            f"Expected --objective top-k or cosine with --suite, got {options.objective}"
        )
    return lambda attribution: attacks.standard(
        attribution=attribution,
        eps=options.eps,
        k=k,
        norm=options.norm,
        effort=options.suite,
        goal=goal[options.objective],
        window=max(1, options.window),
    )


def maps(attack: Attack) -> int:
    """Return how many times an attack asks for maps, at most.

    Args:
        attack: One attack, or a suite.
    """
    if isinstance(attack, attacks.WorstOf):  # each map of the clean image, and of what is found
        exchanged = attack.crossing.tries if attack.crossing else 0
        return sum(maps(part) + 2 for part in attack.attacks) + exchanged
    assert isinstance(attack, attacks.AttributionAttack)  # of which suites consist
    return 2 * (1 + attack.steps * attack.restarts)


def counted(attribution: Attribution, tick: Callable[[], object]) -> Attribution:
    """Return the same attribution; each call of it is told, for a progress bar.

    Args:
        attribution: Any.
        tick: Called before each map.
    """

    def told(
        model: Classifier, x: Tensor, y: Tensor, /, *, generator: torch.Generator | None = None
    ) -> Tensor:
        tick()
        return attribution(model, x, y, generator=generator)

    return told


def _objective(options: argparse.Namespace, k: int, target: Tensor | None) -> Objective:
    if options.objective == "mass-center":
        return attacks.MassCenter()
    if options.objective == "cosine":
        return attacks.Cosine()
    if options.objective == "top-k":
        return attacks.TopK(k=k, window=options.window)
    if options.objective == "rank":
        return attacks.Rank(k=k, window=options.window)
    if target is None:
        raise ValueError("Expected --target with a picture for the objective target-map, got none")
    return attacks.TargetMap(target=target)


def settings(attack: Attack, options: argparse.Namespace, k: int) -> dict[str, Any]:
    """Return all that decides the result, ready for JSON; a picture by its contents.

    Args:
        attack: As made by `attack`.
        options: As `add_options` declares them.
        k: Pixels in the top set.
    """
    objective = [options.objective, k, options.window]
    if options.suite is not None:
        budget = [options.norm, options.eps]
        maps_of = checkpoints.describe(attribution(options))
        named = {"suite": [attacks.SUITE, options.suite], "budget": budget}
        return named | {"attribution": maps_of, "objective": objective}
    target = getattr(getattr(attack, "objective", None), "target", None)
    parts = vars(attack) | {"objective": objective}
    return {name: checkpoints.describe(part) for name, part in parts.items()} | {
        "target": None if target is None else _files.digest(target)
    }


_ATTRIBUTIONS: Mapping[str, Callable[[argparse.Namespace], Attribution]] = {
    "gradient": lambda o: attributions.gradient,
    "input_x_gradient": lambda o: attributions.input_x_gradient,
    "integrated_gradients": lambda o: functools.partial(
        attributions.integrated_gradients, steps=o.samples
    ),
    "smooth_grad": lambda o: functools.partial(
        attributions.smooth_grad, sigma=o.sigma, samples=o.samples
    ),
    "uni_grad": lambda o: functools.partial(
        attributions.uni_grad, radius=o.radius, samples=o.samples
    ),
}
