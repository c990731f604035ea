"""The study of scores that sample, with a handful of images."""

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from attrlib import attributions, benchmark, checkpoints, data, sensitivity
from attrlib.__main__ import main
from attrlib.attacks import SUITE
from attrlib.benchmark import sampled_changes as study


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In float32, with the quick suite, and with the embedded images for the full set."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    embedded = data.fashion_mnist("val")[:60]
    monkeypatch.setattr(study, "EFFORT", "quick")
    monkeypatch.setattr(study, "SAMPLES", (2, 6))
    monkeypatch.setattr(study, "SAMPLING_NETS", ("natural-s0",))
    monkeypatch.setattr(data, "fashion_mnist", lambda split, full: embedded)
    yield
    torch.set_num_threads(threads)  # the command sets its own


def _rows(path: Path) -> dict[tuple[str, str], dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return {(row["score"], row["points"]): row for row in csv.DictReader(file)}


def test_each_score_stands_beside_the_suite(tmp_path: Path) -> None:
    path = tmp_path / "sampling.csv"
    benchmark.sampling(path, images=4)
    rows = _rows(path)
    points = ["2 samples", "6 samples", "suite, top-k", "suite, cosine"]
    assert list(rows) == [(score, point) for score in study.SCORES for point in points]
    for place, row in rows.items():
        assert row["net"] == "natural-s0"
        assert (row["effort"], row["suite"]) == ("quick", SUITE)
        assert 0 <= float(row["value_low"]) <= float(row["value"]) <= float(row["value_high"])
        assert 0 <= float(row["below"]) <= 1
        if place[1].startswith("suite"):
            assert float(row["share"]) <= 1
        assert all(row[name] for name in ("commit", "date", "device", "versions", "seconds"))
    for score in ("max sensitivity", "local Lipschitz"):
        few, many = (float(rows[score, point]["value"]) for point in points[:2])
        assert few <= many
    largest = float(rows["max sensitivity", "6 samples"]["value"])
    assert largest < float(rows["max sensitivity", "suite, cosine"]["value"])
    assert float(rows["max sensitivity", "6 samples"]["below"]) == 1


def test_values_at_a_point_are_what_is_sampled() -> None:
    """With one sample, a score is its quotient at that point."""
    model = checkpoints.load("natural-s0").model
    images = data.fashion_mnist("val", full=True)[:5]
    x, y = images.x, images.y
    case = study.Case(model, x, y, attributions.gradient(model, x, y))
    seen: list[torch.Tensor] = []

    def attribution(*arguments: torch.Tensor, **named: object) -> torch.Tensor:
        seen.append(arguments[1])
        return attributions.gradient(*arguments)

    for name, score in study.SCORES.items():
        generator = torch.Generator().manual_seed(3)
        value = score.sampled(attribution, model, x, y, radius=0.01, samples=1, generator=generator)
        z = seen[-1]
        if name == "infidelity":  # whose points no map is asked for
            generator = torch.Generator().manual_seed(3)
            z = sensitivity._points.near(
                x, radius=0.01, samples=1, norm="linf", generator=generator
            )(range(1))[0]
        expected = score.at(case, z, attributions.gradient(model, z, y))
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-6)


def test_a_second_call_adds_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "SCORES", {"infidelity": study.SCORES["infidelity"]})
    monkeypatch.setattr(benchmark, "sampling", partial(benchmark.sampling, images=4))
    path = tmp_path / "sampling.csv"
    main(["bench", "sampling", "--out", str(path), "--device", "cpu"])
    assert capsys.readouterr().out.startswith("net natural-s0, map gradient, eps 0.03137, ")
    whole = path.read_text()
    main(["bench", "sampling", "--out", str(path), "--device", "cpu"])
    assert capsys.readouterr().out == f"{path}\n"
    assert path.read_text() == whole


def test_bad_numbers_are_named(tmp_path: Path) -> None:
    for wrong in ({"images": 1}, {"eps": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            benchmark.sampling(tmp_path / "t.csv", **wrong)  # type: ignore[arg-type]
