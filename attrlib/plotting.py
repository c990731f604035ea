"""Pictures of images, maps and scores, on matplotlib axes.

Each function takes the axes, draws, and returns them; none shows a figure or computes a result. Signed
maps diverge around zero; maps that are compared get one scale, from `shared_limit`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.cbook import is_math_text
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from torch import Tensor

from attrlib import _check, _files

SIGNED = "RdBu_r"
HEAT = "magma"


def use_style() -> None:
    """Set the book's look for all later figures: white background, colour-blind-safe palette."""
    sns.set_theme(style="ticks", palette="colorblind", font_scale=0.95)
    mpl.rcParams.update(
        {
            "figure.dpi": 110,
            "savefig.dpi": 110,
            "figure.constrained_layout.use": True,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": "medium",
            "image.interpolation": "nearest",
        }
    )


def shared_limit(*maps: Tensor, quantile: float = 0.999) -> float:
    """Return one colour limit for maps that are compared: a high quantile of their absolute values.

    A quantile keeps a single extreme pixel from washing out the rest; 1 takes the maximum.

    Args:
        maps: Maps of any shapes.
        quantile: In (0, 1].

    Returns:
        A number above 0; 1 for maps of zeros.

    Raises:
        ValueError: If there is no map, a map holds NaN, or `quantile` is out of range.
    """
    if not maps:
        raise ValueError("Expected maps, got none")
    if not 0 < quantile <= 1:
        raise ValueError(f"Expected quantile in (0, 1], got {quantile!r}")
    _check.finite(**{f"maps[{i}]": a for i, a in enumerate(maps)})
    values = torch.cat([a.detach().cpu().double().abs().flatten() for a in maps])
    # NumPy's quantile: torch's stops at 16 million entries.
    return float(np.quantile(values.numpy(), quantile)) or 1.0


def plain(text: Text, content: str) -> None:
    r"""Set a text exactly as it stands: a name with $, \ or _ is no formula.

    Args:
        text: Title, label or any other text of a figure.
        content: What it shall say; bytes that were no UTF-8 in the name of a file become \xNN.
    """
    text.set_parse_math(False)
    text.set_usetex(False)
    text.set_text(_files.shown(content))


def show_image(x: Tensor, *, ax: Axes, title: str | None = None) -> Axes:
    """Draw one image.

    Args:
        x: Pixels (channels, h, w) in [0, 1], one or three channels.
        ax: Axes to draw on.
        title: Title above the image.

    Returns:
        The axes.

    Raises:
        ValueError: If the shape is another.
    """
    if x.ndim != 3 or len(x) not in (1, 3):
        raise ValueError(f"Expected x of shape (1 or 3, h, w), got {tuple(x.shape)}")
    picture = x.detach().cpu().permute(1, 2, 0).clamp(0, 1).numpy()
    ax.imshow(picture[..., 0] if len(x) == 1 else picture, cmap="gray", vmin=0, vmax=1)
    return _frame(ax, title)


def show_map(a: Tensor, *, ax: Axes, limit: float | None = None, title: str | None = None) -> Axes:
    """Draw one signed map: red speaks for the class, blue against it, white is zero.

    Args:
        a: Map (channels, h, w), whose channels are summed, or (h, w).
        ax: Axes to draw on.
        limit: Value of full colour; None takes the map's own `shared_limit`.
        title: Title above the map.

    Returns:
        The axes.

    Raises:
        ValueError: If the shape is another or `limit` is not positive.
    """
    flat = _flat(a)
    limit = shared_limit(flat) if limit is None else limit
    _check.positive(limit=limit)
    ax.imshow(flat.numpy(), cmap=SIGNED, vmin=-limit, vmax=limit)
    return _frame(ax, title)


def show_heatmap(
    h: Tensor, *, ax: Axes, limit: float | None = None, title: str | None = None
) -> Axes:
    """Draw one heatmap: black is zero, bright is important.

    Args:
        h: Heatmap (h, w), non-negative.
        ax: Axes to draw on.
        limit: Value of full brightness; None takes the map's own `shared_limit`.
        title: Title above the map.

    Returns:
        The axes.

    Raises:
        ValueError: If the shape is another or `limit` is not positive.
    """
    flat = _flat(h)
    limit = shared_limit(flat) if limit is None else limit
    _check.positive(limit=limit)
    ax.imshow(flat.numpy(), cmap=HEAT, vmin=0, vmax=limit)
    return _frame(ax, title)


def show_maps(
    panels: Mapping[str, Tensor], *, axes: Iterable[Axes], limit: float | None = None
) -> list[Axes]:
    """Draw signed maps side by side, on one scale.

    Args:
        panels: Title to map, as in `show_map`.
        axes: As many axes.
        limit: Value of full colour; None takes the `shared_limit` of all.

    Returns:
        The axes.

    Raises:
        ValueError: If there are no maps or not as many axes, or as `show_map`.
    """
    return _show_each(show_map, panels, axes, limit)


def show_heatmaps(
    panels: Mapping[str, Tensor], *, axes: Iterable[Axes], limit: float | None = None
) -> list[Axes]:
    """Draw heatmaps side by side, on one scale.

    Args:
        panels: Title to heatmap, as in `show_heatmap`.
        axes: As many axes.
        limit: Value of full brightness; None takes the `shared_limit` of all.

    Returns:
        The axes.

    Raises:
        ValueError: If there are no heatmaps or not as many axes, or as `show_heatmap`.
    """
    return _show_each(show_heatmap, panels, axes, limit)


def show_scores(scores: Mapping[str, Tensor], *, ax: Axes, label: str) -> Axes:
    """Draw the distribution of a score for several methods, one point per image and a box.

    Args:
        scores: Name of the method to its scores (n,).
        ax: Axes to draw on.
        label: What the score is, with its unit.

    Returns:
        The axes.

    Raises:
        ValueError: If there are no scores.
    """
    if not scores:
        raise ValueError("Expected scores, got none")
    columns = {_files.shown(name): values.detach().cpu().numpy() for name, values in scores.items()}
    sns.stripplot(columns, ax=ax, size=3, alpha=0.4, jitter=0.2, legend=False)
    ax.boxplot(
        [values[~np.isnan(values)] for values in columns.values()],
        positions=range(len(columns)),
        widths=0.5,
        showfliers=False,
        manage_ticks=False,
        medianprops={"color": "0.25"},
    )
    for tick, name in zip(ax.xaxis.get_major_ticks(), columns, strict=False):
        tick.label1.set_parse_math(_is_formula(name))
    _write(ax.yaxis.label, label)
    return ax


def show_intervals(
    table: Mapping[str, Sequence[float]],
    column: str,
    *,
    at: Sequence[float],
    ax: Axes,
    style: str = "o-",
    label: str | None = None,
) -> Axes:
    """Draw a column of means with their confidence intervals.

    Args:
        table: Columns of equal length, such as a data frame of `results/` as a dictionary.
        column: Name of the column of means; `<column>_low` and `<column>_high` hold the intervals.
        at: Positions, one for each row.
        ax: Axes to draw on.
        style: Marker and line, as matplotlib writes them.
        label: Name in the legend.

    Returns:
        The axes.

    Raises:
        ValueError: If a column is missing, the lengths differ, or a mean is outside its interval.
    """
    wanted = (column, f"{column}_low", f"{column}_high")
    missing = [name for name in wanted if name not in table]
    if missing:
        raise ValueError(
            f"Expected table with the columns {', '.join(wanted)}, got no {missing[0]}"
        )
    mean, low, high = (list(table[name]) for name in wanted)
    columns = list(zip(at, mean, low, high, strict=True))
    outside = [m for _, m, below, above in columns if not below <= m <= above]
    if outside:
        raise ValueError(f"Expected mean between low and high, got {outside[0]!r}")
    bars = [[m - below for _, m, below, _ in columns], [above - m for _, m, _, above in columns]]
    ax.errorbar(list(at), mean, yerr=bars, fmt=style, label=label, capsize=2)
    return ax


def _show_each(
    show: Callable[..., Axes],
    panels: Mapping[str, Tensor],
    axes: Iterable[Axes],
    limit: float | None,
) -> list[Axes]:
    axes = list(axes)
    if not panels or len(panels) != len(axes):
        raise ValueError(f"Expected axes for {len(panels)} panels, got {len(axes)}")
    limit = shared_limit(*map(_flat, panels.values())) if limit is None else limit
    for ax, (title, panel) in zip(axes, panels.items(), strict=True):
        show(panel, ax=ax, limit=limit, title=title)
    return axes


def _flat(a: Tensor) -> Tensor:
    if a.ndim not in (2, 3):
        raise ValueError(f"Expected a map (h, w) or (channels, h, w), got {tuple(a.shape)}")
    _check.finite(map=a[None])
    a = a.detach().cpu()
    return a.sum(0) if a.ndim == 3 else a


def _frame(ax: Axes, title: str | None) -> Axes:
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    if title is not None:
        _write(ax.set_title(""), title)
    return ax


def _write(text: Text, content: str) -> None:
    """Set a text that may hold formulas; what is none is written as it stands."""
    if _is_formula(content):
        text.set_text(content)
    else:
        plain(text, content)


def _is_formula(content: str) -> bool:
    """Whether matplotlib can read a text that has formulas between dollar signs."""
    if not is_math_text(content):
        return False
    try:
        MathTextParser("path").parse(content)
    except ValueError:
        return False
    return True
