"""Benign changes: what brightness, a JPEG file and a shift by whole pixels do to images."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from attrlib import data
from tests import oracles

both = pytest.mark.parametrize("channels", [1, 3])


def test_brightness_multiplies_and_stops_at_white(dtype: torch.dtype, device: torch.device) -> None:
    x = oracles.images(4, channels=3).to(device, dtype)
    assert torch.equal(data.brightness(x, factor=1), x)
    torch.testing.assert_close(data.brightness(x, factor=0.5), x / 2)
    brighter = data.brightness(x, factor=1.3)
    assert brighter.max() == 1
    torch.testing.assert_close(brighter, functional.adjust_brightness(x, 1.3))


@both
def test_a_jpeg_file_is_what_pillow_makes_of_it(channels: int, device: torch.device) -> None:
    x = oracles.images(2, channels=channels).to(device)
    for row, changed in zip(x, data.jpeg(x, quality=40), strict=True):
        file = io.BytesIO()
        pixels = np.rint(row.cpu().double().numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels).save(
            file, format="jpeg", quality=40
        )
        known = torch.tensor(np.asarray(Image.open(file))).reshape(8, 8, channels).permute(2, 0, 1)
        torch.testing.assert_close(changed.cpu() * 255, known.to(changed))


@both
def test_flat_pictures_survive_and_lower_quality_costs_more(channels: int) -> None:
    flat = torch.full((1, channels, 16, 16), 100 / 255)
    torch.testing.assert_close(data.jpeg(flat, quality=75), flat, atol=1.01 / 255, rtol=0)
    x = oracles.images(3, channels=channels, size=16)
    losses = [float((data.jpeg(x, quality=q) - x).abs().mean()) for q in (5, 40, 95)]
    assert losses[0] > losses[1] > losses[2] > 0


def test_a_shift_moves_pixels_and_repeats_the_edge(device: torch.device) -> None:
    x = oracles.images(2, channels=3).to(device)
    moved = data.shift(x, right=1)
    assert torch.equal(moved[..., 1:], x[..., :-1])
    assert torch.equal(moved[..., 0], x[..., 0])
    up = data.shift(x, right=-2, down=-3)
    assert torch.equal(up[..., :-3, :-2], x[..., 3:, 2:])
    assert torch.equal(up[..., -1, -1], x[..., -1, -1])
    assert torch.equal(data.shift(x, right=0), x)
    maps = x[:, 0] - 7
    assert torch.equal(data.shift(maps, down=2), data.shift(x - 7, down=2)[:, 0])


@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", data.BENIGN)
def test_what_goes_in_comes_out(name: str, kind: torch.dtype, device: torch.device) -> None:
    x = oracles.images(3, channels=3).to(device, kind)
    kept = x.clone()
    changed = data.BENIGN[name](x)
    assert (changed.shape, changed.dtype, changed.device) == (x.shape, kind, x.device)
    assert 0 <= changed.min()
    assert changed.max() <= 1
    changed += 1
    assert torch.equal(x, kept)
    other = x.roll(1, 0)
    other[1] = x[1]
    assert torch.equal(data.BENIGN[name](other)[1] + 1, changed[1])


@pytest.mark.parametrize("name", ["brightness", "shift"])
def test_two_of_them_can_be_differentiated(name: str, device: torch.device) -> None:
    x = (0.9 * oracles.images(1)).to(device, torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(data.BENIGN[name], x)


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named() -> None:
    x = oracles.images(2, channels=3)
    with pytest.raises(ValueError, match="Expected factor >= 0, got -1"):
        data.brightness(x, factor=-1)
    with pytest.raises(ValueError, match="Expected quality to be an integer from 1 to 95, got 96"):
        data.jpeg(x, quality=96)
    with pytest.raises(ValueError, match="Expected x with 1 or 3 channels, got 2"):
        data.jpeg(x[:, :2])
    with pytest.raises(ValueError, match="Expected right to be an integer from -7 to 7, got 8"):
        data.shift(x, right=8)
    with pytest.raises(ValueError, match="Expected down to be an integer from -7 to 7, got -8"):
        data.shift(x, down=-8)
    with pytest.raises(ValueError, match=r"Expected x to be \(n, …, h, w\), got shape \(2, 192\)"):
        data.shift(x.flatten(1))
    for change in (data.brightness, data.jpeg):
        with pytest.raises(ValueError, match=r"pixels in \[0, 1\], got"):
            change(x + 1)
        with pytest.raises(ValueError, match="Expected x to be finite"):
            change(x / 0)
        with pytest.raises(ValueError, match=r"images \(n, channels, h, w\), got \(2, 8, 8\)"):
            change(x[:, 0])
    for change in data.BENIGN.values():
        with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
            change(x.long())
