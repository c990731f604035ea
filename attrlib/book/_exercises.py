"""Automatic checks of the readers' answers; one module of `attrlib.book.checks` per chapter."""

import importlib
import inspect
import math
import pkgutil
from collections.abc import Callable
from typing import NoReturn

import torch

from attrlib.book import checks


class WrongAnswer(Exception):
    """An answer to an exercise is not right yet; the message says what was tried and a hint."""

    def _render_traceback_(self) -> list[str]:
        """Let Jupyter show the message alone: the reader's mistake is not in this file."""
        return [f"{type(self).__name__}: {self}"]


def exercises() -> dict[str, Callable[[object], str]]:
    """Return each exercise, named "chapter-stem/exercise-name", with the function that checks it.

    Each public function defined in a module of `attrlib.book.checks` checks one exercise. It takes
    the answer, raises `WrongAnswer` (through `run` or one of the `expect…`), and returns one
    sentence for the reader who is right.
    """
    found: dict[str, Callable[[object], str]] = {}
    for info in pkgutil.iter_modules(checks.__path__):
        module = importlib.import_module(f"{checks.__name__}.{info.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                found[f"{info.name}/{name}".replace("_", "-")] = function
    return found


def check(exercise: str, answer: object) -> None:
    """Check an answer and print one line if it is right.

    Args:
        exercise: "chapter-stem/exercise-name".
        answer: The reader's function or value.

    Raises:
        WrongAnswer: If the answer is not right; the message says what was tried and gives a hint.
        ValueError: If there is no such exercise; the message lists those of the chapter.
    """
    known = exercises()
    if exercise not in known:
        chapter = [name for name in known if name.split("/")[0] == exercise.split("/")[0]]
        names = ", ".join(chapter or known) or "none"
        raise ValueError(f"Expected exercise to be one of: {names}; got {exercise!r}")
    print(f"Correct. {known[exercise](answer)}")


def wrong(*, tried: str, expected: str, got: object, hint: str) -> NoReturn:
    """Raise `WrongAnswer` with what was tried, what should come out, what came out, and a hint."""
    facts = {"Tried:": tried, "Expected:": expected, "Got:": got, "Hint:": hint}
    lines = [f"  {label:<9} {text}" for label, text in facts.items()]
    raise WrongAnswer("\n".join(["not yet.", *lines]))


def expect(condition: bool, *, tried: str, expected: str, got: object, hint: str) -> None:
    """Raise `WrongAnswer` unless the condition holds."""
    if not condition:
        wrong(tried=tried, expected=expected, got=got, hint=hint)


def run(answer: object, *args: object, tried: str, hint: str, **options: object) -> object:
    """Call the reader's function and return its result; its exceptions become `WrongAnswer`."""
    if not callable(answer):
        got = f"{answer!r} ({type(answer).__name__})"
        wrong(tried=tried, expected="a function", got=got, hint=hint)
    try:
        return answer(*args, **options)
    except NotImplementedError as error:
        raise WrongAnswer(f"not written yet. {error}") from None
    except Exception as error:  # a reader's function may raise anything
        got = f"{type(error).__name__}: {error}"
        wrong(tried=tried, expected="a result without an error", got=got, hint=hint)


def expect_number(got: object, right: float, *, tried: str, hint: str) -> None:
    """Raise `WrongAnswer` unless `got` is this number, or a tensor with it as its only entry.

    Args:
        got: What the reader's code returned.
        right: The number, finite or NaN. A millionth of it, or of 1 if it is smaller, does not matter.
        tried: What was computed, in words.
        hint: What to look at when it is wrong.
    """
    value = got.item() if isinstance(got, torch.Tensor) and got.numel() == 1 else got
    same = isinstance(value, int | float) and (
        math.isnan(value) if math.isnan(right) else abs(value - right) <= 1e-6 * max(1, abs(right))
    )
    expect(bool(same), tried=tried, expected=f"{right:.6g}", got=got, hint=hint)


def expect_close(
    got: object, expected: torch.Tensor, *, tried: str, hint: str, tolerance: float = 1e-5
) -> None:
    """Raise `WrongAnswer` unless `got` is a tensor (or number) of the expected shape and values.

    Args:
        got: What the reader's code returned; a plain number counts as a tensor without axes.
        expected: The right values.
        tried: What was computed, in words.
        hint: What to look at when it is wrong.
        tolerance: Largest difference allowed, relative to the largest expected absolute value.
    """
    if isinstance(got, int | float) and not isinstance(got, bool):
        got = torch.tensor(got, dtype=expected.dtype)
    if not isinstance(got, torch.Tensor):
        wrong(tried=tried, expected="a tensor", got=type(got).__name__, hint=hint)
    want, have = tuple(expected.shape), tuple(got.shape)
    expect(want == have, tried=tried, expected=f"shape {want}", got=f"shape {have}", hint=hint)
    wanted, values = expected.detach().double().cpu(), got.detach().double().cpu()
    off = (values - wanted).abs()
    scale = max(wanted.abs().max().item(), 1e-12)
    if bool(off.isnan().any()) or off.max().item() > tolerance * scale:
        worst = int(off.nan_to_num(nan=torch.inf).argmax())
        at = "" if off.dim() == 0 else f" at flat index {worst}, where they differ most"
        right, value = wanted.flatten()[worst].item(), values.flatten()[worst].item()
        wrong(tried=tried, expected=f"{right:.5g}{at}", got=f"{value:.5g}", hint=hint)
