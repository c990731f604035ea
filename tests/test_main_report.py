"""`python -m attrlib report`, as a user calls it."""

import base64
import csv
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from playwright.sync_api import Browser
from torch import Tensor, nn

from attrlib import data
from attrlib.__main__ import main
from attrlib.attributions import gradient
from attrlib.commands import measured, rows
from attrlib.commands.findings import CHANGE_NAMES
from attrlib.maps import to_heatmap
from attrlib.metrics import topk_intersection
from tests.book.conftest import browser  # noqa: F401
from tests.book.looking import look

MODEL = "tests.test_main_report:net"
MADE = ("--k", "9")  # options of the report that most tests look at
ODD = "<b>&amp; $title"  # a folder of a user; the first one in the alphabet


@pytest.fixture(autouse=True)
def _single_precision() -> None:
    """A user's default."""
    torch.set_default_dtype(torch.float32)


def net(*, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """A user's own model, for images of 8×8 in colour; four classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Flatten(), nn.Linear(192, 16), activation(), nn.Dropout(), nn.Linear(16, 4)
        return nn.Sequential(*layers)


class Fixed(nn.Module):
    """A net whose gradient map is the same at every image: nothing to attack."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = net()[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1))


class Rounding(nn.Module):
    """A net without a gradient: its input is rounded to grey levels outside the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: Tensor) -> Tensor:
        return self.body((x.detach() * 255).round() / 255)


def swishing() -> nn.Module:
    """A net without interval bounds."""
    return net(activation=nn.SiLU)


def written(folder: Path) -> Path:
    """Three pictures in two classes, one of which has an odd name."""
    noise = np.random.default_rng(0)
    for name in ("cat/a.png", "cat/b.png", f"{ODD}/c.png"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures in two classes."""
    return written(tmp_path / "images")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on them."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    place = tmp_path_factory.mktemp("report")
    assert call(written(place / "images"), place / "out", *MADE) == 0
    torch.set_default_dtype(before)
    return place / "out"


def call(folder: Path, out: Path, *more: str, model: str = MODEL) -> int:
    source = ("--image-folder", str(folder), "--model", model)
    return main(["report", *source, "--out", str(out), "--quick", *more])


def table(out: Path) -> list[dict[str, str]]:
    with (out / "report.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def timeless(out: Path) -> list[dict[str, str]]:
    """Rows without the times."""
    return [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in table(out)]


def text(out: Path) -> str:
    """What the page says."""
    page = (out / "report.html").read_text(encoding="utf-8")
    return " ".join(
        html.unescape(re.sub(r"<style>.*?</style>|<[^>]*>", " ", page, flags=re.S)).split()
    )


def complaint(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a call that failed."""
    (line,) = [t for t in capsys.readouterr().err.splitlines() if t.startswith("attrlib report: ")]
    return line


def test_rows_are_what_the_maps_say(folder: Path, made: Path) -> None:
    model, x = net().eval(), data.image_folder(folder).x
    clean = to_heatmap(gradient(model, x, model(x).argmax(1)))
    for i, row in enumerate(table(made)):
        kept = safetensors.torch.load_file(next((made / "maps").glob(f"{i:04d}-*")))
        assert torch.equal(kept["image"], x[i])
        torch.testing.assert_close(kept["map"], clean[i])
        z = kept["attacked"][None]
        assert (z - x[i]).abs().max() <= 8 / 255
        assert float(row["largest_change"]) <= 8 / 255 + 1e-7
        other = to_heatmap(gradient(model, z, model(x[i : i + 1]).argmax(1)))
        expected = float(topk_intersection(clean[i : i + 1], other, k=9))
        assert float(row["attack_topk_intersection"]) == pytest.approx(expected, abs=1e-6)
        assert int(row["prediction"]) == int(model(x[i : i + 1]).argmax())
        assert row["attack_prediction_kept"] == "True"
        assert float(row["attack_cosine"]) < float(row["noise_cosine"]) <= 1
        assert float(row["chance_topk_intersection"]) == pytest.approx(9 / 64, abs=1e-6)
        moved = gradient(model, data.shift(x[i : i + 1]), model(x[i : i + 1]).argmax(1))
        back = to_heatmap(data.shift(moved, right=-1))
        expected = float(topk_intersection(clean[i : i + 1], back, k=9))
        assert float(row["shift_topk_intersection"]) == pytest.approx(expected, abs=1e-6)


def test_a_page_holds_everything_and_asks_for_nothing(made: Path) -> None:
    page = (made / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', page)
    assert len(sources) == 3 * (6 + 3)
    for source in sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(content).startswith(b"\x89PNG")
    assert not re.search(r"https?://|<script|url\(", page)
    assert "default-src 'none'" in page
    assert "<b>" not in page
    assert f"Label: {ODD}. Predicted: class" in text(made)
    for said in (
        "Accuracy is not known: names of folders are only names",
        "share of",
        "By chance it would be",
        "95 % interval",
        "Identification after the attack is",
        "interval bounds",
        "upper bounds on robustness",
        "10 % more light",
        "JPEG, quality 75",
        "one pixel to the right",
        "The quick suite is for a first look",
    ):
        assert said in text(made)


def test_means_say_over_how_many_pictures_they_are(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "2 of 3 pictures" in text(made)  # identification: one picture is alone in its class
    assert "by the top-k score. Chance is 0.50. It is known for 2 of 3 pictures." in text(made)
    assert "noise as large as the attack (2 of 3 pictures)" not in text(made)
    out = tmp_path / "out"
    shutil.copytree(made, out)
    holed = table(out)
    holed[0]["noise_topk_intersection"] = "nan"  # as of a map that is not finite
    holed[1]["attack_kendall"] = "nan"  # as of a map that is zero
    monkeypatch.setattr(rows.Store, "run", lambda *arguments, **more: holed)
    assert call(made.parent / "images", out, *MADE) == 0
    assert "noise as large as the attack (2 of 3 pictures)" in text(out)
    assert "It is known for 2 of 3 pictures. Changes that nobody" in text(out)
    page = (out / "report.html").read_text(encoding="utf-8")
    more = page.count("<small>2 of 3 pictures</small>")
    before = (made / "report.html").read_text(encoding="utf-8")
    assert more == before.count("<small>2 of 3 pictures</small>") + 2


def test_the_page_says_what_the_attack_was_made_for(made: Path) -> None:
    assert "looks for a small top-k share" in text(made)
    shown = re.findall(r"map: ([^<]*)</figcaption>", (made / "report.html").read_text("utf-8"))
    benign = [CHANGE_NAMES[change] for change in CHANGE_NAMES if change in data.BENIGN]
    assert shown == 3 * benign


def test_classes_give_accuracy_and_names(folder: Path, tmp_path: Path) -> None:
    model, images = net().eval(), data.image_folder(folder)
    odd, cat, other = model(images.x).argmax(1).tolist()
    classes = {ODD: (cat + 1) % 4, "cat": cat}
    named = tmp_path / "classes.json"
    named.write_text(json.dumps(classes))
    assert call(folder, tmp_path / "json", "--classes", str(named), "--certificate", "none") == 0
    hits = [odd == classes[ODD], True, other == cat]
    assert [row["correct"] for row in table(tmp_path / "json")] == [str(hit) for hit in hits]
    assert f"The network is right on {sum(hits)} of 3 pictures" in text(tmp_path / "json")

    lines = tmp_path / "classes.txt"
    names = ["", "", "", ""]
    for name, number in classes.items():
        names[number] = name
    lines.write_text("\n".join(names) + "\n")
    assert call(folder, tmp_path / "text", "--classes", str(lines), "--count", "2") == 0
    assert [row["correct"] for row in table(tmp_path / "text")] == [str(hit) for hit in hits[:2]]
    assert "Predicted: cat. Right." in text(tmp_path / "text")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"cat": 0}', "to name each of 2 folders, got none for"),
        (
            '{"cat": 4, "%s": 0}',
            "with classes from 0 to 3, as the network has them, got 4 for 'cat'",
        ),
        ('{"cat": "0"}', "to be an object of names and whole numbers"),
        ('["cat"]', "to be an object of names and whole numbers"),
        ("{", "to hold names in UTF-8, got Expecting property name"),
    ],
)
def test_bad_classes_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, message: str
) -> None:
    path = tmp_path / "classes.json"
    path.write_text(content.replace("%s", ODD))
    assert call(folder, tmp_path / "out", "--classes", str(path)) == 2
    assert message in complaint(capsys)
    assert not (tmp_path / "out").exists()


def test_bad_input_ends_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, empty = tmp_path / "out", tmp_path / "empty"
    empty.mkdir()
    cases: list[tuple[Path, tuple[str, ...], str]] = [
        (empty, (), "Expected path to hold images as <class>/<image>"),
        (folder, ("--classes", "no.txt"), "Expected --classes to be a file, got no.txt"),
        (folder, ("--explain", "label"), "Expected --classes with --explain label"),
        (folder, ("--eps", "0"), "Expected eps > 0, got 0.0"),
        (folder, ("--window", "-1"), "Expected window to be an integer >= 0, got -1"),
        (folder, ("--k", "65"), "Expected k to be an integer from 1 to 64, got 65"),
        (folder, ("--size", "12"), "to take images 3 × 12 × 12"),
    ]
    for source, more, message in cases:
        assert call(source, out, *more) == 2
        assert message in complaint(capsys)
        assert not out.exists()
    assert (
        call(folder, out, "--certificate", "interval", model="tests.test_main_report:swishing") == 2
    )
    assert "Expected --certificate interval for a network that allows it" in complaint(capsys)
    (folder / "cat" / "b.png").write_bytes(b"no picture")
    assert call(folder, out) == 2
    assert "--skip-bad leaves such images out" in complaint(capsys)
    with pytest.raises(SystemExit, match="2"):
        call(folder, out, "--suite", "strong")  # and --quick


@pytest.mark.parametrize(
    ("model", "note", "finding"),
    [
        ("Fixed", "no attack: Expected an objective with a gradient", "could not be attacked"),
        (
            "Rounding",
            "no maps: Expected model(x) to be differentiable in x",
            "could not be attacked",
        ),
    ],
)
def test_a_network_that_cannot_be_attacked_gets_a_page_that_says_why(
    folder: Path, tmp_path: Path, model: str, note: str, finding: str
) -> None:
    out = tmp_path / "out"
    assert call(folder, out, "--certificate", "none", model=f"tests.test_main_report:{model}") == 0
    assert all(note in row["note"] for row in table(out))
    assert all(row["prediction"] for row in table(out))
    assert note in text(out)
    assert finding in text(out)
    if model == "Fixed":  # what could be measured is there
        assert all(float(row["noise_topk_intersection"]) == 1 for row in table(out))


def test_a_second_call_goes_on_and_a_lost_page_is_written_again(
    folder: Path,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, more = tmp_path / "out", MADE
    called = []
    true = measured.Work.__call__

    def stopped(self: measured.Work, *arguments: object) -> object:
        called.append(arguments)
        if len(called) == 2:
            raise KeyboardInterrupt
        return true(self, *arguments)

    monkeypatch.setattr(measured.Work, "__call__", stopped)
    assert call(folder, out, *more) == 130
    assert len(table(out)) == 1
    assert call(folder, out, *more) == 0
    assert len(called) == 4  # one, the stopped one, and two that were left
    (out / "report.html").unlink()
    assert call(folder, out, *more) == 0
    assert len(called) == 4
    assert "Findings" in text(out)
    assert timeless(out) == timeless(made)
    capsys.readouterr()
    assert call(folder, out, *more, "--eps", "0.1") == 2
    assert "of the same run, got another report" in complaint(capsys)
    (folder / "cat" / "b.png").unlink()
    assert call(folder, out, *more) == 0
    assert len(table(out)) == 2


def test_smoothing_takes_the_place_of_intervals(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(folder, out, "--count", "1", model="tests.test_main_report:swishing") == 0
    (row,) = table(out)
    assert row["certificate"] == "smoothing"
    bounds = [float(row[f"certified_cosine_{i}"]) for i in range(3)]
    assert 1 > bounds[0] > bounds[1] > bounds[2] > -1  # a nearly linear net
    assert float(row["certified_eps_2"]) == 0.2
    assert "No interval bounds: Expected model of operations with bounds" in text(out)
    assert "Proved by smoothing" in text(out)
    assert "pictures with a bound above 0.64" in text(out)
    assert "Identification is not available" in text(out)
    assert "1 picture says nothing about pictures of another kind" in text(out)


def test_intervals_lie_under_the_attack(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(folder, out, "--eps", "0.004") == 0
    for row in table(out):
        assert row["certificate"] == "interval"
        proved = [float(row[f"certified_topk_{i}"]) for i in range(3)]
        assert 1 >= proved[0] >= proved[1] >= proved[2] >= 0
        assert proved[0] > 0
        assert proved[2] <= float(row["attack_topk_intersection"]) + 1e-6
    assert "Proved by interval bounds" in text(out)
    assert "pictures with a bound above 0 " in text(out)


@pytest.mark.parametrize(
    "more",
    [
        ("--norm", "l2", "--eps", "0.5"),
        ("--attribution", "integrated_gradients", "--samples", "2", "--batch-size", "2"),
        ("--attribution", "smooth_grad", "--samples", "2", "--count", "2"),
    ],
    ids=lambda more: " ".join(more[:2]),
)
def test_other_maps_and_budgets(folder: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    assert call(folder, out, *more) == 0
    for row in table(out):
        assert row["changed"] == "True"
        scores = [float(row[f"{change}_topk_intersection"]) for change in ("attack", "noise")]
        assert scores[0] <= scores[1]


def test_single_pictures_have_no_label(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ("report", "--image", str(folder / "cat" / "a.png"), "--model", MODEL, "--quick")
    out = ("--out", str(tmp_path / "out"), "--certificate", "none")
    assert main([*source, *out, "--classes", __file__]) == 2
    assert "Expected --classes with --image-folder, got --image" in complaint(capsys)
    assert main([*source, *out]) == 0
    (row,) = table(tmp_path / "out")
    assert (row["label"], row["correct"]) == ("", "")
    assert "There is no certificate. None was asked for." in text(tmp_path / "out")


def test_labels_of_fashion_are_classes(tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ("--count", "2", "--quick", "--explain", "label", "--certificate", "none")
    assert main(["report", "--out", str(out), *more]) == 0
    for row in table(out):
        assert data.FASHION_CLASSES[int(row["explained"])] == row["label"]
        assert row["correct"] == str(row["prediction"] == row["explained"])


def test_the_page_in_a_browser(
    made: Path,
    browser: Browser,  # noqa: F811
) -> None:
    """Readable at 1280 and 390 pixels, light and dark, with nothing from elsewhere."""
    visit = look(browser, made / "report.html")
    assert visit.console == []
    assert visit.requests == []
    assert visit.overflow == []
    assert visit.accessibility == {"light": [], "dark": []}
    page = browser.new_page()
    page.goto((made / "report.html").as_uri())
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("() => document.activeElement.tagName"))
    assert {"A", "DIV", "SUMMARY"} <= reached  # links, tables that scroll, what unfolds
    page.close()
