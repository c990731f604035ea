"""The declared grid: what it covers, and what is refused."""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from attrlib import checkpoints, data
from attrlib.__main__ import main
from attrlib.benchmark import BUDGETS, FULL, GRIDS, Block, cells, cluster, trained, transfer_targets
from attrlib.benchmark.grid import OTHER_MAPS
from attrlib.models import SmallCNN
from attrlib.recipes import RECIPES
from tests import oracles
from tests.tables import rows

TABLE = Path(__file__).resolve().parents[1] / "results" / "recipes.csv"
FIRST = TABLE.with_name("first-attack.csv")
PLACE = ("map", "attack", "eps")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Put back what the command sets."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _places(block: Block) -> Iterator[tuple[str, str, str]]:
    """Map, attack and budget of the rows of a block."""
    count = 10 * (block.per_class or trained.PER_CLASS)
    more = "" if block.per_class is None else f" ({count} images)"
    names = [block.attack, *(f"{control}{more}" for control in block.controls)]
    names += trained._ORIGINS if block.attack == "clean" else ()
    for name in names:
        for scored in block.maps:
            yield from ((scored, name, f"{eps:.5f}") for eps in block.eps)


def test_the_table_holds_the_grid_and_nothing_else() -> None:
    declared = {place for block in FULL for place in _places(block)}
    held = {tuple(row[k] for k in ("recipe", *PLACE)) for row in rows(TABLE)}
    assert {(*place,) for _, *place in held} == declared
    shipped, _ = trained.chosen(FULL)
    everywhere = [block for block in FULL if block.recipes is None and block.seeds is None]
    wanted = {(name, *place) for b in everywhere for place in _places(b) for name in shipped}
    assert sorted(wanted - held) == []
    for block in itertools.chain(*GRIDS.values()):  # no place twice: a row is found by it
        places = [*_places(block)]
        assert len(places) == len({*places})
    assert len([p for b in FULL for p in _places(b)]) == len(declared)
    assert {*OTHER_MAPS} < {*transfer_targets()}


def test_the_first_attack_has_a_grid_of_its_own() -> None:
    (block,) = GRIDS["first"]
    assert (block.attack, block.maps, block.eps) == ("mass", ("gradient",), BUDGETS)
    assert (block.quantities, block.per_class) == (("topk",), None)
    assert {*(block.recipes or ())} < {*trained.chosen(GRIDS["first"])[0]}
    assert block.attack not in {one.attack for one in FULL}
    held = {tuple(row[k] for k in ("recipe", *PLACE)) for row in rows(FIRST, seed="all")}
    assert held == {(name, *place) for name in block.recipes or () for place in _places(block)}


def test_names_of_attacks_say_what_is_attacked_and_how_hard() -> None:
    assert cells.named("top-k suite") == ("top-k", "standard", False)
    assert cells.named("gradient lens suite") == ("lens", "standard", True)
    assert cells.named("quick cosine suite") == ("cosine", "quick", False)
    assert cells.named("quick gradient top-k suite") == ("top-k", "quick", True)
    assert cells.named("best random") == ("best random", "standard", True)
    for name in (
        "suite",
        "top-k",
        "strong top-k suite",
        "gradient quick top-k suite",
        "quick random",
    ):
        with pytest.raises(ValueError, match=re.escape("one of the goals top-k, lens, kendall, c")):
            cells.named(name)


def test_points_of_each_way_have_a_place_of_their_own(tmp_path: Path) -> None:
    few = data.fashion_mnist("test")[:2]
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "attack_of", lambda *_, **__: lambda net, x, y, generator: x)
        for name, scored in (
            ("top-k suite", "gradient"),
            ("quick top-k suite", "gradient"),
            ("quick top-k suite", "SmoothGrad"),
            ("random", "gradient"),
            ("random", "SmoothGrad"),  # the same points, whatever map is scored
        ):
            way = cells.named(name)
            cells.points(net, few, way, 0.1, folder=tmp_path, device="cpu", pool=few, map=scored)
    assert len([*tmp_path.iterdir()]) == 4


def test_unknown_names_of_a_block_are_named() -> None:
    averaged = "gradient, integrated gradients, SmoothGrad, UniGrad"  # a suite goes for no others
    for attack, scored, known in (
        ("top-k suite", "LRP", averaged),
        ("gradient top-k suite", "LIME", f"{averaged}, input .*"),
        ("clean", "SmoothGrad", "gradient"),
        ("model", "gradient", "none"),
    ):
        with pytest.raises(ValueError, match=f"Expected maps to be one of {known}, got '{scored}'"):
            Block(attack=attack, maps=(scored,))
    with pytest.raises(ValueError, match=r"Expected recipes to be one of natural, .*, got 'x'"):
        Block(attack="top-k suite", recipes=("x",))
    with pytest.raises(ValueError, match=r"Expected attack to be one of random, .*, got 'sweet'"):
        Block(attack="random", controls=("sweet",))
    with pytest.raises(ValueError, match="Expected eps >= 0, got -1"):
        Block(attack="random", eps=(-1,))
    with pytest.raises(ValueError, match="Expected per_class to be an integer >= 1, got 0"):
        Block(attack="random", per_class=0)


def test_recipes_and_maps_are_chosen() -> None:
    names, blocks = trained.chosen(FULL, only=["madry", "natural"], maps=["LRP"])
    assert names == ["natural", "madry"]
    assert [(block.attack, block.maps) for block in blocks] == [("gradient top-k suite", ("LRP",))]
    everyone, _ = trained.chosen(FULL)
    assert all(RECIPES[name].data is data.fashion_mnist for name in everyone)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--only", "nobody"), "Expected only to be one of natural, "),
        (("--maps", "LIME"), "Expected maps to be one of none, gradient, "),
        (("--export", "maps"), "Expected --only with --export, a few recipes, got all"),
        (("--model", "m:f"), "Expected --grid alone, got m:f, too"),
        (
            ("--scheduler", "tcp://127.0.0.1:1"),
            "Expected a Dask scheduler at tcp://127.0.0.1:1, got",
        ),
        (("benign",), "Expected --grid alone, got benign, too"),
        (("--eps", "0.3"), "Expected --grid alone, got --eps, too"),
        (("--images", "3"), "Expected --grid alone, got --images, too"),
        (
            ("--only", "lga", "trades"),
            "Expected recipes and seeds that the grid measures, got trades",
        ),
        (("--nets", "mine"), "Expected --out with --nets, a table of its own, got none"),
        (
            ("--nets", "mine", "--out", "t.csv", "--only", "natural", "--export", "maps"),
            "Expected --export without --nets, got --nets mine",
        ),
        (("--nets", "mine", "--out", "t.csv"), "Expected a folder of checkpoints, got mine"),
    ],
)
def test_bad_options_end_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cluster, "TIMEOUT", 0.5)
    assert main(["bench", "--grid", "small", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"attrlib bench: {message}")
    assert [*tmp_path.iterdir()] == []


# --- checkpoints of one's own ---------------------------------------------------------------------

QUICK = (
    Block(
        attack="random",
        eps=(0.05,),
        recipes=("natural", "madry"),
        seeds=(0,),
        per_class=1,
        quantities=("topk",),
    ),
)


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for checkpoints, few images and a grid of one quick cell a recipe."""
    few = data.fashion_mnist("test")[:60]
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr(data, "fashion_mnist", lambda split: few)
    plain = {name: replace(RECIPES[name], data=data.fashion_mnist) for name in ("natural", "madry")}
    monkeypatch.setattr(trained, "RECIPES", plain)
    monkeypatch.setattr(trained, "PER_CLASS", 1)
    monkeypatch.setattr(trained, "POOL", 3)
    monkeypatch.setitem(GRIDS, "small", QUICK)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    return tmp_path / "nets"


def _save(file: Path, name: str = "natural", seed: int = 0, **settings: object) -> None:
    words = {"size": 28, "generator": oracles.seeded(0)} | settings
    checkpoints.save(file, SmallCNN(**words), recipe={"name": name, "seed": seed}, metrics={})


def _measure(*more: str) -> int:
    place = ("--points", "points", "--out", "own.csv")
    return main(["bench", "--grid", "small", *place, "--nets", "nets", *more])


def _empty(folder: Path) -> None:
    (folder / "notes.txt").touch()


def _unknown(folder: Path) -> None:
    _save(folder / "mine-s0.safetensors", "mine")


def _no_seed(folder: Path) -> None:
    _save(folder / "natural-s00.safetensors")


def _another_recipe(folder: Path) -> None:
    _save(folder / "natural-s0.safetensors", "madry")


def _another_seed(folder: Path) -> None:
    _save(folder / "natural-s0.safetensors", seed=1)


def _in_colour(folder: Path) -> None:
    _save(folder / "natural-s0.safetensors", channels=3)


def _large(folder: Path) -> None:
    _save(folder / "natural-s0.safetensors", size=32)


def _two_classes(folder: Path) -> None:
    _save(folder / "natural-s0.safetensors", classes=2)


def _second_damaged(folder: Path) -> None:
    _save(folder / "natural-s0.safetensors")
    (folder / "madry-s0.safetensors").touch()


def _dead_link(folder: Path) -> None:
    (folder / "natural-s0.safetensors").symlink_to("nowhere")


def _seed_beyond(folder: Path) -> None:
    _save(folder / "natural-s3.safetensors", seed=3)


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        (_empty, "Expected checkpoints RECIPE-sSEED.safetensors in nets, got none"),
        (_unknown, "Expected checkpoints RECIPE-sSEED.safetensors in nets, got none"),
        (_no_seed, "Expected checkpoints RECIPE-sSEED.safetensors in nets, got none"),
        (_another_recipe, "to be of recipe natural and seed 0, as its name says, got madry and 0"),
        (_another_seed, "to be of recipe natural and seed 0, as its name says, got natural and 1"),
        (_in_colour, "for Fashion-MNIST, {'channels': 1, 'size': 28, 'classes': 10}, got {'chann"),
        (_large, "'classes': 10}, got {'channels': 1, 'size': 32, 'classes': 10}"),
        (_two_classes, "'classes': 10}, got {'channels': 1, 'size': 28, 'classes': 2}"),
        (_second_damaged, "madry-s0.safetensors to be an intact attrlib checkpoint, got"),
        (_dead_link, "Expected a checkpoint file, got nets/natural-s0.safetensors"),
        (_seed_beyond, "Expected recipes and seeds that the grid measures, got natural with s3"),
    ],
)
def test_files_that_are_not_what_their_names_say_are_found_before_the_work(
    nets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fill: Callable[[Path], None],
    message: str,
) -> None:
    fill(nets)
    monkeypatch.setattr(trained, "_rows", lambda *_: pytest.fail("worked"))
    assert _measure() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("attrlib bench: Expected ")
    assert message in line
    assert [path.name for path in nets.parent.iterdir()] == ["nets"]


def test_own_checkpoints_are_measured_once_and_never_mixed_with_others(
    nets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _save(nets / "natural-s0.safetensors")
    assert _measure() == 0
    first = (nets.parent / "own.csv").read_bytes()
    assert {row["recipe"] for row in rows(nets.parent / "own.csv")} == {"natural"}
    assert _measure() == 0
    assert (nets.parent / "own.csv").read_bytes() == first
    _save(nets / "natural-s0.safetensors", generator=oracles.seeded(1))
    capsys.readouterr()
    assert _measure() == 2
    assert "got some with other checkpoints; take these rows out" in capsys.readouterr().err
    assert (nets.parent / "own.csv").read_bytes() == first
    _save(nets / "natural-s0.safetensors")
    _save(nets / "madry-s0.safetensors", "madry")
    assert _measure() == 0
    assert (nets.parent / "own.csv").read_bytes().startswith(first)
    assert {row["recipe"] for row in rows(nets.parent / "own.csv")} == {"natural", "madry"}


@pytest.mark.parametrize("option", ["--points", "--export"])
def test_folders_are_tried_before_the_work(
    nets: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
) -> None:
    (nets.parent / "file").touch()
    monkeypatch.setattr(trained, "_rows", lambda *_: pytest.fail("worked"))
    assert main(["bench", "--grid", "small", "--only", "natural", option, "file"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("attrlib bench: ")
    assert "file" in line
