"""The free photographs, and mosaics of them with known regions."""

import pytest
import torch

from attrlib import data

pytestmark = pytest.mark.usefixtures("unchecked_shapes")


def test_photographs() -> None:
    images = data.photographs(size=32)
    assert images.x.shape == (5, 3, 32, 32)
    assert images.x.dtype == torch.float32
    assert images.x.min() >= 0
    assert images.x.max() <= 1
    assert images.x.std((1, 2, 3)).min() > 0.05
    assert images.classes == ("coffee", "cat", "rocket", "temple", "flower")
    with pytest.raises(ValueError, match="Expected size to be an integer >= 1, got 0"):
        data.photographs(size=0)


def test_each_region_is_the_photograph_at_half_the_size() -> None:
    mosaics, single = data.mosaics(size=32), data.photographs(size=16)
    assert mosaics.x.shape == (5, 3, 32, 32)
    assert mosaics.classes == single.classes
    corners = [(slice(16), slice(16)), (slice(16), slice(16, 32))]
    corners += [(slice(16, 32), slice(16)), (slice(16, 32), slice(16, 32))]
    for i in range(5):
        for region, (rows, columns) in enumerate(corners):
            picture = single.x[mosaics.parts[i, region]]
            assert torch.equal(mosaics.x[i, :, rows, columns], picture)
            assert mosaics.regions[i, region, rows, columns].all()


def test_regions_cover_every_pixel_once() -> None:
    mosaics = data.mosaics(size=10)
    assert mosaics.regions.dtype == torch.bool
    assert mosaics.regions.shape == (5, 4, 10, 10)
    assert torch.equal(mosaics.regions.sum(1), torch.ones(5, 10, 10, dtype=torch.int64))
    assert mosaics.regions.sum((2, 3)).unique().tolist() == [25]


def test_every_photograph_stands_once_in_every_corner() -> None:
    mosaics = data.mosaics(size=8)
    assert torch.equal(mosaics.y, torch.arange(5))
    assert torch.equal(mosaics.parts[:, 0], mosaics.y)
    for region in range(4):
        assert mosaics.parts[:, region].sort().values.tolist() == [0, 1, 2, 3, 4]
    assert all(row.unique().numel() == 4 for row in mosaics.parts)


def test_rows_of_mosaics_keep_their_regions() -> None:
    mosaics = data.mosaics(size=8)
    chosen = mosaics[[3, 1]]
    assert len(chosen) == 2
    assert chosen.y.tolist() == [3, 1]
    for name in ("x", "regions", "parts"):
        assert torch.equal(getattr(chosen, name), getattr(mosaics, name)[[3, 1]])
    assert chosen.classes == mosaics.classes
    assert mosaics[:0].regions.shape == (0, 4, 8, 8)


def test_a_mosaic_has_a_middle() -> None:
    with pytest.raises(ValueError, match="Expected size to be even, got 225"):
        data.mosaics(size=225)
    with pytest.raises(ValueError, match="Expected size to be an integer >= 1, got 0"):
        data.mosaics(size=0)
