"""Checks of the chapter "Local gradient alignment"."""

from functools import partial

import torch
from torch import Tensor, nn

from attrlib import attacks, attributions
from attrlib.book._exercises import expect, expect_close, run
from attrlib.models import SmallCNN
from attrlib.regularizers import LocalGradientAlignment


def two_parts(answer: object) -> str:
    """`two_parts(a, b)` splits the squared distance of maps into lengths and turn."""
    a = torch.tensor([[[3.0, 4.0]], [[3.0, 4.0]], [[3.0, 4.0]], [[1.0, 0.0]]])
    b = torch.tensor([[[0.0, 5.0]], [[6.0, 8.0]], [[0.0, 10.0]], [[-1.0, 0.0]]])
    tried, hint = "a = (3, 4) and three other pairs", "Lengths first; the rest is the turn."
    got = run(answer, a, b, tried=tried, hint=hint)
    expect(
        isinstance(got, tuple) and len(got) == 2,
        tried=tried,
        expected="a pair of tensors",
        got=type(got).__name__,
        hint="End with `return lengths, turn`.",
    )
    assert isinstance(got, tuple)
    lengths, turn = torch.tensor([0.0, 25.0, 25.0, 0.0]), torch.tensor([10.0, 0.0, 20.0, 4.0])
    expect_close(got[0], lengths, tried=f"{tried}, the first part", hint=hint)
    expect_close(got[1], turn, tried=f"{tried}, the second part", hint=hint)
    return "The first part is what nobody sees in a normalised map."


def leading_turn(answer: object) -> str:
    """`leading_turn(a, bend)` is |P bend|² / (4 |a|²), with P the projection across a."""
    a = torch.tensor([[3.0, 4.0], [3.0, 4.0], [3.0, 4.0], [0.0, 2.0]])
    bend = torch.tensor([[-0.4, 0.3], [0.3, 0.4], [-0.1, 0.7], [4.0, 100.0]])
    tried, hint = (
        "a = (3, 4) and a = (0, 2)",
        "Take away (bend·a)/(a·a) a, then square what is left.",
    )
    got = run(answer, a, bend, tried=tried, hint=hint)
    expect_close(got, torch.tensor([0.0025, 0.0, 0.0025, 1.0]), tried=tried, hint=hint)
    return "The part along the gradient makes it longer and turns nothing."


def align_loss(answer: object) -> str:
    """`align_loss(model, x, y, z, l2, cosine)` is cross-entropy plus local gradient alignment."""
    model, x, y = _case()
    z = attacks.LinfBall(eps=0.1).sample(x, torch.Generator().manual_seed(1))
    hint = "Add the mean of l2 |a - b|² + cosine (1 - cos(a, b)) / 2 to the mean cross-entropy."
    for l2, cosine in ((0.0, 0.0), (3e4, 0.0), (0.0, 1e3), (2e4, 5e2)):
        tried = f"four images of 8×8, l2={l2:g}, cosine={cosine:g}"
        expected = nn.functional.cross_entropy(model(x), y)
        if l2 or cosine:
            ball = attacks.LinfBall(eps=0.2)
            term = LocalGradientAlignment(l2=l2, cosine=cosine, ball=ball, neighbour="adversarial")
            expected = expected + term(model, x, y, z=z).mean()
        got = run(answer, model, x, y, z, l2, cosine, tried=tried, hint=hint)
        expect_close(got, expected, tried=tried, hint=hint, tolerance=1e-4)
        expect(
            isinstance(got, Tensor) and got.requires_grad,
            tried=tried,
            expected="a value that can be differentiated in the weights",
            got="one that cannot",
            hint="Let the copies of x and z require a gradient before you ask for the map.",
        )
        assert isinstance(got, Tensor)
        weights = [part for name, part in model.named_parameters() if name.endswith("weight")]
        slopes = torch.autograd.grad(got, weights)
        rights = torch.autograd.grad(expected, weights)
        for slope, right in zip(slopes, rights, strict=True):
            where = f"{tried}, its gradient in the weights"
            expect_close(slope, right, tried=where, hint="Detach neither gradient.", tolerance=1e-3)
    return "The term of the package does the same in one pass over both images."


def centred(answer: object) -> str:
    """`centred(model, x, y)` is the detached gradient of the logit minus the mean of all logits."""
    model, x, y = _case()
    push = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(2))

    def shifted(pixels: Tensor) -> Tensor:
        logits: Tensor = model(pixels)
        return logits + (push * pixels).sum((1, 2, 3))[:, None]

    every = [attributions.gradient(model, x, torch.full_like(y, c)) for c in range(10)]
    expected = attributions.gradient(model, x, y) - torch.stack(every).mean(0)
    hint = "Give attributions.gradient a function that returns the logits minus their mean."
    for tried, network in {"a network": model, "the same with a common summand": shifted}.items():
        got = run(answer, network, x, y, tried=tried, hint=hint)
        expect_close(got, expected, tried=tried, hint=hint, tolerance=1e-4)
        assert isinstance(got, Tensor)
        expect(
            not got.requires_grad,
            tried=tried,
            expected="a detached tensor",
            got="one that requires grad",
            hint="End with .detach().",
        )
    return "What all logits share is gone, whatever it was."


def _case() -> tuple[SmallCNN, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    model = SmallCNN(size=8, activation=partial(nn.Softplus, beta=3), generator=generator)
    return model, torch.rand(4, 1, 8, 8, generator=generator), torch.tensor([0, 3, 9, 1])
