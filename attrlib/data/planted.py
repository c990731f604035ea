"""Garments with something planted beside them, so that it is known which pixels can matter.

`block_fashion` puts a block below or above the garment that says nothing: what a map marks there has
leaked. `spurious_fashion` puts a mark on the garment that often names the class: a network may learn the
mark instead of the garment.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from attrlib import _check
from attrlib.data.fashion import fashion_mnist
from attrlib.data.images import Images, Rows, Split
from attrlib.types import Inputs, Labels, Masks

_CELL = 2  # height and width of a mark


@dataclass(frozen=True, eq=False)
class Blocks(Images):
    """Images of two blocks, one above the other, of which one says nothing about the class.

    Attributes:
        null: Where the block is that says nothing, masks (n, h, w); the other block is its complement.
    """

    null: Masks = field(repr=False)

    def __getitem__(self, rows: Rows) -> "Blocks":
        """Return the chosen rows, in the order given."""
        return Blocks(self.x[rows], self.y[rows], self.classes, self.null[rows])


@dataclass(frozen=True, eq=False)
class Shortcuts(Images):
    """Images with a mark that names a class, their own or another one.

    Attributes:
        named: The class that the mark names, int64 (n,).
    """

    named: Labels = field(repr=False)

    @property
    def aligned(self) -> Tensor:
        """Whether the mark names the class of the image, bool (n,)."""
        return self.named == self.y

    @property
    def groups(self) -> Labels:
        """Group of each image, int64 (n,): class c is group 2c where the mark is right, else 2c + 1."""
        return 2 * self.y + (~self.aligned).long()

    def __getitem__(self, rows: Rows) -> "Shortcuts":
        """Return the chosen rows, in the order given."""
        return Shortcuts(self.x[rows], self.y[rows], self.classes, self.named[rows])


def null_patch() -> Tensor:
    """Return the picture in the block that says nothing: the outline of a square and its diagonals.

    Returns:
        Pixels (28, 28), float32: 57 of them 1, in rows and columns 9 to 19, the others 0.

    Source: measured on the published figure of Yang et al. 2024; the block is an idea of Shah et al.
    2021.
    """
    patch = torch.zeros(28, 28, dtype=torch.float32)
    inner = torch.arange(9, 20)
    patch[[9, 19], 9:20] = 1
    patch[9:20, [9, 19]] = 1
    patch[inner, inner] = 1
    patch[inner, inner.flip(0)] = 1
    return patch


def block_fashion(
    split: Split = "train",
    *,
    top_only: bool = False,
    full: bool = False,
    generator: torch.Generator | None = None,
) -> Blocks:
    """Return garments with a block above or below that says nothing, by the toss of a coin.

    A network that is right must look for the garment in both halves. A map of one image should mark the
    half with the garment; mass in the other half has leaked from other images, in which the garment
    stands there.

    Args:
        split: `train`, `val` or `test` of `fashion_mnist`, in its order.
        top_only: Put every garment on top, the control: no image has a garment below, so that less
            should leak; not nothing, as no term keeps a slope from there. The coin is tossed all the
            same.
        full: Use the whole set, see `fashion_mnist`.
        generator: Source of the coin; None is torch's global generator.

    Returns:
        Images of shape (n, 1, 56, 28) with the mask of the null block; `SmallCNN(size=(56, 28))` takes
        them.

    Raises:
        ValueError: If `split` is unknown.
        FileNotFoundError: If `full` and the whole set is not found.

    Source: BlockMNIST, Shah et al. 2021, with the patch of `null_patch`. Differs: garments in place of
    digits, which fill more of their block.
    """
    images = fashion_mnist(split, full=full)
    coin = torch.rand(
        len(images), generator=generator, dtype=torch.float64, device=_place(generator)
    )
    top = torch.ones(len(images), dtype=torch.bool) if top_only else coin.cpu() < 0.5
    patch = null_patch().expand_as(images.x)
    x = torch.where(
        top.view(-1, 1, 1, 1),
        torch.cat([images.x, patch], 2),
        torch.cat([patch, images.x], 2),
    )
    lower = torch.arange(56) >= 28
    null = (lower == top[:, None])[:, :, None].expand(-1, -1, 28)
    return Blocks(x, images.y, images.classes, null.clone())


def spurious_fashion(
    split: Split = "train",
    *,
    amplitude: float,
    alignment: float,
    full: bool = False,
    generator: torch.Generator | None = None,
) -> Shortcuts:
    """Return garments with a mark that names a class, most often or never their own.

    The two uppermost rows are blackened, and of ten cells of 2 × 2 pixels there the one of the named
    class is lit. In each class the same share of marks is right, to the nearest image; the others name
    another class, each as likely. An alignment of 1 / 10 is chance: the mark then says nothing.

    Args:
        split: `train`, `val` or `test` of `fashion_mnist`, in its order.
        amplitude: Brightness of the mark, 0 (no mark, the control) to 1; a faint or a loud shortcut.
        alignment: Share of the images, 0 to 1, whose mark names their own class.
        full: Use the whole set, see `fashion_mnist`.
        generator: Source of which marks are wrong, and what they name; None is torch's global generator.

    Returns:
        Images of shape (n, 1, 28, 28) with the named classes and the groups of class and mark.

    Raises:
        ValueError: If `split` is unknown, or `amplitude` or `alignment` is not in [0, 1].
        FileNotFoundError: If `full` and the whole set is not found.

    Source: ours, after the groups of Sagawa et al. 2020; the data sets of Yang et al. 2024, hair colours
    and waterbirds, are photographs.
    """
    for name, value in {"amplitude": amplitude, "alignment": alignment}.items():
        _check.nonnegative(**{name: value})
        if value > 1:
            raise ValueError(f"Expected {name} <= 1, got {value!r}")
    images = fashion_mnist(split, full=full)
    classes, place = len(images.classes), _place(generator)
    order = torch.rand(len(images), generator=generator, dtype=torch.float64, device=place).cpu()
    step = torch.randint(1, classes, (len(images),), generator=generator, device=place).cpu()
    right = torch.empty(len(images), dtype=torch.bool)
    for label in range(classes):
        rows = (images.y == label).nonzero()[:, 0]
        place_in_class = order[rows].argsort().argsort()
        right[rows] = place_in_class < round(alignment * len(rows))
    named = torch.where(right, images.y, (images.y + step) % classes)
    return Shortcuts(_marked(images.x, named, amplitude), images.y, images.classes, named)


def _marked(x: Inputs, named: Labels, amplitude: float) -> Inputs:
    """Images whose uppermost rows hold one lit cell."""
    cell = torch.arange(28) // _CELL - 2  # cells 0 to 9 stand in columns 4 to 23
    lit = (cell == named[:, None])[:, None, None, :]
    x = x.clone()
    x[:, :, :_CELL] = amplitude * lit.to(x)
    return x


def _place(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device
