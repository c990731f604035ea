"""Sentences as numbers of words: which are real, what may stand in a word's place, and how many may go."""

import math
from numbers import Integral, Real

import torch
from torch import Tensor

PADDING = 0  # stands after the last word of a sentence


def check_ids(ids: Tensor, vocabulary: int) -> None:
    """Raise unless the tensor holds word numbers (n, words), with padding after the last word only."""
    if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
        kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        raise TypeError(f"Expected ids to be an int64 tensor, got {kind}")
    if ids.ndim != 2 or ids.shape[1] == 0:
        raise ValueError(f"Expected ids of shape (n, words), got {tuple(ids.shape)}")
    if len(ids) == 0:
        return
    low, high = (int(value) for value in torch.aminmax(ids))
    if low < 0 or high >= vocabulary:
        raise ValueError(f"Expected ids from 0 to {vocabulary - 1}, got {low if low < 0 else high}")
    real = ids != PADDING
    if not bool(real[:, 0].all()):
        empty = int((~real[:, 0]).sum())
        raise ValueError(f"Expected ids with a word first, got {empty} rows that begin with padding")
    if bool((real[:, 1:] & ~real[:, :-1]).any()):
        raise ValueError("Expected ids with padding after the last word only, got a word after it")


def check_table(table: Tensor) -> None:
    """Raise unless the tensor holds substitutes (vocabulary, m), filled up with zeros."""
    if not isinstance(table, Tensor) or table.dtype != torch.int64:
        kind = table.dtype if isinstance(table, Tensor) else type(table).__name__
        raise TypeError(f"Expected table to be an int64 tensor, got {kind}")
    if table.ndim != 2 or len(table) == 0:
        raise ValueError(
            f"Expected table of substitutes (vocabulary, m), got shape {tuple(table.shape)}"
        )
    if table.numel() == 0:
        return
    low, high = (int(value) for value in torch.aminmax(table))
    if low < 0 or high >= len(table):
        raise ValueError(
            f"Expected table of word numbers from 0 to {len(table) - 1}, "
            f"got {low if low < 0 else high}"
        )
    if bool((table[PADDING] != PADDING).any()):
        raise ValueError("Expected table without substitutes for padding, got some in row 0")


def check_budget(budget: float) -> None:
    """Raise unless the budget is a number of words, or a share of them as a fraction."""
    known = isinstance(budget, Real) and not isinstance(budget, bool) and math.isfinite(budget)
    if known and (budget >= 1 if isinstance(budget, Integral) else 0 < budget < 1):
        return
    raise ValueError(
        "Expected budget to be a number of words >= 1, or a share strictly between 0 and 1, "
        f"got {budget!r}"
    )


def allowed(ids: Tensor, budget: float) -> Tensor:
    """How many words of each sentence may be replaced: the number, or at most the share, rounded down."""
    words = (ids != PADDING).sum(1)
    if isinstance(budget, Integral):
        return words.clamp(max=int(budget))
    # A share such as .29 of 100 is 28.999… in binary.
    return (words * float(budget) + 1e-9).floor().long()


def options(ids: Tensor, table: Tensor) -> Tensor:
    """The substitutes of each word (n, words, m), each once, never the word itself, with zeros elsewhere."""
    found = table.to(ids.device)[ids]
    again = (found[..., :, None] == found[..., None, :]).tril(-1).any(-1)
    return found.masked_fill(again | (found == ids[..., None]), PADDING)
