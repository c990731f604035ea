"""Data sets: the embedded subset, the full set by its three routes, folders of images, photographs."""

import gzip
import struct
import urllib.error
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from attrlib import data
from tools import fashion

# --- the embedded subset --------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "per_class"), [("train", 900), ("val", 100), ("test", 200)])
def test_embedded_splits(split: data.Split, per_class: int) -> None:
    images = data.fashion_mnist(split)
    assert images.x.shape == (10 * per_class, 1, 28, 28)
    assert (images.x.dtype, images.y.dtype) == (torch.float32, torch.int64)
    assert images.x.aminmax() == (0, 1)
    assert images.y.bincount().tolist() == [per_class] * 10
    assert images.classes == data.FASHION_CLASSES


def test_embedded_validation_rows_are_the_last_of_each_class() -> None:
    pixels, y = data.fashion._read_embedded("train")
    held_out = data.fashion._last_rows(y, full=False)
    for label in range(10):
        places = held_out[y == label]
        assert not places[:-100].any()
        assert places[-100:].all()
    assert torch.equal(
        data.fashion_mnist("val").x[:, 0] * 255, torch.tensor(pixels[held_out]).float()
    )
    assert len(data.fashion_mnist("train")) + len(data.fashion_mnist("val")) == len(y)


def test_no_validation_image_is_a_training_image() -> None:
    def rows(split: data.Split) -> set[bytes]:
        return {row.numpy().tobytes() for row in data.fashion_mnist(split).x}

    assert not rows("train") & rows("val")


def test_fingerprint_sees_one_pixel_one_label_and_the_order() -> None:
    images = data.fashion_mnist("val")[:40]
    known = data.fingerprint(images)
    assert len(known) == 16
    assert data.fingerprint(data.fashion_mnist("val")[:40]) == known
    x, y = images.x.clone(), images.y.clone()
    x[3, 0, 5, 5] = 1 - x[3, 0, 5, 5]
    y[7] = (y[7] + 1) % 10
    changed = [
        data.Images(x, images.y, images.classes),
        data.Images(images.x, y, images.classes),
        images[torch.arange(39, -1, -1)],
        images[:39],
    ]
    assert len({known, *map(data.fingerprint, changed)}) == 5


def test_rows_can_be_chosen_in_many_ways() -> None:
    images = data.fashion_mnist("val")
    for rows in (slice(3, 9, 2), [3, 5, 7], torch.tensor([3, 5, 7])):
        chosen = images[rows]
        assert torch.equal(chosen.x, images.x[[3, 5, 7]])
        assert torch.equal(chosen.y, images.y[[3, 5, 7]])
    mask = images.y == 4
    assert len(images[mask]) == 100
    assert len(repr(images)) < 400


@pytest.mark.usefixtures("unchecked_shapes")
def test_images_need_one_label_each() -> None:
    with pytest.raises(ValueError, match=r"Expected x of shape .* got \(2, 1, 4, 4\) and \(3,\)"):
        data.Images(torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64), ("a",))
    with pytest.raises(ValueError, match=r"Expected x of shape .* got \(2, 4, 4\) and \(2,\)"):
        data.Images(torch.zeros(2, 4, 4), torch.zeros(2, dtype=torch.int64), ("a",))


def test_what_is_done_to_one_set_is_not_seen_in_the_next() -> None:
    before = data.fashion_mnist("test")
    changed = data.fashion_mnist("test")
    changed.x.zero_()
    changed.y.zero_()
    again = data.fashion_mnist("test")
    assert torch.equal(again.x, before.x)
    assert torch.equal(again.y, before.y)


@pytest.mark.usefixtures("unchecked_shapes")
def test_an_unknown_split_is_named() -> None:
    with pytest.raises(ValueError, match="Expected split to be one of train, val, test, got 'dev'"):
        data.fashion_mnist("dev")


@pytest.mark.parametrize("damage", ["text", "truncated", "flipped", "other"])
def test_damaged_embedded_data_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    folder = tmp_path / "_assets" / "data"
    folder.mkdir(parents=True)
    file = folder / "fashion-mnist-test.npz"
    rng = np.random.default_rng(0)
    fashion.write(file, rng.integers(0, 9, (20, 28, 28), np.uint8), np.zeros(20))
    raw = bytearray(file.read_bytes())
    if damage == "text":
        file.write_text("not an archive")
    elif damage == "truncated":
        file.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[len(raw) // 3 : len(raw) // 3 + 40] = b"\xff" * 40
        file.write_bytes(raw)
    else:
        np.savez(file, z=np.zeros(3))
    monkeypatch.setattr(data.fashion, "files", lambda _: tmp_path)
    with pytest.raises(
        ValueError, match=r"Expected .*fashion-mnist-test.npz to be the embedded data"
    ):
        data.fashion_mnist("test")


# --- the full set ---------------------------------------------------------------------------------


def _idx(values: np.ndarray) -> bytes:
    return struct.pack(f">xxBB{values.ndim}I", 8, values.ndim, *values.shape) + values.tobytes()


def _write_set(folder: Path, *, packed: bool, train: int = 5003, test: int = 7) -> None:
    """A set like the real one, all zeros but for a number in the first pixel."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        pixels = np.zeros((count, 28, 28), np.uint8)
        pixels[:, 0, 0] = np.arange(count) % 251
        for name, values in (
            (f"{part}-images-idx3-ubyte", pixels),
            (f"{part}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8)),
        ):
            raw = _idx(values)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(raw, 1))
            else:
                (folder / name).write_bytes(raw)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No folder of this machine has the full set, and nothing can be downloaded."""
    monkeypatch.delenv("ATTRLIB_DATA", raising=False)
    monkeypatch.setattr(data.fashion, "_DEBIAN", tmp_path / "debian")
    monkeypatch.setattr(data.fashion, "_cache", lambda: tmp_path / "cache")

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network in this test")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", refuse)
    return tmp_path


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", ["", "fashion-mnist", "FashionMNIST/raw"])
def test_full_set_from_a_folder(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, packed: bool, below: str
) -> None:
    _write_set(nowhere / "own" / below, packed=packed)
    monkeypatch.setenv("ATTRLIB_DATA", str(nowhere / "own"))
    assert data.find_full() == nowhere / "own" / below
    test = data.fashion_mnist("test", full=True)
    assert test.x.shape == (7, 1, 28, 28)
    assert (test.x[:, 0, 0, 0] * 255).round().tolist() == list(range(7))
    assert test.y.tolist() == list(range(7))
    train, val = (data.fashion_mnist(split, full=True) for split in ("train", "val"))
    assert (len(train), len(val)) == (3, 5000)
    assert (train.x[:, 0, 0, 0] * 255).round().tolist() == [0, 1, 2]


def test_places_are_tried_in_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert data.find_full() is None
    _write_set(nowhere / "cache", packed=False, train=1, test=1)
    assert data.find_full() == nowhere / "cache"
    _write_set(nowhere / "debian", packed=True, train=1, test=1)
    assert data.find_full() == nowhere / "debian"
    monkeypatch.setenv("ATTRLIB_DATA", str(nowhere / "own"))
    assert data.find_full() == nowhere / "debian"
    _write_set(nowhere / "own", packed=True, train=1, test=1)
    assert data.find_full() == nowhere / "own"
    next((nowhere / "own").iterdir()).unlink()  # an incomplete set does not count
    assert data.find_full() == nowhere / "debian"


def test_without_any_place_the_message_names_all(nowhere: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"ATTRLIB_DATA .* dataset-fashion-mnist.*no network in this test"
    ):
        data.fashion_mnist("test", full=True)


def test_the_download_goes_to_the_cache(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Fake:
        def __init__(self, root: str, *, download: bool) -> None:
            assert download
            self.raw_folder = str(Path(root) / "FashionMNIST" / "raw")
            _write_set(Path(self.raw_folder), packed=True)

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", Fake)
    assert len(data.fashion_mnist("test", full=True)) == 7
    assert data.find_full() == nowhere / "cache" / "FashionMNIST" / "raw"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0",
        _idx(np.zeros((7, 28, 28), np.uint8))[:-1],
        _idx(np.zeros((7, 28, 27), np.uint8)),
        _idx(np.zeros((6, 28, 28), np.uint8)),
        _idx(np.zeros(7, np.uint8)),
    ],
)
def test_damaged_idx_files_are_named(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    _write_set(nowhere, packed=False, train=1)
    monkeypatch.setenv("ATTRLIB_DATA", str(nowhere))
    (nowhere / "t10k-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=rf"Expected .*{nowhere}.*, got "):
        data.fashion_mnist("test", full=True)


@pytest.mark.parametrize("cut", [3, 30])
def test_a_damaged_gz_file_is_named(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    _write_set(nowhere, packed=True, train=1)
    monkeypatch.setenv("ATTRLIB_DATA", str(nowhere))
    file = nowhere / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(
        ValueError, match=r"Expected .*t10k-labels-idx1-ubyte\.gz to be an idx file"
    ):
        data.fashion_mnist("test", full=True)


def test_a_label_beyond_the_classes_is_refused(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write_set(nowhere, packed=False, train=1)
    monkeypatch.setenv("ATTRLIB_DATA", str(nowhere))
    (nowhere / "t10k-labels-idx1-ubyte").write_bytes(_idx(np.full(7, 10, np.uint8)))
    with pytest.raises(ValueError, match="Expected 28×28 images and their labels"):
        data.fashion_mnist("test", full=True)


@pytest.mark.skipif(data.find_full() is None, reason="the full set is not on this machine")
def test_the_embedded_set_is_the_start_of_the_full_one() -> None:
    for part, (splits, count) in zip(("train", "test"), fashion.FILES.values(), strict=True):
        x, y = fashion.whole(splits)
        embedded = data.fashion._read_embedded(part)
        assert len(x) == {"train": 60_000, "test": 10_000}[part]
        for label in range(10):
            assert np.array_equal(embedded[0][embedded[1] == label], x[y == label][:count])
        for made, stored in zip(fashion.first(x, y, count=count), embedded, strict=True):
            assert np.array_equal(made, stored)
            assert made.dtype == stored.dtype
    assert len(data.fashion_mnist("val", full=True)) == 5000


def test_embedded_files_are_packed_alike_each_time(tmp_path: Path) -> None:
    x, y = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28), np.arange(2, dtype=np.uint8)
    for name in ("one", "two"):
        fashion.write(tmp_path / name, x, y)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with np.load(tmp_path / "one") as archive:
        assert np.array_equal(archive["x"], x)
        assert np.array_equal(archive["y"], y)
    assets = Path(data.__file__).parents[1] / "_assets" / "data"
    for file in (tmp_path / "one", *map(assets.joinpath, fashion.FILES)):
        with zipfile.ZipFile(file) as archive:
            for member in archive.infolist():
                assert member.compress_type == zipfile.ZIP_LZMA
                assert member.date_time == (1980, 1, 1, 0, 0, 0)


# --- folders of images ----------------------------------------------------------------------------


def _picture(seed: int = 0, height: int = 8, width: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, kind in enumerate(["cat", "ant", "bee"]):
        (tmp_path / kind).mkdir()
        for i in range(2):
            Image.fromarray(_picture(10 * number + i)).save(tmp_path / kind / f"{i}.png")
    return tmp_path


def test_image_folder_is_read_exactly(folder: Path) -> None:
    images = data.image_folder(folder)
    assert images.classes == ("ant", "bee", "cat")
    assert images.y.tolist() == [0, 0, 1, 1, 2, 2]
    assert images.x.shape == (6, 3, 8, 8)
    assert images.x.dtype == torch.float32
    expected = torch.tensor(_picture(1)).permute(2, 0, 1).float() / 255  # the second cat
    assert torch.equal(images.x[5], expected)
    assert torch.equal(images[[5]].x[0], expected)


def test_image_folder_is_lazy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    read = data.folders._read_image

    def counted(path: Path, size: int | None) -> torch.Tensor:
        decoded.append(path.name)
        return read(path, size)

    monkeypatch.setattr(data.folders, "_read_image", counted)
    images = data.image_folder(folder)
    assert len(images) == 6
    assert "cat" in repr(images)
    assert decoded == []
    assert images[2:4].x.shape == (2, 3, 8, 8)
    assert images[images.y == 2].y.tolist() == [2, 2]
    assert len(decoded) == 4
    for _ in range(2):
        assert images.x.shape == (6, 3, 8, 8)
    assert len(decoded) == 10  # all of them once, and kept


def test_size_scales_and_cuts_the_centre(folder: Path) -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    Image.fromarray(wide).save(folder / "ant" / "wide.png")
    images = data.image_folder(folder, size=7)
    assert images.x.shape == (7, 3, 7, 7)
    centre = images.x[[p.name == "wide.png" for p in images.paths]][0]
    torch.testing.assert_close(centre[..., 1:-1], torch.full((3, 7, 5), 200 / 255).float())


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "CMYK"])
def test_kinds_of_pixels(folder: Path, mode: str) -> None:
    picture = Image.fromarray(_picture()).convert(mode)
    file = folder / "ant" / ("z.tiff" if mode == "CMYK" else "z.png")
    picture.save(file)
    x = data.folders._read_image(file, None)
    expected = torch.tensor(np.asarray(picture.convert("RGB"))).permute(2, 0, 1) / 255
    assert x.shape == (3, 8, 8)
    torch.testing.assert_close(x, expected.float())


def test_a_palette_with_transparency_is_read_without_a_warning(folder: Path) -> None:
    picture = Image.fromarray(_picture()).convert("P")
    picture.save(folder / "ant" / "z.png", transparency=bytes([0, 128, 255]))
    assert data.folders._read_image(folder / "ant" / "z.png", None).shape == (3, 8, 8)


def test_sixteen_bits_are_scaled_and_not_cut_off(folder: Path) -> None:
    grey = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
    Image.fromarray(grey).save(folder / "ant" / "z.png")
    x = data.folders._read_image(folder / "ant" / "z.png", None)
    torch.testing.assert_close(x[0], torch.tensor(grey / 65535).float(), atol=1 / 255, rtol=0)


def test_a_cameras_rotation_is_applied(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by a quarter to show
    lying = np.zeros((8, 16, 3), np.uint8)
    lying[:, :4] = 255
    Image.fromarray(lying).save(folder / "ant" / "z.jpg", exif=exif, quality=100)
    x = data.folders._read_image(folder / "ant" / "z.jpg", None)
    assert x.shape == (3, 16, 8)
    assert x[:, :3].min() > 0.9 > 0.1 > x[:, 6:].max()


@pytest.mark.parametrize("content", [b"", b"not an image", b"truncated"])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_broken_file_is_named_when_it_is_read(folder: Path, content: bytes, ending: str) -> None:
    file = folder / "bee" / f"broken.{ending}"
    if content == b"truncated":
        Image.fromarray(_picture(0, 64, 64)).save(file)
        content = file.read_bytes()[:-2000]
    file.write_bytes(content)
    images = data.image_folder(folder)
    assert len(images[:3]) == 3
    for size in (None, 4):
        with pytest.raises(ValueError, match=rf"Expected .*broken.{ending} to be an image, got"):
            data.image_folder(folder, size=size).x  # noqa: B018


def test_a_file_that_disappears_is_named(folder: Path) -> None:
    images = data.image_folder(folder)
    images.paths[4].unlink()
    with pytest.raises(ValueError, match=r"Expected .*cat/0.png to be an image"):
        images[4:]


def test_sizes_that_differ_are_named(folder: Path) -> None:
    Image.fromarray(_picture(0, 8, 9)).save(folder / "ant" / "wide.png")
    images = data.image_folder(folder)
    with pytest.raises(ValueError, match=r"Expected images of one size .*\(3, 8, 8\).*\(3, 8, 9\)"):
        images.x  # noqa: B018
    assert data.image_folder(folder, size=4).x.shape == (7, 3, 4, 4)


@pytest.mark.usefixtures("unchecked_shapes")
def test_missing_and_empty_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Expected path to be a folder, got .*nothing"):
        data.image_folder(tmp_path / "nothing")
    for make in (tmp_path / "empty", tmp_path / "full" / "ant"):
        make.mkdir(parents=True)
        root = tmp_path / make.relative_to(tmp_path).parts[0]
        with pytest.raises(FileNotFoundError, match=rf"Expected path to hold images .* got {root}"):
            data.image_folder(root)
    for size in (0, -3, 2.5):
        with pytest.raises(ValueError, match="Expected size to be an integer >= 1, got"):
            data.image_folder(tmp_path / "full", size=size)


def test_no_rows_give_an_empty_batch(folder: Path) -> None:
    assert data.image_folder(folder, size=4)[:0].x.shape == (0, 3, 4, 4)
