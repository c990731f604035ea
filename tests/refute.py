"""Is the suite beaten by an attack of another kind? `python -m tests.refute`.

A score under attack is an upper bound, and no suite can say how far it is from the truth. Here it stands
beside an attack that takes about as much processor time as the suite's standard effort (a line for each
attack is printed): that of `tests.masks`, which was written independently, or that of `tests.crossing`,
with a table of its own. The suite has learned from both since, so neither says what an attack of another
kind would find; `tests.squares` does, which follows no slope.

`own_gain` compares the two at equal cost: how much lower the other attack ends, below 0 where the suite
is better. `both` takes the better point for each image, and `gain` is what that takes off the suite's
score: never below 0, as any second attack helps somewhere. Intervals are bootstrap intervals of
differences at the same image. Only
the package's maps and metrics judge points. Rows that the table has are not made again.
"""

import argparse
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from attrlib import attributions, checkpoints, data, metrics
from attrlib.attacks import SUITE, standard
from attrlib.attacks.suite import Goal
from attrlib.benchmark import _table
from attrlib.benchmark.cells import listed
from attrlib.maps import to_heatmap
from attrlib.types import Attack
from tests.crossing import Crossing
from tests.masks import K, Masks
from tests.speed_measure import RESULTS, clock

PER_CLASS = 4  # images of the fixed list
TABLES = {"masks": "refutation.csv", "crossing": "refutation-crossing.csv"}


class Cell(NamedTuple):
    """A network, a budget in every pixel and a goal; with the suite's strong effort, or without."""

    net: str
    eps: float
    goal: Goal = "top-k"
    strong: bool = False


CELLS = (
    Cell("natural-s0", 8 / 255, strong=True),
    Cell("madry-s0", 8 / 255, strong=True),
    Cell("trades-s0", 8 / 255),
    Cell("ssr-medium-s0", 8 / 255, strong=True),
    Cell("weight-decay-s0", 8 / 255),
    Cell("hessian-s0", 8 / 255),
    Cell("madry-s0", 0.09),
    Cell("trades-s0", 0.09),
    Cell("hessian-s0", 0.09, strong=True),
    Cell("trades-s0", 8 / 255, "cosine"),
    Cell("hessian-s0", 8 / 255, "cosine"),
    Cell("hessian-s0", 0.09, "cosine"),
)


def cells_of(name: str) -> list[Cell]:
    """Cells that an attack can take: crossing knows the top-k score; the strong suite needs one table."""
    if name == "masks":
        return list(CELLS)
    return [cell._replace(strong=False) for cell in CELLS if cell.goal == "top-k"]


def key_of(cell: Cell, images: int) -> dict[str, str]:
    """The fields by which a table is asked for a cell of so many images."""
    key = {"net": cell.net, "eps": f"{cell.eps:.5f}", "goal": cell.goal}
    return key | {"images": str(images), "suite": SUITE}


def attacks_of(cell: Cell, name: str = "masks") -> dict[str, Attack]:
    """The suite, and an attack that is not part of it."""
    suite = partial(standard, eps=cell.eps, attribution=attributions.gradient, k=K, goal=cell.goal)
    own = Masks(cell.eps, cell.goal) if name == "masks" else Crossing(cell.eps)
    attacks: dict[str, Attack] = {"standard": suite(), "own": own}
    return attacks | ({"strong": suite(effort="strong")} if cell.strong else {})


def judged(cell: Cell, model: nn.Module, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The score of each point, by the package's map and metric; only if all points are allowed."""
    a, b = attributions.gradient(model, x, y), attributions.gradient(model, z, y)
    allowed = ((z - x).abs().double() <= cell.eps) & (z >= 0) & (z <= 1)
    kept = (model(z).argmax(1) == model(x).argmax(1)) & (b != 0).flatten(1).any(1)
    wrong = int((~(allowed.flatten(1).all(1) & kept)).sum())
    if wrong:
        raise ValueError(f"Expected allowed points, got {wrong} others on {cell.net}")
    if cell.goal == "cosine":
        return metrics.cosine(a, b)
    return metrics.topk_intersection(to_heatmap(a), to_heatmap(b), k=K)


def scores(
    cell: Cell, attacks: Mapping[str, Attack], model: nn.Module, x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """One score for each image and attack; the processor time of each attack is printed."""
    found = {}
    for name, attack in attacks.items():
        generator, start = torch.Generator().manual_seed(0), clock(x.device)
        z = attack(model, x, y, generator=generator)
        seconds = clock(x.device) - start
        found[name] = judged(cell, model, x, y, z).cpu()
        print(f"{cell.net:16s} {cell.eps:.3f} {cell.goal:7s} {name:9s} ", end="")
        print(f"{float(found[name].mean()):.4f} {seconds:6.1f} s", flush=True)
    return found


def compared(found: Mapping[str, Tensor]) -> dict[str, str]:
    """The columns of a row from the scores of each image, one tensor for each attack."""
    suite, own = found["standard"], found["own"]
    both = torch.minimum(suite, own)
    means = {"standard": suite, "strong": found.get("strong"), "own": own, "both": both}
    columns = {name: "" if v is None else f"{float(v.mean()):.4f}" for name, v in means.items()}
    for name, better in (("gain", both), ("own_gain", own)):
        gain, generator = suite - better, torch.Generator().manual_seed(0)
        low, high = metrics.interval(gain, generator=generator)
        ends = {name: float(gain.mean()), f"{name}_low": low, f"{name}_high": high}
        columns |= _table.rounded(ends)
    return columns


def main() -> None:
    """Add the rows that are missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.refute", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--attack", choices=TABLES, default="masks", help="default: masks")
    parser.add_argument("--out", type=Path, help="default: the attack's table in results")
    options = parser.parse_args()
    out = options.out or RESULTS / TABLES[options.attack]
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    images = listed(data.fashion_mnist("test"), per_class=PER_CLASS)
    x, y = images.x.to(device), images.y.to(device)
    _table.check_constant(out, "suite", SUITE)

    def made(cell: Cell) -> _table.Cell:
        key = key_of(cell, len(x))

        def rows() -> Iterator[dict[str, str]]:
            model = checkpoints.load(cell.net).model.requires_grad_(False).to(device)
            yield key | compared(scores(cell, attacks_of(cell, options.attack), model, x, y))

        return _table.Cell(key, rows)

    _table.fill(out, map(made, cells_of(options.attack)), device=device)


if __name__ == "__main__":
    main()
