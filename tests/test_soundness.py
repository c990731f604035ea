"""No attack gets below a certificate; and what a false certificate would look like."""

import csv
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attrlib import attacks, attributions, certificates, checkpoints, data
from attrlib.__main__ import main
from attrlib.benchmark import (
    SoundnessSetting,
    cells,
    certificate_soundness,
    recorded,
    soundness_settings,
)
from attrlib.benchmark.certificate_soundness import (
    coverage,
    intervals,
    smoothed_cosine,
    smoothed_topk,
)
from attrlib.benchmark.recorded import against_points
from attrlib.models import SmallCNN
from tests import interval_oracles, oracles

NETS: dict[str, Callable[[], nn.Module]] = {
    "relu": interval_oracles.small,
    "softplus": lambda: oracles.softplus_net(beta=10.0),
}
NARROW: dict[str, nn.Module] = {"relu": nn.ReLU(), "softplus": nn.Softplus(beta=10)}
Rows = list[dict[str, str]]
on_nets = pytest.mark.parametrize("net", NETS)


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)  # the command sets its own


def narrow(net: str) -> nn.Module:
    """One hidden layer, of which boxes prove something at budgets that matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), NARROW[net], nn.Linear(24, 3))


def against(kind: Callable[..., Rows], net: str, *, count: int = 4, **options: Any) -> Rows:
    """Some images, the quick suite, and fewer random adversaries."""
    images, labels = oracles.images(count), oracles.labels(count)
    model = narrow(net) if kind is intervals else NETS[net]()
    return kind(model, images, labels, **({"adversaries": 400} | options))


def sound(rows: Rows) -> None:
    for row in rows:
        assert int(row["violations"]) <= int(row["allowed"])
        assert row["random_violations"] in ("0", "")


# --- the suite and random adversaries stay above --------------------------------------------------


@on_nets
def test_no_attack_gets_below_certified_cosines(net: str) -> None:
    rows = against(smoothed_cosine, net, eps=0.3, samples=400, adversaries=3000)
    assert [row["certificate"] for row in rows] == ["cosine of ideal maps", "cosine of shown maps"]
    sound(rows)
    ideal, shown = rows
    assert 0.5 < float(ideal["certified"]) < float(ideal["attacked"]) < 1
    assert 0 < float(shown["certified"]) < float(ideal["certified"])
    assert (ideal["violations"], shown["violations"]) == ("0", "0")
    assert float(ideal["random_gap"]) < 0.01  # random ones come close


@on_nets
def test_no_attack_gets_below_certified_sets(net: str) -> None:
    (row,) = against(smoothed_topk, net, eps=0.1, samples=1000, k=9)
    sound([row])
    assert 0.1 < float(row["certified"]) < float(row["attacked"])


@on_nets
@pytest.mark.parametrize("eps", [0.002, 0.01])
def test_no_attack_leaves_the_box(net: str, eps: float) -> None:
    rows = against(intervals, net, eps=eps, k=9)
    assert [row["certificate"] for row in rows] == ["entries", "top 9", "cosine"]
    sound(rows)
    assert all(row["allowed"] == "0" for row in rows)
    assert 0.1 < float(rows[1]["certified"]) <= float(rows[1]["attacked"])
    assert 0.1 < float(rows[2]["certified"]) < float(rows[2]["attacked"]) <= 1


@on_nets
def test_no_recorded_point_leaves_the_box(net: str) -> None:
    x, y = oracles.images(4), oracles.labels(4)
    model, eps = narrow(net), 0.02
    z = attacks.standard(eps=eps, k=9, attribution=attributions.gradient, effort="quick")(
        model, x, y, generator=oracles.seeded(0)
    )
    rows = against_points(model, x, y, z.float(), eps=eps, k=9)
    assert [row["certificate"] for row in rows] == ["entries", "top 9", "LENS", "Kendall", "cosine"]
    sound(rows)
    assert all(row["allowed"] == row["adversaries"] == "0" for row in rows)
    assert -1 < float(rows[3]["certified"]) < float(rows[3]["attacked"]) < 1
    assert float(rows[1]["certified"]) <= float(rows[2]["certified"])


def test_points_of_the_grid_are_read_and_none_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(recorded, "chosen", lambda _: (["interval"], []))
    monkeypatch.setattr(recorded, "BUDGETS", (0.001, 0.002))
    monkeypatch.setattr(recorded, "PER_CLASS", 1)
    assert recorded.found(tmp_path, device="cpu") == ([], 2 * len(checkpoints.seeds("interval")))
    assert not [*tmp_path.iterdir()]
    images = certificate_soundness.listed(data.fashion_mnist("test"), per_class=1)
    model = checkpoints.load("interval-s0").model
    monkeypatch.setattr(cells, "attack_of", lambda *_, **__: attacks.RandomSign(eps=0.002))
    way = cells.named("top-k suite")
    for eps in (0.002, 0.003):
        cells.points(model, images, way, eps, folder=tmp_path, device="cpu", pool=images)
    (cell,), missing = recorded.found(tmp_path, device="cpu")
    assert missing == 2 * len(checkpoints.seeds("interval")) - 1
    monkeypatch.setattr(cells, "attack_of", None)  # what is there is read
    rows = cell.made("cpu")
    sound(rows)
    assert {(row["net"], row["kind"], row["eps"], row["checked"]) for row in rows} == {
        ("interval-s0", "recorded", "0.00200", "10")
    }
    assert float(rows[1]["certified"]) > 0.9


def test_bounds_of_lengths_fail_no_more_often_than_alpha() -> None:
    rows = coverage(nn.Identity(), oracles.images(1), oracles.labels(1), eps=0.1, repetitions=60)
    assert [row["certificate"] for row in rows] == [
        *("length, betting", "length, bernstein", "length, hoeffding"),
    ]
    sound(rows)
    assert all(row["attacked"] == "0.7071" for row in rows)
    model = oracles.softplus_net()
    settings = {"eps": 0.1, "samples": 100, "repetitions": 20, "reference": 2000}
    sound(coverage(model, oracles.images(1), oracles.labels(1), **settings))


# --- a certificate that promises too much is found out --------------------------------------------


def test_false_promises_by_smoothing_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    ask = functools.partial(against, net="relu", count=2, eps=0.5, samples=300)
    with monkeypatch.context() as patch:
        much = lambda self, eps: torch.full_like(self.norm, 0.99999)  # noqa: E731
        patch.setattr(certificates.Certificate, "cosine", much)
        patch.setattr(certificates.Certificate, "released", much)
        assert [row["violations"] for row in ask(smoothed_cosine)] == ["2", "2"]
    with monkeypatch.context() as patch:
        quoted = functools.partial(certificates.worst_cosine, method="quoted")
        patch.setattr(certificates, "worst_cosine", quoted)
        (row, _) = against(smoothed_cosine, "relu", count=1, eps=0.3, samples=300, adversaries=3000)
        assert int(row["random_violations"]) > 10  # the formula as it is usually quoted
    with monkeypatch.context() as patch:
        exact = lambda self, eps: (self.mean, self.mean)  # noqa: E731
        patch.setattr(certificates.Certificate, "entries", exact)
        (row,) = ask(smoothed_topk, k=9)
        assert row["violations"] == "2"


def test_boxes_that_are_too_narrow_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def tight(model: nn.Module, x: Tensor, y: Tensor, *, eps: float) -> tuple[Tensor, Tensor]:
        a = attributions.gradient(model, x, y)
        return a - 1e-9, a + 1e-9

    monkeypatch.setattr(certificates, "gradient_bounds", tight)
    x, y, noise = oracles.images(4), oracles.labels(4), oracles.seeded(0)
    z = (x + 0.05 * torch.randn(x.shape, generator=noise).sign()).clamp(0, 1)
    for row in against_points(narrow("softplus"), x, y, z, eps=0.05, k=9):
        assert row["violations"] == "4" or row["certificate"] in ("top 9", "LENS")
    entries, sets, cosine = against(intervals, "softplus", eps=0.05, k=9)
    assert entries["violations"] == cosine["violations"] == "4"
    assert int(sets["violations"]) > 0
    assert int(entries["random_violations"]) == 400


def test_bounds_that_are_too_high_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def mean(values: Iterator[Tensor], *, samples: int, **_: float) -> Tensor:
        return torch.cat([*values]).mean(0)

    monkeypatch.setattr(certificate_soundness, "_INTERVALS", (mean,))
    (row,) = coverage(nn.Identity(), oracles.images(1), oracles.labels(1), eps=0.1, repetitions=60)
    assert int(row["violations"]) > int(row["allowed"])


# --- the study ------------------------------------------------------------------------------------


def test_the_study_has_every_kind_of_certificate() -> None:
    settings = [*soundness_settings()]
    assert len({*settings}) == len(settings)
    assert {setting.kind for setting in settings} == {*certificate_soundness._KINDS}


def test_the_command_writes_the_table_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_default_dtype(torch.float32)
    settings = [SoundnessSetting(net="coin", kind="coverage", eps=0.1)]
    settings += [SoundnessSetting(net="natural-s0", kind="interval", eps=1e-4)]
    kinds = {
        "coverage": functools.partial(coverage, repetitions=5, samples=50),
        "interval": functools.partial(intervals, adversaries=10),
    }
    monkeypatch.setattr(certificate_soundness, "_KINDS", kinds)
    monkeypatch.setattr(certificate_soundness, "soundness_settings", lambda: iter(settings[:1]))
    path = tmp_path / "soundness.csv"
    points = str(tmp_path / "none")
    call = ["bench", "--points", points, "soundness", "--images", "2", "--out", str(path)]
    assert main(call) == 0
    assert "networks and budgets without points in" in capsys.readouterr().out
    first = path.read_text()
    monkeypatch.setattr(certificate_soundness, "soundness_settings", lambda: iter(settings))
    assert main(call) == 0
    assert path.read_text().startswith(first)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["net"] for row in rows] == ["coin"] * 3 + ["natural-s0"] * 3
    assert all(row["commit"] and row["images"] == "2" for row in rows)
    sound(rows)
    whole = path.read_text()
    assert main(call) == 0
    assert path.read_text() == whole
    capsys.readouterr()
    assert main([*call, "--images", "11"]) == 2
    assert "Expected images to be an integer from 1 to 10, got 11" in capsys.readouterr().err


def test_the_images_are_one_of_each_class() -> None:
    assert isinstance(NETS["relu"](), SmallCNN)
    chosen = certificate_soundness.listed(data.fashion_mnist("test"), per_class=1)
    assert chosen.y.sort().values.tolist() == list(range(10))
