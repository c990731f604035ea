"""Figures with a slider: plain HTML, readable without scripts."""

import re

import matplotlib as mpl
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from attrlib import book

mpl.use("Agg")
ALTS = {"0/255": "A clean image.", "8/255": 'An image with "grain" & its map.'}


def _frames() -> dict[str, Figure]:
    return {label: plt.subplots(figsize=(1, 1))[0] for label in ALTS}


def _html(**options: str) -> str:
    shown = book.slider(_frames(), alts=ALTS, name="Budget ε", caption="Two frames.", **options)
    return shown._repr_mimebundle_()["text/html"]


def test_one_frame_shows_at_first() -> None:
    pictures = re.findall(r"<img [^>]*>", _html())
    assert len(pictures) == 2
    assert [picture.endswith(" hidden>") for picture in pictures] == [False, True]
    assert 'max="1" value="0"' in _html()


def test_the_first_frame_can_be_chosen() -> None:
    text = _html(start="8/255")
    pictures = re.findall(r"<img [^>]*>", text)
    assert [picture.endswith(" hidden>") for picture in pictures] == [True, False]
    assert 'value="1"' in text
    assert "<output>8/255</output>" in text
    assert "this is the frame at 8/255" in text


def test_texts_are_escaped_and_complete() -> None:
    text = _html()
    assert "An image with &quot;grain&quot; &amp; its map." in text
    assert "<figcaption>Two frames.</figcaption>" in text
    assert text.count("data:image/webp;base64,") == 2
    assert "http" not in text  # needs nothing from elsewhere


def test_frames_are_closed_and_words_remain() -> None:
    plt.close("all")
    shown = book.slider(_frames(), alts=ALTS, name="Budget", caption="Two frames.")
    assert plt.get_fignums() == []
    assert shown._repr_mimebundle_()["text/plain"] == "Two frames. (0/255, 8/255)"


@pytest.mark.parametrize(
    ("labels", "alts", "start", "message"),
    [
        (["0/255"], ALTS, None, "Expected frames to hold at least 2 figures, got 1"),
        (
            ["0/255", "8/255"],
            {"0/255": "x"},
            None,
            "Expected alts for each frame, got none for 8/255",
        ),
        (
            ["0/255", "8/255"],
            ALTS,
            "9/255",
            "Expected start to be one of 0/255, 8/255, got '9/255'",
        ),
    ],
)
def test_mistakes_are_named(
    labels: list[str], alts: dict[str, str], start: str | None, message: str
) -> None:
    frames = {label: figure for label, figure in _frames().items() if label in labels}
    with pytest.raises(ValueError, match=message):
        book.slider(frames, alts=alts, name="Budget", caption="Frames.", start=start)
    plt.close("all")
