"""Many points in one pass: the same maps for any number of rows, and no more rows than said."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attrlib import _check, _passes, attributions, faithfulness
from tests import oracles

AVERAGED = {
    "integrated_gradients": partial(attributions.integrated_gradients, steps=7),
    "smooth_grad": partial(attributions.smooth_grad, sigma=0.3, samples=7),
    "uni_grad l2": partial(attributions.uni_grad, radius=1.0, samples=7),
    "uni_grad linf": partial(attributions.uni_grad, radius=0.2, samples=7, norm="linf"),
}
each = pytest.mark.parametrize("attribution", AVERAGED.values(), ids=AVERAGED.keys())


class Watched(nn.Module):
    """A smooth network that remembers how many rows each pass had."""

    def __init__(self) -> None:
        super().__init__()
        self.net = oracles.softplus_net()
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return self.net(x)


@each
@pytest.mark.parametrize("batch_size", [1, 3, 4, 9, 28, 1000])
def test_maps_and_noise_do_not_depend_on_the_batch_size(
    attribution: Callable[..., Tensor], batch_size: int, dtype: torch.dtype
) -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    states, maps = [], []
    for size in (None, batch_size):
        generator = oracles.seeded(3)
        maps.append(attribution(model, x, y, batch_size=size, generator=generator))
        states.append(generator.get_state())
    assert torch.equal(*states)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(*maps, rtol=tolerance, atol=tolerance)


def test_noise_is_drawn_sample_by_sample() -> None:
    model, x, y = oracles.softplus_net(), oracles.images(), oracles.labels()
    noise = oracles.seeded(3)
    points = [x + 0.3 * torch.randn(x.shape, generator=noise, dtype=x.dtype) for _ in range(5)]
    expected = torch.stack([attributions.gradient(model, z, y) for z in points]).mean(0)
    a = attributions.smooth_grad(model, x, y, sigma=0.3, samples=5, generator=oracles.seeded(3))
    torch.testing.assert_close(a, expected)


@pytest.mark.parametrize("leaf", [False, True])
@pytest.mark.parametrize(
    ("n", "batch_size", "rows"),
    [
        (1, None, [7]),
        (4, None, [28]),
        (1, 4, [4, 3]),
        (2, 5, [4, 4, 4, 2]),  # whole points
        (2, 10, [8, 6]),  # in shares as equal as can be
        (2, 2, [2] * 7),
        (4, 3, [2] * 14),  # a point in parts
        (3, 1, [1] * 21),
    ],
)
def test_a_pass_has_no_more_rows_than_said(
    n: int, batch_size: int | None, rows: list[int], leaf: bool
) -> None:
    model, x, y = Watched(), oracles.images(n).requires_grad_(leaf), oracles.labels(n)
    attributions.integrated_gradients(model, x, y, steps=7, batch_size=batch_size)
    assert model.rows == rows


@pytest.mark.parametrize(
    ("shape", "kind", "device", "rows"),
    [
        ((1, 1, 28, 28), torch.float32, "cpu", 192),
        ((1, 3, 224, 224), torch.float32, "cpu", 2),
        ((1, 3, 224, 224), torch.float64, "cpu", 1),
        ((8, 3, 224, 224), torch.float32, "cpu", 2),
        ((1, 3, 1024, 1024), torch.float32, "cpu", 1),
        ((1, 1, 28, 28), torch.float32, "meta", 2048),  # stands for any accelerator
        ((1, 3, 224, 224), torch.float32, "meta", 33),
    ],
)
def test_the_limit_falls_with_the_size_of_a_row(
    shape: tuple[int, ...], kind: torch.dtype, device: str, rows: int
) -> None:
    like = torch.empty(shape, dtype=kind, device=device)
    seen = []

    def function(x: Tensor, y: Tensor, *, look: bool) -> Tensor:
        seen.append(len(x))
        return y

    y = torch.zeros(len(like), dtype=torch.int64, device=device)
    for _ in _passes.passes(
        function, lambda part: like.expand(len(part), *shape), y, like=like, count=rows
    ):
        pass
    assert max(seen) == rows


@each
def test_each_label_is_looked_at_once(
    attribution: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Tensor] = []
    monkeypatch.setattr(
        _check, "logits", lambda scores, n, y, classes: None if y is None else looked.append(y)
    )
    x, y = oracles.images(), torch.tensor([0, 1, 2, 0])
    attribution(oracles.softplus_net(), x, y, batch_size=2, generator=oracles.seeded(0))
    assert torch.equal(torch.cat(looked), y)


@each
def test_a_wrong_label_is_found_in_any_part(attribution: Callable[..., Tensor]) -> None:
    y = torch.tensor([0, 1, 2, 3])
    with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
        attribution(oracles.softplus_net(), oracles.images(), y, batch_size=2)


@pytest.mark.usefixtures("unchecked_shapes")
@each
@pytest.mark.parametrize("batch_size", [0, -1, 1.5, True, "8"])
def test_bad_batch_sizes_are_named(attribution: Callable[..., Tensor], batch_size: object) -> None:
    with pytest.raises(ValueError, match=f"Expected batch_size .* >= 1, got {batch_size!r}"):
        attribution(
            oracles.softplus_net(), oracles.images(), oracles.labels(), batch_size=batch_size
        )


@pytest.mark.parametrize("score", [faithfulness.insertion, faithfulness.deletion])
def test_curves_of_one_image_take_one_pass(score: Callable[..., Tensor]) -> None:
    model, x, y = Watched(), oracles.images(1), oracles.labels(1)
    score(model, x, y, oracles.images(1, seed=5)[:, 0], steps=20)
    assert model.rows == [21]
