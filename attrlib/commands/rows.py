"""What a command leaves behind, batch by batch: a table, figures and what they were made of.

A second call goes on after the last whole batch, with the same settings, weights and pictures only.
"""

import csv
import io
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from tqdm import tqdm

from attrlib import _files, data

_COMMANDS = ("attack", "certify", "report")  # whose folders are kept apart

Row = dict[str, str]
Figure = Callable[[Path], None]
"""Draws what belongs to one image into a file."""


class Batch(TypedDict):
    """Rows that are done, and the digest of what they were made of."""

    digest: str
    rows: list[Row]


@dataclass(frozen=True)
class Part:
    """The images of one batch, their names, and their numbers among all images."""

    number: int
    places: range
    names: Sequence[str]
    images: data.Images


def line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def class_name(images: data.Images, label: int) -> str:
    """A class as it is shown; its number where there is no name."""
    names = images.classes
    return _files.shown(names[label]) if label < len(names) else str(label)


@dataclass(frozen=True)
class Store:
    """The folder of a run.

    Args:
        out: The folder.
        command: Name of the command, and of its table.
        columns: Of the table.
        folder: Below `out`, with a file for each image.
        ending: Of these files.
    """

    out: Path
    command: str
    columns: Sequence[str]
    folder: str = "figures"
    ending: str = ".png"

    @property
    def table(self) -> Path:
        """The file of the table."""
        return self.out / f"{self.command}.csv"

    @property
    def figures(self) -> Path:
        """The folder of the figures, or of what else there is for each image."""
        return self.out / self.folder

    def figure(self, number: int, name: str) -> Path:
        """The file of one image."""
        stem = _files.short(Path(name).stem, limit=120)
        return self.figures / f"{number:04d}-{stem}{self.ending}"

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep the folder for this run alone, and tidy up what a killed one left half-written.

        Raises:
            ValueError: If another run writes it now.
            OSError: If it cannot be written.
        """
        with _files.claimed(self.table), _files.claimed(self.figures / "all"):
            for folder in (self.out, self.figures):
                _files.sweep(folder)
            yield

    def run(
        self,
        names: Sequence[str],
        images: data.Images,
        settings: Mapping[str, Any],
        *,
        size: int,
        steps: Callable[[int], int],
        unit: str,
        make: "Callable[[Part, tqdm[Any]], tuple[list[Row], list[Figure]]]",
    ) -> list[Row]:
        """Return the rows of all images; from an earlier call where the contents are the same.

        Args:
            names: Of the images.
            images: The images.
            settings: All that decides the rows beside them, ready for JSON.
            size: Images of a batch.
            steps: By how much the progress bar moves for a batch of so many images.
            unit: Of these steps.
            make: Gives the rows of a batch, and what draws the figure of each of its images.

        Raises:
            ValueError: If the folder holds another run, or a file is not as it was written.
            OSError: If a file cannot be written; the batches before are kept.
        """
        done = self._resume(settings)
        rows: list[Row] = []
        batches = [range(i, min(i + size, len(names))) for i in range(0, len(names), size)]
        passed = 0
        total = sum(steps(len(places)) for places in batches)
        with tqdm(total=total, desc=self.command, unit=unit) as bar:
            for number, places in enumerate(batches):
                part = Part(number, places, [names[i] for i in places], images[list(places)])
                labels = [class_name(part.images, y) for y in part.images.y.tolist()]
                made_of = _files.digest(part.images.x, part.images.y, *part.names, *labels)
                figures = [self.figure(i, names[i]) for i in places]
                batch = done.get(str(number))
                if not (batch and batch["digest"] == made_of and all(map(Path.exists, figures))):
                    if done.pop(str(number), None):  # its figures are written over
                        self._keep(settings, done)
                    made, draw = make(part, bar)
                    for path, figure in zip(figures, draw, strict=True):
                        self._draw(path, figure)
                    batch = {"digest": made_of, "rows": made}
                    done[str(number)] = batch
                    self._keep(settings, done)
                passed += steps(len(places))
                bar.update(passed - bar.n)  # from an earlier call, or not needed
                rows += batch["rows"]
                self._write_table(rows)
        return rows

    def _draw(self, path: Path, figure: Figure) -> None:
        """Draw a figure; one that cannot be drawn is named, and the run goes on. A full disk ends it."""
        try:
            figure(path)
        except OSError:
            raise
        except Exception as error:  # of fonts and formulas: the numbers do not depend on them
            said = f"attrlib {self.command}: no figure {path}: {line(error)}"
            tqdm.write(said, file=sys.stderr)

    @property
    def _settings(self) -> Path:
        return self.out / "settings.json"

    @property
    def _done(self) -> Path:
        return self.out / f"{self.command}.resume"

    def _resume(self, settings: Mapping[str, Any]) -> dict[str, Batch]:
        """The batches that earlier calls finished in this folder, by number."""
        for other in _COMMANDS:
            if other != self.command and (self.out / f"{other}.resume").exists():
                raise ValueError(
                    f"Expected --out {self.out} to be new or of the same run, got one of "
                    f"attrlib {other}; choose another folder"
                )
        done = _load(self._done)
        for number, batch in done.items():
            if not (isinstance(batch, dict) and {"digest", "rows"} <= batch.keys()):
                raise ValueError(
                    f"Expected {self._done} as it was written, got no rows at {number!r}"
                )
        if done:
            stored = _load(self._settings)
            new = json.loads(json.dumps(settings))
            changed = [name for name in new if not _alike(stored.get(name), new[name])]
            if changed:
                raise ValueError(
                    f"Expected --out {self.out} to be new or of the same run, got another "
                    f"{', '.join(changed)}; choose another folder"
                )
        self._check_table([row for batch in done.values() for row in batch["rows"]])
        return done

    def _keep(self, settings: Mapping[str, Any], done: Mapping[str, Batch]) -> None:
        """Write the batches that are done; the settings first, which hold as soon as there are rows."""
        text = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False)
        write(self._settings, text.encode("utf-8", "backslashreplace"))
        write(self._done, json.dumps(done).encode())

    def _write_table(self, rows: Iterable[Row]) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write(self.table, text.getvalue().encode())

    def _check_table(self, known: Sequence[Row]) -> None:
        """Raise unless the table holds nothing but rows that this folder knows of."""
        if not self.table.exists():
            return
        with self.table.open(newline="", encoding="utf-8") as file:
            try:
                found = list(csv.reader(file, strict=True))
            except (UnicodeDecodeError, csv.Error) as error:
                raise ValueError(
                    f"Expected {self.table} to be a table in UTF-8, got {error}"
                ) from error
        lines = {tuple(row.get(name) for name in self.columns) for row in known}
        if found[:1] != [list(self.columns)] or any(
            tuple(row) not in lines for row in found[1:] if row
        ):
            raise ValueError(
                f"Expected {self.table} as it was written, got other columns or rows, such as a "
                "spreadsheet leaves; move the file away, and the same command writes it again"
            )


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with _files.whole(path) as partial:
        partial.write_bytes(content)


def _load(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"Expected {path} as it was written, got {error}") from error


def _alike(stored: Any, value: Any) -> bool:
    """Equal; numbers of a model, which another machine rounds in another way, nearly so."""
    lists = isinstance(stored, list) and isinstance(value, list)
    if not (lists and value and all(isinstance(v, float) for v in (*stored, *value))):
        return bool(stored == value)
    near = 1e-3 * max((abs(v) for v in value if math.isfinite(v)), default=0)
    pairs = zip(stored, value, strict=False)
    return len(stored) == len(value) and all(
        s == v or abs(s - v) <= near or (math.isnan(s) and math.isnan(v)) for s, v in pairs
    )
