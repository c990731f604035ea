"""What each term of a loss costs, beside a step of ordinary training: `python -m tests.speed_terms`.

A step is what the trainer does with one batch: the loss, its gradient in the weights, AdamW. A term that
is used beside the cross-entropy is timed with it, and one that reads an adversarial example with the
attack that finds it. Steps are timed in turns, in processor time on a CPU; the medians over the turns of
the ratio within a turn are given. The work is counted as well, in forward passes: the multiplications
of all convolutions and matrix products of the step, over those of a forward pass. To measure something
new, add a `Step` to `steps`.
"""

import argparse
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from attrlib.attacks import KLPGD, PGD, LinfBall
from attrlib.benchmark import provenance
from attrlib.data import fashion_mnist
from attrlib.models import SmallCNN
from attrlib.regularizers import (
    AdversarialCrossEntropy,
    AttributionTriplet,
    CrossEntropy,
    Curvature,
    DoubleBackward,
    FiniteDifference,
    HessianNorm,
    IGNorm,
    IGSumNorm,
    InputGradientNorm,
    IntegratedGradientRegularizer,
    IntervalBounds,
    LocalGradientAlignment,
    MarginalDensitySmoothing,
    Mart,
    RandomProjection,
    SmoothSurface,
    Trades,
    TripletAttack,
)
from attrlib.types import Attack, Term
from tests.speed_measure import RESULTS, clock, write

BATCH = 64
BALL = LinfBall(eps=0.1)
SEARCH = {"ball": BALL, "steps": 5, "step_size": 0.05}


class Step(NamedTuple):
    """What is trained, and on which activation."""

    name: str
    terms: tuple[Term, ...]
    attack: Attack | None = None
    smooth: bool = False


class Row(NamedTuple):
    """One line of the table; `ratio` is to the natural step on the ReLU network."""

    step: str
    batch: int
    passes: float
    milliseconds: float
    ratio: float


class Multiplications(TorchDispatchMode):
    """Counts those of all convolutions and matrix products within its context."""

    total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def steps() -> Iterable[Step]:
    """Yield the steps to compare; the first is ordinary training."""
    plain = CrossEntropy()
    pgd = {"ball": BALL, "steps": 7, "step_size": 0.036}
    triplet = {"ball": BALL, "steps": 7, "step_size": 0.036, "k": 392}
    yield Step("CrossEntropy", (plain,))
    yield Step("CrossEntropy, softplus", (plain,), smooth=True)
    yield Step("InputGradientNorm", (plain, InputGradientNorm()))
    yield Step("HessianNorm, 1 probe, softplus", (plain, HessianNorm()), smooth=True)
    yield Step("Curvature", (plain, Curvature(h=1.0)))
    yield Step("SmoothSurface, exact", (plain, SmoothSurface()))
    for count in (0, 1, 3):
        term = SmoothSurface(solver="matrix-free", iterations=count)
        yield Step(f"SmoothSurface, matrix-free, {count} it.", (plain, term))
    for maps in (0.0, 0.5):
        bounds = IntervalBounds(eps=8 / 255, prediction=1.0, maps=maps)
        yield Step(f"IntervalBounds, maps {maps:g}", (plain, bounds))
    align = {"l2": 0.1, "cosine": 1.0, "ball": BALL}
    for detach, note in ((False, ""), (True, ", detached")):
        lga = LocalGradientAlignment(**align, detach=detach)
        yield Step(f"LocalGradientAlignment, softplus{note}", (plain, lga), smooth=True)
        yield Step(f"LocalGradientAlignment{note}", (plain, lga))
    for estimator in (DoubleBackward(), FiniteDifference(), RandomProjection()):
        density = MarginalDensitySmoothing(estimator=estimator)
        yield Step(f"MarginalDensitySmoothing, {type(estimator).__name__}", (plain, density))
    attack = PGD(**pgd, random_start=True)
    yield Step("AdversarialCrossEntropy, PGD-7", (AdversarialCrossEntropy(),), attack)
    igr = IntegratedGradientRegularizer()
    yield Step("IntegratedGradientRegularizer, PGD-7", (AdversarialCrossEntropy(), igr), attack)
    yield Step("Mart, PGD-7", (Mart(),), attack)
    yield Step("Trades, 7 steps", (plain, Trades()), KLPGD(**pgd))
    yield Step(
        "AttributionTriplet, 7 steps",
        (AdversarialCrossEntropy(), AttributionTriplet()),
        TripletAttack(**triplet),
    )
    yield Step("IGNorm, 5 steps, 3 and 5 points", (plain, IGNorm(**SEARCH)))
    yield Step("IGSumNorm, 5 steps, 3 and 5 points", (IGSumNorm(**SEARCH),))


def passes(step: Step, x: Tensor, y: Tensor) -> float:
    """Count the multiplications of a step, in forward passes."""
    with Multiplications() as once:
        SmallCNN(generator=torch.Generator().manual_seed(0)).to(x.device)(x)
    with Multiplications() as count:
        _work(step, x, y)()
    return count.total / once.total


def rows(*, device: torch.device, repeats: int) -> list[Row]:
    """Time all steps in turns, on one batch of Fashion-MNIST and the book's network."""
    images = fashion_mnist("val")[:BATCH]
    x, y = images.x.to(device), images.y.to(device)
    works = {step.name: _work(step, x, y) for step in steps()}
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = clock(device)
            work()
            if turn:  # the first turn warms up
                seconds[name].append(clock(device) - start)
    natural = next(iter(seconds.values()))
    return [
        Row(
            step=step.name,
            batch=len(x),
            passes=round(passes(step, x, y), 1),
            milliseconds=round(1e3 * median(times), 3),
            ratio=round(median(a / b for a, b in zip(times, natural, strict=True)), 2),
        )
        for step, times in zip(steps(), seconds.values(), strict=True)
    ]


def _work(step: Step, x: Tensor, y: Tensor) -> partial[None]:
    activation = partial(nn.Softplus, beta=10.0) if step.smooth else nn.ReLU
    model = SmallCNN(activation=activation, generator=torch.Generator().manual_seed(0)).to(x.device)
    # Still, so that all turns see one network; the optimizer's work is the same.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    return partial(_step, step, model, optimizer, x, y, torch.Generator().manual_seed(0))


def _step(
    step: Step,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
) -> None:
    z = None if step.attack is None else step.attack(model, x, y, generator=generator).detach()
    total = torch.stack([term(model, x, y, z=z, generator=generator) for term in step.terms])
    optimizer.zero_grad()
    total.sum(0).mean().backward()
    optimizer.step()


def main() -> None:
    """Measure the table, print and write it."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed_terms", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--repeats", type=int, default=11, help="turns per step (default: 11)")
    parser.add_argument("--out", type=Path, default=RESULTS / "terms.csv")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device, start = torch.device(options.device), time.perf_counter()
    table = rows(device=device, repeats=options.repeats)
    for row in table:
        print(
            f"{row.step:42s} {row.batch:4d} {row.passes:7.1f} passes {row.milliseconds:9.2f} ms "
            f"{row.ratio:7.2f} ×"
        )
    where = provenance(device, seconds=time.perf_counter() - start)
    write(options.out, [row._asdict() | where for row in table])


if __name__ == "__main__":
    main()
