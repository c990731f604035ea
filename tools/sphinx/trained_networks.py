r"""The directive `trained-networks`: how each shipped network was trained, read from its file.

Syntax, without body or options::

    ```{trained-networks}
    ```

A card for each recipe of which checkpoints are shipped, in the order of `attrlib.recipes.RECIPES`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from sphinx.util.docutils import SphinxDirective

from attrlib import checkpoints
from attrlib.models import TextCNN
from attrlib.recipes import RECIPES, Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docutils import nodes
    from sphinx.application import Sphinx

    from attrlib.checkpoints import Checkpoint


def text(recipe: Recipe, trained: Sequence[Checkpoint]) -> list[str]:
    """Return the card of a recipe as lines of MyST.

    Args:
        recipe: Says where the setting is from.
        trained: Its checkpoints, one for each seed.
    """
    made, weights = trained[0].recipe, sum(p.numel() for p in trained[0].model.parameters())
    loss, config = made["loss"], made["config"]
    activation = checkpoints.describe(trained[0].model.activation)
    terms = [f"{loss['weights'][name]:g} · `{call(term)}`" for name, term in loss["terms"].items()]
    ramps = [
        f"`{loss['terms'][name]['name']}` rising over the first {share:.0%} of the steps"
        for name, share in loss["ramps"].items()
    ]
    starts = {c.recipe["start"] for c in trained if c.recipe.get("start")}
    kind = "sentences" if isinstance(trained[0].model, TextCNN) else "images"
    minutes = sorted(c.recipe["seconds"] / 60 for c in trained)
    devices = {c.recipe["device"] for c in trained}
    rows = {
        "Loss": ", ".join([" + ".join(terms), *ramps]),
        "Attack": f"`{call(loss['attack'])}`" if loss.get("attack") else "",
        "Network": f"`{call(activation)}`, {weights:,} weights of a "
        f"`{type(trained[0].model).__name__}`",
        "First weights": ", ".join(f"`{start}`" for start in sorted(starts)) or "random",
        "Training": f"{config['epochs']} epochs of {made['data']['train'][0]:,} {kind}, batches of "
        f"{config['batch_size']}, AdamW with a learning rate of at most {config['lr']:g} (one cycle) "
        f"and weight decay {config['weight_decay']:g}",
        "Files": ", ".join(
            f"`{c.recipe['name']}-s{c.recipe['seed']}` ({c.metrics['test_accuracy']:.2%})"
            for c in trained
        )
        + f", with the accuracy on all test {kind}",
        "Time": f"{max(1, math.floor(minutes[0]))} to {math.ceil(minutes[-1])} minutes a seed, on "
        f"{', '.join(sorted(devices))}, one thread, beside other work",
    }
    return [
        f":::{{card}} `{recipe.name}`",
        recipe.source,
        "",
        *(f"- **{key}.** {value}" for key, value in rows.items() if value),
        ":::",
    ]


def call(part: object) -> str:
    """Return what was described by `attrlib.checkpoints.describe` as the call that makes it.

    Args:
        part: A description: a mapping with a name and options, or a plain value.
    """
    if isinstance(part, float):
        return f"{part:.4g}"
    if not isinstance(part, dict):
        return repr(part)
    options = [f"{key}={call(value)}" for key, value in part.items() if key != "name"]
    return f"{part['name']}({', '.join(options)})"


class TrainedNetworks(SphinxDirective):
    """Write one card for each recipe that was trained."""

    def run(self) -> list[nodes.Node]:
        """Return the cards."""
        lines: list[str] = []
        for name, recipe in RECIPES.items():
            if name in checkpoints.names():
                trained = [checkpoints.load(f"{name}-s{seed}") for seed in checkpoints.seeds(name)]
                lines += [*text(recipe, trained), ""]
        return self.parse_text_to_nodes("\n".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("trained-networks", TrainedNetworks)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
