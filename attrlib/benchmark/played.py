"""Do maps of smoothed networks point at more? Two games with pixels, on ordinary and smoothed networks.

*Insertion*: pixels come into a black image in the order of a map, and the network says what it sees.
*DiffROAR*: new networks learn from the entries that maps rank high, others from those they rank low.
All maps are those of the gauge-fixed network, see `energy.GaugeFixed`.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from attrlib import (
    _check,
    _files,
    attributions,
    checkpoints,
    data,
    energy,
    faithfulness,
    maps,
    training,
)
from attrlib._random import seeded
from attrlib.benchmark import _table, cells, densities
from attrlib.benchmark.seeds import Columns, summaries
from attrlib.checkpoints import Network
from attrlib.recipes import RECIPES, planted_blocks
from attrlib.training.state import contents
from attrlib.types import Classifier

GAME_PAIRS: Mapping[str, tuple[str, str]] = {
    "blocks": densities.BLOCK_PAIR,
    "garments": ("softplus", "density"),
}
"""Per set of images an ordinary and a smoothed network with the same units and the same training."""

PER_CLASS = 20
STUDENT_IMAGES, STUDENT_EPOCHS = 6_000, 3
SHARES = (0.1, 0.3, 0.5)
ORDERS = ("gradient", "input x gradient", "integrated gradients")
_CONTROL = "none"  # the recipe of orders that no network gave


@dataclass(frozen=True)
class _Set:
    """Images to learn from, all that are asked about, and the few that are shown to the networks."""

    train: data.Images
    test: data.Images
    few: data.Images


def games(
    path: str | Path,
    *,
    only: Sequence[str] | None = None,
    device: str | torch.device = "cpu",
    progress: bool = False,
) -> None:
    """Play both games with the shipped networks of `GAME_PAIRS`.

    `insertion`: on the first twenty test images of each class, for the label and by three maps, the area
    under the probability, and under the logit in units of the mean rise of the logit from the black image
    to the whole one. Controls: a random order, a random order in which the lit pixels come first, and
    with blocks one in which the lit pixels of the garment come first of all.

    `DiffROAR`: gradient maps of the predicted class, as the label must not be read off a mask; students
    start as the network did and see 6,000 training images three times; 2,000 test images. The control is
    one random order for each image. The mask itself may tell the class that the map explains, as with
    each such game.

    Args:
        path: Table to write, or to go on with.
        only: Sets of images; None takes all of `GAME_PAIRS`.
        device: Where to compute.
        progress: Print each cell as it is done.

    Raises:
        ValueError: If a set is unknown, or the table has rows of other images or checkpoints.
    """
    for name in only or ():
        _check.one_of(tuple(GAME_PAIRS), only=name)
    made = (
        cell for name in GAME_PAIRS if not only or name in only for cell in _cells(name, device)
    )
    _table.fill(path, made, device=device, progress=progress)


def _cells(name: str, device: str | torch.device) -> Iterator[_table.Cell]:
    """The cells of a set of images: what is short comes first."""
    images, recipes = _images(name), GAME_PAIRS[name]
    for recipe in recipes:
        yield _insertion(name, recipe, images, device)
    for share in SHARES:
        for recipe in (*recipes, _CONTROL):
            yield _diffroar(name, recipe, images, share, device)


def _images(name: str) -> _Set:
    get = planted_blocks if name == "blocks" else data.fashion_mnist
    test = get("test")
    return _Set(get("train")[:STUDENT_IMAGES], test, cells.listed(test, per_class=PER_CLASS))


def _nets(recipe: str, device: str | torch.device) -> dict[int, Network]:
    return {
        seed: checkpoints.load(f"{recipe}-s{seed}").model.to(device)
        for seed in checkpoints.seeds(recipe)
    }


def _key(
    name: str, recipe: str, game: str, asked: data.Images, nets: Mapping[int, Network]
) -> dict[str, str]:
    """The fields of all rows of a cell."""
    weights = _files.digest(*map(contents, nets.values()))[:8] if nets else ""
    return {
        "set": name,
        "recipe": recipe,
        "game": game,
        "list": data.fingerprint(asked)[:8],
        "checkpoints": weights,
    }


def _insertion(name: str, recipe: str, images: _Set, device: str | torch.device) -> _table.Cell:
    """The game of the networks of a recipe; the row of all seeds, or of the only one."""
    nets = _nets(recipe, device)
    key = _key(name, recipe, "insertion", images.few, nets)

    def rows() -> Iterator[dict[str, str]]:
        played = {seed: inserted(net, images.few, device=device) for seed, net in nets.items()}
        for order in next(iter(played.values())):
            for row in summaries({seed: orders[order] for seed, orders in played.items()}):
                if (row["seed"] == "all") == (len(nets) > 1):
                    yield key | {"order": order} | row

    return _table.Cell(key, rows, made_of=("list", "checkpoints"))


def inserted(
    net: Classifier, images: data.Images, *, device: str | torch.device = "cpu"
) -> dict[str, Columns]:
    """Play the insertion game on one network, in the orders of maps and of the controls.

    Args:
        net: Maps a batch to logits (n, classes); in eval mode.
        images: Images and the classes to explain and to follow; with `data.Blocks` there is one control
            more.
        device: Where to compute.

    Returns:
        By order two columns (n,): `probability`, the area of `faithfulness.insertion`, and `logit`, that
        of the gauge-fixed logit less the logit of the black image, in units of the mean rise of the logit
        from the black image to the whole one. NaN if it does not rise.
    """
    fixed, x, y = energy.GaugeFixed(net), images.x.to(device), images.y.to(device)
    with torch.no_grad():
        black = attributions.target_logit(fixed, torch.zeros_like(x), y)
        rise = (attributions.target_logit(fixed, x, y) - black).mean()
    unit = rise if rise > 0 else torch.full_like(rise, torch.nan)
    found: dict[str, Columns] = {}
    for order, heat in _orders(fixed, images, x, y).items():
        probability = faithfulness.insertion(fixed, x, y, heat)
        logit = (faithfulness.insertion(fixed, x, y, heat, output="logit") - black) / unit
        columns = {"probability": probability, "logit": logit}
        found[order] = {quantity: values.cpu().double() for quantity, values in columns.items()}
    return found


def _orders(fixed: Classifier, images: data.Images, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Heatmaps of the maps, and of the controls, by their names."""
    found = {name: maps.to_heatmap(densities.MAPS[name](fixed, x, y)) for name in ORDERS}
    noise = torch.rand(len(x), *x.shape[2:], generator=seeded(0)).to(x)
    lit = (x > 0).any(1)
    found["random"] = noise
    found["random, lit first"] = noise + lit
    if isinstance(images, data.Blocks):
        found["garment first"] = noise + lit * (1 + (~images.null).to(x))
    return found


def _diffroar(
    name: str, recipe: str, images: _Set, share: float, device: str | torch.device
) -> _table.Cell:
    """The game of the gradients of a recipe, or of a random order; a row of each seed, and of all."""
    nets = {} if recipe == _CONTROL else _nets(recipe, device)
    students = nets or checkpoints.seeds(GAME_PAIRS[name][0])
    key = _key(name, recipe, f"DiffROAR, {share:g}", images.test, nets)

    def rows() -> Iterator[dict[str, str]]:
        found = {}
        for seed in students:
            a, b = (
                predicted(nets[seed], part.x, device=device)
                if nets
                else torch.rand(part.x.shape, generator=seeded(10 * seed + i))
                for i, part in enumerate((images.train, images.test))
            )
            values = faithfulness.diffroar(
                images.train,
                images.test,
                a,
                b,
                fit=functools.partial(_student, name, seed=seed, device=device),
                share=share,
            )
            found[seed] = {"difference": values.double()}
        for row in summaries(found):
            if row["seed"] != "all" or len(found) > 1:
                yield key | {"order": "gradient" if nets else "random"} | row

    return _table.Cell(key, rows, made_of=("list", "checkpoints"))


def predicted(net: Classifier, x: Tensor, *, device: str | torch.device = "cpu") -> Tensor:
    """Return gradient maps of the class that a gauge-fixed network predicts.

    Args:
        net: Maps a batch to logits (n, classes); in eval mode.
        x: Images (n, channels, h, w).
        device: Where to compute, some images at a time.

    Returns:
        Maps in the shape of `x`, where `x` is.
    """
    fixed, found = energy.GaugeFixed(net), []
    for part in torch.split(x, 500):
        here = part.to(device)
        with torch.no_grad():
            y = fixed(here).argmax(1)
        found.append(attributions.gradient(fixed, here, y).to(x))
    return torch.cat(found)


def _student(name: str, seen: data.Images, *, seed: int, device: str | torch.device) -> Network:
    """A new network that starts and is trained as the ordinary one of the pair, but for shorter."""
    recipe = RECIPES[GAME_PAIRS[name][0]]
    height, width = seen.x.shape[2:]
    net = recipe.model(size=(height, width), generator=seeded(2 * seed))
    config = replace(recipe.config, epochs=STUDENT_EPOCHS)
    order = seeded(2 * seed + 1)
    training.train(net, seen, recipe.loss, config=config, generator=order, device=device)
    return net.to("cpu")
