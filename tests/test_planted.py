"""Planted data: where the garment and the mark stand, and that a seed decides."""

import pytest
import torch

from attrlib import data
from attrlib.data import block_fashion, fashion_mnist, spurious_fashion
from attrlib.models import SmallCNN
from tests import oracles

# --- blocks ---------------------------------------------------------------------------------------


def test_the_patch_is_that_of_the_published_figure() -> None:
    patch = data.null_patch()
    assert patch.sum() == 57
    assert set(patch.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(patch, patch.flip(0).roll(1, 0))  # rows 9 to 19, about row 14
    assert torch.equal(patch, patch.T)
    inner = torch.zeros(28, 28, dtype=torch.bool)
    inner[9:20, 9:20] = True
    assert not patch[~inner].any()
    assert patch[14].nonzero().flatten().tolist() == [9, 14, 19]


@pytest.mark.parametrize("split", ["val", "test"])
def test_one_block_is_the_garment_and_the_other_the_patch(split: data.Split) -> None:
    plain, images = fashion_mnist(split), block_fashion(split, generator=oracles.seeded(0))
    assert images.x.shape == (len(plain), 1, 56, 28)
    assert images.x.dtype == torch.float32
    assert torch.equal(images.y, plain.y)
    assert images.classes == plain.classes
    assert images.null.shape == (len(plain), 56, 28)
    x, null = images.x[:, 0], images.null
    assert torch.equal(x[~null].view(-1, 28, 28), plain.x[:, 0])
    assert torch.equal(x[null].view(-1, 28, 28), data.null_patch().expand(len(plain), 28, 28))
    halves = null.view(-1, 2, 784)
    assert torch.equal(halves.all(2), halves.any(2))
    assert (halves[:, 0, 0] ^ halves[:, 1, 0]).all()


def test_the_coin_is_fair_in_each_class_and_comes_from_the_generator() -> None:
    before = torch.get_rng_state()
    images, same, other = (
        block_fashion("test", generator=oracles.seeded(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    top = ~images.null[:, 0, 0]
    for label in range(10):  # 200 images: a standard error of 0.035
        assert abs(float(top[images.y == label].double().mean()) - 0.5) < 4 * 0.035
    assert data.fingerprint(images) == data.fingerprint(same) != data.fingerprint(other)
    assert torch.equal(images.null, same.null)


def test_the_control_has_every_garment_on_top_and_leaves_the_same_generator() -> None:
    one, other = oracles.seeded(0), oracles.seeded(0)
    images = block_fashion("val", top_only=True, generator=one)
    block_fashion("val", generator=other)
    assert images.null[:, 28:].all()
    assert not images.null[:, :28].any()
    assert torch.equal(one.get_state(), other.get_state())


def test_rows_keep_their_masks_and_fit_the_network() -> None:
    images = block_fashion("val", generator=oracles.seeded(0))
    for rows in (slice(3, 9, 2), [3, 5, 7], torch.tensor([3, 5, 7])):
        chosen = images[rows]
        assert isinstance(chosen, data.Blocks)
        assert torch.equal(chosen.null, images.null[[3, 5, 7]])
    assert SmallCNN(size=(56, 28))(images[:3].x.double()).shape == (3, 10)


# --- marks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", [0.0, 0.1, 0.95, 1.0])
def test_the_share_of_right_marks_is_exact_in_each_class(alignment: float) -> None:
    images = spurious_fashion(
        "test", amplitude=0.5, alignment=alignment, generator=oracles.seeded(0)
    )
    for label in range(10):
        rows = images.y == label
        assert int(images.aligned[rows].sum()) == round(200 * alignment)
        wrong = images.named[rows & ~images.aligned].bincount(minlength=10)
        assert wrong[label] == 0
        if alignment == 0:  # nine others, 22 each on average
            assert wrong.sum() == 200
            assert wrong[torch.arange(10) != label].min() > 5


@pytest.mark.parametrize("amplitude", [0.0, 0.15, 1.0])
def test_the_mark_is_one_cell_and_the_rest_the_garment(amplitude: float) -> None:
    plain = fashion_mnist("val")
    images = spurious_fashion(
        "val", amplitude=amplitude, alignment=0.9, generator=oracles.seeded(0)
    )
    assert torch.equal(images.y, plain.y)
    assert torch.equal(images.x[:, :, 2:], plain.x[:, :, 2:])
    strip = images.x[:, 0, :2]
    for i in (0, 250, 999):
        expected = torch.zeros(2, 28, dtype=torch.float32)
        start = 4 + 2 * int(images.named[i])
        expected[:, start : start + 2] = amplitude
        assert torch.equal(strip[i], expected)
    assert not strip[:, :, :4].any()
    assert not strip[:, :, 24:].any()


def test_groups_are_classes_and_whether_the_mark_is_right() -> None:
    images = spurious_fashion("val", amplitude=1.0, alignment=0.9, generator=oracles.seeded(0))
    counts = images.groups.bincount(minlength=20)
    assert counts.tolist() == [90, 10] * 10
    assert torch.equal(images.groups // 2, images.y)
    assert torch.equal(images.groups % 2 == 0, images.aligned)
    chosen = images[[5, 3]]
    assert isinstance(chosen, data.Shortcuts)
    assert torch.equal(chosen.groups, images.groups[[5, 3]])


def test_marks_come_from_the_generator_and_not_from_the_amplitude() -> None:
    before = torch.get_rng_state()
    faint, loud, other = (
        spurious_fashion("val", amplitude=a, alignment=0.5, generator=oracles.seeded(s))
        for a, s in ((0.1, 0), (1.0, 0), (1.0, 1))
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(faint.named, loud.named)
    assert not torch.equal(other.named, loud.named)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_arguments_are_named() -> None:
    for amplitude in (-0.1, float("nan"), "loud"):
        with pytest.raises(ValueError, match="Expected amplitude >= 0, got"):
            spurious_fashion("val", amplitude=amplitude, alignment=0.5)
    with pytest.raises(ValueError, match=r"Expected amplitude <= 1, got 1\.5"):
        spurious_fashion("val", amplitude=1.5, alignment=0.5)
    with pytest.raises(ValueError, match=r"Expected alignment <= 1, got 95"):
        spurious_fashion("val", amplitude=1.0, alignment=95)
    with pytest.raises(ValueError, match="Expected split to be one of train, val, test, got 'dev'"):
        block_fashion("dev")
