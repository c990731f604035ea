"""Files that appear whole or not at all, places that are tried first, names and digests."""

import multiprocessing
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from attrlib import _files


@pytest.fixture
def dead() -> int:
    """The number of a process that is over."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.mark.usefixtures("umask")
def test_the_mode_is_that_of_any_new_file(tmp_path: Path) -> None:
    with _files.whole(tmp_path / "a") as partial:
        partial.unlink()
        os.close(os.open(partial, os.O_CREAT | os.O_WRONLY, 0o600))  # as some libraries do
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_errors_name_the_file_and_not_its_other_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"

    def fail(error: OSError) -> None:
        with _files.whole(path):
            raise error

    with pytest.raises(OSError, match=r"No space left.*/a\.csv'$"):
        fail(OSError(28, "No space left on device"))
    elsewhere = FileNotFoundError(2, "No such file or directory", "fonts.json")
    with pytest.raises(FileNotFoundError, match=r"'fonts\.json'"):
        fail(elsewhere)
    with (
        pytest.raises(FileNotFoundError, match=r"/no/a\.csv'$"),
        _files.whole(tmp_path / "no" / "a.csv"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.csv", "[a] *.csv", "写" * 80, "x" * 250])
def test_what_a_killed_run_left_is_removed_by_the_next(
    tmp_path: Path, dead: int, name: str
) -> None:
    path = tmp_path / name
    with _files.whole(path) as partial:
        partial.write_bytes(b"1")
        of_dead = partial.with_name(partial.name.replace(str(os.getpid()), str(dead)))
        of_living = partial.with_name(partial.name.replace(str(os.getpid()), str(os.getppid())))
        of_another = tmp_path / f".b.csv.{dead}.partial"
        for file in (of_dead, of_living, of_another):
            file.touch()
    with _files.whole(path) as partial:
        partial.write_bytes(b"2")
    assert path.read_bytes() == b"2"
    assert set(tmp_path.iterdir()) == {path, of_living, of_another}
    _files.sweep(tmp_path)
    assert set(tmp_path.iterdir()) == {path, of_living}


def test_a_place_is_made_and_tried(tmp_path: Path) -> None:
    _files.ready(tmp_path / "new" / "a.csv")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "file").touch()
    _files.ready(tmp_path / "file")
    with pytest.raises(OSError, match="file"):
        _files.ready(tmp_path / "file" / "a.csv")
    with pytest.raises(ValueError, match=r"Expected .*new to be a file or new, got a folder"):
        _files.ready(tmp_path / "new")


def _hold(path: Path, held: "multiprocessing.synchronize.Event", seconds: float) -> None:
    with _files.claimed(path):
        held.set()
        multiprocessing.Event().wait(seconds)


def test_a_place_belongs_to_one_run_until_this_is_over_or_killed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.csv"
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    child = context.Process(target=_hold, args=(path, held, 120.0))
    child.start()
    assert held.wait(60)
    with (
        pytest.raises(ValueError, match=r"Expected .*a\.csv to be free, got another run"),
        _files.claimed(path),
    ):
        pass
    with _files.claimed(path.with_name("b.csv")):
        pass
    child.kill()
    child.join()
    with _files.claimed(path):
        path.touch()
    assert list(path.parent.iterdir()) == [path]


def test_folders_that_stay_empty_go_again(tmp_path: Path) -> None:
    with _files.claimed(tmp_path / "a" / "b" / "c.csv"):
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_names_become_text_and_short() -> None:
    assert _files.shown(os.fsdecode(b"caf\xe9 \xc3\xa9")) == "caf\\xe9 é"
    assert _files.shown("a\rb\nc") == "a\\rb\nc"
    assert _files.short("a" * 200) == "a" * 200
    one, other = (_files.short("写真" * 60 + end) for end in "ab")
    assert len(os.fsencode(one)) <= 200
    assert one != other
    assert one.startswith("写真")


def test_digests_see_bits_shapes_and_order() -> None:
    x = torch.arange(4.0)
    known = _files.digest(x, "a")
    assert known == _files.digest(x.clone(), "a")
    others = [
        _files.digest(x.reshape(2, 2), "a"),
        _files.digest(x + 1e-7 * (x == 1), "a"),
        _files.digest(x.int(), "a"),
        _files.digest("a", x),
        _files.digest(x, "b"),
        _files.digest(x, "a", ""),
    ]
    assert len({known, *others}) == 7
