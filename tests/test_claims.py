"""`attrlib.book.claim` and `ledger`: what is entered, what is refused, and which verdict follows."""

import ast
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from attrlib import book
from attrlib.book import _claims, _glue

LIST = """
[noise]
claim = "Noise looks like an attack."
source = "kamath2024rethinking"
where = "abstract"
test = "a ratio"
unit = "ratio"
threshold = 0.5
chapter = "toy"
link = "sec-toy"
weaker = "another attack"

[people]
claim = "People agree."
source = "kamath2024rethinking"
where = "abstract"
untested = "We asked nobody."
"""
HEAD = ",".join(_claims.COLUMNS) + "\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a list of two claims, and a working directory below it."""
    (tmp_path / "book").mkdir()
    (tmp_path / "results" / "claims").mkdir(parents=True)
    (tmp_path / "book" / "claims.toml").write_text(LIST)
    monkeypatch.chdir(tmp_path / "book")
    return tmp_path


def entered(monkeypatch: pytest.MonkeyPatch, *args: Any, **options: Any) -> list[list[Any]]:
    """Return the rows that a call of `claim` stores."""
    shown: list[tuple[Any, Any]] = []
    show = lambda data, *, metadata, raw: shown.append((data, metadata))  # noqa: E731
    monkeypatch.setattr(_glue, "display", show)
    book.claim(*args, **options)
    ((data, metadata),) = shown
    assert metadata["scrapbook"]["name"] == f"claim {args[0]}"
    rows: list[list[Any]] = json.loads(ast.literal_eval(*data.values()))
    return rows


# --- entering -------------------------------------------------------------------------------------


def test_an_exact_effect_is_its_own_interval(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = entered(monkeypatch, "noise", torch.tensor(0.75))
    assert got == [["suite", "", 0.75, 0.75, 0.75, 1]]


def test_cases_and_a_weaker_attack(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    got = entered(monkeypatch, "noise", {"IG": (0.5, 0.25, 0.75), "gradient": 1}, weaker={"IG": 2})
    assert [row[:3] for row in got] == [
        ["suite", "IG", 0.5],
        ["suite", "gradient", 1.0],
        ["weaker", "IG", 2.0],
    ]
    assert got[0][3:] == [0.25, 0.75, 0]


@pytest.mark.parametrize("kind", [list, torch.tensor, pd.Series])
def test_values_of_seeds_give_the_t_interval(
    root: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """Mean 2, deviation 1, three values: 2 ± 4.3027 / √3."""
    ((*_, effect, low, high, units),) = entered(monkeypatch, "noise", kind([1.0, 2.0, 3.0]))
    assert (effect, units) == (2, 3)
    assert low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-5)
    assert high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-5)


@pytest.mark.parametrize(
    ("effect", "told"),
    [
        (float("nan"), "got nan in"),
        ((0.5, 0.6, 0.7), r"got 0.5 in \[0.6, 0.7\]"),
        ((0.5, 0.7, 0.3), r"got 0.5 in \[0.7, 0.3\]"),
        ((0.5, 0.1, float("nan")), "nan"),
        (float("inf"), "inf"),
    ],
)
def test_bad_effects_are_refused(root: Path, effect: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        book.claim("noise", {"one": 1.0, "two": effect})


@pytest.mark.parametrize("values", [[1.0], [[1.0, 2.0]], [1.0, float("nan")]])
def test_an_interval_needs_two_seeds_or_images(root: Path, values: Any) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        book.claim("noise", values)


def test_an_unknown_claim_is_refused(root: Path) -> None:
    with pytest.raises(ValueError, match=r"Expected key to be in .*claims\.toml, got .niose"):
        book.claim("niose", 1.0)


def test_a_missing_list_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_claims, "LIST", Path("book", "no.toml"))
    with pytest.raises(FileNotFoundError, match=r"no\.toml"):
        book.claims()


# --- judging --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        ([0.6, 0.51], [0.8, 0.7], "holds"),
        ([0.6, 0.3], [0.8, 0.4], "partly"),
        ([0.6, 0.4], [0.8, 0.9], "partly"),
        ([0.4], [0.6], "partly"),
        ([0.4, 0.1], [0.6, 0.3], "does not hold here"),
        ([0.1, 0.2], [0.3, 0.5], "does not hold here"),
        ([0.5], [0.5], "does not hold here"),
        ([], [], "not testable here"),
    ],
)
def test_the_verdict_follows_from_the_intervals(
    low: list[float], high: list[float], told: str
) -> None:
    assert book.verdict(low, high, threshold=0.5) == told
    assert told in _claims.VERDICTS


def test_the_ledger_joins_list_and_tables(root: Path) -> None:
    rows = ["noise,suite,IG,0.7,0.6,0.8,3,h,d,c", "noise,suite,,0.2,0.1,0.3,0,h,d,c"]
    rows += ["noise,weaker,,0.9,0.8,1.0,3,h,d,c"]
    (root / "results" / "claims" / "toy.csv").write_text(HEAD + "\n".join(rows) + "\n")
    got = book.ledger()
    assert got["key"].tolist() == ["noise"] * 3 + ["people"]
    assert got["verdict"].tolist() == ["partly", "partly", "holds", "not testable here"]
    assert got["case"].tolist() == ["IG", "", "", ""]
    assert got["effect"].tolist()[:3] == [0.7, 0.2, 0.9]
    assert pd.isna(got["effect"].iloc[3])
    assert got["untested"].iloc[3] == "We asked nobody."


def test_a_ledger_without_tables_is_an_error(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Expected tables of claims"):
        book.ledger()
