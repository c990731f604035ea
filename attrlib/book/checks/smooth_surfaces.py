"""Checks of the chapter "Smooth surfaces"."""

import torch
from torch import Tensor

from attrlib.book._exercises import expect, expect_close, run
from attrlib.models import SmallCNN
from attrlib.regularizers import SmoothSurface


def two_class_bend(answer: object) -> str:
    """`two_class_bend(p, w1, w2)` is p (1 - p) times the squared distance of the gradients."""
    p = torch.tensor([0.5, 0.9, 0.99])
    w1 = torch.tensor([[3.0, 4.0], [4.0, 4.0], [0.0, 2.0]])
    w2 = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 2.0]])
    tried, hint = "three images", "p * (1 - p), times the sum of squares of w1 - w2 over pixels."
    got = run(answer, p, w1, w2, tried=tried, hint=hint)
    expect_close(got, torch.tensor([6.25, 2.25, 0.0099]), tried=tried, hint=hint)
    return "With p = 0.99 the same difference bends the loss 25 times less than at even odds."


def small_matrix(answer: object) -> str:
    """`small_matrix(logits, rows)` is the matrix whose eigenvalues are those of the Hessian."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, generator=generator).double()
    rows = torch.randn(3, 4, 7, generator=generator).double()
    p = logits.softmax(1)
    gap = rows - torch.einsum("nc,ncd->nd", p, rows)[:, None]
    want = torch.einsum("nc,nk,ncd,nkd->nck", p.sqrt(), p.sqrt(), gap, gap)
    tried = "three images, four classes, seven pixels"
    hint = "Rows sqrt(p_c) (w_c - mean); the mean is weighted by p; then all inner products."
    got = run(answer, logits, rows, tried=tried, hint=hint)
    expect_close(got, want, tried=tried, hint=hint)
    return "Sixteen numbers for each image, however many pixels it has."


def analytic(answer: object) -> str:
    """`analytic(z, w)` is the eigenvalue of one image, with a derivative where probabilities vanish."""
    w = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).double()
    hint = "Rows sqrt(p) (w - p @ w), with the root of p as (z.log_softmax(0) / 2).exp()."
    for logits in ([0.3, -1.0, 2.0, 0.0], [0.0, 0.0, -800.0, -800.0]):
        z = torch.tensor(logits).double().requires_grad_()
        p = z.detach().softmax(0)
        gap = w - p @ w
        want = torch.linalg.eigvalsh(gap.T @ (p[:, None] * gap))[-1]
        tried = f"four classes, seven pixels, logits {logits}"
        got = run(answer, z, w, tried=tried, hint=hint)
        expect_close(got, want, tried=tried, hint=hint)
        graph = isinstance(got, Tensor) and got.requires_grad
        slope = torch.autograd.grad(got, z)[0] if isinstance(got, Tensor) and graph else None
        whole = slope is not None and bool(slope.isfinite().all())
        found = slope if slope is None else slope.tolist()
        tried = f"the derivative for {tried}"
        expect(whole, tried=tried, expected="finite numbers", got=found, hint=hint)
    return "It can be differentiated where probabilities tie or vanish."


def lower_bound(answer: object) -> str:
    """`lower_bound(model, x)` is the reweighted gradient of the loss of the predicted class."""
    generator = torch.Generator().manual_seed(0)
    model = SmallCNN(size=8, generator=generator).double()
    with torch.no_grad():
        for weight in model.layers[-1].parameters():
            weight.mul_(20)  # far from even odds
    x = torch.rand(4, 1, 8, 8, generator=generator).double()
    term = SmoothSurface(solver="matrix-free", iterations=0)
    tried = "four images of 8×8"
    hint = "p and c from softmax(1).max(1); the slope of log_softmax in class c, squared and added."
    got = run(answer, model, x, tried=tried, hint=hint)
    want = term(model, x, torch.zeros(4, dtype=torch.int64)).detach()
    expect_close(got, want, tried=tried, hint=hint)
    return "On trained networks it is within a few percent of the eigenvalue, for one pass."


def scale_to(answer: object) -> str:
    """`scale_to(logits, goal)` is the factor that brings the mean confidence to the goal."""
    logits = 3 * torch.randn(50, 5, generator=torch.Generator().manual_seed(0)).double()
    hint = (
        "Halve the interval: if the mean of softmax(1).amax(1) is above the goal, k is too large."
    )
    for goal in (0.4, 0.9):
        tried = f"50 images, five classes, goal={goal}"
        got = run(answer, logits, goal, tried=tried, hint=hint)
        if isinstance(got, Tensor) and got.numel() == 1:
            got = got.item()
        expect(
            isinstance(got, float) and got > 0,
            tried=tried,
            expected="a positive float",
            got=got,
            hint=hint,
        )
        assert isinstance(got, float)
        low, high = (
            float((k * got * logits).softmax(1).amax(1).mean()) for k in (1 / 1.001, 1.001)
        )
        expect(low <= goal <= high, tried=tried, expected=f"{goal}", got=low, hint=hint)
    return "Compare networks only after this, or you compare their confidence."
