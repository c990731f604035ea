"""`python -m attrlib certify`, as a user calls it."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from attrlib import certificates, checkpoints, data
from attrlib.__main__ import main
from attrlib.attributions import gradient, integrated_gradients
from attrlib.commands import proofs, rows
from tests import commands_oracles, oracles
from tests.commands_oracles import SEED, picture, pictures, small_net

SMOOTH = ("--samples", "60", "--alpha", "0.1", "--eps", "0.02", "0.05")
BOXES = ("--method", "interval", "--k", "9", "--eps", "0.001", "0.003")
METHODS = pytest.mark.parametrize("more", [SMOOTH, BOXES], ids=["smoothing", "interval"])


@pytest.fixture(autouse=True)
def _single_precision() -> None:
    commands_oracles.start()


def net() -> nn.Module:
    """A user's own model."""
    return small_net(nn.Softplus(), nn.Dropout())


def pooled() -> nn.Module:
    """With a layer that has no bounds."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(48, 3))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with two images and one image."""
    return pictures(tmp_path / "images", ("cat/a.png", "cat/b.png", "dog/c.png"))


def call(folder: Path, out: Path, *more: str, model: str = "net") -> int:
    own = ("--model", f"tests.test_main_certify:{model}", "--batch-size", "2")
    return main(["certify", "--image-folder", str(folder), *own, "--out", str(out), *more])


def table(out: Path) -> list[dict[str, str]]:
    return commands_oracles.rows(out / "certify.csv")


complaint = partial(commands_oracles.complaint, command="certify")


def close(text: str, bound: torch.Tensor) -> bool:
    """Written with six digits, and not above what is certified."""
    return float(bound) - 1.1e-6 < float(text) <= float(bound) + 1e-12


# --- what is written is what the package certifies ------------------------------------------------


def test_smoothing_of_shipped_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    budgets = ("--eps", "0.2", "0.1", "0.1")
    sampling = ("--samples", "200", "--alpha", "0.01", "--seed", "3")
    assert main(["certify", "--count", "2", "--out", str(out), *budgets, *sampling]) == 0
    said = capsys.readouterr()
    assert "2 images; lower bounds, each with probability 0.99; shown maps 0.97" in said.out
    assert "400/400" in said.err  # the progress bar: noisy copies
    images, model = data.fashion_mnist("test")[:2], checkpoints.load("natural").model
    y = model(images.x).argmax(1)
    found = certificates.certify(
        certificates.normalized(gradient),
        model,
        images.x,
        y,
        **{"radius": 4.0, "eps": 0.1, "samples": 200, "alpha": 0.01},
        generator=oracles.seeded(3),
    )
    rows = table(out)
    assert [row["eps"] for row in rows] == ["0.1", "0.2"] * 2
    for row, i in zip(rows, (0, 0, 1, 1), strict=True):
        eps = float(row["eps"])
        assert row["label"] == images.classes[int(images.y[i])]
        assert row["explained"] == str(int(y[i]))
        assert close(row["cosine"], found.cosine(eps)[i])
        assert close(row["released"], found.released(eps)[i])
        assert row["abstained"] == "False"
        assert row["topk"] == row["kendall"] == row["prediction_certified"] == ""
    drawn = sorted((out / "figures").iterdir())
    assert [path.name for path in drawn] == [f"{i:04d}-test-{i:05d}.png" for i in range(2)]
    with Image.open(drawn[0]) as figure:
        assert figure.size[0] > 2 * figure.size[1] > 400
    assert not list(out.rglob("*.partial"))


def test_smoothed_sets_have_a_certified_overlap(folder: Path, tmp_path: Path) -> None:
    more = ("--k", "5", "--samples", "400", "--alpha", "0.1", "--eps", "0.001", "0.5")
    assert call(folder, tmp_path / "out", *more) == 0
    rows = table(tmp_path / "out")
    shares = {float(row["topk"]) for row in rows}
    assert shares <= {0, 0.2, 0.4, 0.6, 0.8, 1}
    assert max(shares) > 0
    assert all(
        float(a["topk"]) >= float(b["topk"]) for a, b in zip(rows[::2], rows[1::2], strict=True)
    )
    assert all(-1 <= float(row["kendall"]) < 1 for row in rows)


@pytest.mark.parametrize("attribution", ["gradient", "integrated_gradients", "input_x_gradient"])
def test_intervals_of_own_images_and_model(folder: Path, tmp_path: Path, attribution: str) -> None:
    more = (*BOXES, "--attribution", attribution, "--steps", "3", "--explain", "label")
    assert call(folder, tmp_path / "out", *more) == 0
    rows = table(tmp_path / "out")
    assert [row["name"] for row in rows[::2]] == ["cat/a.png", "cat/b.png", "dog/c.png"]
    assert [row["explained"] for row in rows[::2]] == ["0", "0", "1"]
    assert all(row["released"] == "" for row in rows)
    assert any(float(row["topk"]) > 0.5 for row in rows)
    assert any(float(row["cosine"]) > 0.9 for row in rows)
    images, model = data.image_folder(folder), net().eval()
    maps = {
        "gradient": gradient,
        "integrated_gradients": lambda *b: integrated_gradients(*b, steps=3),
        "input_x_gradient": lambda m, x, y: x * gradient(m, x, y),
    }[attribution]
    z = images.x.clone()
    for row, eps in zip(rows[:2], (0.001, 0.003), strict=True):
        for seed in range(5):
            step = torch.rand(z.shape, generator=oracles.seeded(seed)).sub(0.5).sign()
            other = (z + 0.99 * eps * step).clamp(0, 1)
            a, b = (maps(model, x, images.y)[0].flatten() for x in (z, other))
            assert torch.cosine_similarity(a, b, dim=0) >= float(row["cosine"])


def test_single_pictures_have_no_label(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(folder / name) for name in ("dog/c.png", "cat/a.png")]
    model = ("--model", "tests.test_main_certify:net", "--out", str(tmp_path / "out"), *BOXES)
    assert main(["certify", "--image", *paths, *model]) == 0
    assert [row["name"] for row in table(tmp_path / "out")[::2]] == paths
    assert {row["label"] for row in table(tmp_path / "out")} == {""}
    capsys.readouterr()
    assert main(["certify", "--image", *paths, *model, "--explain", "label"]) == 2
    assert "--image, which has no labels, got label" in complaint(capsys)
    assert main(["certify", "--image", str(folder / "no.png"), *model]) == 2
    assert "no.png" in complaint(capsys)


def test_abstentions_are_counted_and_a_black_map_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "dog" / "c.png")
    more = (*BOXES[:4], "--attribution", "input_x_gradient", "--eps", "0.9", "0.0001")
    assert call(folder, tmp_path / "out", *more) == 0
    said = capsys.readouterr().out
    assert "eps 0.0001: abstained on 1 of 3" in said
    assert "eps 0.9: abstained on 3 of 3" in said
    notes = [(row["abstained"], row["note"]) for row in table(tmp_path / "out")]
    assert notes[:2] == [("False", ""), ("True", "")]
    assert notes[4:] == [("True", "its map is zero everywhere")] * 2


# --- a second call --------------------------------------------------------------------------------


@METHODS
def test_a_second_call_goes_on_where_the_first_stopped(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert call(folder, whole, *more) == 0
    calls = []
    kind = proofs.Intervals if more is BOXES else proofs.Smoothing
    proved = kind.proved

    def stopped(self: proofs.Method, *given: object) -> object:
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return proved(self, *given)

    monkeypatch.setattr(kind, "proved", stopped)
    assert call(folder, parts, *more) == 130
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "attrlib certify: stopped; the same command goes on after the last whole batch"
    assert table(parts) == table(whole)[:4]  # the first batch is safe
    assert call(folder, parts, *more) == 0
    assert table(parts) == table(whole)
    assert call(folder, parts, *more) == 0
    assert len(calls) == 3  # nothing is done twice


@METHODS
def test_other_contents_are_refused_and_other_pictures_measured(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    out = tmp_path / "out"
    assert call(folder, out, *more) == 0
    before = table(out)
    capsys.readouterr()
    for change, what in (
        (("--eps", "0.01"), "certificate"),
        (("--attribution", "input_x_gradient"), "certificate"),
        (("--explain", "label"), "explain"),
        (("--batch-size", "3"), "batch_size"),
    ):
        assert call(folder, out, *more, *change) == 2
        assert f"of the same run, got another {what}; choose" in complaint(capsys)
    SEED[0] = 1
    assert call(folder, out, *more) == 2
    assert "got another weights, outputs; choose" in complaint(capsys)
    SEED[0] = 0
    assert table(out) == before
    picture(folder / "cat" / "b.png", 77)
    assert call(folder, out, *more) == 0
    assert call(folder, tmp_path / "fresh", *more) == 0
    assert table(out) == table(tmp_path / "fresh")
    if more is BOXES:  # smoothing sees next to no difference between two noise pictures
        assert table(out) != before


def test_runs_of_two_commands_do_not_share_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(folder, tmp_path / "out", *BOXES) == 0
    capsys.readouterr()
    source = ["--image-folder", str(folder), "--model", "tests.test_main_certify:net"]
    assert main(["attack", *source, "--out", str(tmp_path / "out"), "--steps", "3"]) == 2
    error = capsys.readouterr().err
    assert "to be new or of the same run, got one of attrlib certify; choose another" in error


# --- what fails becomes one line, and what is done stays -------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--eps", "8"), "Expected eps < 2 * radius = 8, where the balls still meet, got 8"),
        (("--eps", "0.1", "3", "--radius", "1"), "Expected eps < 2 * radius = 2"),
        (("--eps", "-0.1"), "Expected eps >= 0, got -0.1"),
        (("--radius", "0"), "Expected radius > 0, got 0"),
        (("--alpha", "0"), "Expected alpha strictly between 0 and 1, got 0.0"),
        (("--alpha", "1.5"), "Expected alpha strictly between 0 and 1, got 1.5"),
        (("--samples", "1"), "Expected samples to be an integer >= 2, got 1"),
        (("--samples", "4", "--eps", "0.5"), "Expected samples >= "),
        (("--k", "65"), "Expected k to be an integer from 1 to 64, got 65"),
        (("--count", "0"), "Expected count to be an integer >= 1, got 0"),
        (("--batch-size", "0"), "Expected batch_size to be an integer >= 1, got 0"),
        (("--seed", "-1"), "Expected seed to be an integer from 0 to "),
        (("--size", "0"), "Expected size to be an integer >= 1, got 0"),
        (("--device", "warp"), "Expected --device of this machine, got 'warp'"),
        (("--checkpoint", "no-such"), "not allowed with argument"),
        ((*BOXES, "--eps", "-0.1"), "Expected eps >= 0, got -0.1"),
        ((*BOXES, "--eps", "0.1", "1"), "Expected eps < 1, the whole range of pixels, got 1.0"),
        ((*BOXES, "--k", "0"), "Expected k to be an integer from 1 to 64, got 0"),
        (
            (*BOXES, "--alpha", "0.1", "--radius", "1"),
            "settings of smoothing, got --radius, --alpha",
        ),
        ((*BOXES, "--attribution", "integrated_gradients", "--steps", "0"), "Expected steps to be"),
    ],
    ids=lambda value: " ".join(value)[-40:] if isinstance(value, tuple) else "",
)
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_options_end_in_one_line(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    message: str,
) -> None:
    if message.startswith("not allowed"):
        with pytest.raises(SystemExit, match="2"):
            call(folder, tmp_path / "out", *more)
        assert message in capsys.readouterr().err
    else:
        assert call(folder, tmp_path / "out", *more) == 2
        assert message in complaint(capsys)
    assert not (tmp_path / "out").exists()


def test_the_number_of_samples_that_is_asked_for_is_enough(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ("--eps", "0.1", "0.5", "--alpha", "0.01", "--samples")
    assert call(folder, tmp_path / "out", *few, "4") == 2
    needed = complaint(capsys).partition("samples >= ")[2].partition(",")[0]
    assert call(folder, tmp_path / "out", *few, needed) == 0


def test_a_layer_without_bounds_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(folder, tmp_path / "out", *BOXES, model="pooled") == 2
    assert "max_pool2d" in (text := complaint(capsys)) or "MaxPool2d" in text
    assert call(folder, tmp_path / "out", *SMOOTH, model="pooled") == 0


def test_a_bad_picture_or_place_is_named_and_finished_rows_stay(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    (folder / "cat" / "aa.png").write_bytes(b"not an image")
    assert call(folder, out, *BOXES) == 2
    assert "aa.png to be an image" in complaint(capsys)
    (tmp_path / "file").touch()
    assert call(folder, tmp_path / "file" / "out", *BOXES) == 2
    assert str(tmp_path / "file") in complaint(capsys)
    write: Callable[[Path, bytes], int] = Path.write_bytes
    with (
        monkeypatch.context() as patch
    ):  # two figures, settings, record and table of the first batch
        patch.setattr(Path, "write_bytes", oracles.full_disk(write, after=5))
        assert call(folder, out, *BOXES, "--skip-bad") == 2
    said = capsys.readouterr().err
    assert "left out: Expected" in said
    assert "No space left on device" in said
    assert len(table(out)) == 4
    assert call(folder, out, *BOXES, "--skip-bad") == 0
    assert len(table(out)) == 6


def test_bounds_are_rounded_down() -> None:
    from attrlib.commands.proofs import down

    given = (0.29, 0.1234567, -0.5000001, 1.0, 0.9999999, float("nan"))
    said = [down(value) for value in given]
    assert said == ["0.290000", "0.123456", "-0.500001", "1.000000", "0.999999", "nan"]


def test_the_folder_knows_its_commands() -> None:
    assert set(rows._COMMANDS) == {"attack", "certify", "report"}
