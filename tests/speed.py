"""How fast the package is, beside other libraries: `make speed`, or `python -m tests.speed --help`.

Every case is timed in one process, in turns with what it is compared to (ours, the bare work, theirs,
ours, …); medians over the turns of the ratio within a turn are reported. On a CPU, processor time counts,
so that other programs of the machine matter less. Absolute times are given for orientation only.
To measure something new, add a `Case` to `cases`.
"""

import argparse
import csv
import platform
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from captum import attr as captum
from scipy import stats
from torch import Tensor, nn

from attrlib import attributions, metrics
from attrlib.data import fashion_mnist
from attrlib.models import SmallCNN

RESULTS = Path(__file__).resolve().parent.parent / "results"
PASSES = 32
BATCHES = (32, 64, 128, 256)  # the one at which a bare pass is fastest per image is used
SHORTEST = 0.05  # seconds; what takes less is called several times a turn
LIMIT = 1.1

Work = Callable[[], object]


class Case(NamedTuple):
    """Something of ours, the work it cannot do without, and the same from another library.

    `limit` is the highest ratio ours/bare allowed; None where a comparison is only of interest.
    """

    name: str
    ours: Work
    bare: tuple[str, Work]
    theirs: tuple[str, Work] | None = None
    limit: float | None = LIMIT


class Row(NamedTuple):
    """One line of the table."""

    case: str
    milliseconds: float
    bare: str
    ratio_bare: float
    limit: float | None
    theirs: str
    ratio_theirs: float | None

    @property
    def verdict(self) -> str:
        if self.limit is None:
            return "–"
        return "pass" if self.ratio_bare <= self.limit else "FAIL"


def cases(model: nn.Module, x: Tensor, y: Tensor) -> Iterable[Case]:
    """Yield all cases for a batch of images; each new one is a few lines here."""
    device = x.device
    noise = torch.Generator(device=device).manual_seed(0)

    def ours(function: Callable[..., Tensor], **options: object) -> Work:
        return partial(function, model, x, y, **options)

    def theirs(name: str, explainer: Any, **options: object) -> tuple[str, Work]:
        leaf = x.clone().requires_grad_()  # or Captum warns that it sets this itself
        return name, partial(explainer.attribute, leaf, target=y, **options)

    def bare(passes: int) -> tuple[str, Work]:
        return f"{passes} passes", partial(_passes, model, x, y, times=passes)

    yield Case(
        "gradient",
        ours(attributions.gradient),
        bare(1),
        theirs("captum Saliency", captum.Saliency(model), abs=False),
    )
    yield Case(
        "input_x_gradient",
        ours(attributions.input_x_gradient),
        bare(1),
        theirs("captum InputXGradient", captum.InputXGradient(model)),
    )
    yield Case(
        f"integrated_gradients, {PASSES} steps",
        ours(attributions.integrated_gradients, steps=PASSES),
        bare(PASSES),
        theirs(
            "captum IntegratedGradients",
            captum.IntegratedGradients(model),
            n_steps=PASSES,
            method="riemann_middle",
            internal_batch_size=len(x),
        ),
    )
    yield Case(
        f"smooth_grad, {PASSES} samples",
        ours(attributions.smooth_grad, sigma=0.2, samples=PASSES, generator=noise),
        bare(PASSES),
        theirs(
            "captum NoiseTunnel",
            captum.NoiseTunnel(captum.Saliency(model)),
            nt_samples=PASSES,
            nt_samples_batch_size=1,
            stdevs=0.2,
            abs=False,
        ),
    )
    yield Case(
        f"uni_grad, {PASSES} samples",
        ours(attributions.uni_grad, radius=2.0, samples=PASSES, generator=noise),
        bare(PASSES),
    )
    a, b = (attributions.to_heatmap(attributions.gradient(model, z, y)) for z in (x, 1 - x))
    rows = [m.flatten(1).cpu().double().numpy() for m in (a, b)]
    yield Case(
        "kendall, 28×28",
        partial(metrics.kendall, a, b),
        (
            "scipy kendalltau",
            lambda: [stats.kendalltau(*pair) for pair in zip(*rows, strict=True)],
        ),
    )


def _passes(model: nn.Module, x: Tensor, y: Tensor, *, times: int) -> None:
    """Forward and backward passes, by the shortest code there is."""
    for _ in range(times):
        leaf = x.detach().requires_grad_()
        torch.autograd.grad(model(leaf).gather(1, y[:, None]).sum(), leaf)


def best_batch(model: nn.Module, x: Tensor, y: Tensor, *, repeats: int) -> int:
    """The batch size at which a bare pass takes least processor time per image."""
    works = {n: partial(_passes, model, x[:n], y[:n], times=max(BATCHES) // n) for n in BATCHES}
    seconds: dict[int, list[float]] = {n: [] for n in works}
    for _ in range(repeats):
        for n, work in works.items():
            start = _clock(x.device)
            work()
            seconds[n].append(_clock(x.device) - start)
    return min(works, key=lambda n: median(seconds[n]))


def _clock(device: torch.device) -> float:
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def measure(case: Case, *, device: torch.device, repeats: int) -> Row:
    """Time a case in turns with what it is compared to."""
    works = {"ours": case.ours, "bare": case.bare[1]}
    if case.theirs is not None:
        works["theirs"] = case.theirs[1]
    seconds: dict[str, list[float]] = {name: [] for name in works}
    start = _clock(device)
    case.ours()
    calls = 1 + int(SHORTEST / (_clock(device) - start))
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = _clock(device)
            for _ in range(calls):
                work()
            if turn:  # the first turn warms up
                seconds[name].append((_clock(device) - start) / calls)

    def ratio(other: str) -> float:
        return median(a / b for a, b in zip(seconds["ours"], seconds[other], strict=True))

    return Row(
        case=case.name,
        milliseconds=round(1e3 * median(seconds["ours"]), 3),
        bare=case.bare[0],
        ratio_bare=round(ratio("bare"), 3),
        limit=case.limit,
        theirs=case.theirs[0] if case.theirs else "",
        ratio_theirs=round(ratio("theirs"), 3) if case.theirs else None,
    )


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    found = subprocess.run(command, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def _device_name(device: torch.device, threads: int) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} ({platform.machine()}, {threads} thread{'s' * (threads > 1)})"


def main() -> int:
    """Measure all cases, print the table and write it; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--repeats", type=int, default=15, help="turns per case (default: 15)")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed.csv")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    name = _device_name(device, options.threads)
    images = fashion_mnist("val")[: max(BATCHES)]
    model = SmallCNN(generator=torch.Generator().manual_seed(0)).to(device)
    x, y = images.x.to(device), images.y.to(device)
    batch = best_batch(model, x, y, repeats=options.repeats)
    print(f"SmallCNN, {batch} images of 28×28, {name}, medians of {options.repeats} turns")
    columns = f"{'case':34s} {'ms':>8s} {'× bare':>7s} {'limit':>6s} {'':5s} {'× theirs':>8s}"
    print(f"{columns}  compared with")
    provenance = {
        "commit": _commit(),
        "date": datetime.now(tz=UTC).date().isoformat(),
        "device": name,
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
    }
    table, missed = [], 0
    for case in cases(model, x[:batch], y[:batch]):
        start = time.perf_counter()
        row = measure(case, device=device, repeats=options.repeats)
        missed += row.verdict == "FAIL"
        limit = "" if row.limit is None else f"{row.limit:.2f}"
        other = "" if row.ratio_theirs is None else f"{row.ratio_theirs:.2f}"
        print(
            f"{row.case:34s} {row.milliseconds:8.2f} {row.ratio_bare:7.2f} {limit:>6s} "
            f"{row.verdict:5s} {other:>8s}  {row.bare}{', ' * bool(row.theirs)}{row.theirs}"
        )
        seconds = round(time.perf_counter() - start, 2)
        table.append(
            row._asdict()
            | {"batch": batch, "verdict": row.verdict}
            | provenance
            | {"seconds": seconds}
        )
    options.out.parent.mkdir(exist_ok=True)
    partial_file = options.out.with_suffix(".partial")
    with partial_file.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    partial_file.replace(options.out)
    print(f"Written to {options.out}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
