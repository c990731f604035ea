"""The two kinds of certificate of `python -m attrlib certify`, for a batch of images."""

import argparse
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from attrlib import _check, attributions, certificates, checkpoints, plotting
from attrlib.certificates import geometry, interval, smoothing
from attrlib.commands import choice, drawing, network
from attrlib.maps import to_heatmap
from attrlib.types import Attribution, Classifier, Inputs, Labels

SMOOTHING: dict[str, Any] = {"radius": 4.0, "samples": 1000, "alpha": 0.001}
"""Settings that only smoothing has."""
SCORES = ("cosine", "released", "topk", "kendall", "prediction_certified")
"""Columns of lower bounds; one that a method does not give stays empty."""

_WIDTH, _HEIGHT = 2.6, 2.8  # inches of a panel
_CURVE = 60  # budgets at which a curve is drawn

Bounds = Callable[..., tuple[Inputs, Inputs]]
Tick = Callable[[int], object]
"""Told how much more is done, for a progress bar."""


@dataclass(frozen=True)
class Proved:
    """What is certified for a batch of images.

    Args:
        scores: Lower bounds (n, budgets), by the columns of `SCORES`.
        abstained: Where (n, budgets) nothing about the map is certified.
        empty: Whether (n,) the map is zero everywhere.
        figure: Draws image number j of the batch.
    """

    scores: Mapping[str, Tensor]
    abstained: Tensor
    empty: Tensor
    figure: Callable[[int], Figure]


@dataclass(frozen=True)
class Smoothing:
    """The map averaged over noise in a ball, within an l2 budget, with a failure probability.

    Without `k` the maps are `normalized`, with it `sparsified`.
    """

    attribution: Attribution
    budgets: Sequence[float]
    radius: float
    samples: int
    alpha: float
    k: int | None
    seed: int

    def check(self, size: Sequence[int]) -> None:
        """Raise if a setting is out of range, or the samples are too few for one of the budgets."""
        dim = torch.Size(size).numel()
        law = certificates.UniformBall(radius=self.radius)
        _check.unit_interval(alpha=self.alpha)
        _check.count(samples=self.samples, low=2)
        if self.k is not None:
            _check.count(k=self.k, high=size[1] * size[2])
        for eps in self.budgets:
            geometry.check_balls(eps=eps, radius=self.radius)
        for eps in self.budgets:
            smoothing.check_enough(
                self._bounded(self.attribution),
                law.lost(eps, dim),
                self.samples,
                self.alpha,
                certificates.betting,
            )

    def settings(self) -> dict[str, Any]:
        """All that decides the result, ready for JSON."""
        described = {name: checkpoints.describe(part) for name, part in vars(self).items()}
        return {"method": "smoothing", **described}

    def steps(self, images: int) -> int:
        """Noisy copies."""
        return images * self.samples

    def proved(self, model: nn.Module, x: Inputs, y: Labels, places: range, tick: Tick) -> Proved:
        """Certify a batch; all budgets are answered from the same samples."""

        def counted(
            net: Classifier, x: Tensor, y: Tensor, /, *, generator: torch.Generator | None = None
        ) -> Tensor:
            tick(len(x))
            return self.attribution(net, x, y, generator=generator)

        found = certificates.certify(
            self._bounded(counted),
            model,
            x,
            y,
            radius=self.radius,
            eps=self.budgets[0],
            samples=self.samples,
            alpha=self.alpha,
            index=places,
            generator=torch.Generator().manual_seed(self.seed),
        )
        scores = {
            "cosine": torch.stack([found.cosine(eps) for eps in self.budgets], 1),
            "released": torch.stack([found.released(eps) for eps in self.budgets], 1),
        }
        sure = scores["cosine"] > 0
        if self.k is not None:
            boxes = [(*found.entries(eps), found.mean) for eps in self.budgets]
            sets = [certificates.certified_topk_overlap(*box, k=self.k) for box in boxes]
            orders = [certificates.certified_kendall(*box) for box in boxes]
            scores |= {
                "topk": _shares(torch.stack(sets, 1), self.k),
                "kendall": torch.stack(orders, 1),
            }
            sure = sure | (scores["topk"] > 0)
        heat = found.mean if found.mean.ndim == 3 else found.mean.sum(1)
        empty = ~heat.flatten(1).any(1)
        highest = min(2 * self.budgets[-1], 2 * self.radius) or self.radius
        curve = [highest * (i + 0.5) / _CURVE for i in range(_CURVE)]
        cosines = torch.stack([found.cosine(eps) for eps in curve], 1)

        def figure(j: int) -> Figure:
            canvas = drawing.canvas(3.4 * _WIDTH, _HEIGHT)
            image, mean, line = canvas.subplots(1, 3, width_ratios=(1, 1, 1.4))
            plotting.show_image(x[j], ax=image, title="image")
            plotting.show_heatmap(heat[j], ax=mean, title="smoothed map")
            line.plot(curve, cosines[j].tolist(), label="cosine")
            line.plot(self.budgets, scores["cosine"][j].tolist(), "o", color="C0")
            if self.k is not None:
                line.plot(self.budgets, scores["topk"][j].tolist(), "s-", color="C1", label="top k")
                line.legend(frameon=False)
            line.set(ylim=(-0.02, 1.02), xlabel="l2 budget, pixel units")
            line.set_title("certified at least", fontsize="medium")
            return canvas

        return Proved(scores, ~sure, empty, figure)

    def _bounded(self, attribution: Attribution) -> certificates.Bounded:
        if self.k is None:
            return certificates.normalized(attribution)
        return certificates.sparsified(attribution, k=self.k)


@dataclass(frozen=True)
class Intervals:
    """The map of the network itself, within a budget in each entry, without any probability."""

    attribution: Attribution
    bounds: Bounds
    budgets: Sequence[float]
    k: int

    def check(self, size: Sequence[int]) -> None:
        """Raise if a setting is out of range."""
        _check.count(k=self.k, high=size[1] * size[2])
        for eps in self.budgets:
            interval.check_budget(eps)

    def settings(self) -> dict[str, Any]:
        """All that decides the result, ready for JSON."""
        described = {name: checkpoints.describe(part) for name, part in vars(self).items()}
        return {"method": "interval", **described}

    def steps(self, images: int) -> int:
        """Boxes."""
        return images * len(self.budgets)

    def proved(self, model: nn.Module, x: Inputs, y: Labels, places: range, tick: Tick) -> Proved:
        """Certify a batch, budget by budget."""
        a = self.attribution(model, x, y).detach()
        prediction = network.predict(model, x)
        boxes, columns = [], []
        for eps in self.budgets:
            box = self.bounds(model, x, y, eps=eps)
            boxes.append(box)
            logits = certificates.logit_bounds(model, x, eps=eps)
            columns.append(
                {
                    "cosine": certificates.cosine_in_box(*box, a),
                    "topk": certificates.certified_topk(*box, a, k=self.k),
                    "kendall": certificates.kendall_in_box(*box, a),
                    "prediction_certified": certificates.accuracy_in_box(*logits, prediction),
                }
            )
            tick(len(x))
        scores = {name: torch.stack([each[name] for each in columns], 1) for name in columns[0]}
        cosines, sets = scores["cosine"], _shares(scores["topk"], self.k)
        scores["topk"] = sets
        sure = (cosines > -1) | (sets > 0)

        def figure(j: int) -> Figure:
            canvas = drawing.canvas(4 * _WIDTH, len(self.budgets) * _HEIGHT)
            panels = canvas.subplots(len(self.budgets), 4, squeeze=False)
            limit = plotting.shared_limit(a[j].sum(0))
            plotting.show_image(x[j], ax=panels[0, 0], title="image")
            plotting.show_map(a[j], ax=panels[0, 1], limit=limit, title="map")
            for ax in panels[1:, :2].flat:
                ax.set_axis_off()
            for i, (row, eps) in enumerate(zip(panels, self.budgets, strict=True)):
                least = [torch.floor(100 * v[j, i]) / 100 for v in (sets, cosines)]
                said = f"top k ≥ {least[0]:.2f}", f"cosine ≥ {least[1]:.2f}"
                titles = f"lower, ε = {eps:.4g}", "upper"
                for ax, bound, title, text in zip(row[2:], boxes[i], titles, said, strict=True):
                    plotting.show_map(bound[j], ax=ax, limit=limit, title=title).set_xlabel(text)
            return canvas

        return Proved(scores, ~sure, ~to_heatmap(a).flatten(1).any(1), figure)


Method = Smoothing | Intervals
"""Both have budgets, in rising order, `check`, `settings`, `steps` and `proved`."""


def method(options: argparse.Namespace, size: Sequence[int]) -> Method:
    """Return the certificate that the options describe.

    Args:
        options: As `certify.add_options` declares them.
        size: Of an image (channels, h, w).

    Raises:
        ValueError: If options contradict each other, or a number is out of range.
    """
    smooth = options.method == "smoothing"
    given = {name: getattr(options, name) for name in SMOOTHING}
    named = {name: value for name, value in given.items() if value is not None}
    if named and not smooth:
        raise ValueError(
            "Expected --method interval without the settings of smoothing, got "
            + ", ".join(f"--{name}" for name in named)
        )
    attribution, bounds = maps(options.attribution, options.steps)
    budgets = sorted({*options.eps}) if options.eps else [0.1 if smooth else 2 / 255]
    found: Method
    if smooth:
        chosen = SMOOTHING | named
        found = Smoothing(
            attribution=attribution, budgets=budgets, k=options.k, seed=options.seed, **chosen
        )
    else:
        k = choice.top(options, size[1] * size[2])
        found = Intervals(attribution=attribution, bounds=bounds, budgets=budgets, k=k)
    found.check(size)
    return found


def down(bound: float) -> str:
    """Six digits, rounded down but for what float64 rounds: what is written is certified, too."""
    return f"{bound:.6f}" if math.isnan(bound) else f"{math.floor(bound * 1e6 + 1e-7) / 1e6:.6f}"


def _shares(values: Tensor, k: int) -> Tensor:
    """Shares of k, whatever type they were rounded to."""
    return (values.double() * k).round() / k


def maps(attribution: str, steps: int) -> tuple[Attribution, Bounds]:
    """Return an attribution, and what bounds its maps.

    Args:
        attribution: gradient, input_x_gradient or integrated_gradients.
        steps: Points on the path of the last.
    """
    if attribution == "integrated_gradients":
        return (
            functools.partial(attributions.integrated_gradients, steps=steps),
            functools.partial(certificates.integrated_gradients_bounds, steps=steps),
        )
    if attribution == "input_x_gradient":
        return attributions.input_x_gradient, certificates.input_x_gradient_bounds
    return attributions.gradient, certificates.gradient_bounds
