"""A user's files for tests of commands: a network, a folder of pictures, and what a call said."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

SEED = [0]


def start() -> None:
    """Set a user's default precision, and the first weights of `small_net`."""
    torch.set_default_dtype(torch.float32)
    SEED[0] = 0


def small_net(*hidden: nn.Module) -> nn.Module:
    """A network for images of 8×8 in colour, trained again whenever SEED changes."""
    with torch.random.fork_rng():
        torch.manual_seed(SEED[0])
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), *hidden, nn.Linear(16, 3))


def picture(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    """Write a picture of noise; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    with path.open("wb") as file:
        Image.fromarray(pixels).save(file, "PNG")


def pictures(folder: Path, names: Sequence[str]) -> Path:
    """Write a picture for each name, and return the folder."""
    for seed, name in enumerate(names):
        picture(folder / name, seed)
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    """A table, without the column that no two calls share."""
    with path.open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def complaint(capsys: pytest.CaptureFixture[str], *, command: str) -> str:
    """The one line of a call that failed."""
    said = capsys.readouterr().err.splitlines()
    (text,) = [line for line in said if line.startswith(f"attrlib {command}: ")]
    return text
