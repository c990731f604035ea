"""Which class of a network each folder of pictures means."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from attrlib import data

_FEW = 5  # names in a message


@dataclass(frozen=True)
class Meaning:
    """What labels mean to the network.

    Args:
        classes: Class of the network for each label; None if nobody knows.
        names: Of classes of the network, as far as they are known.
    """

    classes: Tensor | None
    names: dict[int, str]

    def name(self, number: int) -> str:
        """A class as it is shown."""
        return self.names.get(number, f"class {number}")


def meaning(images: data.Images, path: Path | None, *, folders: bool, outputs: int) -> Meaning:
    """Return what labels mean.

    Args:
        images: The pictures, with the names of their labels.
        path: File with classes; None where there is none.
        folders: Whether labels are names of folders, which by themselves say nothing to a network.
        outputs: Classes of the network.

    Raises:
        ValueError: If the file cannot be understood, does not name a folder, or names a class that the
            network does not have.
        FileNotFoundError: If there is no file.
    """
    if path is None:
        fits = not folders and outputs == len(images.classes)
        names = dict(enumerate(images.classes)) if fits else {}
        return Meaning(torch.arange(outputs) if fits else None, names)
    known = _read(path)
    missing = [name for name in images.classes if name not in known]
    if missing:
        raise ValueError(
            f"Expected --classes {path} to name each of {len(images.classes)} folders, got none for "
            f"{_listed(missing)}"
        )
    beyond = [name for name in images.classes if not 0 <= known[name] < outputs]
    if beyond:
        raise ValueError(
            f"Expected --classes {path} with classes from 0 to {outputs - 1}, as the network has them, "
            f"got {known[beyond[0]]} for {beyond[0]!r}"
        )
    classes = torch.tensor([known[name] for name in images.classes])
    return Meaning(classes, {number: name for name, number in reversed(known.items())})


def _read(path: Path) -> dict[str, int]:
    """Names and classes: a JSON object, or a name a line in the order of the network's classes."""
    if not path.is_file():
        raise FileNotFoundError(f"Expected --classes to be a file, got {path}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        found = json.loads(text) if path.suffix.lower() == ".json" else None
    except ValueError as error:  # of JSON, or of bytes that are no UTF-8
        raise ValueError(
            f"Expected --classes {path} to hold names in UTF-8, got {error}"
        ) from error
    if found is None:
        lines = [line.strip() for line in text.splitlines()]
        while lines and not lines[-1]:
            lines.pop()
        return {name: i for i, name in reversed(list(enumerate(lines))) if name}
    whole = isinstance(found, dict) and all(type(value) is int for value in found.values())
    if not whole:
        raise ValueError(
            f"Expected --classes {path} to be an object of names and whole numbers, such as "
            '{"cat": 281}, got something else'
        )
    return dict(found)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(map(repr, names[:_FEW])) + more
