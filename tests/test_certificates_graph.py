"""Bounds follow what a network does, refuse the rest by name, and keep the contract of the package."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from attrlib import attributions, certificates, models
from attrlib.certificates import boxes, interval
from tests import oracles
from tests.interval_oracles import (
    NETS,
    Residual,
    inside,
    points,
    small,
)

# --- the executed graph ---------------------------------------------------------------------------


def test_the_same_network_written_in_other_ways() -> None:
    conv, linear = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(3 * 64, CLASSES := 3)

    class Own(nn.Module):
        def __init__(self, act: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.conv, self.linear, self.act = conv, linear, act

        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 1 or x.dim() != 4 or len(x) == 0:
                raise ValueError("not an image")
            return self.linear(self.act(self.conv(x)).view(x.size(0), -1))

    x, y = oracles.images(), oracles.labels(classes=CLASSES)
    plain = nn.Sequential(conv, nn.ReLU(), nn.Flatten(), linear)
    wanted = certificates.gradient_bounds(plain, x, y, eps=0.05)
    ways: list[Any] = [
        Own(torch.relu),
        Own(functional.relu),
        Own(functional.relu_),
        Own(lambda h: h.relu()),
        Own(nn.ReLU(inplace=True)),
        lambda z: plain(z),
        nn.Sequential(nn.Identity(), plain, nn.Dropout(0.3)).eval(),
    ]
    for way in ways:
        for one, other in zip(
            certificates.gradient_bounds(way, x, y, eps=0.05), wanted, strict=True
        ):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_a_layer_that_is_not_called_does_not_count() -> None:
    model, x, y = small(), oracles.images(), oracles.labels()
    wanted = certificates.gradient_bounds(model, x, y, eps=0.05)
    model.unused = nn.MaxPool2d(2)
    assert torch.equal(certificates.gradient_bounds(model, x, y, eps=0.05)[0], wanted[0])


def test_a_layer_that_is_called_twice_counts_twice() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Flatten(), shared, nn.ReLU(), shared)
    x, y = oracles.images(size=2), oracles.labels(classes=4)
    lower, upper = certificates.gradient_bounds(model, x, y, eps=0.1)
    z = points(x, 0.1, 300)
    found = attributions.gradient(model, z.flatten(0, 1), y.repeat(300)).view_as(z)
    assert inside(lower, found, upper)
    torch.testing.assert_close(
        certificates.gradient_bounds(model, x, y, eps=0.0)[0], attributions.gradient(model, x, y)
    )


def test_a_smoothed_copy_has_the_bounds_of_softplus() -> None:
    x, y = oracles.images(), oracles.labels()
    one = certificates.gradient_bounds(models.smoothed(small(), 10.0), x, y, eps=0.05)
    other = certificates.gradient_bounds(small(partial(nn.Softplus, beta=10)), x, y, eps=0.05)
    assert torch.equal(one[0], other[0])


def test_frozen_batch_normalisation_is_an_affine_map() -> None:
    from torchvision.ops import FrozenBatchNorm2d

    model = Residual().eval()
    frozen = Residual().eval()
    frozen.load_state_dict(model.state_dict())
    frozen.norm = FrozenBatchNorm2d(4, eps=model.norm.eps)
    frozen.norm.load_state_dict(model.norm.state_dict())
    x, y = oracles.images(), oracles.labels()
    for one, other in zip(
        *(certificates.gradient_bounds(m, x, y, eps=0.05) for m in (model, frozen)), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


class Bent(nn.Module):
    """A linear layer, and one more function."""

    def __init__(self, bend: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 16)
        self.bend = bend

    def forward(self, x: Tensor) -> Tensor:
        return self.bend(self.linear(x.flatten(1)))


@pytest.mark.parametrize(
    ("bend", "named"),
    [
        (torch.sigmoid, "torch.sigmoid in Bent"),
        (lambda h: h * h, "torch.Tensor.mul of two values that both depend on the input in Bent"),
        (lambda h: h.softmax(1), "torch.Tensor.softmax in Bent"),
        (lambda h: h[:, [0, 2]], "torch.Tensor.__getitem__ with what is no slice in Bent"),
        (lambda h: h[:, torch.arange(3)], "torch.Tensor.__getitem__ with what is no slice"),
        (lambda h: h + h[:1], "torch.Tensor.__getitem__ of some of the samples in Bent"),
        (lambda h: h[..., 0, :] + h, "torch.Tensor.__getitem__ of some of the samples in Bent"),
        (lambda h: h * (h > 0), "torch.Tensor.(__)?gt(__)? with more than one outcome in Bent"),
        (lambda h: h * (h > h.mean()), "gt(__)? of two values that both depend on the input"),
        (lambda h: h.clamp(min=0), "torch.Tensor.clamp in Bent"),
        (lambda h: h.half().float(), "torch.Tensor.half in Bent"),
        (lambda h: h.to(torch.bfloat16), "torch.Tensor.to from .* to torch.bfloat16 in Bent"),
        (lambda h: h.detach(), "torch.Tensor.detach in Bent"),
        (lambda h: h.T.relu(), "torch.Tensor.T in Bent"),
        (lambda h: 1 / h, "torch.Tensor.__rtruediv__ in Bent|torch.Tensor.* in Bent"),
        (nn.LayerNorm(16), "torch.nn.functional.layer_norm in LayerNorm 'bend'"),
        (nn.Softplus(beta=-1.0), "softplus with beta -1.0 .* in Softplus 'bend'"),
        (
            nn.Sequential(nn.Unflatten(1, (4, 4)), nn.MaxPool1d(2)),
            "max_pool1d in MaxPool1d 'bend.1'",
        ),
        (lambda h: h.view(-1, 16).relu_() + h, "torch.Tensor.relu_ in place on a view in Bent"),
        (lambda h: h.add_(1).mean(), "logits"),
        (lambda h: functional.dropout(h, 0.5), "dropout in train mode in Bent"),
        (lambda h: functional.batch_norm(h, None, None, training=True), "statistics of a batch"),
        (lambda h: torch.zeros(4, 16).add_(h), "torch.Tensor.add_ in place on what has no bounds"),
        (lambda h: functional.pad(h, (1, 1), value=2.0), "functional.pad with 2.0"),
        (lambda h: torch.ones(len(h), 16), "to depend on x"),
        (lambda h: float(h[0]), "__getitem__"),
    ],
)
def test_what_has_no_bounds_is_refused_by_name(bend: Callable[..., Any], named: str) -> None:
    model = Bent(bend).eval()
    with pytest.raises(ValueError, match=named):
        certificates.gradient_bounds(model, oracles.images(size=4), oracles.labels(), eps=0.1)


def test_slices_and_certain_comparisons_are_followed() -> None:
    x, y = oracles.images(size=4), oracles.labels()
    parts = Bent(lambda h: h[:, :3] + h[..., 3:6] - 2 * h[:, 6:9] + h[:, 9, None])
    masked = Bent(lambda h: torch.cat([torch.ones(1), torch.zeros(15)]).to(h) * h)
    certain = Bent(lambda h: (h > -1e3).to(h) * h + (h <= -1e3).to(h.dtype) * h)
    for model, flat in ((parts, 3), (masked, 16), (certain, 16)):
        lower, upper = certificates.gradient_bounds(model, x, y, eps=0.1)
        a = attributions.gradient(model, x, y)
        assert a.shape == x.shape
        torch.testing.assert_close(lower, a)
        torch.testing.assert_close(upper, a)
        assert model(x).shape == (len(x), flat)


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated")
@pytest.mark.parametrize("compile_", [torch.jit.script, partial(torch.jit.trace, strict=False)])
def test_compiled_code_is_refused(compile_: Callable[..., Any]) -> None:
    layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 3), nn.ReLU())
    example = {} if compile_ is torch.jit.script else {"example_inputs": torch.zeros(1, 1, 4, 4)}
    model = compile_(layers, **example)
    with pytest.raises(ValueError, match=r"got code of torch\.jit in "):
        certificates.gradient_bounds(model, oracles.images(size=4), oracles.labels(), eps=0.1)


def test_values_in_place_are_followed() -> None:
    x, y = oracles.images(size=4), oracles.labels()
    bends = [
        (lambda h: h.mul_(2).sub_(1).relu_().add_(h), lambda h: 2 * torch.relu(2 * h - 1)),
        (lambda h: torch.flatten(h.clone().relu_(), 1) + h, lambda h: torch.relu(h) + h),
        (lambda h: -(2 - h) / 4, lambda h: (h - 2) / 4),
        (lambda h: torch.sub(h, 3, alpha=2), lambda h: h - 6),
        (lambda h: h.sum(1, keepdim=True) + h, lambda h: h + 16 * h.mean(1).unsqueeze(1)),
        (lambda h: functional.pad(h, (1, 1)).relu(), lambda h: functional.pad(h.relu(), (1, 1))),
    ]
    for bend, plain in bends:
        one, other = Bent(bend), Bent(plain)
        other.linear = one.linear
        pair = zip(
            *(certificates.gradient_bounds(m, x, y, eps=0.1) for m in (one, other)), strict=True
        )
        for a, b in pair:
            torch.testing.assert_close(a, b)
        torch.testing.assert_close(one(x), other(x))


def test_batch_statistics_and_noise_are_refused() -> None:
    x, y = oracles.images(), oracles.labels()
    for model, layer in (
        (Residual(), "BatchNorm2d 'norm'"),
        (NETS["Sequential"]().train(), "Batch"),
    ):
        with pytest.raises(ValueError, match=f"without batch normalisation in train .* {layer}"):
            certificates.gradient_bounds(model, x, y, eps=0.1)
    noisy = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    with pytest.raises(ValueError, match="equal logits each time, got Dropout '1' in train mode"):
        certificates.logit_bounds(noisy, x, eps=0.1)


# --- the contract of every callable ---------------------------------------------------------------

CALLS: dict[str, Callable[..., Any]] = {
    "gradient": certificates.gradient_bounds,
    "input x gradient": certificates.input_x_gradient_bounds,
    "integrated gradients": partial(certificates.integrated_gradients_bounds, steps=3),
    "logits": lambda model, x, y, **o: certificates.logit_bounds(model, x, **o),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@every_call
@pytest.mark.parametrize("kind", [torch.float32, torch.float64, torch.bfloat16])
def test_shape_dtype_and_device(
    call: Callable[..., Any], kind: torch.dtype, device: torch.device
) -> None:
    model = small().to(device, kind)
    x, y = oracles.images().to(device, kind), oracles.labels().to(device)
    for bound in call(model, x.requires_grad_(), y, eps=0.05):
        assert bound.shape == (x.shape if call is not CALLS["logits"] else (4, 3))
        assert (bound.dtype, bound.device) == (kind, x.device)
        assert not bound.requires_grad
        assert type(bound) is Tensor


@every_call
def test_nothing_of_the_caller_changes(call: Callable[..., Any]) -> None:
    model, x, y = small().train(), oracles.images(), oracles.labels()
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    kept = [t.detach().clone() for t in (x, *model.parameters())]
    noise = torch.get_rng_state()
    first = call(model, x, y, eps=0.05)
    assert all(map(torch.equal, kept, (x, *model.parameters())))
    assert all((p.grad == 1).all() for p in model.parameters())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), noise)
    with torch.no_grad():
        again = call(model, x, y, eps=0.05)
    assert all(map(torch.equal, first, again))


@every_call
def test_a_row_does_not_depend_on_the_others_nor_on_memory(call: Callable[..., Any]) -> None:
    model, x, y = small(), oracles.images(300), oracles.labels(300)
    whole = call(model, x, y, eps=0.05)  # in parts
    for rows in (slice(0, 1), slice(298, 300)):
        part = call(model, x[rows], y[rows], eps=0.05)
        for one, other in zip(part, whole, strict=True):
            torch.testing.assert_close(one, other[rows], rtol=1e-9, atol=1e-12)
    strided = torch.stack([x, x], -1)[..., 1].contiguous(memory_format=torch.channels_last)
    for one, other in zip(call(model, strided, y, eps=0.05), whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@every_call
@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_input_is_named(call: Callable[..., Any]) -> None:
    model, x, y = small(), oracles.images(), oracles.labels()
    for eps in (-0.1, float("nan"), float("inf"), True, "a"):
        with pytest.raises(ValueError, match="Expected eps >= 0, got"):
            call(model, x, y, eps=eps)
    for eps in (1, 1.0, 3.0):
        with pytest.raises(ValueError, match=f"Expected eps < 1, the whole range .*, got {eps}"):
            call(model, x, y, eps=eps)
    with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\], got \["):
        call(model, 2 * x, y, eps=0.1)
    with pytest.raises(ValueError, match="Expected x to be finite"):
        call(model, x / 0, y, eps=0.1)
    with pytest.raises(TypeError, match="Expected x to be a floating-point tensor"):
        call(model, x.long(), y, eps=0.1)
    with pytest.raises(ValueError, match=r"Expected x of shape \(n, 1, 8, 8\)"):
        call(model, x[..., :4], y, eps=0.1)
    with pytest.raises(ValueError, match=r"Expected model\(x\) to be logits"):
        call(nn.Identity(), x, y, eps=0.1)
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"outside torch.inference_mode"):
        call(model, x, y, eps=0.1)
    if call is not CALLS["logits"]:
        with pytest.raises(ValueError, match="Expected y from 0 to 2, got 3"):
            call(model, x, y + 3 - y, eps=0.1)
        with pytest.raises(TypeError, match="Expected y to be an int64 tensor"):
            call(model, x, y.int(), eps=0.1)
        with pytest.raises(ValueError, match=r"Expected y of shape \(4,\)"):
            call(model, x, y[:2], eps=0.1)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_path_needs_points() -> None:
    for steps in (0, 1.5):
        with pytest.raises(ValueError, match="Expected steps to be an integer >= 1"):
            certificates.integrated_gradients_bounds(
                small(), oracles.images(), oracles.labels(), eps=0.1, steps=steps
            )


def test_all_after_the_tensors_is_keyword_only() -> None:
    public = [getattr(certificates, name) for name in certificates.__all__]
    for function in public:
        if function.__module__ not in (boxes.__name__, interval.__name__):
            continue
        for parameter in inspect.signature(function).parameters.values():
            tensors = {"model", "x", "y", "a", "lower", "upper"}
            assert (parameter.kind is parameter.KEYWORD_ONLY) == (parameter.name not in tensors)
