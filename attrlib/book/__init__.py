"""What the notebooks of the book need and nothing else does.

- `budget` picks a small or a full amount of work,
- `glue` hands a number to the text,
- `claim` enters what was measured about a published claim into the ledger,
- `results` reads a table the benchmark wrote,
- `ledger` reads what all chapters entered, `claims` the list, `verdict` judges;
  `difference` is an effect made of two rows,
- `board` turns the table of recipes: a row for each network; `seeds_apart` compares two recipes in it,
- `short_runs` turns the table of short runs; `standard_errors` compares two of them,
- `told_apart` and `orders_agree` say what its orders are worth,
- `source` shows the code of an object of this package,
- `slider` makes a figure with a slider that needs no kernel,
- `check` tests a reader's answer to an exercise.
"""

from attrlib.book._board import board, seeds_apart
from attrlib.book._budget import budget
from attrlib.book._claims import claim, claims, difference, ledger, verdict
from attrlib.book._exercises import WrongAnswer, check, exercises
from attrlib.book._glue import glue
from attrlib.book._orders import orders_agree, told_apart
from attrlib.book._results import PROVENANCE, results
from attrlib.book._runs import short_runs, standard_errors
from attrlib.book._slider import Slider, slider
from attrlib.book._source import source

__all__ = [
    "PROVENANCE",
    "Slider",
    "WrongAnswer",
    "board",
    "budget",
    "check",
    "claim",
    "claims",
    "difference",
    "exercises",
    "glue",
    "ledger",
    "orders_agree",
    "results",
    "seeds_apart",
    "short_runs",
    "slider",
    "source",
    "standard_errors",
    "told_apart",
    "verdict",
]
