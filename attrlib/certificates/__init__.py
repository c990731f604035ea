"""Certificates: what is proved to stay of an explanation, whichever point near an image is taken."""

from attrlib.certificates.boxes import (
    accuracy_in_box,
    certified_topk,
    cosine_in_box,
    kendall_in_box,
    lens_in_box,
)
from attrlib.certificates.interval import (
    gradient_bounds,
    input_x_gradient_bounds,
    integrated_gradients_bounds,
    logit_bounds,
)

__all__ = [
    "accuracy_in_box",
    "certified_topk",
    "cosine_in_box",
    "gradient_bounds",
    "input_x_gradient_bounds",
    "integrated_gradients_bounds",
    "kendall_in_box",
    "lens_in_box",
    "logit_bounds",
]
