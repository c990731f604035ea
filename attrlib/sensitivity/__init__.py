"""How much does a map change when the image changes a little? Scores by sampling.

`max_sensitivity` and `average_sensitivity`, `local_lipschitz`, `relative_input_stability` and
`relative_output_stability` look at random images near each image, `continuity` at moved ones; smaller is
more stable. `infidelity` and `square_infidelity` ask whether a map foretells how the logit changes. Each
takes `(attribution, model, x, y)` and gives one value per sample.

The largest of some samples is a lower bound on the largest change there is: an attack of the same radius
finds more. What is maximised or averaged is a function of its own, to be called with the points of an
attack: `relative_change`, `lipschitz_quotient`, `relative_input_quotient`, `relative_output_quotient`.
And a map that is the same for every image, whatever it shows, has the best value of every score but the
infidelities.

Points stay in [0, 1], as images do; the other libraries let them leave it. What changes is due to the
image: a stochastic attribution of this package gets the same noise of its own at an image and at all
points near it (one that is wrapped, and draws from torch's global generators, does not). Points go
through the model together; `batch_size` is the number of rows of one pass, as for attributions, and the
points do not depend on it. Use models in eval mode. None of the scores is differentiable.
"""

from attrlib.sensitivity.fidelity import infidelity, square_infidelity
from attrlib.sensitivity.moved import continuity
from attrlib.sensitivity.quotients import (
    lipschitz_quotient,
    relative_change,
    relative_input_quotient,
    relative_output_quotient,
)
from attrlib.sensitivity.relative import relative_input_stability, relative_output_stability
from attrlib.sensitivity.sampled import average_sensitivity, local_lipschitz, max_sensitivity

__all__ = [
    "average_sensitivity",
    "continuity",
    "infidelity",
    "lipschitz_quotient",
    "local_lipschitz",
    "max_sensitivity",
    "relative_change",
    "relative_input_quotient",
    "relative_input_stability",
    "relative_output_quotient",
    "relative_output_stability",
    "square_infidelity",
]
