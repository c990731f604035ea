"""Tables in `results/`: edited by another program, made of other contents, written by two runs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from attrlib import _files, checkpoints, data
from attrlib.__main__ import main
from attrlib.benchmark import _table

ROWS = [{"study": "a, b", "value": "0.5"}, {"study": "c", "value": "1.5"}]


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Put back what the command sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    for row in ROWS:
        _table.append(tmp_path / "t.csv", [row])
    return tmp_path / "t.csv"


def test_rows_are_added_and_found(table: Path) -> None:
    assert table.read_text() == 'study,value\n"a, b",0.5\nc,1.5\n'

    def stop() -> NoReturn:
        raise KeyboardInterrupt

    _table.fill(table, [_table.Cell({"study": "a, b"}, stop)], device="cpu")
    with pytest.raises(KeyboardInterrupt):
        _table.fill(table, [_table.Cell({"study": "c", "value": "0.5"}, stop)], device="cpu")


def test_what_is_there_is_not_made_again(table: Path) -> None:
    made: list[str] = []

    def cell(study: str, **more: str) -> _table.Cell:
        def rows() -> list[dict[str, str]]:
            made.append(study)
            return [{"study": study, "value": "2.5"}]

        return _table.Cell({"study": study, **more}, rows, made_of=("value",))

    made_anew = table.with_name("new.csv")
    _table.fill(made_anew, map(cell, ("c", "d", "c")), device="cpu")
    assert made == ["c", "d"]
    _table.fill(made_anew, map(cell, ("d", "e")), device="cpu")
    assert made == ["c", "d", "e"]
    before = made_anew.read_bytes()
    said = "with rows of study d, value 3, got some with other value"
    with pytest.raises(ValueError, match=said):
        _table.fill(made_anew, [cell("d", value="2.5"), cell("d", value="3")], device="cpu")
    assert made_anew.read_bytes() == before


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace(",", ";"),
        lambda text: text.replace("study,", "").replace("c,", ""),
        lambda text: text.replace("c,1.5", "c"),
        lambda text: text.replace("c", "é").encode("latin-1"),
        lambda text: text + '"never closed',
    ],
    ids=["mark", "semicolons", "no column", "no field", "latin-1", "a quote"],
)
def test_a_table_that_was_edited_is_named_and_left_alone(
    table: Path, edit: Callable[[str], str | bytes]
) -> None:
    edited = edit(table.read_text())
    table.write_bytes(edited if isinstance(edited, bytes) else edited.encode())
    before = table.read_bytes()
    calls: list[Callable[[], object]] = [
        lambda: _table.fill(table, [_table.Cell({"study": "c"}, list)], device="cpu"),
        lambda: _table.check_constant(table, "study", "c"),
        lambda: _table.append(table, ROWS),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"Expected {table}") as caught:
            call()
        assert len(str(caught.value).splitlines()) == 1
    assert table.read_bytes() == before


def test_line_ends_of_another_program_are_no_other_table(table: Path) -> None:
    text = table.read_text()
    table.write_bytes(text.replace("\n", "\r\n").encode() + b"\r\n")
    _table.append(table, ROWS[:1])
    assert table.read_text() == text + '"a, b",0.5\n'


def test_a_table_is_made_of_one_kind_of_contents(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    with pytest.raises(KeyboardInterrupt), _table.made_of(path, weights="1"):
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []  # a try without rows claims nothing
    with _table.made_of(path, weights="2", images="3"):
        _table.append(path, ROWS)
    with _table.made_of(path, weights="2", images="3"):
        pass
    with (
        pytest.raises(ValueError, match=r"Expected .*t\.csv to be made of the same weights, got"),
        _table.made_of(path, weights="1", images="3"),
    ):
        pass
    note = tmp_path / "t.contents.json"
    for damage in ("{", "3", ""):
        note.write_text(damage)
        with (
            pytest.raises(ValueError, match=rf"Expected {note} as it was written"),
            _table.made_of(path, weights="2"),
        ):
            pass
    note.unlink()
    with _table.made_of(path, weights="1"):  # trusted: older than the notes
        assert not note.exists()


def test_the_command_refuses_other_weights_and_a_place_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "t.csv"
    made: list[Path] = []

    def study(table: Path, **_: object) -> None:
        made.append(table)
        _table.append(table, ROWS)

    monkeypatch.setattr("attrlib.benchmark.strength", study)
    embedded = data.fashion_mnist("val")
    monkeypatch.setattr(data, "fashion_mnist", lambda split, full: embedded)
    call = ["bench", "strength", "--out", str(path)]
    assert main(call) == main(call) == 0
    with _files.claimed(path):
        assert main(call) == 2
    assert "to be free, got another run" in capsys.readouterr().err
    other = checkpoints.load("madry")
    monkeypatch.setattr(checkpoints, "load", lambda _: other)
    assert main(call) == 2
    assert "to be made of the same weights, got other contents" in capsys.readouterr().err
    assert made == [path, path]
    (tmp_path / "file").touch()
    assert main(["bench", "strength", "--out", str(tmp_path / "file" / "t.csv")]) == 2
    assert made == [path, path]
