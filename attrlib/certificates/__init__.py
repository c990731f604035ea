"""Certificates: what is proved to stay of an explanation at every point near an image."""

from attrlib.certificates.interval import (
    gradient_bounds,
    input_x_gradient_bounds,
    integrated_gradients_bounds,
    logit_bounds,
)

__all__ = [
    "gradient_bounds",
    "input_x_gradient_bounds",
    "integrated_gradients_bounds",
    "logit_bounds",
]
