"""Figures that are drawn without a window and written whole or not at all."""

import io
import warnings
from pathlib import Path

from matplotlib.figure import Figure

from attrlib import plotting
from attrlib.commands.rows import write


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure that belongs to no window, with its size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path, *, title: str) -> None:
    """Write a figure with a title that is shown as it stands.

    Args:
        figure: From `canvas`.
        path: File to write.
        title: One or two lines.

    Raises:
        OSError: If the file cannot be written.
    """
    plotting.plain(figure.suptitle("", fontsize=10), title)
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"Glyph \d+ .* missing from", UserWarning
        )  # a box instead
        figure.savefig(content, format="png", dpi=110)
    write(path, content.getvalue())


def brief(name: str) -> str:
    """A name that leaves room for the rest of the title: its end, where files differ."""
    name = " ".join(name.split())
    return name if len(name) <= 60 else f"…{name[-59:]}"
