"""A network for sentences: padding is nothing, and what takes images takes its inputs."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from attrlib import attacks, attributions, checkpoints, data, models, training
from attrlib.maps import to_heatmap
from attrlib.models import TextCNN
from attrlib.recipes import RECIPES, fit
from attrlib.regularizers import AlignmentAttack, LocalGradientAlignment
from attrlib.types import Attack, Attribution
from tests.oracles import seeded

IDS = torch.tensor([[2, 3, 4, 0, 0], [5, 2, 2, 3, 4], [6, 0, 0, 0, 0]])
Y = torch.tensor([0, 1, 1])


@pytest.fixture
def net(dtype: torch.dtype) -> TextCNN:
    """Smooth, so that attacks have a slope; vectors large enough to matter."""
    smooth = partial(nn.Softplus, beta=3)
    return TextCNN(vocabulary=9, channels=4, hidden=5, activation=smooth, generator=seeded(0)).to(
        dtype
    )


def test_the_formula(net: TextCNN, dtype: torch.dtype) -> None:
    vectors = net.embedding.weight[IDS[0, :3]]
    padded = torch.cat([vectors.new_zeros(1, 4), vectors, vectors.new_zeros(1, 4)])
    kernel, bias = net.convolution.weight[:, :, 0], net.convolution.bias
    features = [torch.einsum("hcw,wc->h", kernel, padded[j : j + 3]) + bias for j in range(3)]
    mean = torch.stack([nn.functional.softplus(f, beta=3) for f in features]).mean(0)
    expected = net.linear.weight @ mean + net.linear.bias
    torch.testing.assert_close(net(net.embed(IDS[:1]))[0], expected)


def test_padding_changes_nothing(net: TextCNN) -> None:
    wider = torch.cat([IDS, torch.zeros(3, 4, dtype=torch.int64)], dim=1)
    torch.testing.assert_close(net(net.embed(wider)), net(net.embed(IDS)))
    x = net.embed(IDS).detach()
    noisy = x + 0.3 * torch.randn(x.shape, generator=seeded(1), dtype=x.dtype) * (x[:, -1:] == 0)
    noisy[:, -1] = x[:, -1] + 0.4 * (0.5 - x[:, -1])
    torch.testing.assert_close(net(noisy), net(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    "attribution",
    [
        attributions.gradient,
        attributions.input_x_gradient,
        partial(attributions.word_integrated_gradients, steps=4),
    ],
)
def test_padding_and_the_last_channel_have_no_score(net: TextCNN, attribution: Attribution) -> None:
    x = net.embed(IDS).detach()
    a = attribution(net, x, Y)
    assert a.shape == x.shape
    assert a[:, -1].eq(0).all()
    assert a.masked_select(x[:, -1:] == 0).eq(0).all()
    heat = to_heatmap(a)
    assert heat.shape == (3, 1, 5)
    assert torch.equal(heat[:, 0] > 0, IDS > 0)


def test_integrated_gradients_from_padding_add_up(net: TextCNN) -> None:
    x = net.embed(IDS).detach()
    nothing = x.clone()
    nothing[:, :-1] = 0
    a = attributions.word_integrated_gradients(net, x, Y, steps=300)
    rise = attributions.target_logit(net, x, Y) - attributions.target_logit(net, nothing, Y)
    torch.testing.assert_close(a.sum((1, 2, 3)), rise, atol=1e-6, rtol=1e-4)
    # From zeros everywhere the first half of the path has no words, and the sum is another one.
    wrong = attributions.integrated_gradients(net, x, Y, steps=300)
    assert ((wrong.sum((1, 2, 3)) - rise).abs() > 1e-3 * rise.abs()).all()


def test_embedding_is_differentiable_and_padding_stays_zero(net: TextCNN) -> None:
    net(net.embed(IDS)).sum().backward()
    slope = net.embedding.weight.grad
    assert slope[[0, 7, 8]].eq(0).all()
    assert slope[2:7].ne(0).any(1).all()


@pytest.mark.usefixtures("unchecked_shapes")
def test_bad_inputs_are_named(net: TextCNN) -> None:
    with pytest.raises(ValueError, match="Expected ids from 0 to 8, got 9"):
        net.embed(torch.tensor([[9]]))
    with pytest.raises(ValueError, match="Expected ids with a word first, got 1 rows that begin"):
        net.embed(torch.tensor([[0, 0]]))
    with pytest.raises(ValueError, match="Expected ids with padding after the last word only"):
        net.embed(torch.tensor([[2, 0, 2]]))
    with pytest.raises(TypeError, match=r"Expected ids to be an int64 tensor, got torch\.float"):
        net.embed(torch.tensor([[2.0]]))
    with pytest.raises(ValueError, match=r"Expected x of shape \(n, 5, 1, words\), got \(1, 4, 1"):
        net(torch.zeros(1, 4, 1, 3))
    with pytest.raises(ValueError, match="Expected width to be odd, got 2"):
        TextCNN(vocabulary=9, width=2)
    with pytest.raises(ValueError, match="Expected vocabulary to be an integer >= 3, got 2"):
        TextCNN(vocabulary=2)


# --- the ball of words ------------------------------------------------------------------------


@pytest.mark.parametrize("eps", [0.0, 0.05, 1.0, 30.0])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_every_word_stays_within_the_budget(net: TextCNN, eps: float, kind: torch.dtype) -> None:
    x, ball = net.to(kind).embed(IDS).detach(), attacks.WordBall(eps=eps)
    far = x + 10 * torch.randn(x.shape, generator=seeded(2), dtype=kind)
    for z in (ball.project(far, x), ball.sample(x, seeded(3))):
        away = z - x
        assert (away.norm(dim=1) <= eps).all()
        assert away[:, -1].eq(0).all()
        assert away.masked_select(x[:, -1:] == 0).eq(0).all()
        assert torch.equal(ball.project(z, x), z)
    if 0 < eps < 10:
        reach = (ball.project(far, x) - x).norm(dim=1)[:, 0][IDS > 0]
        torch.testing.assert_close(reach, torch.full_like(reach, eps), rtol=1e-3, atol=0)
        assert x.min() - ball.sample(x, seeded(3)).min() > -1  # vectors are not cut to [0, 1]


def test_random_words_fill_the_ball(net: TextCNN) -> None:
    x = net.embed(torch.full((2000, 1), 3)).detach()
    away = (attacks.WordBall(eps=2.0).sample(x, seeded(0)) - x)[:, :-1]
    share = (away.norm(dim=1) / 2) ** 4  # uniform, for four channels
    assert float(share.mean()) == pytest.approx(0.5, abs=0.03)
    assert away.mean((0, 2, 3)).abs().max() < 0.1


def test_the_steepest_step_of_words() -> None:
    slope = torch.tensor([[[[3.0, 0.0, 1e-30]], [[4.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]])
    step = attacks.WordBall(eps=1.0).steepest(slope)
    expected = torch.tensor([[[[0.6, 0.0, 1.0]], [[0.8, 0.0, 0.0]], [[0.0, 0.0, 0.0]]]])
    torch.testing.assert_close(step, expected.to(step))


def test_a_ball_of_words_refuses_pictures() -> None:
    with pytest.raises(ValueError, match="Expected x with a last channel of 0 and 1"):
        attacks.WordBall(eps=0.1).project(torch.rand(2, 3, 1, 4), torch.rand(2, 3, 1, 4))
    with pytest.raises(ValueError, match=r"Expected x of shape \(n, channels \+ 1, 1, words\)"):
        attacks.WordBall(eps=0.1).sample(torch.rand(2, 3, 4, 4))


# --- what takes images takes embedded sentences -------------------------------------------------

WORD_BALL = attacks.WordBall(eps=0.5)


@pytest.mark.parametrize(
    "attack",
    [
        attacks.PGD(ball=WORD_BALL, steps=3, step_size=0.2, random_start=True),
        attacks.KLPGD(ball=WORD_BALL, steps=3, step_size=0.2),
        attacks.MarginPGD(ball=WORD_BALL, steps=3, step_size=0.2, restarts=1),
        AlignmentAttack(ball=WORD_BALL, steps=3, step_size=0.2),
        attacks.AttributionAttack(
            attribution=attributions.gradient,
            objective=attacks.Cosine(),
            ball=WORD_BALL,
            steps=3,
            step_size=0.2,
            keep_label=False,
        ),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_attacks_move_words_and_nothing_else(net: TextCNN, attack: Attack) -> None:
    x = net.embed(IDS).detach()
    assert x.min() < 0  # no pixels
    z = attack(net, x, Y, generator=seeded(0))
    away = z - x
    assert away[:, -1].eq(0).all()
    assert away.masked_select(x[:, -1:] == 0).eq(0).all()
    assert (away.norm(dim=1) <= 0.5).all()
    assert away.norm(dim=1)[:, 0][IDS > 0].gt(0).any()
    if isinstance(attack, attacks.PGD):
        loss = partial(nn.functional.cross_entropy, target=Y, reduction="none")
        assert (loss(net(z)) > loss(net(x))).all()


def test_pictures_are_refused_as_before(net: TextCNN) -> None:
    x = net.embed(IDS).detach()
    for ball in (attacks.LinfBall(eps=0.1), attacks.L2Ball(eps=0.1)):
        with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\], got \[-"):
            attacks.PGD(ball=ball, steps=1, step_size=0.1)(net, x, Y)
        with pytest.raises(ValueError, match=r"Expected x to be pixels in \[0, 1\], got \[-"):
            LocalGradientAlignment(l2=1.0, cosine=0.0, ball=ball)(net, x, Y)


def test_a_ball_may_state_another_range() -> None:
    class Signed(attacks.LinfBall):
        span = (-1.0, 1.0)

    def objective(z: Tensor) -> Tensor:
        return z.sum(1)

    ball, x = Signed(eps=0.1), torch.tensor([[-0.5, 0.5]])
    attacks.ascend(objective, x, ball=ball, steps=1, step_size=0.1)
    with pytest.raises(
        ValueError, match=r"Expected x to be pixels in \[-1, 1\], got \[-0.5, 1.5\]"
    ):
        attacks.ascend(objective, x + torch.tensor([0.0, 1.0]), ball=ball, steps=1, step_size=0.1)


def test_alignment_of_words(net: TextCNN) -> None:
    x = net.embed(IDS).detach()
    term = LocalGradientAlignment(l2=1.0, cosine=1.0, ball=WORD_BALL)
    value = term(net, x, Y, generator=seeded(0))
    assert value.shape == (3,)
    assert (value > 0).all()


# --- training and files -------------------------------------------------------------------------


def few(split: data.Split = "train", *, full: bool = False) -> data.Texts:
    return data.sentiment(split)[:96]


@pytest.mark.parametrize("name", ["text-natural", "text-adversarial", "text-lga"])
def test_recipes_for_sentences_repeat_and_keep_what_is_frozen(name: str, tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    recipe = RECIPES[name]
    splits = {split: few(split) for split in ("train", "val")}
    made = [fit(recipe, tmp_path / f"{i}.safetensors", data=splits, seed=0) for i in range(2)]
    for p, q in zip(*(found.model.parameters() for found in made), strict=True):
        assert torch.equal(p, q)
    loaded = checkpoints.load(tmp_path / "0.safetensors")
    assert isinstance(loaded.model, TextCNN)
    assert loaded.recipe["data"]["train"] == [96, data.fingerprint(splits["train"])]
    first = checkpoints.load("text-natural").model
    same = torch.equal(loaded.model.embedding.weight, first.embedding.weight)
    assert same == (name != "text-natural")
    assert not torch.equal(loaded.model.linear.weight, first.linear.weight)


def test_early_stopping_looks_at_sentences() -> None:
    torch.set_default_dtype(torch.float32)
    recipe = RECIPES["text-natural"]
    net = TextCNN(vocabulary=len(few().vocabulary), generator=seeded(0))
    config = training.TrainConfig(epochs=2, batch_size=32, patience=1)
    history = training.train(
        net, few(), recipe.loss, config=config, generator=seeded(0), validation=few("val")
    )
    assert "validation_loss" in history.epochs[0]
    kept = training.only_correct(net, few())
    assert isinstance(kept, data.Texts)
    assert 0 < len(kept) < 96


def test_words_and_pictures_are_not_mixed_up(tmp_path: Path) -> None:
    torch.set_default_dtype(torch.float32)
    path = tmp_path / "a.safetensors"
    with pytest.raises(
        ValueError, match="Expected data with sentences for recipe text-natural, got"
    ):
        fit(RECIPES["text-natural"], path, data={"train": data.fashion_mnist("val")}, seed=0)
    with pytest.raises(ValueError, match="Expected data with images for recipe natural, got sent"):
        fit(RECIPES["natural"], path, data={"train": few()}, seed=0)
    with pytest.raises(ValueError, match="Expected model that embeds sentences, such as TextCNN"):
        training.evaluate(models.SmallCNN(), few(), {"correct": training.correct})


def test_what_the_networks_of_the_book_promise() -> None:
    torch.set_default_dtype(torch.float32)
    test = data.sentiment("test")
    for name, least in {"text-natural": 0.85, "text-adversarial": 0.84, "text-lga": 0.85}.items():
        found = checkpoints.load(name)
        x = found.model.embed(test.ids).detach()
        assert float((found.model(x).argmax(1) == test.y).float().mean()) > least
        assert len(found.model.embedding.weight) == len(test.vocabulary)
