"""What to know about each score of change before a number of it is printed."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from attrlib.attributions import gradient, input_x_gradient
from attrlib.sensitivity.fidelity import infidelity, square_infidelity
from attrlib.sensitivity.moved import continuity
from attrlib.sensitivity.relative import relative_input_stability, relative_output_stability
from attrlib.sensitivity.sampled import average_sensitivity, local_lipschitz, max_sensitivity
from attrlib.types import Attribution

RADIUS = 8 / 255
"""Eight grey levels, in each pixel."""

SAMPLES = 10
"""Random images near each image."""

SIDE = 4
"""Of the squares that are hidden, in pixels."""


@dataclass(frozen=True, kw_only=True)
class SensitivityCard:
    """The judgement on a score that asks a model; what can be measured is measured instead.

    Attributes:
        title: Name of the function in `attrlib.sensitivity`.
        score: The function with its options.
        takes: Maps that it is meant for.
        unit: Of its values.
        punishes: What it makes too much of.
        forgives: What it does not see.
        use: When to use it.
    """

    title: str
    score: Callable[..., Tensor]
    takes: Attribution = gradient
    unit: str
    punishes: str
    forgives: str
    use: str


SENSITIVITY_CARDS: tuple[SensitivityCard, ...] = (
    SensitivityCard(
        title="max_sensitivity",
        score=functools.partial(max_sensitivity, radius=RADIUS, samples=SAMPLES),
        unit="share of the length of the map",
        punishes="A change of the length of a map whose direction stays, which no picture shows.",
        forgives="What an attack can do: the largest of some random changes is far below it.",
        use="To compare with papers. Beside an attack of the same radius; state the number of samples.",
    ),
    SensitivityCard(
        title="average_sensitivity",
        score=functools.partial(average_sensitivity, radius=RADIUS, samples=SAMPLES),
        unit="share of the length of the map",
        punishes="A change of the length of a map whose direction stays.",
        forgives="Everything but the usual case: one image nearby with quite another map does not show.",
        use="When the question is noise, not an adversary. It needs few samples.",
    ),
    SensitivityCard(
        title="local_lipschitz",
        score=functools.partial(local_lipschitz, radius=RADIUS, samples=SAMPLES),
        unit="units of the map per unit of pixel",
        punishes="Large maps: twice the logits, twice the value. It ranks neither networks nor methods.",
        forgives="What an attack can do. Random directions in many dimensions are rarely the steep ones.",
        use="To check a proven constant from below, on one network.",
    ),
    SensitivityCard(
        title="relative_input_stability",
        score=functools.partial(relative_input_stability, radius=RADIUS, samples=SAMPLES),
        unit="none",
        punishes="Entries of the map near zero, which nobody sees: rounding multiplies the value.",
        forgives="Nearly everything on images with black pixels, whose change is divided by ε and dwarfs "
        "that of the map.",
        use="Where features and maps stay away from zero. Not on images with a black background.",
    ),
    SensitivityCard(
        title="relative_output_stability",
        score=functools.partial(relative_output_stability, radius=RADIUS, samples=SAMPLES),
        unit="one per logit",
        punishes="Samples that hardly move the logits, whatever maps do. Entries of the map near zero.",
        forgives="Changes of a map that come with a change of the logits, even a small one.",
        use="Hardly as one number: the largest quotient is the one with the smallest denominator.",
    ),
    SensitivityCard(
        title="continuity",
        score=continuity,
        unit="units of the map per unit of pixel, added up",
        punishes="A map that moves along with the image, as it should. Large maps and large images.",
        forgives="Everything that is no shift to the left or right.",
        use="To see one method on one network along a path, as its authors do. Not to rank networks.",
    ),
    SensitivityCard(
        title="infidelity",
        score=functools.partial(infidelity, radius=RADIUS, samples=SAMPLES),
        unit="squared logits",
        punishes="Maps with a factor of the image, which are in another unit. Curvature of the network, "
        "which no map can follow.",
        forgives="What a map says of large changes, if the radius is small.",
        use="Beside every score of change: it asks the model whether the map is right.",
    ),
    SensitivityCard(
        title="square_infidelity",
        score=functools.partial(square_infidelity, size=SIDE),
        takes=input_x_gradient,
        unit="squared logits",
        punishes="Maps per unit of pixel, which are in another unit. Networks to which a black square is "
        "strange.",
        forgives="Everything within a square, whose entries count as a sum.",
        use="For maps that add up to the logit, such as `integrated_gradients`.",
    ),
)
"""One card for each score of `attrlib.sensitivity`."""
