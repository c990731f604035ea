"""A figure with a slider that needs no kernel."""

import base64
import html
import io
from collections.abc import Mapping

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

_MOVE = (
    "const f=this.closest('figure');"
    "f.querySelectorAll('img').forEach((m,i)=>{m.hidden=i!=this.value});"
    "f.querySelector('output').textContent=f.querySelectorAll('img')[this.value].dataset.label;"
    "this.setAttribute('aria-valuetext',f.querySelector('output').textContent)"
)


class Slider:
    """Frames behind a slider: HTML where it can be shown, words elsewhere."""

    def __init__(
        self,
        frames: Mapping[str, bytes],
        alts: Mapping[str, str],
        *,
        name: str,
        caption: str,
        start: str,
    ) -> None:
        self._frames, self._alts = frames, alts
        self._name, self._caption, self._start = name, caption, start

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        first, place = self._start, list(self._frames).index(self._start)
        pictures = "".join(
            f'<img src="data:image/webp;base64,{base64.b64encode(frame).decode()}" '
            f'alt="{html.escape(self._alts[label])}" data-label="{html.escape(label)}"'
            f"{'' if label == first else ' hidden'}>"
            for label, frame in self._frames.items()
        )
        text = (
            f'<figure class="slider"><label>{html.escape(self._name)} '
            f'<input type="range" min="0" max="{len(self._frames) - 1}" value="{place}" step="1" '
            f'aria-valuetext="{html.escape(first)}" oninput="{html.escape(_MOVE)}"></label> '
            f"<output>{html.escape(first)}</output>{pictures}"
            f"<noscript>The slider needs JavaScript; this is the frame at {html.escape(first)}."
            f"</noscript><figcaption>{html.escape(self._caption)}</figcaption></figure>"
        )
        return {"text/html": text, "text/plain": f"{self._caption} ({', '.join(self._frames)})"}


def slider(
    frames: Mapping[str, Figure],
    *,
    alts: Mapping[str, str],
    name: str,
    caption: str,
    start: str | None = None,
) -> Slider:
    """Return a figure with one frame for each position of a slider; the frames are closed.

    Args:
        frames: Label of the position to figure; all of one size.
        alts: Label to what is to be seen, for those who cannot see it.
        name: What the slider moves, such as "Budget".
        caption: Text below the figure.
        start: Label of the frame that is shown first, and without scripts; None is the first.

    Returns:
        An object that Jupyter and the book render: HTML that needs no kernel and obeys the keyboard.

    Raises:
        ValueError: If there are fewer than two frames, a frame has no alternative text, or `start` is no
            label.
    """
    if len(frames) < 2:
        raise ValueError(f"Expected frames to hold at least 2 figures, got {len(frames)}")
    missing = [label for label in frames if not alts.get(label)]
    if missing:
        raise ValueError(f"Expected alts for each frame, got none for {', '.join(missing)}")
    start = next(iter(frames)) if start is None else start
    if start not in frames:
        raise ValueError(f"Expected start to be one of {', '.join(frames)}, got {start!r}")
    pictures = {}
    for label, figure in frames.items():
        buffer = io.BytesIO()
        figure.savefig(buffer, format="webp", dpi=100, pil_kwargs={"quality": 80})
        plt.close(figure)
        pictures[label] = buffer.getvalue()
    return Slider(pictures, alts, name=name, caption=caption, start=start)
