"""The studies behind `results/`, with a handful of images and steps."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from attrlib import benchmark, checkpoints, data, metrics, models
from attrlib.__main__ import main
from attrlib.attacks import AttributionAttack, RandomSign
from attrlib.attributions import gradient
from attrlib.benchmark import Setting, attack_strength
from attrlib.maps import to_heatmap

PROVENANCE = ("commit", "date", "device", "versions", "seconds")
QUICK = Setting(study="steps", steps=3, restarts=1)
ROWS = (
    replace(QUICK, study="random", objective="random", steps=1),
    QUICK,
    replace(QUICK, objective="another image", steps=0, restarts=0, sharpness=()),
    replace(QUICK, objective="random weights", steps=0, restarts=0, sharpness=()),
)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In float32, with four quick settings, and with the embedded images for the full set."""
    threads = torch.get_num_threads()
    torch.set_default_dtype(torch.float32)
    embedded = data.fashion_mnist("val")[:60]
    monkeypatch.setattr(attack_strength, "strength_settings", lambda: iter(ROWS))
    monkeypatch.setattr(data, "fashion_mnist", lambda split, full: embedded)
    yield
    torch.set_num_threads(threads)  # the command sets its own


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- the strength of attacks ----------------------------------------------------------------------


def test_each_setting_gives_a_row_with_scores_intervals_and_provenance(tmp_path: Path) -> None:
    path = tmp_path / "new" / "strength.csv"
    benchmark.strength(path, images=12)
    table = rows(path)
    assert [(row["study"], row["objective"], row["steps"]) for row in table] == [
        ("random", "random", "1"),
        ("steps", "top-k", "3"),
        ("steps", "another image", "0"),
        ("steps", "random weights", "0"),
    ]
    for row in table:
        assert row["images"] == "12"
        assert all(row[name] for name in PROVENANCE)
        for name in ("topk", "kendall", "cosine", "center_shift"):
            low, mean, high = (float(row[name + end]) for end in ("_low", "", "_high"))
            assert low <= mean <= high
    random, attacked, another, weights = table
    assert float(attacked["topk"]) < float(random["topk"])
    assert float(attacked["kept"]) == 1
    assert float(weights["unchanged"]) == 1
    assert float(weights["kept"]) < 0.7
    assert float(another["kept"]) == 1  # images that the model gets right, of the same class
    assert float(another["unchanged"]) == 0
    assert list(tmp_path.rglob("*.partial")) == []


def test_the_controls_are_what_they_say(tmp_path: Path) -> None:
    path = tmp_path / "strength.csv"
    benchmark.strength(path, images=12)
    model = checkpoints.load("natural").model
    images = data.fashion_mnist("val", full=True)
    hits = (model(images.x).argmax(1) == images.y).nonzero()[:12, 0]
    x, y = images.x[hits], images.y[hits]
    order = [
        next(j % 12 for j in range(i + 1, i + 13) if y[j % 12] == y[i])  # itself, if it is alone
        for i in range(12)
    ]
    untrained = models.SmallCNN(generator=torch.Generator().manual_seed(1))
    before = to_heatmap(gradient(model, x, y))
    for row, after in zip(
        rows(path)[2:], (gradient(model, x[order], y), gradient(untrained, x, y)), strict=True
    ):
        score = metrics.topk_intersection(before, to_heatmap(after), k=benchmark.K)
        assert float(row["topk"]) == pytest.approx(float(score.mean()), abs=6e-5)


def test_a_second_call_adds_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "strength.csv"
    with monkeypatch.context() as patch:
        patch.setattr(attack_strength, "strength_settings", lambda: iter(ROWS[:2]))
        benchmark.strength(path, images=6)
    first = path.read_text()
    benchmark.strength(path, images=6, progress=True)
    assert path.read_text().startswith(first)
    assert len(rows(path)) == 4
    said = capsys.readouterr().out.splitlines()
    assert [line.split(", ")[3] for line in said] == [
        "objective another image",
        "objective random weights",
    ]
    whole = path.read_text()
    benchmark.strength(path, images=6)
    assert path.read_text() == whole
    benchmark.strength(path, images=7)  # another number of images is another row
    assert len(rows(path)) == 8


def test_attacks_have_the_effort_of_their_row() -> None:
    attack = replace(QUICK, eps=0.1, steps=7, restarts=2, sharpness=(5.0, 50.0)).attack()
    assert isinstance(attack, AttributionAttack)
    assert (attack.steps, attack.restarts, attack.step_size) == (7, 2, pytest.approx(0.01))
    twins = [make(models.SmallCNN()) for make in attack.surrogates]
    betas = [{m.beta for m in twin.modules() if isinstance(m, nn.Softplus)} for twin in twins]
    assert betas == [{5.0}, {50.0}]
    assert attack.score is not None
    centre = replace(QUICK, objective="mass centre").attack()
    assert isinstance(centre, AttributionAttack)
    assert centre.score is None  # points are compared by the shift itself
    for draws in (1, 20):
        control = replace(QUICK, objective="random", steps=draws).attack()
        assert isinstance(control, RandomSign)
        assert control.draws == draws


def test_the_rows_of_the_study_are_all_different(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    settings = list(benchmark.strength_settings())
    assert len(set(settings)) == len(settings) > 50
    default = Setting(study="restarts")
    assert default in settings  # what the book and the command use is measured, and so is more
    assert any(
        replace(s, restarts=default.restarts) == default and s.restarts > default.restarts
        for s in settings
    )
    for setting in settings:
        if setting.objective not in ("another image", "random weights"):
            assert setting.attack() is not None


# --- the table ------------------------------------------------------------------------------------


def test_a_table_of_another_study_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("animal,legs\ncat,4\n")
    with pytest.raises(
        ValueError, match=r"Expected .*other\.csv with the columns study, .*another"
    ):
        benchmark.strength(path, images=4)
    assert path.read_text() == "animal,legs\ncat,4\n"


def test_an_interrupted_write_leaves_the_old_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "strength.csv"
    with monkeypatch.context() as patch:
        patch.setattr(attack_strength, "strength_settings", lambda: iter(ROWS[:1]))
        benchmark.strength(path, images=4)
    before = path.read_text()

    def stopped(self: Path, target: Path) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", stopped)
    with pytest.raises(KeyboardInterrupt):
        benchmark.strength(path, images=4)
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["strength.csv"]


def test_provenance_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    assert set(benchmark.provenance("cpu", seconds=1.25)) == set(PROVENANCE)
    monkeypatch.setattr("subprocess.run", absent)
    row = benchmark.provenance("cpu", seconds=1.25)
    assert row["commit"] == "unknown"
    assert row["seconds"] == "1.2"
    name, version = row["versions"].split()
    assert name == "torch"
    assert torch.__version__.startswith(version)


@pytest.mark.parametrize("images", [1, 0, -3])
def test_too_few_images(tmp_path: Path, images: int) -> None:
    with pytest.raises(ValueError, match="Expected images to be an integer >= 2, got"):
        benchmark.strength(tmp_path / "a.csv", images=images)
    assert list(tmp_path.iterdir()) == []


# --- the command ----------------------------------------------------------------------------------


def test_the_command_measures_strength(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "strength.csv"
    assert main(["bench", "strength", "--images", "4", "--out", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 5
    assert said[-1] == str(path)
    assert len(rows(path)) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("strength", "--images", "1"), "Expected images to be an integer >= 2, got 1"),
        (("strength", "--device", "abacus"), "Expected --device of this machine, got 'abacus'"),
        (("strength", "--threads", "0"), "Expected --threads >= 1, got 0"),
        (("imagenet", "--image-folder", ".", "--wnids", "no.txt"), "no.txt"),
    ],
)
def test_bad_options_end_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("attrlib bench: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []
