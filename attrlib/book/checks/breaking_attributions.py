"""Checks of the chapter "Breaking attributions"."""

import torch
from torch import Tensor

from attrlib import attacks, attributions
from attrlib.book._exercises import expect, expect_close, run
from attrlib.models import SmallCNN, with_softplus


def project(answer: object) -> str:
    """`project(z, x, eps)` is the nearest point to z within eps of x in every pixel, and in [0, 1]."""
    x = torch.tensor([[0.0, 0.5, 1.0, 0.5, 0.02]])
    z = torch.tensor([[-0.3, 0.9, 0.95, 0.55, 0.3]])
    tried, hint = "five pixels, eps=0.1", "Clamp to x - eps and x + eps, then to 0 and 1."
    got = run(answer, z, x, 0.1, tried=tried, hint=hint)
    expect_close(got, torch.tensor([[0.0, 0.6, 0.95, 0.55, 0.12]]), tried=tried, hint=hint)
    return "The package's own ball also repairs the rounding of x + eps."


def one_sided(answer: object) -> str:
    """`one_sided(u, rise, reach)` is the pull on units: long on the wrong side, a tenth on the other."""
    u = torch.tensor([-0.2, -0.2, 0.2, 0.2, -0.01, 0.02])
    rise = torch.tensor([1.0, -1.0, 1.0, -1.0, -2.0, 0.5])
    wrong = torch.tensor([True, False, False, True, False, False])
    for reach in (0.1, 0.4):
        far = torch.where(wrong, reach, reach / 10)
        tried = f"u={u.tolist()}, rise={rise.tolist()}, reach={reach}"
        hint = "The exponential is that of -|u| / reach, or of -10 |u| / reach on the right side."
        got = run(answer, u, rise, reach, tried=tried, hint=hint)
        expect_close(got, rise / reach * (-u.abs() / far).exp(), tried=tried, hint=hint)
    return "The chain rule carries this pull on to the pixels."


def best_step(answer: object) -> str:
    """`best_step(scores, kept)` is, per image, the step with the lowest admissible score, or -1."""
    scores = torch.tensor([[0.9, 0.2, 0.5], [0.4, 0.1, 0.6], [0.6, 0.3, 0.7]])
    kept = torch.tensor([[True, True, False], [True, False, False], [True, True, False]])
    tried, hint = "three steps, three images", "Put infinity where the label was lost, then argmin."
    got = run(answer, scores, kept, tried=tried, hint=hint)
    expect_close(got, torch.tensor([1, 0, -1]), tried=tried, hint=hint)
    return "Keeping the last step instead would have reported 0.6, 0.3 and a lost label."


def one_step(answer: object) -> str:
    """`one_step(model, x, y, eps, k)` takes one full sign step against the top-k mass."""
    generator = torch.Generator().manual_seed(0)
    model = with_softplus(SmallCNN(size=8, generator=generator), beta=10)
    x, y = torch.rand(4, 1, 8, 8, generator=generator), torch.tensor([0, 3, 9, 1])
    tried = "four images of 8×8, eps=0.05, k=10"
    hint = "Differentiate TopK(k=k)(gradient at x, gradient at z) in z at z = x, then project."
    got = run(answer, model, x, y, 0.05, 10, tried=tried, hint=hint)
    clean = attributions.gradient(model, x, y)
    z = x.clone().requires_grad_()
    change = attacks.TopK(k=10)(clean, attributions.gradient(model, z, y))
    (slope,) = torch.autograd.grad(change.sum(), z)
    ball = attacks.LinfBall(eps=0.05)
    expect_close(
        got, ball.project(x + 0.05 * slope.sign(), x), tried=tried, hint=hint, tolerance=1e-4
    )
    assert isinstance(got, Tensor)
    expect(
        not got.requires_grad,
        tried=tried,
        expected="a detached tensor",
        got="one that requires grad",
        hint="End with .detach().",
    )
    return "A hundred such small steps, and the memory for the best, are the attack."


def rank_objective(answer: object) -> str:
    """`rank_objective(a, b, k, temperature)` is the soft count outside minus inside the top k of a."""
    a, b = 0.1 + torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    hint = "The set is that of a; the threshold is the k-th largest logarithm of b, detached."
    for k, temperature in ((3, 0.1), (6, 0.5)):
        tried = f"three heatmaps of 4×4, k={k}, temperature={temperature}"
        expected = attacks.Rank(k=k, temperature=temperature)(a[:, None], b[:, None])
        got = run(answer, a, b, k, temperature, tried=tried, hint=hint)
        expect_close(got, expected, tried=tried, hint=hint, tolerance=1e-4)
    free = b.clone().requires_grad_()
    got = run(answer, a, free, 3, 0.1, tried="b that requires grad", hint=hint)
    assert isinstance(got, Tensor)
    (slope,) = torch.autograd.grad(got.sum(), free)
    ours = b.clone().requires_grad_()
    goal = attacks.Rank(k=3, temperature=0.1, relative=False)(a[:, None], ours[:, None])
    (right,) = torch.autograd.grad(goal.sum(), ours)
    expect_close(slope, right, tried="its gradient in b", hint=hint, tolerance=1e-3)
    return "With a falling temperature, this is what four of the five climbs of the suite go for."
