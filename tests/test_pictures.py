"""The one reader of picture files: odd metadata, unknown ranges, and files that are none."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attrlib import _pictures, data

RAMP = np.tile(np.linspace(0, 1, 64), (8, 1))
QUARTER = (0x0112, 3, 1, struct.pack("<HH", 6, 0))


def _photograph(path: Path, entries: list[tuple[int, int, int, bytes]]) -> None:
    """A JPEG of 16 × 32 pixels with these EXIF entries: tag, type, count, four bytes."""
    Image.fromarray(np.zeros((32, 16, 3), np.uint8)).save(path, "JPEG")
    raw = path.read_bytes()
    fields = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    block = b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + fields + bytes(4)
    path.write_bytes(raw[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + raw[2:])


@pytest.mark.parametrize(
    ("entries", "turned"),
    [
        ([QUARTER], True),
        ([QUARTER, (0x011A, 2, 3, b"72\0\0")], True),  # resolution as text
        ([QUARTER, (0x0100, 2, 3, b"16\0\0")], True),  # width as text
        ([(0x010F, 11, 1, struct.pack("<f", 1.0)), QUARTER], True),  # camera's name as a number
        ([(0x0112, 2, 2, b"x\0\0\0")], False),  # rotation as text
        ([(0x0112, 3, 1, struct.pack("<HH", 99, 0))], False),  # a rotation that does not exist
        ([(0x0112, 3, 2, struct.pack("<HH", 6, 6))], False),  # two rotations
        ([(0x0112, 99, 1, bytes(4))], False),  # a type that does not exist
    ],
)
def test_odd_metadata_do_not_cost_the_picture(
    tmp_path: Path, entries: list[tuple[int, int, int, bytes]], turned: bool
) -> None:
    _photograph(tmp_path / "a.jpg", entries)
    assert _pictures.read(tmp_path / "a.jpg").size == ((32, 16) if turned else (16, 32))


@pytest.mark.parametrize(
    ("pixels", "kind"),
    [
        (RAMP.astype(np.float32), "float"),
        ((RAMP * 65535).astype(np.float32), "float"),
        ((RAMP * 255).astype(np.int32), "32-bit"),
        ((RAMP * 60000 - 30000).astype(np.int32), "32-bit"),
    ],
)
def test_unknown_ranges_are_refused_by_name(tmp_path: Path, pixels: np.ndarray, kind: str) -> None:
    path = tmp_path / "a.tif"
    Image.fromarray(pixels).save(path)
    with pytest.raises(ValueError, match=rf"Expected .*a\.tif to have 8 or 16 .* got {kind} pix"):
        _pictures.read(path)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_scaled(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a.{ending}"
    Image.fromarray((RAMP * 65535).astype(np.uint16)).save(path)
    found = np.asarray(_pictures.read(path))[..., 0] / 255
    assert np.abs(found - RAMP).max() < 1 / 255


def test_twelve_bits_in_a_tiff_are_scaled(tmp_path: Path) -> None:
    values = [0, 4095, 2048, 1024]
    packed = bytes((0x00, 0x0F, 0xFF, 0x80, 0x04, 0x00))
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    entries = [(tag, 3, 1, value) for tag, value in [*tags, (279, len(packed))]]
    fields = b"".join(struct.pack("<HHIHH", *entry, 0) for entry in entries)
    head = b"II*\0" + struct.pack("<I", 8 + len(packed))
    path = tmp_path / "a.tif"
    path.write_bytes(head + packed + struct.pack("<H", len(entries)) + fields + bytes(4))
    found = np.asarray(_pictures.read(path))[0, :, 0]
    assert found.tolist() == [value * 255 // 4095 for value in values]


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    for path in tmp_path.iterdir():
        with pytest.raises(ValueError, match=rf"Expected .*{path.name} to be an image, got"):
            _pictures.read(path)


def test_any_error_of_a_decoder_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    Image.new("L", (4, 4)).save(path)
    for error in (
        struct.error("short"),
        KeyError("tag"),
        RuntimeError("two\nlines"),
        MemoryError(),
    ):

        def fail(self: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Image.Image, "convert", fail)
        with pytest.raises(ValueError, match=r"Expected .*a\.png to be an image, got a") as caught:
            _pictures.read(path)
        assert len(str(caught.value).splitlines()) == 1


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    hidden = (".git/a.png", "cat/.thumbnails/a.png", "cat/._1.png", "dog/.ipynb_checkpoints/1.png")
    for name in ("dog/1.png", "cat/1.png", "cat/deep/2.PNG", *hidden):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    (tmp_path / "cat" / "notes.txt").touch()
    (tmp_path / ".empty").mkdir()
    found = data.image_folder(tmp_path)
    assert found.classes == ("cat", "dog")
    assert found.y.tolist() == [0, 0, 1]
    assert found.x.shape == (3, 3, 4, 4)
    assert [p.name for p in found.paths] == ["1.png", "2.PNG", "1.png"]
    (tmp_path / "bird").mkdir()
    with pytest.raises(FileNotFoundError, match=r"<class>/<image>, got .*: none in bird"):
        data.image_folder(tmp_path)


def test_links_that_lead_back_are_passed_over(tmp_path: Path) -> None:
    for name in ("data/cat/1.png", "data/dog/2.png", "more/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    for place, target in (
        ("data/cat/up", ".."),
        ("data/cat/same", "."),
        ("data/dog/more", "../../more"),  # another folder
        ("more/back", "../data/dog"),
        ("more/itself", "itself"),
    ):
        (tmp_path / place).symlink_to(target)
    found = data.image_folder(tmp_path / "data")
    names = [str(path.relative_to(tmp_path / "data")) for path in found.paths]
    assert names == ["cat/1.png", "dog/2.png", "dog/more/3.png"]


def test_the_order_is_that_of_torchvision(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    for name in ("b/2.png", "b/10.png", "b/a/1.jpg", "b/A.png", "a b/x.png", "Z/q/r/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    found, other = data.image_folder(tmp_path), ImageFolder(str(tmp_path))
    assert [str(p) for p in found.paths] == [path for path, _ in other.samples]
    assert torch.equal(found.y, torch.tensor(other.targets))
    assert list(found.classes) == other.classes
