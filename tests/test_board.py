"""The leaderboard: which rows stand together, and which ranks their intervals leave open."""

from pathlib import Path

import pytest

from attrlib.benchmark import Column, boards, ranks
from attrlib.benchmark.board import Entry, read

COLUMN = Column(group="g", title="t", attack="top-k suite", quantity="topk", eps=0.1)


def _rows(
    recipe: str,
    value: float,
    *,
    half: float = 0.05,
    suite: str = "2",
    weights: str = "w",
    **more: str,
) -> list[dict[str, str]]:
    """Three seeds that agree, so that the whole interval is that of the images, and their mean."""
    head = {"recipe": recipe, "attack": "top-k suite", "suite": suite, "eps": "0.10000"}
    head |= {"list": "l", "checkpoints": weights, "quantity": "topk", "images": "100"}
    ends = {"low": f"{value - half:.4f}", "high": f"{value + half:.4f}"}
    row = head | {"value": f"{value:.4f}"} | ends | more
    return [row | {"seed": seed} for seed in ("0", "1", "2", "all")]


def _entries(*rows: list[dict[str, str]]) -> tuple[Entry, ...]:
    (board,) = boards([row for part in rows for row in part])
    return board.entries


def test_intervals_that_do_not_meet_tell_networks_apart() -> None:
    entries = _entries(_rows("a", 0.9), _rows("b", 0.5), _rows("c", 0.45), _rows("d", 0.2))
    found = {name: place.one for name, place in ranks(entries, COLUMN).items()}
    assert found == {"a": (1, 1), "b": (2, 3), "c": (2, 3), "d": (4, 4)}
    low = Column(**{**vars(COLUMN), "best": "low"})
    found = {name: place.one for name, place in ranks(entries, low).items()}
    assert found == {"d": (1, 1), "b": (2, 3), "c": (2, 3), "a": (4, 4)}


def test_all_intervals_at_once_are_wider() -> None:
    """At 99 images more than one, Student's quantile goes from 1.98 to 2.28 for two networks."""
    gap = 0.05 * (2 + 2 * (2.2761 / 1.9842)) / 2  # between the plain and the wide limit
    entries = _entries(_rows("a", 0.5), _rows("b", 0.5 - gap))
    for place in ranks(entries, COLUMN).values():
        assert place.one[0] == place.one[1]
        assert place.all == (1, 2)
    apart = _entries(_rows("a", 0.5), _rows("b", 0.5 - 0.1 * 1.15))
    assert [place.all for place in ranks(apart, COLUMN).values()] == [(1, 1), (2, 2)]


def test_few_seeds_widen_more_than_many_images() -> None:
    entries = _entries(_rows("a", 0.5), _rows("b", 0.4))
    assert ranks(entries, COLUMN)["a"].one == (1, 2)  # the ends meet
    spread = [
        row | {"value": f"{0.5 + shift:.4f}"} if row["seed"] != "all" else row
        for row, shift in zip(_rows("a", 0.5), (-0.02, 0.0, 0.02, 0.0), strict=True)
    ]
    wide, narrow = (
        ranks(_entries(first, _rows("b", 0.38)), COLUMN)["a"].all
        for first in (spread, _rows("a", 0.5))
    )
    assert (wide, narrow) == ((1, 2), (1, 1))


def test_one_seed_has_no_rank_and_changes_no_other() -> None:
    alone = [row for row in _rows("alone", 0.99) if row["seed"] in ("0", "all")]
    alone[1] |= {"low": "", "high": ""}
    entries = _entries(_rows("a", 0.9), alone)
    assert {name: place.one for name, place in ranks(entries, COLUMN).items()} == {"a": (1, 1)}
    assert ranks(_entries(alone), COLUMN) == {}


def test_other_maps_are_on_no_board() -> None:
    (entry,) = _entries(_rows("a", 0.9, map="gradient"), _rows("a", 0.2, map="LRP"))
    mean = entry.get(COLUMN)
    assert mean is not None
    assert mean.value == 0.9


def test_rows_of_other_versions_and_images_never_mix() -> None:
    rows = [*_rows("a", 0.9), *_rows("a", 0.8, suite="3"), *_rows("b", 0.7, suite="10")]
    rows += _rows("c", 0.6, list="other")
    found = [(board.suite, board.images, board.entries[0].name) for board in boards(rows)]
    assert found == [("10", "l", "b"), ("3", "l", "a"), ("2", "other", "c"), ("2", "l", "a")]
    assert all(len(board.entries) == 1 for board in boards(rows))
    assert [b.entries[0].get(COLUMN).value for b in boards(rows)] == [0.7, 0.8, 0.6, 0.9]


def test_what_needs_no_suite_is_joined_if_it_is_of_the_same_weights() -> None:
    light = Column(group="g", title="t", attack="brightness", quantity="topk")
    benign = [
        {name: value for name, value in row.items() if name not in ("suite", "eps")}
        for row in _rows("a", 0.7, attack="brightness")
    ]
    (board,) = boards(_rows("a", 0.9), benign)
    assert board.entries[0].get(light).value == 0.7
    assert board.entries[0].seeds == ("0", "1", "2")
    for other in ({"checkpoints": "older"}, {"list": "others"}, {"recipe": "b"}):
        (board,) = boards(_rows("a", 0.9), [row | other for row in benign])
        assert len(board.entries) == 1
        assert board.entries[0].get(light) is None


def test_attacks_made_on_the_first_seed_alone_stand_with_the_others() -> None:
    itself = Column(group="g", title="t", attack="identification suite", quantity="topk", eps=0.1)
    of_one = [
        row
        for row in _rows("a", 0.3, attack="identification suite", weights="of the first")
        if row["seed"] in ("0", "all")
    ]
    (board,) = boards([*_rows("a", 0.9), *of_one])
    (entry,) = board.entries
    assert entry.get(itself).value == 0.3
    assert entry.get(itself, "1") is None
    later = [row | {"suite": "3"} for row in of_one]
    (board,) = boards([*_rows("a", 0.9), *later])
    assert board.entries[0].get(itself) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"Expected a table of networks, got no file .*t\.csv"),
        ("animal,legs\ncat,4\n", r"Expected .*t\.csv with the column recipe, got another table"),
        (
            "recipe,attack,list,checkpoints,seed,quantity,images,value,low,high\na,b,c,d,0,e,9,many,,\n",
            r"Expected .*t\.csv with numbers in row 2, got could not convert string to float: 'many'",
        ),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "t.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read(path)
