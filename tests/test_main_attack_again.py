"""`python -m attrlib attack` called again, on other contents, on odd names, and where something fails."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from attrlib import _files, checkpoints
from attrlib.__main__ import main
from attrlib.commands import outcome
from tests import commands_oracles, oracles
from tests.commands_oracles import SEED, picture, pictures, small_net

FAST = ("--steps", "2", "--restarts", "1", "--batch-size", "2", "--beta", "30")


@pytest.fixture(autouse=True)
def _single_precision() -> None:
    commands_oracles.start()


def net() -> nn.Module:
    """A user's own model."""
    return small_net(nn.ReLU())


class Scaled(nn.Module):
    """The same weights in other code."""

    factor = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x * self.factor)


def raises() -> nn.Module:
    raise KeyError("weights")


def leaves() -> nn.Module:
    sys.exit(0)


class Odd(Scaled):
    """A network with logits that are no numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = self.body(x) * self.factor
        return torch.cat([scores, scores[:, :1] * torch.nan, scores[:, :1] - torch.inf], 1)


def misfit() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(7, 3))


def half() -> nn.Module:
    return net().half()


class Picky(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return {1: x.flatten(1)[:, :3]}[len(x)]


class Pair(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x, x


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with two images each."""
    names = ("cat/a.png", "cat/b.png", "dog/c.png", "dog/d.png")
    return pictures(tmp_path / "images", names)


def call(folder: Path, out: Path, *more: str, model: str = "net") -> int:
    own = f"tests.test_main_attack_again:{model}"
    source = ("--image-folder", str(folder), "--model", own)
    return main(["attack", *source, "--out", str(out), *FAST, *more])


def rows(out: Path) -> list[dict[str, str]]:
    return commands_oracles.rows(out / "attack.csv")


complaint = partial(commands_oracles.complaint, command="attack")


# --- contents, not names --------------------------------------------------------------------------


def _replace_picture(folder: Path) -> None:
    picture(folder / "cat" / "b.png", 77)


def _remove_picture(folder: Path) -> None:
    (folder / "cat" / "a.png").unlink()


def _move_picture(folder: Path) -> None:
    (folder / "cat" / "b.png").rename(folder / "dog" / "b.png")


def _rename_class(folder: Path) -> None:
    (folder / "dog").rename(folder / "wolf")


def _add_class(folder: Path) -> None:
    picture(folder / "ant" / "x.png", 5)


@pytest.mark.parametrize(
    "change", [_replace_picture, _remove_picture, _move_picture, _rename_class, _add_class]
)
def test_other_pictures_give_what_a_fresh_call_gives(
    folder: Path, tmp_path: Path, change: Callable[[Path], None]
) -> None:
    more = ("--explain", "label")
    assert call(folder, tmp_path / "out", *more) == 0
    before = rows(tmp_path / "out")
    change(folder)
    assert call(folder, tmp_path / "out", *more) == 0
    assert call(folder, tmp_path / "fresh", *more) == 0
    assert rows(tmp_path / "out") == rows(tmp_path / "fresh") != before


@pytest.mark.parametrize("count", ["1", "3"])
def test_a_lower_count_reports_what_it_asked_for(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], count: str
) -> None:
    assert call(folder, tmp_path / "out") == 0
    whole = rows(tmp_path / "out")
    capsys.readouterr()
    assert call(folder, tmp_path / "out", "--count", count) == 0
    assert capsys.readouterr().out.startswith(f"{count} images; ")
    assert len(rows(tmp_path / "out")) == int(count)
    assert call(folder, tmp_path / "out") == 0
    assert rows(tmp_path / "out") == whole


def test_other_weights_and_other_code_are_refused(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    assert call(folder, out) == 0
    before = rows(out)
    SEED[0] = 1
    assert call(folder, out) == 2
    assert "of the same run, got another weights, outputs; choose" in complaint(capsys)
    assert rows(out) == before
    SEED[0] = 0
    assert call(folder, out) == 0
    assert call(folder, tmp_path / "scaled", model="Scaled") == 0
    monkeypatch.setattr(Scaled, "factor", 0.9)
    assert call(folder, tmp_path / "scaled", model="Scaled") == 2
    assert "got another outputs; choose" in complaint(capsys)


def test_outputs_that_are_no_numbers_tell_code_apart_as_well(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    more = ("--explain", "label")
    for _ in range(2):
        assert call(folder, tmp_path / "out", *more, model="Odd") == 0
    capsys.readouterr()
    monkeypatch.setattr(Odd, "factor", 0.9)
    assert call(folder, tmp_path / "out", *more, model="Odd") == 2
    assert "got another outputs; choose" in complaint(capsys)


def test_a_checkpoint_or_target_that_was_written_anew_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped = checkpoints._SHIPPED
    file, out, target = tmp_path / "m.safetensors", tmp_path / "out", tmp_path / "t.png"
    picture(target, 0)
    own = ["attack", "--checkpoint", str(file), "--count", "1", "--out", str(out), *FAST]
    own += ["--objective", "target-map", "--target", str(target)]
    shutil.copy(shipped / "natural-s0.safetensors", file)
    assert main(own) == 0
    picture(target, 1)
    assert main(own) == 2
    assert "got another attack; choose" in complaint(capsys)
    picture(target, 0)
    shutil.copy(shipped / "madry-s0.safetensors", file)
    assert main(own) == 2
    assert "got another weights, outputs; choose" in complaint(capsys)


def test_a_try_that_made_no_row_claims_nothing(folder: Path, tmp_path: Path) -> None:
    assert call(folder, tmp_path / "out", "--beta") == 2  # flat maps: found out in the first batch
    assert not (tmp_path / "out").exists()
    assert call(folder, tmp_path / "out", "--eps", "0.1") == 0


def test_two_runs_do_not_share_a_folder(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with _files.claimed(tmp_path / "out" / "attack.csv"):
        assert call(folder, tmp_path / "out") == 2
    assert "to be free, got another run that writes it now" in complaint(capsys)
    assert call(folder, tmp_path / "out") == 0


EDITS: dict[str, Callable[[str], str | bytes]] = {
    "a byte-order mark": lambda text: "\ufeff" + text,
    "semicolons": lambda text: text.replace(",", ";"),
    "no last column": lambda text: "\n".join(t.rpartition(",")[0] for t in text.splitlines()),
    "no header": lambda text: text.partition("\n")[2],
    "another value": lambda text: text.replace("a.png", "z.png"),
    "an open quote": lambda text: text + '"never closed',
    "latin-1": lambda text: text.replace("a.png", "é.png").encode("latin-1"),
}


def test_a_table_that_was_edited_is_left_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(folder, out, "--count", "2") == 0
    table, whole = out / "attack.csv", rows(out)
    text = table.read_text(encoding="utf-8")
    capsys.readouterr()
    for name, edit in EDITS.items():
        edited = edit(text)
        table.write_bytes(edited if isinstance(edited, bytes) else edited.encode())
        before = table.read_bytes()
        assert call(folder, out, "--count", "2") == 2, name
        assert f"Expected {table} " in complaint(capsys)
        assert table.read_bytes() == before
    table.unlink()
    assert call(folder, out, "--count", "2") == 0
    assert rows(out) == whole


def test_damaged_records_are_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(folder, out, "--count", "1") == 0
    capsys.readouterr()
    for name in ("settings.json", "attack.resume"):
        good = (out / name).read_bytes()
        for content in (b"{", b"[1, 2]", b"\xff", b'{"0": 1}'):
            (out / name).write_bytes(content)
            assert call(folder, out, "--count", "1") == 2
            assert f"Expected --out {out}" in (text := complaint(capsys)) or name in text
        (out / name).write_bytes(good)
    assert call(folder, out, "--count", "1") == 0


# --- names ----------------------------------------------------------------------------------------


NAMES = (
    *(b"price_$5_to_$9", b"Ba$$in", b"a$^$b", b"$\\frac$", b"50%_{x}", b"back\\slash", b"#&~"),
    *(b"x" * 238, "写真".encode() * 40, b"caf\xe9", b"\xff\xfe", b"two\nlines", b"one\rline"),
    *(b'a,"b"', b"-n"),
)


def test_any_name_gives_a_row_and_a_figure(tmp_path: Path) -> None:
    kind = b"c$a$^t\xe9"
    for seed, name in enumerate(NAMES):
        parts = (os.fsencode(tmp_path), b"images", kind, name + b".png")
        picture(Path(os.fsdecode(b"/".join(parts))), seed)
    for _ in range(2):  # the second call finds the first one's rows
        assert call(tmp_path / "images", tmp_path / "out", "--count", "99") == 0
    found = {row["name"] for row in rows(tmp_path / "out")}
    assert found == {_files.shown(os.fsdecode(kind + b"/" + name + b".png")) for name in NAMES}
    assert len(list((tmp_path / "out" / "figures").iterdir())) == len(NAMES)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["seed"] == 0


# --- what fails becomes one line, and what is done stays -------------------------------------------


def test_a_full_disk_ends_in_one_line_and_finished_rows_stay(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "out"
    files = 2 + 3  # figures, settings, record and table of the first batch
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", oracles.full_disk(Path.write_bytes, after=files))
        assert call(folder, out) == 2
    assert "No space left on device: '" in (text := complaint(capsys))
    assert "0002-c.png" in text
    assert [row["name"] for row in rows(out)] == ["cat/a.png", "cat/b.png"]
    assert not list(out.rglob(".*"))
    assert call(folder, out) == 0
    assert len(rows(out)) == 4


def test_a_figure_that_cannot_be_drawn_costs_no_row(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such\nfont")

    with monkeypatch.context() as patch:
        patch.setattr("attrlib.plotting.show_heatmap", fail)
        assert call(folder, tmp_path / "out", "--count", "1") == 0
    assert "0000-a.png: no such font" in complaint(capsys)
    assert len(rows(tmp_path / "out")) == 1
    assert call(folder, tmp_path / "out", "--count", "1") == 0
    assert (tmp_path / "out" / "figures" / "0000-a.png").exists()


def test_what_a_killed_run_left_half_written_goes(folder: Path, tmp_path: Path) -> None:
    gone = 2**22 + 1  # more than any process has on this system
    left = [tmp_path / "out" / name for name in ("", "figures/")]
    left = [Path(f"{place}/.{name}.{gone}.partial") for place in left for name in ("a.png", "b")]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert call(folder, tmp_path / "out", "--count", "1") == 0
    assert not list((tmp_path / "out").rglob(".*"))


def test_skip_bad_covers_every_picture_that_cannot_be_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pixels = np.zeros((8, 8))
    Image.fromarray(pixels.astype(np.float32)).save(folder / "cat" / "float.tif")
    Image.fromarray(pixels.astype(np.int32)).save(folder / "cat" / "int.tif")
    (folder / "cat" / "cut.png").write_bytes((folder / "cat" / "a.png").read_bytes()[:60])
    (folder / "cat" / "gone.png").symlink_to(folder / "nowhere")
    os.mkfifo(folder / "cat" / "pipe.png")
    assert call(folder, tmp_path / "out") == 2
    assert "--skip-bad leaves such images out" in complaint(capsys)
    assert call(folder, tmp_path / "out", "--skip-bad") == 0
    assert capsys.readouterr().err.count("left out: Expected") == 5
    assert len(rows(tmp_path / "out")) == 4


def test_sizes_that_differ_are_found_before_the_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(folder / "dog" / "d.png", 0, (9, 8))
    assert call(folder, tmp_path / "out") == 2
    assert "Expected images of one size (or a value for --size)" in complaint(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "raises",
            r"to give a torch.nn.Module, got KeyError: 'weights' (test_main_attack_again.py",
        ),
        ("misfit", "to take images 3 × 8 × 8, got RuntimeError: mat1 and mat2"),
        ("half", "to take images 3 × 8 × 8, got RuntimeError: "),
        ("leaves", r"to give a torch.nn.Module, got SystemExit: 0 (test_main_attack_again.py"),
        ("Picky", "attrlib attack: KeyError: 2 (test_main_attack_again.py, line "),
        ("Pair", "Expected model(x) to be logits (1, classes), got a tuple"),
    ],
)
def test_a_model_that_does_not_fit_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str, message: str
) -> None:
    assert call(folder, tmp_path / "out", model=model) == 2
    assert message in complaint(capsys)


def test_the_place_is_tried_before_the_work(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("attrlib.data.image_folder", lambda *_, **__: pytest.fail("worked"))
    (tmp_path / "file").touch()
    assert call(folder, tmp_path / "file" / "out") == 2
    assert str(tmp_path / "file") in complaint(capsys)
    (tmp_path / "out" / "attack.csv").mkdir(parents=True)
    assert call(folder, tmp_path / "out") == 2
    assert "to be a file or new, got a folder" in complaint(capsys)


# --- rows that cannot be attacked -----------------------------------------------------------------


def test_a_black_image_is_named_and_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save(folder / "cat" / "b.png")
    more = ("--attribution", "integrated_gradients", "--samples", "2", "--objective", "cosine")
    assert call(folder, tmp_path / "out", *more) == 0
    said = capsys.readouterr().out
    assert "1 left unchanged: cat/b.png (its map is zero everywhere)" in said
    notes = {row["name"]: (row["changed"], row["note"]) for row in rows(tmp_path / "out")}
    assert notes["cat/b.png"] == ("False", "its map is zero everywhere")
    assert [name for name, (changed, _) in notes.items() if changed == "True"] == [
        *("cat/a.png", "dog/c.png", "dog/d.png")
    ]


def test_maps_that_are_not_finite_have_no_scores_and_a_figure(tmp_path: Path) -> None:
    a, b = (torch.randn(3, 1, 4, 4, generator=oracles.seeded(i)) for i in range(2))
    known = outcome.scores(a, b, k=3)
    b[1, 0, 2, 2] = torch.nan
    found = outcome.scores(a, b, k=3)
    for name, values in found.items():
        assert values.isnan().tolist() == [False, True, False]
        assert torch.equal(values[[0, 2]], known[name][[0, 2]])
    assert all(bool(v.isnan().all()) for v in outcome.scores(a[1:2], b[1:2], k=3).values())
    row = {"name": "a", "label": "b", "prediction_kept": "True"}
    row |= {name: f"{float(values[1])}" for name, values in found.items()}
    x = torch.zeros(1, 4, 4)
    outcome.draw(tmp_path / "a.png", x, x, (a[1], b[1]), row, amplify=1.0)
    assert (tmp_path / "a.png").stat().st_size > 1000
