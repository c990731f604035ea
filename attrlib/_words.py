"""Sentences as numbers of words: what may stand in the place of each, and how many may be replaced."""

from numbers import Integral
from typing import Any

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
        raise ValueError(
            f"Expected ids with a word first, got {empty} rows that begin with padding"
        )
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


def check_budget(budget: Any) -> None:
    """Raise unless the budget is a number of words, or a share of them as a fraction."""
    share = isinstance(budget, float) and 0 < budget < 1
    if not (share or (_whole(budget) and budget >= 1)):
        raise ValueError(
            "Expected budget to be a number of words >= 1, or a share strictly between 0 and 1, "
            f"got {budget!r}"
        )


def allowed(ids: Tensor, budget: float) -> Tensor:
    """How many words of each sentence may be replaced: the number, or at most the share of its words."""
    words = (ids != PADDING).sum(1)
    if _whole(budget):
        return words.clamp(max=int(budget))
    # A share such as .29 of 100 is 28.999… in binary.
    return (words * float(budget) + 1e-9).floor().long()


def options(ids: Tensor, table: Tensor) -> Tensor:
    """The substitutes of each word (n, words, m), each once, never itself; zeros elsewhere."""
    again = (table[:, :, None] == table[:, None, :]).tril(-1).any(2)
    own = torch.arange(len(table), device=table.device)[:, None]
    return table.masked_fill(again | (table == own), PADDING).to(ids.device)[ids]


def _whole(budget: Any) -> bool:
    return isinstance(budget, Integral) and not isinstance(budget, bool)
