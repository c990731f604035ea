"""How much work a notebook does: little in tests, all of it for the published pages."""

import os
from typing import TypeVar

Value = TypeVar("Value")


def budget(*, quick: Value, full: Value) -> Value:
    """Return `quick` or `full`, as the environment variable ATTRLIB_BUDGET says.

    A chapter has one code path; only amounts (images, steps, samples) go through this function.

    Args:
        quick: The amount for a test run and for readers; taken when the variable is not set.
        full: The amount for the published outputs.

    Returns:
        One of the two arguments, unchanged.

    Raises:
        ValueError: If ATTRLIB_BUDGET is neither "quick" nor "full".

    >>> budget(quick=64, full=1000) in (64, 1000)
    True
    """
    choice = os.environ.get("ATTRLIB_BUDGET", "quick")
    if choice == "quick":
        return quick
    if choice == "full":
        return full
    raise ValueError(f"Expected ATTRLIB_BUDGET to be 'quick' or 'full', got {choice!r}")
