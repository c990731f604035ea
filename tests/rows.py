"""The table of the contract test: what each public callable takes and gives. See test_contract.py."""

from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple

import torch
from captum import attr as captum
from torch import Tensor, nn

from attrlib import (
    attacks,
    attributions,
    certificates,
    energy,
    faithfulness,
    maps,
    metrics,
    regularizers,
    sensitivity,
)
from tests import oracles

N, SIZE = 4, 8
BALL = attacks.LinfBall(eps=0.1)
LEFT = torch.arange(SIZE).expand(1, SIZE, SIZE) < 3
SMOOTH = partial(attributions.smooth_grad, sigma=0.1, samples=2)
QUOTIENTS = [name for name in sensitivity.__all__ if name.endswith(("quotient", "change"))]


class Row(NamedTuple):
    """One public callable with its options bound."""

    call: Callable[..., Tensor]
    takes: Literal["model", "maps", "heatmaps", "map", "heatmap", "mask"]
    gives: Literal["like x", "per sample", "heatmap", "mask", "point"]
    random: bool = False
    differentiable: bool = True
    exact: bool = True  # the derivative is that of the values
    looks: bool = True  # refuses NaN; what attacks call at each step does not look at values
    refuses: bool = False  # an x that requires grad
    gradients: bool = True  # a model is differentiated, which torch.inference_mode() forbids
    forward: bool = False  # an ordinary forward pass, differentiable in the weights, too


def _insertion(model: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    """In a fixed order, the same for all images."""
    order = oracles.images(1)[:, 0].expand(len(x), SIZE, SIZE)
    order = order.to(x.device) if isinstance(x, Tensor) else order
    return faithfulness.insertion(model, x, y, order, steps=5)


def _adversarial_insertion(model: Callable[..., Tensor], x: Tensor, y: Tensor) -> Tensor:
    """From images a little darker."""
    return faithfulness.adversarial_insertion(
        model, x, y, 0.9 * x, attribution=attributions.gradient, steps=5
    )


@attributions.wrap
def deep_lift(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return captum.DeepLift(model).attribute(x, target=y)


ROWS = {
    # attributions: (model, x, y, *, generator) -> like x
    "target_logit": Row(
        attributions.target_logit, "model", "per sample", gradients=False, forward=True
    ),
    "gradient": Row(attributions.gradient, "model", "like x"),
    "input_x_gradient": Row(attributions.input_x_gradient, "model", "like x"),
    "integrated_gradients": Row(
        partial(attributions.integrated_gradients, steps=3), "model", "like x"
    ),
    "integrated_gradients from grey": Row(
        partial(
            attributions.integrated_gradients,
            steps=2,
            baseline=torch.full((1, 1, SIZE, SIZE), 0.5),
        ),
        "model",
        "like x",
    ),
    "integrated_gradients, images in parts": Row(
        partial(attributions.integrated_gradients, steps=2, batch_size=3), "model", "like x"
    ),
    "smooth_grad": Row(
        partial(attributions.smooth_grad, sigma=0.2, samples=3), "model", "like x", random=True
    ),
    "uni_grad": Row(
        partial(attributions.uni_grad, radius=0.5, samples=3), "model", "like x", random=True
    ),
    "uni_grad in the cube": Row(
        partial(attributions.uni_grad, radius=0.1, samples=3, norm="linf"),
        "model",
        "like x",
        random=True,
    ),
    "uni_grad, points in two passes": Row(
        partial(attributions.uni_grad, radius=0.5, samples=3, batch_size=2 * N),
        "model",
        "like x",
        random=True,
    ),
    "wrap, Captum's DeepLift": Row(
        deep_lift, "model", "like x", differentiable=False, refuses=True
    ),
    # energy: (model, x, y) -> one value per sample, or its slope
    "marginal": Row(energy.marginal, "model", "per sample", gradients=False, forward=True),
    "joint": Row(energy.joint, "model", "per sample", gradients=False, forward=True),
    "conditional": Row(energy.conditional, "model", "per sample", gradients=False, forward=True),
    "centered": Row(energy.centered, "model", "per sample", gradients=False, forward=True),
    "gradient of the marginal": Row(energy.gradient, "model", "like x"),
    "gradient of the conditional": Row(
        partial(energy.gradient, density=energy.conditional), "model", "like x"
    ),
    "fisher_trace": Row(partial(energy.fisher_trace, draws=2), "model", "per sample", random=True),
    "gauge_ratio": Row(energy.gauge_ratio, "model", "per sample"),
    # bounded maps: (model, x, y, *, generator) -> like x
    "normalized": Row(certificates.normalized(attributions.gradient), "model", "like x"),
    "clipped": Row(certificates.clipped(attributions.gradient, bound=0.1), "model", "like x"),
    "sparsified": Row(
        certificates.sparsified(attributions.gradient, k=9),
        "model",
        "heatmap",
        differentiable=False,
    ),
    "smoothed": Row(
        certificates.smoothed(
            certificates.normalized(attributions.gradient), radius=0.5, samples=3
        ),
        "model",
        "like x",
        random=True,
    ),
    # attacks: (model, x, y, *, generator) -> like x
    "RandomSign": Row(
        attacks.RandomSign(
            eps=0.1, draws=2, score=metrics.cosine, attribution=attributions.gradient
        ),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    "PGD": Row(
        attacks.PGD(ball=BALL, steps=2, step_size=0.05), "model", "like x", differentiable=False
    ),
    "PGD from a random point": Row(
        attacks.PGD(ball=attacks.L2Ball(eps=0.3), steps=2, step_size=0.05, random_start=True),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    "KLPGD": Row(
        attacks.KLPGD(ball=BALL, steps=2, step_size=0.05),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    "MarginPGD": Row(
        attacks.MarginPGD(ball=BALL, steps=2, step_size=0.05, restarts=2),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    "Square": Row(
        attacks.Square(eps=0.1, queries=20),
        "model",
        "like x",
        random=True,
        differentiable=False,
        gradients=False,
    ),
    "DensityAttack": Row(
        attacks.DensityAttack(ball=BALL, steps=2, step_size=0.05),
        "model",
        "like x",
        differentiable=False,
    ),
    "AttributionAttack": Row(
        attacks.AttributionAttack(
            attribution=attributions.gradient,
            objective=attacks.MassCenter(),
            ball=BALL,
            steps=3,
            step_size=0.05,
        ),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    "AttributionAttack on a stochastic map": Row(
        attacks.AttributionAttack(
            attribution=partial(attributions.smooth_grad, sigma=0.1, samples=2),
            objective=attacks.TopK(k=9),
            ball=attacks.L2Ball(eps=0.5),
            steps=2,
            step_size=0.2,
            restarts=2,
            score=metrics.cosine,
        ),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    "WorstOf": Row(
        attacks.WorstOf(
            attacks=tuple(
                attacks.AttributionAttack(
                    attribution=partial(attributions.smooth_grad, sigma=0.1, samples=2),
                    objective=objective,
                    ball=BALL,
                    steps=2,
                    step_size=0.05,
                    momentum=0.5,
                    step_decay=0.5,
                    margin=0.1,
                )
                for objective in (attacks.Rank(k=9), attacks.Cosine())
            ),
            score=metrics.cosine,
        ),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    "standard": Row(
        attacks.standard(
            eps=0.1,
            attribution=partial(attributions.smooth_grad, sigma=0.1, samples=2),
            k=9,
            effort="quick",
        ),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    "TripletAttack": Row(
        regularizers.TripletAttack(ball=BALL, steps=2, step_size=0.05, k=20, beta=None),
        "model",
        "like x",
        random=True,
        differentiable=False,
    ),
    # objectives: (a, b) -> one value per sample
    "TopK": Row(attacks.TopK(k=9), "maps", "per sample", looks=False),
    "TopK with a window": Row(
        attacks.TopK(k=4, window=1, diverse=True), "maps", "per sample", looks=False
    ),
    # Thresholds are constants in the derivative, which is no full one: see test_attack_ranks.py.
    "Rank": Row(attacks.Rank(k=9), "maps", "per sample", looks=False, exact=False),
    "Rank with a window": Row(
        attacks.Rank(k=4, window=1, diverse=True), "maps", "per sample", looks=False, exact=False
    ),
    "Order": Row(attacks.Order(), "maps", "per sample", looks=False, exact=False),
    "MassCenter": Row(attacks.MassCenter(), "maps", "per sample", looks=False),
    "TargetMap": Row(
        attacks.TargetMap(target=oracles.images(1)[0, 0]), "maps", "per sample", looks=False
    ),
    "Cosine": Row(attacks.Cosine(), "maps", "per sample", looks=False),
    "Identification": Row(
        attacks.Identification(others=oracles.images(3, channels=2, seed=7)[None] - 0.5),
        "maps",
        "per sample",
        looks=False,
    ),
    # metrics: (a, b) -> one value per sample
    "cosine": Row(metrics.cosine, "maps", "per sample"),
    "pearson": Row(metrics.pearson, "maps", "per sample"),
    "spearman": Row(metrics.spearman, "heatmaps", "per sample", differentiable=False),
    "kendall": Row(metrics.kendall, "heatmaps", "per sample", differentiable=False),
    "topk_intersection": Row(
        partial(metrics.topk_intersection, k=20), "heatmaps", "per sample", differentiable=False
    ),
    "lens_recall": Row(
        partial(metrics.lens_recall, k=12, window=1), "heatmaps", "per sample", differentiable=False
    ),
    "lens_precision": Row(
        partial(metrics.lens_precision, k=9, window=1),
        "heatmaps",
        "per sample",
        differentiable=False,
    ),
    "lens_recall, diverse": Row(
        partial(metrics.lens_recall, k=5, window=1, diverse=True),
        "heatmaps",
        "per sample",
        differentiable=False,
    ),
    "lens_spearman": Row(
        partial(metrics.lens_spearman, window=1), "heatmaps", "per sample", differentiable=False
    ),
    "lens_kendall": Row(
        partial(metrics.lens_kendall, window=1), "heatmaps", "per sample", differentiable=False
    ),
    "chance_level": Row(
        partial(metrics.chance_level, partial(metrics.lens_recall, k=9, window=1)),
        "heatmaps",
        "per sample",
        differentiable=False,
    ),
    "leakage": Row(partial(metrics.leakage, region=LEFT), "heatmap", "per sample"),
    "topk_leakage": Row(
        partial(metrics.topk_leakage, region=LEFT, k=9),
        "heatmap",
        "per sample",
        differentiable=False,
    ),
    "center_shift": Row(metrics.center_shift, "heatmaps", "per sample"),
    # faithfulness: (model, x, y, …) -> one value per sample
    "insertion": Row(_insertion, "model", "per sample", differentiable=False, gradients=False),
    "adversarial_insertion": Row(
        _adversarial_insertion, "model", "per sample", differentiable=False
    ),
    "random_perturbation_similarity": Row(
        partial(
            faithfulness.random_perturbation_similarity,
            attribution=partial(attributions.smooth_grad, sigma=0.1, samples=2),
            metric=metrics.cosine,
            eps=0.1,
            draws=2,
        ),
        "model",
        "per sample",
        random=True,
        differentiable=False,
    ),
    # sensitivity: (attribution, model, x, y, *, generator) -> one value per sample
    **{
        name: Row(
            partial(score, SMOOTH, samples=2, radius=0.1),
            "model",
            "per sample",
            random=True,
            differentiable=False,
        )
        for name, score in {
            "max_sensitivity": sensitivity.max_sensitivity,
            "average_sensitivity": sensitivity.average_sensitivity,
            "local_lipschitz": partial(sensitivity.local_lipschitz, norm="l2"),
            "relative_input_stability": sensitivity.relative_input_stability,
            "relative_output_stability": sensitivity.relative_output_stability,
            "infidelity": sensitivity.infidelity,
        }.items()
    },
    "continuity": Row(
        partial(sensitivity.continuity, SMOOTH, shifts=(-1, 2)),
        "model",
        "per sample",
        random=True,
        differentiable=False,
    ),
    "square_infidelity": Row(
        partial(sensitivity.square_infidelity, attributions.input_x_gradient, size=4),
        "model",
        "per sample",
        differentiable=False,
    ),
    # maps: a -> what it is reduced to
    "to_heatmap": Row(maps.to_heatmap, "map", "heatmap", looks=False),
    "to_heatmap sum": Row(partial(maps.to_heatmap, mode="sum"), "map", "heatmap", looks=False),
    "to_heatmap max_abs": Row(
        partial(maps.to_heatmap, mode="max_abs"), "map", "heatmap", looks=False
    ),
    "topk_mask": Row(partial(maps.topk_mask, k=9), "heatmap", "mask", differentiable=False),
    "diverse_topk": Row(
        partial(maps.diverse_topk, k=5, window=1), "heatmap", "mask", differentiable=False
    ),
    "dilate": Row(partial(maps.dilate, window=1), "mask", "mask", differentiable=False),
    "normalize": Row(maps.normalize, "heatmap", "heatmap", looks=False),
    "mass_center": Row(maps.mass_center, "heatmap", "point", looks=False),
}
