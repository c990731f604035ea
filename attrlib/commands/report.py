"""What `python -m attrlib attack` leaves behind: a table, a figure for each image, and the settings."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
_COLUMNS = (
    "name",
    "label",
    "prediction",
    "prediction_kept",
    "changed",
    *_SCORES,
    "eps",
    "largest_change",
    "seconds",
)


def scores(a: Tensor, b: Tensor, *, k: int) -> dict[str, Tensor]:
    """Scores of the maps before and after, one value per image each."""
    heat, other = to_heatmap(a), to_heatmap(b)
    values = (
        metrics.topk_intersection(heat, other, k=k),
        metrics.kendall(heat, other),
        metrics.cosine(a, b),
        metrics.center_shift(heat, other),
    )
    return dict(zip(_SCORES, values, strict=True))


def resume(out: Path, settings: Mapping[str, Any], table: Path) -> dict[str, dict[str, str]]:
    """The rows that are already there, by name; starts the folder if it is new."""
    (out / "figures").mkdir(parents=True, exist_ok=True)
    note = out / "settings.json"
    text = json.dumps(settings, indent=1, sort_keys=True, ensure_ascii=False)
    if not note.exists():
        _write(note, text.encode())
    stored = json.loads(note.read_text())
    changed = [name for name, value in json.loads(text).items() if stored.get(name) != value]
    if changed:
        raise ValueError(
            f"Expected --out {out} to be new or of the same run, got another "
            f"{', '.join(changed)}; choose another folder"
        )
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def write_table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    """Write the rows in their order."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    _write(path, text.getvalue().encode())


def _write(path: Path, content: bytes) -> None:
    with _files.whole(path) as partial:
        partial.write_bytes(content)


def draw(
    path: Path,
    x: Tensor,
    z: Tensor,
    maps: Sequence[Tensor],
    row: Mapping[str, object],
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
    # One scale for both maps.
    heat = [to_heatmap(m[None])[0] for m in maps]
    limit = plotting.shared_limit(*heat)
    plotting.show_heatmap(heat[0], ax=axes[3], limit=limit, title="map before")
    plotting.show_heatmap(heat[1], ax=axes[4], limit=limit, title="map after")
    kept = "kept" if row["prediction_kept"] else "changed"
    numbers = ", ".join(f"{text} {float(str(row[name])):.2f}" for name, text in _SCORES.items())
    figure.suptitle(f"{row['name']} ({row['label']}): prediction {kept}\n{numbers}", fontsize=10)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=110)
    _write(path, content.getvalue())


def summarize(rows: Mapping[str, Mapping[str, str]], table: Path) -> None:
    """Print the means, and where everything is."""
    n = len(rows)
    kept = sum(row["prediction_kept"] == "True" for row in rows.values())
    changed = sum(row["changed"] == "True" for row in rows.values())
    print(f"{n} images; prediction kept on {kept}, image changed on {changed}")
    for name in _SCORES:
        values = torch.tensor([float(row[name]) for row in rows.values()], dtype=torch.float64)
        print(f"  {name:18s} mean {float(values.nanmean()):.3f}")
    print(f"{table} and {table.parent / 'figures'}")
