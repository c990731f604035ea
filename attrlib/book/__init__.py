"""What the notebooks of the book need and nothing else does.

- `budget` picks a small or a full amount of work,
- `glue` hands a number to the text,
- `results` reads a table the benchmark wrote,
- `board` turns the table of recipes: a row for each network,
- `source` shows the code of an object of this package,
- `slider` makes a figure with a slider that needs no kernel,
- `check` tests a reader's answer to an exercise.
"""

from attrlib.book._board import board
from attrlib.book._budget import budget
from attrlib.book._exercises import WrongAnswer, check, exercises
from attrlib.book._glue import glue
from attrlib.book._results import PROVENANCE, results
from attrlib.book._slider import Slider, slider
from attrlib.book._source import source

__all__ = [
    "PROVENANCE",
    "Slider",
    "WrongAnswer",
    "board",
    "budget",
    "check",
    "exercises",
    "glue",
    "results",
    "slider",
    "source",
]
