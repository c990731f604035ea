"""What `python -m attrlib attack` leaves behind: a table, a figure for each image, and the settings."""

import csv
import io
import json
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from attrlib import _files, metrics, plotting
from attrlib.maps import to_heatmap

_SCORES = {
    "topk_intersection": "top-k intersection",
    "kendall": "Kendall's τ",
    "cosine": "cosine",
    "center_shift": "shift of the centre in pixels",
}
TABLE = "attack.csv"
_SETTINGS, _DONE = "settings.json", "attack.resume"
_COLUMNS = (
    "name",
    "label",
    "prediction",
    "prediction_kept",
    "changed",
    *_SCORES,
    "eps",
    "largest_change",
    "note",
    "seconds",
)


Row = dict[str, str]


class Batch(TypedDict):
    """Rows that are done, and the digest of what they were made of."""

    digest: str
    rows: list[Row]


def line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def scores(a: Tensor, b: Tensor, *, k: int) -> dict[str, Tensor]:
    """Scores of the maps before and after, one value per image each; NaN where a map is not finite."""
    known = torch.stack([m.flatten(1).isfinite().all(1) for m in (a, b)]).all(0)
    found = {name: a.new_full((len(a),), torch.nan) for name in _SCORES}
    if bool(known.any()):
        heat, other = to_heatmap(a[known]), to_heatmap(b[known])
        values = (
            metrics.topk_intersection(heat, other, k=k),
            metrics.kendall(heat, other),
            metrics.cosine(a[known], b[known]),
            metrics.center_shift(heat, other),
        )
        for name, value in zip(_SCORES, values, strict=True):
            found[name][known] = value.to(a.dtype)
    return found


def resume(out: Path, settings: Mapping[str, Any]) -> dict[str, Batch]:
    """The batches that earlier calls finished in this folder, by number.

    Raises:
        ValueError: If they are of other settings, or a file is not as it was written.
    """
    done = _load(out / _DONE)
    for number, batch in done.items():
        if not (isinstance(batch, dict) and {"digest", "rows"} <= batch.keys()):
            raise ValueError(f"Expected {out / _DONE} as it was written, got no rows at {number!r}")
    if done:
        stored = _load(out / _SETTINGS)
        new = json.loads(json.dumps(settings))
        changed = [name for name in new if not _alike(stored.get(name), new[name])]
        if changed:
            raise ValueError(
                f"Expected --out {out} to be new or of the same run, got another "
                f"{', '.join(changed)}; choose another folder"
            )
    _check_table(out / TABLE, [row for batch in done.values() for row in batch["rows"]])
    return done


def keep(out: Path, settings: Mapping[str, Any], done: Mapping[str, Batch]) -> None:
    """Write the batches that are done; the settings first, which hold as soon as there are rows."""
    text = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False)
    _write(out / _SETTINGS, text.encode("utf-8", "backslashreplace"))
    _write(out / _DONE, json.dumps(done).encode())


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write the rows in their order."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue().encode())


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
    near = 1e-3 * max(map(abs, value))
    pairs = zip(stored, value, strict=False)
    return len(stored) == len(value) and all(s == v or abs(s - v) <= near for s, v in pairs)


def _check_table(table: Path, known: Sequence[Row]) -> None:
    """Raise unless a table holds nothing but rows that this folder knows of."""
    if not table.exists():
        return
    with table.open(newline="", encoding="utf-8") as file:
        try:
            found = list(csv.reader(file, strict=True))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"Expected {table} to be a table in UTF-8, got {error}") from error
    lines = {tuple(row[name] for name in _COLUMNS) for row in known}
    if found[:1] != [list(_COLUMNS)] or any(tuple(row) not in lines for row in found[1:] if row):
        raise ValueError(
            f"Expected {table} as it was written, got other columns or rows, such as a spreadsheet "
            "leaves; move the file away, and the same command writes it again"
        )


def _write(path: Path, content: bytes) -> None:
    with _files.whole(path) as partial:
        partial.write_bytes(content)


def draw(
    path: Path,
    x: Tensor,
    z: Tensor,
    maps: Sequence[Tensor],
    row: Row,
    *,
    amplify: float,
) -> None:
    """Draw image, perturbed image, their difference, and the map of each, with the scores."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 5)
    plotting.show_image(x, ax=axes[0], title="image")
    plotting.show_image(z, ax=axes[1], title="perturbed")
    grey = (0.5 + amplify * (z - x)).clamp(0, 1)
    plotting.show_image(grey, ax=axes[2], title=f"difference × {amplify:g}, grey: none")
    # One scale for both maps. What is not finite is drawn as zero; the scores are then undefined.
    heat = [to_heatmap(m[None].nan_to_num(0, 0, 0))[0] for m in maps]
    limit = plotting.shared_limit(*heat)
    plotting.show_heatmap(heat[0], ax=axes[3], limit=limit, title="map before")
    plotting.show_heatmap(heat[1], ax=axes[4], limit=limit, title="map after")
    kept = "kept" if row["prediction_kept"] == "True" else "changed"
    numbers = ", ".join(f"{text} {float(row[name]):.2f}" for name, text in _SCORES.items())
    title = f"{_brief(row['name'])} ({_brief(row['label'])}): prediction {kept}\n{numbers}"
    plotting.plain(figure.suptitle("", fontsize=10), title)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"Glyph \d+ .* missing from", UserWarning
        )  # a box instead
        figure.savefig(content, format="png", dpi=110)
    _write(path, content.getvalue())


def _brief(name: str) -> str:
    """A name that leaves room for the rest of the title: its end, where files differ."""
    name = " ".join(name.split())
    return name if len(name) <= 60 else f"…{name[-59:]}"


def summarize(rows: Sequence[Row], table: Path) -> None:
    """Print the means, which images could not be attacked, and where everything is."""
    kept = sum(row["prediction_kept"] == "True" for row in rows)
    changed = sum(row["changed"] == "True" for row in rows)
    print(f"{len(rows)} images; prediction kept on {kept}, image changed on {changed}")
    left = [f"{row['name']} ({row['note']})" for row in rows if row["note"]]
    if left:
        more = f" and {len(left) - 5} more" if len(left) > 5 else ""
        print(f"  {len(left)} left unchanged: {', '.join(left[:5])}{more}")
    for name in _SCORES:
        values = torch.tensor([float(row[name]) for row in rows], dtype=torch.float64)
        print(f"  {name:18s} mean {float(values.nanmean()):.3f}")
    print(f"{table} and {table.parent / 'figures'}")
