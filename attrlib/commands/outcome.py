"""What `python -m attrlib attack` says of an image: a row of scores, and a figure."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from attrlib import attacks, metrics, plotting
from attrlib.commands import drawing
from attrlib.commands.rows import Row, Store
from attrlib.maps import to_heatmap

_SCORES = {
    "topk_intersection": "top-k intersection",
    "kendall": "Kendall's τ",
    "cosine": "cosine",
    "center_shift": "shift of the centre in pixels",
}
COLUMNS = (
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


def scores(a: Tensor, b: Tensor, *, k: int, window: int | None = None) -> dict[str, Tensor]:
    """Scores of the maps before and after, one value per image each; NaN where a map is not finite.

    With a window LENS recall is among them.
    """
    known = torch.stack([m.flatten(1).isfinite().all(1) for m in (a, b)]).all(0)
    names = (*_SCORES, "lens_recall") if window is not None else tuple(_SCORES)
    empty = a.new_full((len(a),), torch.nan)
    if not bool(known.any()):
        return dict.fromkeys(names, empty)
    heat, other = to_heatmap(a[known]), to_heatmap(b[known])
    values = {
        "topk_intersection": metrics.topk_intersection(heat, other, k=k),
        "kendall": metrics.kendall(heat, other),
        "cosine": metrics.cosine(a[known], b[known]),
        "center_shift": metrics.center_shift(heat, other),
    }
    if window is not None:
        values["lens_recall"] = metrics.lens_recall(heat, other, k=k, window=window)
    return {name: empty.masked_scatter(known, values[name].to(a.dtype)) for name in names}


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
    figure = drawing.canvas(12, 3.2)
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
    name = drawing.brief(row["name"])
    drawing.save(
        figure, path, title=f"{name} ({drawing.brief(row['label'])}): prediction {kept}\n{numbers}"
    )


def summarize(rows: Sequence[Row], store: Store) -> None:
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
    print(f"{store.table} and {store.figures}")


def said(warning: Warning | str, names: Sequence[str]) -> str:
    """A warning on one line, with the images that it is about."""
    if isinstance(warning, attacks.UnattackedWarning):
        named = [names[row] for row in warning.rows]
        more = f" and {len(named) - 8} more" if len(named) > 8 else ""
        return f"{', '.join(named[:8])}{more}: left unchanged: {warning.reason}"
    return f"{names[0]} to {names[-1]}: {' '.join(str(warning).split())}"


def why(a: Tensor) -> str:
    """Why an image came back unchanged, as far as its own map says."""
    if not bool(a.isfinite().all()):
        return "its map is not finite"
    return "no better point found" if bool(a.any()) else "its map is zero everywhere"
