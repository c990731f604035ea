"""Certificates: what no small change of an image can do to its explanation, proved.

*By smoothing*: the attribution is averaged over noise, and is used as a black box with bounded maps.
`certify` samples it and bounds the cosine; `certified_cosine` and its inverses are the geometry behind
it. With maps of zeros and ones the same samples bound the top k, Kendall's tau and single pixels. All
promises are about l2 budgets and the smoothed map, hold with a probability that is named, and say
nothing about the prediction or about whether the map is faithful.

`soft_stability` certifies a share of random additions, and `first_order_estimate` is no certificate.

*Without noise*: `gradient_bounds` and its kin bound the map of the network itself, entry by entry, over
an l-infinity box, and `certified_topk` and the scores `…_in_box` say what that leaves of an explanation.
These hold without any probability, for networks of the layers that are named there. `synonym_box` is
such a box for a sentence whose words may be replaced, `certified_words` and `certified_label` say what
holds for all of them.
"""

from attrlib.certificates.bounded import Bounded, clipped, normalized, sparsified
from attrlib.certificates.boxes import (
    accuracy_in_box,
    certified_topk,
    cosine_in_box,
    kendall_in_box,
    lens_in_box,
)
from attrlib.certificates.certificate import Certificate
from attrlib.certificates.confidence import (
    bernstein,
    betting,
    entry_bounds,
    hoeffding,
    vector_error,
)
from attrlib.certificates.estimates import FirstOrder, first_order_estimate
from attrlib.certificates.geometry import (
    certified_cosine,
    certified_radius,
    largest_loss,
    minimal_smoothing_radius,
    worst_cosine,
)
from attrlib.certificates.interval import (
    Columns,
    gradient_bounds,
    input_x_gradient_bounds,
    integrated_gradients_bounds,
    logit_bounds,
)
from attrlib.certificates.smoothing import certify, smallest_radius, smoothed
from attrlib.certificates.stability import Stability, soft_stability, stability_samples
from attrlib.certificates.topk import (
    Pixels,
    certified_kendall,
    certified_pixels,
    certified_topk_overlap,
)
from attrlib.certificates.volume import Gaussian, UniformBall, distance_at, lost_volume
from attrlib.certificates.words import certified_label, certified_words, synonym_box

__all__ = [
    "Bounded",
    "Certificate",
    "Columns",
    "FirstOrder",
    "Gaussian",
    "Pixels",
    "Stability",
    "UniformBall",
    "accuracy_in_box",
    "bernstein",
    "betting",
    "certified_cosine",
    "certified_kendall",
    "certified_label",
    "certified_pixels",
    "certified_radius",
    "certified_topk",
    "certified_topk_overlap",
    "certified_words",
    "certify",
    "clipped",
    "cosine_in_box",
    "distance_at",
    "entry_bounds",
    "first_order_estimate",
    "gradient_bounds",
    "hoeffding",
    "input_x_gradient_bounds",
    "integrated_gradients_bounds",
    "kendall_in_box",
    "largest_loss",
    "lens_in_box",
    "logit_bounds",
    "lost_volume",
    "minimal_smoothing_radius",
    "normalized",
    "smallest_radius",
    "smoothed",
    "soft_stability",
    "sparsified",
    "stability_samples",
    "synonym_box",
    "vector_error",
    "worst_cosine",
]
