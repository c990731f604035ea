"""The page of a report: one file that asks for nothing else, with all pictures inside."""

import base64
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image
from torch import Tensor

import attrlib
from attrlib import plotting
from attrlib.commands import measured, rows, wording
from attrlib.commands.findings import CHANGE_NAMES, SCORE_NAMES, Facts, Mean

_SHOWN = 24  # pictures on the page; all of them are in the table
_SMALL = 64  # sides up to here are drawn with hard pixels
_AMPLIFY = 10.0  # of the difference that is shown
_DIGITS = 16  # of what identifies contents


def write(path: Path, facts: Facts, settings: Mapping[str, Any], device: torch.device) -> Path:
    """Write the page.

    Args:
        path: File to write.
        facts: What the rows say together.
        settings: Of the run.
        device: Where it was computed.

    Returns:
        The path.

    Raises:
        OSError: If the file cannot be written.
    """
    kept = [measured.read(file) for file in facts.files[:_SHOWN]]
    height, width = next((parts["image"].shape[1:] for parts in kept if parts), (1, 1))
    template = resources.files("attrlib").joinpath("_assets/report.html")
    page = Template(template.read_text(encoding="utf-8")).substitute(
        title=escape(f"Explanations of {settings['model']}"),
        about=escape(_about(facts, height, width)),
        findings=_items(wording.findings(facts)),
        limits=_items(wording.limits(facts)),
        scores=_chart(facts) + _scores(facts),
        certificate=_certificate(facts),
        cost=_cost(facts, settings["report"]["certificate"], device),
        pictures=_pictures(facts, kept),
        settings=_settings(facts, settings, device),
        ratio=f"{width} / {height}",
        rendering="pixelated" if max(height, width) <= _SMALL else "auto",
    )
    rows.write(path, page.encode("utf-8", "backslashreplace"))
    return path


def _about(facts: Facts, height: int, width: int) -> str:
    n = len(facts.table)
    return (
        f"{n} picture{'' if n == 1 else 's'} of {height} × {width} pixels; maps: "
        f"{facts.options.attribution} of the class that is "
        f"{'the label' if facts.options.explain == 'label' else 'predicted'}."
    )


def _chart(facts: Facts) -> str:
    """Top-k shares of all pictures, for each change, on one scale from 0 to 1."""
    if not facts.scores:
        return "<p>There are no scores: see the notes on the pictures.</p>\n"
    chance = facts.chance.get("topk_intersection", math.nan)
    parts = [
        f"<p>Share of the {facts.k} most important pixels that are still among them after a change. Each "
        "circle is a picture, the thick line their mean, the band its 95 % interval, the dashed line "
        f"chance ({chance:.2f}).</p>"
    ]
    for change, scores in facts.scores.items():
        mean = scores.get("topk_intersection")
        if mean is None:
            continue
        marks = [f'<i class="chance" style="left:{100 * chance:.2f}%"></i>']
        if not math.isnan(mean.low):
            marks.append(
                f'<i class="bar" style="left:{100 * mean.low:.2f}%;'
                f'width:{100 * (mean.high - mean.low):.2f}%"></i>'
            )
        marks += [f'<i class="dot" style="left:{100 * v:.2f}%"></i>' for v in mean.values]
        marks.append(f'<i class="mean" style="left:{100 * mean.value:.2f}%"></i>')
        name = CHANGE_NAMES[change]
        if len(mean.values) < len(facts.table):
            name += f" ({len(mean.values)} of {len(facts.table)} pictures)"
        parts.append(
            f'<div class="row"><span>{name}</span><div class="track" role="img" '
            f'aria-label="{name}: {mean}">{"".join(marks)}</div></div>'
        )
    ends = "<span></span><div class='ends'><span>0</span><span>0.5</span><span>1</span></div>"
    return "\n".join([*parts, f'<div class="row" aria-hidden="true">{ends}</div>', ""])


def _scores(facts: Facts) -> str:
    """All scores, with intervals and chance levels."""
    if not facts.scores:
        return ""
    names = [SCORE_NAMES[score] for score in measured.SCORES]
    head = ["change", *names, "identification", "same prediction"]
    body = []
    for change, scores in facts.scores.items():
        same, n = facts.kept(change)
        means = [scores.get(score) for score in measured.SCORES]
        means.append(facts.identification.get(change))
        cells = [*(_cell(mean, len(facts.table)) for mean in means), f"{same} of {n}"]
        body.append([CHANGE_NAMES[change], *cells])
    levels = [facts.chance.get(score) for score in measured.SCORES]
    known = ["–" if level is None else f"{level:.2f}" for level in levels]
    body.append(["chance", *known, "0.50" if facts.identification else "–", "–"])
    radius = facts.options.window
    said = (
        f"Means with 95 % intervals. Top-k and LENS recall count the {facts.k} highest pixels, LENS "
        f"with a window of radius {radius}; 1 is best, but for the shift of the centre, in pixels. "
        "The map of a picture that was moved is moved back before it is compared. The attack is made "
        "for top-k; identification is by top-k, too."
    )
    return _table(said, head, body)


def _certificate(facts: Facts) -> str:
    kinds = {row["certificate"] for row in facts.table} - {""}
    parts = []
    if facts.reason:
        parts.append(f"<p>No interval bounds: {escape(facts.reason)}</p>")
    if not kinds:
        return "".join(parts) or "<p>There is none.</p>"
    interval = "interval" in kinds
    shown = ["topk", "cosine", "kendall"] if interval else ["cosine"]
    found = {score: facts.certified(score) for score in shown}
    names = {"topk": "top-k", "cosine": "cosine", "kendall": "Kendall's τ"}
    body = []
    for i in range(measured.BUDGETS):
        cells = [f"{found[score][i][1].value:.2f}" for score in shown]
        useful = max(found[score][i][2] for score in shown)
        body.append([f"{found[shown[0]][i][0]:.3g}", *cells, f"{useful} of {len(facts.table)}"])
    budget = "budget in each pixel" if interval else "l2 budget"
    said = (
        "Mean lower bounds of the scores of this very map under any change within the budget, without "
        "any probability."
        if interval
        else "Mean lower bounds for the map without its signs, averaged over noise in a large ball, "
        "under any change within the l2 budget. They hold with the probability that the settings name, "
        f"for each picture. Unrelated maps without signs reach {facts.floor:.2f}."
    )
    head = [
        budget,
        *(f"{names[score]} at least" for score in shown),
        f"pictures with a bound above {'0' if interval else f'{facts.floor:.2f}'}",
    ]
    return "".join(parts) + _table(said, head, body)


def _cost(facts: Facts, proof: Mapping[str, Any] | None, device: torch.device) -> str:
    kind = "" if proof is None else proof["method"]
    copies = 0 if proof is None else proof.get("samples", 0)
    told = {
        "map": ("one map", "1"),
        "attack": (
            "the attack",
            f"{facts.maps} maps at most, most of them with a second derivative",
        ),
        "certificate": (
            "the certificate",
            f"{copies}" if kind == "smoothing" else "a few for each budget",
        ),
    }
    body = []
    for what, (name, passes) in told.items():
        seconds = facts.seconds(what)
        if not math.isnan(seconds):
            body.append([name, passes, f"{seconds:.3g} s"])
    said = (
        f"Median over pictures, {facts.options.batch_size} at a time, on {device.type} with "
        f"{torch.get_num_threads()} thread(s)."
    )
    return _table(said, ["what", "maps for a picture", "time for a picture"], body)


def _pictures(facts: Facts, kept: Sequence[dict[str, Tensor]]) -> str:
    parts = []
    n = len(facts.table)
    if n > _SHOWN:
        parts.append(f"<p>The first {_SHOWN} of {n}; the table has them all.</p>")
    for number, (row, held) in enumerate(zip(facts.table, kept, strict=False)):
        parts.append(_picture(facts, row, held, f"picture-{number}"))
    return "\n".join(parts)


def _picture(facts: Facts, row: rows.Row, held: dict[str, Tensor], place: str) -> str:
    """One picture: what the network says, its maps, and its scores."""
    name = escape(row["name"])
    said = f"Predicted: {escape(facts.meaning.name(int(row['prediction'])))}."
    if row["correct"]:
        said += " Right." if row["correct"] == "True" else " Wrong."
    if row["label"]:
        said = f"Label: {escape(row['label'])}. {said}"
    parts = [f'<article id="{place}"><h3>{name}</h3>', f"<p>{said}</p>"]
    if row["note"]:
        parts.append(f"<p><strong>Note:</strong> {escape(row['note'])}</p>")
    maps = {key: a.nan_to_num(0, 0, 0) for key, a in held.items() if key.startswith("map")}
    limit = plotting.shared_limit(*maps.values()) if maps else 1.0
    shown = {"picture": _colours(held["image"])} if held else {}
    if "attacked" in held:
        shown["attacked"] = _colours(held["attacked"])
        grey = (0.5 + _AMPLIFY * (held["attacked"] - held["image"])).clamp(0, 1)
        shown[f"difference × {_AMPLIFY:g}, grey: none"] = _colours(grey)
    titles = {"map": "map", "map_attack": "map, attacked", "map_noise": "map under plain noise"}
    shown |= {title: _heat(maps[key], limit) for key, title in titles.items() if key in maps}
    parts.append(_figures(shown, name))
    more = {
        f"map: {text}": _heat(maps[f"map_{change}"], limit)
        for change, text in CHANGE_NAMES.items()
        if f"map_{change}" in maps.keys() - titles.keys()
    }
    body = []
    for change, text in CHANGE_NAMES.items():
        if row[f"{change}_cosine"]:
            scores = [f"{float(row[f'{change}_{score}']):.2f}" for score in measured.SCORES]
            kept = "yes" if row[f"{change}_prediction_kept"] == "True" else "no"
            body.append([text, *scores, kept])
    if body:
        head = ["change", *(SCORE_NAMES[score] for score in measured.SCORES), "same prediction"]
        table = _table(f"Scores of {row['name']}", head, body)
        parts.append(
            f"<details><summary>Scores of {name}, and maps under benign changes</summary>"
            f"{_figures(more, name)}{table}</details>"
        )
    return "\n".join([*parts, "</article>"])


def _settings(facts: Facts, settings: Mapping[str, Any], device: torch.device) -> str:
    own = settings["report"]
    said = {
        "network": settings["model"],
        "its weights": str(settings["weights"])[:_DIGITS],
        "pictures": settings["data"][0],
        "map": json.dumps(own["attribution"], ensure_ascii=False),
        "explained class": settings["explain"],
        "budget": f"{own['budget'][0]}, {own['budget'][1]:.6g}",
        "suite": f"version {own['suite'][0]}, {own['suite'][1]}, goal top-k",
        "pixels in the top set": own["scores"][0],
        "LENS window": own["scores"][1],
        "certificate": _kind(own["certificate"]),
        "seed": settings["seed"],
        "device": str(device),
        "versions": f"attrlib {attrlib.__version__}, torch {torch.__version__}",
    }
    items = "\n".join(f"<dt>{k}</dt><dd>{escape(str(v))}</dd>" for k, v in said.items())
    return f"<dl>\n{items}\n</dl>"


def _kind(certificate: Mapping[str, Any] | None) -> str:
    """A certificate by its settings."""
    if certificate is None:
        return "none"
    budgets = ", ".join(f"{eps:.3g}" for eps in certificate["budgets"])
    if certificate["method"] == "interval":
        return f"interval bounds, budgets {budgets} in each pixel"
    return (
        f"smoothing with {certificate['samples']} noisy copies of each picture in a ball of radius "
        f"{certificate['radius']:.3g}, budgets {budgets} (l2); each bound is wrong with probability "
        f"{certificate['alpha']:g} at most"
    )


def _items(texts: Iterable[str]) -> str:
    return "\n".join(f"<li>{escape(text)}</li>" for text in texts)


def _cell(mean: Mean | None, n: int) -> str:
    """A mean, its interval, and over how many of all pictures it is, where it is not over all."""
    if mean is None:
        return "not available"
    said = f"{mean.value:.2f}"
    if not math.isnan(mean.low):
        said += f"<small>{mean.low:.2f} to {mean.high:.2f}</small>"
    known = len(mean.values)
    return said if known == n else f"{said}<small>{known} of {n} pictures</small>"


def _table(caption: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table that scrolls by itself, also by keyboard; the caption is text, the cells are HTML."""
    first = "".join(f'<th scope="col">{text}</th>' for text in head)
    lines = [
        f'<tr><th scope="row">{start}</th>' + "".join(f"<td>{cell}</td>" for cell in rest) + "</tr>"
        for start, *rest in body
    ]
    text = escape(caption)
    return (
        f'<p class="soft">{text}</p><div class="scroll" tabindex="0" role="region" aria-label="{text}">'
        f"<table><thead><tr>{first}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>\n"
    )


def _figures(shown: Mapping[str, str], name: str) -> str:
    figures = [
        f'<figure><img src="{source}" alt="{escape(title)} of {name}"><figcaption>{escape(title)}'
        "</figcaption></figure>"
        for title, source in shown.items()
    ]
    return f'<div class="maps">{"".join(figures)}</div>'


def _colours(x: Tensor) -> str:
    """An image (channels, h, w) in [0, 1], with one channel or three, else the mean of all, inline."""
    flat = x if len(x) in (1, 3) else x.mean(0, keepdim=True)
    pixels = (flat.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return _inline(Image.fromarray(pixels[..., 0] if len(flat) == 1 else pixels))


def _heat(heat: Tensor, limit: float) -> str:
    """A heatmap (h, w), inline; black is zero."""
    levels = (heat / limit).clamp(0, 1).mul(255).round().byte().numpy()
    picture = Image.fromarray(levels, "L").convert("P")
    palette = mpl.colormaps[plotting.HEAT](np.linspace(0, 1, 256))[:, :3]
    picture.putpalette((palette * 255).round().astype(np.uint8).tobytes())
    return _inline(picture)


def _inline(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
