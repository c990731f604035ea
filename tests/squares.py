"""An attack on gradient maps that follows no slope: squares, kept if the real score falls.

`python -m tests.squares` sets it beside the suite. The suite and the attacks of `tests.masks` and
`tests.crossing` climb soft ranks, along slopes of softened networks, and may share a blind spot. This one
asks the real network only: a try changes a part of the pixels, and stays if the top-k score is lower, or
equal with pixels nearer the threshold. In turn it takes

1. a square, all of it to one end of the allowed range;
2. a square, each pixel to an end of its own;
3. a square, mirrored in the middle of the allowed range;
4. as many pixels as half a square has on average, in any places, each to an end of its own.

The sides of the squares shrink over the tries. From the image, a search starts at vertical stripes.
After Andriushchenko et al. 2020 (Square Attack, against predictions), who have the first kind of try.

The table has two answers. `own` starts at the image, and its `TRIES` maps are as many gradients as the
suite's standard effort takes. `polished` starts at the point that the suite found, with `MORE` tries:
a third of that on top. Columns are those of `tests.refute`; `polished_gain` is what the polish takes off
the suite's score, never below 0. The suite's points of the list of `results/recipes.csv` are kept in a
folder; tries were tuned on its first ten images, which the table leaves out.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from attrlib import checkpoints, data, metrics
from attrlib.attacks import SUITE
from attrlib.benchmark import _table
from attrlib.benchmark.cells import first, listed, named, points
from attrlib.models import SmallCNN
from attrlib.types import Classifier
from tests.masks import Best, Task, Written
from tests.refute import Cell, compared, judged, key_of
from tests.speed_measure import RESULTS, clock

TRIES = 3000  # from the image
MORE = 1000  # from another attack's point
SIDES = {"image": 14, "point": 6}  # the first squares; the last have one pixel
TABLE = RESULTS / "refutation-squares.csv"
LISTED, PASSED, PER_CLASS = 10, 5, 2  # of each class: on the list, of these left out, then taken

CELLS = tuple(
    Cell(f"{recipe}-s0", eps)
    for eps, recipes in (
        (
            8 / 255,
            ("natural", "madry", "trades", "igr", "lga", "hessian", "weight-decay"),
        ),
        (0.09, ("madry", "trades", "igr", "hessian")),
    )
    for recipe in recipes
)


def square(like: Tensor, side: int, generator: Generator | None) -> Tensor:
    """True on a square (what of it lies in the image), at a place of its own in each image."""
    ranges = []
    for size in like.shape[-2:]:
        start = torch.randint(1 - side, size, (len(like), 1), generator=generator)
        place = torch.arange(size)
        ranges.append((place >= start) & (place < start + side))
    rows, columns = ranges
    return (rows[:, None, :, None] & columns[:, None, None, :]).to(like.device)


def stripes(task: Task, generator: Generator | None) -> Tensor:
    """Columns of pixels, each at an end of its own."""
    up = _ends(task.x[..., :1, :], generator)
    return torch.where(up, task.high, task.low)


def changed(task: Task, z: Tensor, side: int, kind: int, generator: Generator | None) -> Tensor:
    """Points with some pixels changed, in one of four ways."""
    if kind == 3:
        count = torch.rand((len(z), 1, 1, 1), generator=generator) * side**2
        inside = torch.rand(z.shape, generator=generator) < count / z[0].numel()
        inside = inside.to(z.device)
    else:
        inside = square(z, side, generator)
    if kind == 2:
        return torch.where(inside, task.low + task.high - z, z)
    up = _ends(z[..., :1, :1] if kind == 0 else z, generator)
    return torch.where(inside, torch.where(up, task.high, task.low), z)


def search(best: Best, tries: int, side: int, generator: Generator | None) -> None:
    """Try after try, with squares that shrink from this side to one pixel."""
    for i in range(tries):
        now = max(1, round(side ** (1 - i / tries)))
        z = changed(best.task, best.z, now, i % 4, generator)
        best.see(best.task.project(z), ties=True)


@dataclass(frozen=True)
class Squares:
    """The attack, called as those of the package are; from `start`, if there is one."""

    eps: float
    tries: int = TRIES

    def __call__(
        self,
        model: Classifier,
        x: Tensor,
        y: Tensor,
        /,
        *,
        start: Tensor | None = None,
        generator: Generator | None = None,
    ) -> Tensor:
        if not isinstance(model, SmallCNN):
            raise TypeError(f"Expected model to be a SmallCNN, got {type(model).__name__}")
        task = Task(Written(model), x, y, self.eps, "top-k")
        best = Best(task, x)
        best.see(stripes(task, generator) if start is None else start)
        search(best, self.tries, SIDES["image" if start is None else "point"], generator)
        return best.z


def row(
    cell: Cell, model: nn.Module, x: Tensor, y: Tensor, suite: Tensor, tries: tuple[int, int]
) -> dict[str, str]:
    """The columns of a cell, from the points of the suite; processor times are printed."""
    found = {"standard": judged(cell, model, x, y, suite).cpu()}
    for name, count, start in zip(("own", "polished"), tries, (None, suite), strict=True):
        begun = clock(x.device)
        z = Squares(cell.eps, count)(model, x, y, start=start, generator=Generator().manual_seed(0))
        seconds = clock(x.device) - begun
        found[name] = judged(cell, model, x, y, z).cpu()
        print(f"{cell.net:16s} {cell.eps:.3f} {name:9s} {seconds:6.1f} s", flush=True)
    polished = found.pop("polished")
    gain = found["standard"] - polished
    low, high = metrics.interval(gain, generator=Generator().manual_seed(0))
    ends = {"polished": float(polished.mean()), "polished_gain": float(gain.mean())}
    ends |= {"polished_gain_low": low, "polished_gain_high": high}
    return compared(found) | _table.rounded(ends)


def main() -> None:
    """Add the rows that are missing."""
    parser = argparse.ArgumentParser(prog="python -m tests.squares", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument(
        "--points", type=Path, default=RESULTS.parent / "runs" / "points", help="of the suite"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, test = torch.device(options.device), data.fashion_mnist("test")
    images = listed(test, per_class=LISTED)
    rows = first(images.y, per_class=PER_CLASS, start=PASSED)
    x, y = images.x[rows].to(device), images.y[rows].to(device)
    _table.check_constant(options.out, "suite", SUITE)

    def made(cell: Cell) -> _table.Cell:
        key, name = key_of(cell, len(rows)), named("top-k suite")

        def found() -> Iterator[dict[str, str]]:
            model = checkpoints.load(cell.net).model.requires_grad_(False).to(device)
            suite = points(
                model, images, name, cell.eps, folder=options.points, device=device, pool=images
            )
            yield key | row(cell, model, x, y, suite[rows.to(device)], (TRIES, MORE))

        return _table.Cell(key, found)

    _table.fill(options.out, map(made, CELLS), device=device)


def _ends(like: Tensor, generator: Generator | None) -> Tensor:
    """True for the upper end of the range of a pixel."""
    return (torch.rand(like.shape, generator=generator) < 0.5).to(like.device)


if __name__ == "__main__":
    main()
