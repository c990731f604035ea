"""What the notebooks of the book need and nothing else does.

- `budget` picks a small or a full amount of work,
- `glue` hands a number to the text,
- `claim` enters what was measured about a published claim into the ledger,
- `results` reads a table the benchmark wrote,
- `ledger` reads what all chapters entered, `claims` the list, `verdict` judges;
  `difference` is an effect made of two rows,
- `board` turns the table of recipes: a row for each network; `with_ends` reads a score and its interval
  in it, and `seeds_apart` compares two recipes,
- `short_runs` turns the table of short runs; `standard_errors` compares two of them,
- `told_apart`, `tied_pairs`, `orders_agree` and `compare_orders` say what its orders are worth,
- `take` and `take_by_mean` return the recipe that leads by a need, a `Choice`; `choice_table` shows many,
- `source` shows the code of an object of this package,
- `slider` makes a figure with a slider that needs no kernel,
- `check` tests a reader's answer to an exercise.
"""

from attrlib.book._board import board, seeds_apart, with_ends
from attrlib.book._budget import budget
from attrlib.book._choices import Choice, choice_table, take, take_by_mean
from attrlib.book._claims import claim, claims, difference, ledger, verdict
from attrlib.book._exercises import WrongAnswer, check, exercises
from attrlib.book._glue import glue
from attrlib.book._orders import compare_orders, orders_agree, tied_pairs, told_apart
from attrlib.book._results import PROVENANCE, results
from attrlib.book._runs import short_runs, standard_errors
from attrlib.book._slider import Slider, slider
from attrlib.book._source import source

__all__ = [
    "PROVENANCE",
    "Choice",
    "Slider",
    "WrongAnswer",
    "board",
    "budget",
    "check",
    "choice_table",
    "claim",
    "claims",
    "compare_orders",
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
    "take",
    "take_by_mean",
    "tied_pairs",
    "told_apart",
    "verdict",
    "with_ends",
]
