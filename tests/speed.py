"""How fast the package is, beside the bare work: `make speed`, or `python -m tests.speed --help`.

Every case is timed in one process, in turns with what it is compared to (ours, the bare work, theirs,
ours, …); medians over the turns of the ratio within a turn are reported. On a CPU, processor time counts,
so that other programs of the machine matter less. Absolute times are given for orientation only.
To measure something new, add a `Case` to one of the functions `…_cases`.

`--parts` measures some parts of the table and leaves the rows of the others as they are, so that a long
measurement can be made in pieces while a machine is quiet.
"""

import argparse
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from captum import attr as captum
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import resnet50

from attrlib import attributions, metrics
from attrlib.attacks import AttributionAttack, LinfBall, Rank, TopK
from attrlib.benchmark import provenance
from attrlib.data import fashion_mnist, photographs
from attrlib.models import SmallCNN, imagenet, with_softplus
from tests.lens_oracles import numpy_diverse_topk, numpy_lens_recall, sorted_diverse_topk
from tests.speed_certificates import certificate_cases
from tests.speed_measure import (
    LONGEST,
    RESULTS,
    Case,
    Net,
    Work,
    fastest,
    measure,
    merged,
    passes,
    write,
)
from tests.speed_sensitivity import sensitivity_cases

POINTS = {"28×28": 32, "224×224": 8, "ResNet-50": 8}  # of a path, or noisy copies
SIZES = {"28×28": (1, 4, 16, 64, 128), "224×224": (1, 8), "ResNet-50": (1, 8)}  # images
# Rows of a pass that are tried, for the bare work as for Captum; the fastest is the one compared with.
ROWS = {
    ("cpu", "28×28"): (32, 64, 128, 192, 256),
    ("cpu", "224×224"): (1, 2, 4),
    ("cuda", "28×28"): (32, 128, 512, 2048, 4096),
    ("cuda", "224×224"): (8, 16, 32, 64),
    ("cpu", "ResNet-50"): (1, 2, 4),
    ("cuda", "ResNet-50"): (8, 16, 32, 64),
}
# The one at which a bare pass is fastest per image is used. From 256 on, memory that the system hands
# out and takes back costs a fifth of the time, at random, for bare passes as for ours.
BATCHES = (32, 64, 128)
SHARPNESS = 30.0  # of the surrogate of attacks
STEP_LIMIT = 1.15
SETS_LIMIT = 0.2  # five times as fast
# Of the table, in this order; those of photographs take minutes, the others about one.
PARTS = (
    "maps",
    "certificates",
    "sensitivity",
    "averages",
    "averages of photographs",
    "sets",
    "attacks",
)
LARGE = ("averages of photographs", "sets")


def map_cases(model: nn.Module, x: Tensor, y: Tensor) -> Iterable[Case]:
    """Yield what makes and compares maps of a batch of images."""
    n = len(x)

    def ours(function: Callable[..., Tensor], **options: object) -> Work:
        return partial(function, model, x, y, **options)

    def theirs(name: str, explainer: Any, **options: object) -> tuple[str, Work]:
        leaf = x.clone().requires_grad_()  # or Captum warns that it sets this itself
        return name, partial(explainer.attribute, leaf, target=y, **options)

    bare = "1 pass", partial(passes, model, x, y, times=1)

    yield Case(
        "gradient",
        n,
        ours(attributions.gradient),
        bare,
        theirs("captum Saliency", captum.Saliency(model), abs=False),
        theirs_limit=1.0,
    )
    yield Case(
        "input_x_gradient",
        n,
        ours(attributions.input_x_gradient),
        bare,
        theirs("captum InputXGradient", captum.InputXGradient(model)),
        theirs_limit=1.0,
    )
    a, b = (attributions.to_heatmap(attributions.gradient(model, z, y)) for z in (x, 1 - x))
    rows = [m.flatten(1).cpu().double().numpy() for m in (a, b)]
    yield Case(
        "kendall, 28×28",
        n,
        partial(metrics.kendall, a, b),
        (
            "scipy kendalltau",
            lambda: [stats.kendalltau(*pair) for pair in zip(*rows, strict=True)],
        ),
    )


def average_cases(model: nn.Module, x: Tensor, y: Tensor, *, size: str) -> Iterable[Case]:
    """Yield maps that are means over many points, beside the best ways to put the points in batches."""
    device, n, count = x.device, len(x), POINTS[size]
    noise, leaf = torch.Generator(device=device).manual_seed(0), x.clone().requires_grad_()
    many = x.repeat(count, *[1] * (x.ndim - 1)), y.repeat(count)
    path, tunnel = captum.IntegratedGradients(model), captum.NoiseTunnel(captum.Saliency(model))

    def bare(rows: int, *, noisy: bool) -> None:
        if noisy:  # drawn sample by sample, too
            torch.stack(
                [torch.randn(x.shape, generator=noise, device=device) for _ in range(count)]
            )
        for part in zip(*(t.split(rows) for t in many), strict=True):
            passes(model, *part, times=1)

    def integrated(rows: int) -> None:
        options = {"n_steps": count, "method": "riemann_middle", "internal_batch_size": rows}
        path.attribute(leaf, target=y, **options)

    def tunnelled(rows: int) -> None:
        options = {"nt_samples": count, "nt_samples_batch_size": rows // n, "stdevs": 0.2}
        tunnel.attribute(leaf, target=y, abs=False, **options)

    tried = sorted({min(rows, n * count) for rows in ROWS[device.type, size]})
    points = sorted({n * max(1, rows // n) for rows in tried})  # Captum takes whole points
    for name, function, options, theirs in (
        ("integrated_gradients", attributions.integrated_gradients, {"steps": count}, integrated),
        (
            "smooth_grad",
            attributions.smooth_grad,
            {"sigma": 0.2, "samples": count, "generator": noise},
            tunnelled,
        ),
    ):
        noisy = name == "smooth_grad"
        one, other = (
            fastest({rows: partial(work, rows) for rows in choices}, device=device)
            for work, choices in ((partial(bare, noisy=noisy), tried), (theirs, points))
        )
        yield Case(
            f"{name}, {count} points, {size}",
            n,
            partial(function, model, x, y, **options),
            (f"{count} passes{' and noise' * noisy}, {one} rows", partial(bare, one, noisy=noisy)),
            (f"captum, {other} rows", partial(theirs, other)),
            longest=LONGEST / 2,
            theirs_limit=1.0,
        )


def set_cases(device: torch.device) -> Iterable[Case]:
    """Yield sets of pixels of photographs' maps, beside NumPy, map by map."""
    noise = torch.randn(2 * 64, 1, 224, 224, generator=torch.Generator().manual_seed(0))
    a, b = functional.avg_pool2d(noise, 3, stride=1, padding=1)[:, 0].abs().to(device).chunk(2)
    one, other = (m.cpu().numpy() for m in (a, b))
    options = {"k": 1000, "window": 3}
    yield Case(
        "lens_recall, 224×224",
        len(a),
        partial(metrics.lens_recall, a, b, **options),
        (
            "NumPy, map by map",
            lambda: [numpy_lens_recall(*p, **options) for p in zip(one, other, strict=True)],
        ),
        limit=SETS_LIMIT,
    )
    yield Case(
        "diverse_topk, 224×224",
        len(a),
        partial(metrics.diverse_topk, a, **options),
        ("NumPy, map by map", lambda: [numpy_diverse_topk(heat, **options) for heat in one]),
        ("NumPy, sorted list", lambda: [sorted_diverse_topk(heat, **options) for heat in one]),
        limit=SETS_LIMIT,
    )


def attack_cases(nets: dict[str, Net]) -> Iterable[Case]:
    """Yield attack steps on small images and on photographs, and attacks in one batch or one by one."""
    few = {
        size: (model, x[:n], y[:n])
        for size, (model, x, y) in nets.items()
        for n in [64 if size == "28×28" else 2]
    }
    for size, parts in few.items():
        steps = 10 if size == "28×28" else 1
        name = f"{steps} step{'s' * (steps > 1)}, {size}"
        twin = with_softplus(parts[0], SHARPNESS)
        yield Case(
            f"attack, {name}",
            len(parts[1]),
            partial(_attack, *parts, steps=steps + 1),
            ("bare steps", partial(_steps, *parts, twin=twin, times=steps)),
            limit=STEP_LIMIT,
            start=partial(_attack, *parts, steps=1),
        )
        suite = {"objective": Rank(k=100), "momentum": 0.75, "margin": 1e9}  # short leads
        yield Case(
            f"attack as in the suite, {name}",
            len(parts[1]),
            partial(_attack, *parts, steps=steps + 1, **suite),
            ("bare steps", partial(_steps, *parts, twin=twin, times=steps, lead=True)),
            limit=STEP_LIMIT,
            start=partial(_attack, *parts, steps=1, **suite),
        )
    for size, parts in few.items():
        steps = 5 if size == "28×28" else 1
        yield Case(
            f"whole attack, {size}",
            len(parts[1]),
            partial(_attack, *parts, steps=steps),
            ("image by image", partial(_one_by_one, *parts, steps=steps)),
            limit=None,
        )


def cases_of(nets: dict[str, Net], *, batch: int) -> dict[str, Callable[[], Iterable[Case]]]:
    """The functions that yield the cases of each part, for maps of a batch of this size."""
    model, x, y = nets["28×28"]
    few = x[:batch], y[:batch]

    def averages(*, small: bool) -> Iterable[Case]:
        for size, (net, images, labels) in nets.items():
            for n in SIZES[size] if small == (size == "28×28") else ():
                yield from average_cases(net, images[:n], labels[:n], size=size)

    rows = ROWS[x.device.type, "28×28"]
    works = (
        partial(map_cases, model, *few),
        partial(certificate_cases, model, *few, rows=rows),
        partial(sensitivity_cases, model, x[:64], y[:64]),
        partial(averages, small=True),
        partial(averages, small=False),
        partial(set_cases, x.device),
        partial(attack_cases, nets),
    )
    return dict(zip(PARTS, works, strict=True))


def networks(device: torch.device, *, small: bool) -> dict[str, Net]:
    """The networks by the size of their images, with images: small ones only, or all.

    A ResNet-50 with random weights is there on an accelerator; on a CPU its passes take too long.
    """
    images = fashion_mnist("val")[: max(BATCHES)]
    model = SmallCNN(generator=torch.Generator().manual_seed(0))
    nets = {"28×28": (model.eval().to(device), images.x.to(device), images.y.to(device))}
    if small:
        return nets
    photos = photographs()
    x, y = (torch.cat([t, t]).to(device) for t in (photos.x, photos.y))  # ten, two of each
    nets["224×224"] = imagenet().to(device), x, y
    if device.type != "cpu":
        nets["ResNet-50"] = resnet().to(device), x, y
    return nets


def resnet() -> nn.Module:
    """torchvision's ResNet-50 with random weights, in eval mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return resnet50(weights=None).eval()


def _attack(model: nn.Module, x: Tensor, y: Tensor, *, steps: int, **options: Any) -> None:
    usual: dict[str, Any] = {
        "attribution": attributions.gradient,
        "objective": TopK(k=100),
        "ball": LinfBall(eps=8 / 255),
        "step_size": 0.8 / 255,
        "surrogates": (partial(with_softplus, beta=SHARPNESS),),
    }
    attack = AttributionAttack(steps=steps, **usual | options)
    attack(model, x, y, generator=torch.Generator().manual_seed(0))


def _one_by_one(model: nn.Module, x: Tensor, y: Tensor, *, steps: int) -> None:
    for i in range(len(x)):
        _attack(model, x[i : i + 1], y[i : i + 1], steps=steps)


def _steps(
    model: nn.Module, x: Tensor, y: Tensor, *, twin: nn.Module, times: int, lead: bool = False
) -> None:
    """What an attack cannot do without: a derivative of the twin's map, then a map and a prediction.

    With `lead` also the pass that keeps the prediction.
    """
    for _ in range(times):
        if lead:
            passes(model, x, y, times=1)
        leaf = x.detach().requires_grad_()
        total = twin(leaf).gather(1, y[:, None]).sum()
        (slope,) = torch.autograd.grad(total, leaf, create_graph=True)
        torch.autograd.grad(slope.abs().sum(), leaf)
        passes(model, x, y, times=1)
        with torch.no_grad():
            model(x)


def best_batch(model: nn.Module, x: Tensor, y: Tensor, *, repeats: int) -> int:
    """The batch size at which a bare pass takes least processor time per image."""
    works = {n: partial(passes, model, x[:n], y[:n], times=max(BATCHES) // n) for n in BATCHES}
    return fastest(works, device=x.device, repeats=repeats + 1)


def main() -> int:
    """Measure all cases, print the table and write it; 1 if a limit is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed", description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: 1)")
    parser.add_argument("--repeats", type=int, default=21, help="turns per case (default: 21)")
    parser.add_argument("--seconds", type=float, default=LONGEST, help="at most, per case")
    parser.add_argument("--small", action="store_true", help="images of 28×28 only")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, help="measure these; rows of the others in --out stay"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "speed.csv")
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(options.threads)
    nets = networks(device, small=options.small)
    model, x, y = nets["28×28"]
    batch = best_batch(model, x, y, repeats=options.repeats)
    name = provenance(device, seconds=0)["device"]
    print(f"{name}, medians of at most {options.repeats} turns; maps of SmallCNN, 28×28")
    print(
        f"{'case':42s} {'images':>6s} {'ms':>8s} {'× bare':>7s} {'limit':>6s} {'':5s} "
        f"{'× theirs':>8s}  compared with"
    )
    table, missed = [], 0
    usual = [part for part in PARTS if part not in LARGE or not options.small]
    works = cases_of(nets, batch=batch)
    chosen = [part for part in PARTS if part in (options.parts or usual)]
    pairs = ((name, case) for name in chosen for case in works[name]())
    for part, case in pairs:
        start = time.perf_counter()
        case = case._replace(longest=min(case.longest, options.seconds))
        row = measure(case, device=device, repeats=options.repeats)
        missed += row.verdict == "FAIL"
        limit = "" if row.limit is None else f"{row.limit:.2f}"
        other = "" if row.ratio_theirs is None else f"{row.ratio_theirs:.2f}"
        print(
            f"{row.case:42s} {row.batch:6d} {row.milliseconds:8.2f} {row.ratio_bare:7.2f} {limit:>6s} "
            f"{row.verdict:5s} {other:>8s}  {row.bare}{', ' * bool(row.theirs)}{row.theirs}",
            flush=True,
        )
        where = provenance(device, seconds=time.perf_counter() - start)
        table.append({"part": part} | row._asdict() | {"verdict": row.verdict} | where)
    write(options.out, merged(options.out, table, parts=PARTS) if options.parts else table)
    if device.type == "cuda":
        print(f"{torch.cuda.max_memory_allocated(device) / 1e9:.1f} GB of memory at most")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
