"""Smooth surface regularization: the largest eigenvalue of the loss Hessian in the input."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from attrlib import _check, _model
from attrlib.types import Classifier, Inputs, Labels, Logits, PerSample

Solver = Literal["exact", "matrix-free"]


@dataclass(frozen=True, kw_only=True)
class SmoothSurface:
    r"""Smooth surface regularization (SSR): the curvature of the loss in its most curved direction.

    $$R(x) = \lambda_{\max}(H)$$

    $$H = J^\top\big(\mathrm{diag}(p) - p\,p^\top\big) J
      = \sum_c p_c\,(w_c - \bar w)(w_c - \bar w)^\top$$

    with the probabilities $p = \mathrm{softmax}(f(x))$, the rows $w_c = \nabla_x f_c$ of the Jacobian
    $J$ and their mean $\bar w = \sum_c p_c w_c$. On a ReLU network $H$ is the Hessian of the
    cross-entropy wherever one exists, for every label. On a smooth network it is the Gauss-Newton part,
    without $\sum_c (p_c - 1[c = y])\,\nabla^2 f_c$.

    $H$ has the eigenvalues of the small matrix $B^\top B$ with the columns
    $B_c = \sqrt{p_c}\,(w_c - \bar w)$. The solver `"exact"` computes that matrix and its first
    eigenvector $v$. `"matrix-free"` finds $v$ by power iteration from
    $v \propto e_{\hat y} - \sqrt{p_{\hat y}}\,\sqrt p$, with which $Bv$ is the input gradient of the
    cross-entropy of the predicted class $\hat y$; its value never exceeds the exact one, and with 0
    iterations it is $\frac{p_{\hat y}}{1 - p_{\hat y}} \|\nabla_x \mathrm{CE}_{\hat y}\|^2$. Both
    return $\|Bv\|^2$ with $v$ held fixed, whose gradient is that of the eigenvalue.

    Source: Wang et al. 2020 (the penalty); Singla et al. 2019 (the small matrix). Differs: the factor
    $B$ is written down, not taken from an eigendecomposition of $\mathrm{diag}(p) - p\,p^\top$, whose
    derivative is not finite at tied or saturated probabilities; color channels are kept apart; the
    weight of the term is the product of the paper's $\beta$ and scale $s$; `"matrix-free"` is ours.

    Cost, on top of the model's forward pass: `"exact"` one backward pass for each class, and one that is
    differentiated in the weights; memory for the whole Jacobian. `"matrix-free"` one differentiated
    pass; with iterations, one pass more, and two for each.

    Attributes:
        solver: `"exact"`, or `"matrix-free"` for many classes.
        iterations: Power iterations of `"matrix-free"`, >= 0; `"exact"` needs none.

    Raises:
        ValueError: If `solver` is unknown or `iterations` negative.
    """

    solver: Solver = "exact"
    iterations: int = 1

    def __post_init__(self) -> None:
        _check.one_of(get_args(Solver), solver=self.solver)
        _check.count(iterations=self.iterations, low=0)

    def __call__(
        self,
        model: Classifier,
        x: Inputs,
        y: Labels,
        /,
        *,
        z: Inputs | None = None,
        generator: torch.Generator | None = None,
    ) -> PerSample:
        """Return the eigenvalue of each sample, in nats per squared unit of pixel, >= 0.

        Args:
            model: Maps a batch to logits (n, classes); without batch normalisation in train mode.
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,); the value does not depend on them.
            z: Ignored.
            generator: Ignored.

        Returns:
            Eigenvalues (n,), differentiable once, in `x` and the weights. Multiplying the pixels by a
            constant a (with a model that undoes it) divides them by a².

        Raises:
            ValueError: If a label is not a class of the model, the model mixes the samples, or the
                gradients of its logits are not finite.
        """
        tracked = torch.is_grad_enabled()
        logits, x = _forward(model, x, y)
        q = _root(logits)
        if self.solver == "exact":
            v = torch.linalg.eigh(_gram(logits, x, q)).eigenvectors[..., -1].to(q.dtype)
        else:
            v = _iterate(logits, x, q.detach(), self.iterations)
        slope = _pull(logits, x, _factor(q, v), create_graph=tracked)
        return slope.flatten(1).to(q.dtype).square().sum(1).to(x.dtype)


def loss_hessian_eigenvalue(model: Classifier, x: Inputs) -> PerSample:
    r"""Return the largest eigenvalue of the Hessian of the cross-entropy in the input.

    The number that `SmoothSurface` penalises, for reports: exact, without a graph for training.

    $$\lambda_{\max}\Big(\sum_c p_c\,(w_c - \bar w)(w_c - \bar w)^\top\Big)$$

    One forward pass, and one backward pass for each class.

    Args:
        model: Maps a batch to logits (n, classes); without batch normalisation in train mode.
        x: Inputs (n, …), pixels in [0, 1].

    Returns:
        Eigenvalues (n,), in nats per squared unit of pixel, >= 0; lower is smoother, but confidence
        alone lowers it, too. Exact for ReLU networks, of the Gauss-Newton part for smooth ones.

    Raises:
        ValueError: If the model mixes the samples or the gradients of its logits are not finite.

    Source: Singla et al. 2019; Wang et al. 2020.

    >>> weight = torch.tensor([[2.0], [0.0]])
    >>> loss_hessian_eigenvalue(lambda x: x @ weight.T, torch.zeros(1, 1))  # p (1 - p) (2 - 0)²
    tensor([1.])
    """
    logits, x = _forward(model, x)
    gram = _gram(logits, x, _root(logits))
    largest: PerSample = torch.linalg.eigvalsh(gram)[:, -1].clamp(min=0).to(x.dtype)
    return largest


def _forward(model: Classifier, x: Inputs, y: Labels | None = None) -> tuple[Logits, Inputs]:
    """Logits, and the leaf or graph node in which they can be differentiated."""
    _model.independent(model)
    if not x.requires_grad:
        x = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = _model.logits(model, x, y, classes=2, twice=True)
    return logits, x


def _root(logits: Logits) -> Tensor:
    """Square roots of the probabilities, with finite slopes; at least in single precision."""
    kind = torch.promote_types(logits.dtype, torch.float32)
    return (logits.to(kind).log_softmax(1) / 2).exp()


def _factor(q: Tensor, v: Tensor) -> Tensor:
    """M v for M = diag(q) - p qᵀ, so that M Mᵀ = diag(p) - p pᵀ and B = Jᵀ M."""
    return q * (v - q * (q * v).sum(1, keepdim=True))


def _pull(logits: Logits, x: Inputs, cotangent: Tensor, *, create_graph: bool = False) -> Inputs:
    """Jᵀ times the cotangent of each sample; differentiable in both if a graph is created."""
    with torch.set_grad_enabled(create_graph):
        weights = cotangent.to(logits.dtype)
        return _model.slope(logits, x, weights, create_graph=create_graph, retain_graph=True)


@torch.no_grad()
def _gram(logits: Logits, x: Inputs, q: Tensor) -> Tensor:
    """BᵀB of each sample (n, classes, classes); double: the solver underflows to NaN in single."""
    n, classes = logits.shape
    each = torch.eye(classes, dtype=logits.dtype, device=logits.device)[:, None]
    weights = each.expand(classes, n, classes)
    jacobian = _model.slope(logits, x, weights, is_grads_batched=True, retain_graph=True)
    rows = jacobian.flatten(2).transpose(0, 1).to(q.dtype)
    b = q[..., None] * (rows - q.square()[:, None] @ rows)
    gram = (b @ b.transpose(1, 2)).double()
    _check.finite(jacobian=gram)
    return gram


@torch.no_grad()
def _iterate(logits: Logits, x: Inputs, q: Tensor, iterations: int) -> Tensor:
    """Unit vectors near the first eigenvector of BᵀB; 0 where the probabilities are one-hot."""
    winner = q.argmax(1, keepdim=True)
    v = -q.gather(1, winner) * q
    others = q.square().scatter(1, winner, 0.0).sum(1, keepdim=True)  # 1 - p cancels near 1
    v = _unit(v.scatter(1, winner, others))
    if iterations:
        with torch.enable_grad():  # Jᵀ u is linear in u, so that its own backward pass is J
            u = torch.zeros_like(logits, requires_grad=True)
            back = _model.slope(logits, x, u, create_graph=True)
    for _ in range(iterations):
        slope = _pull(logits, x, _factor(q, v))
        (moved,) = torch.autograd.grad(back, u, slope, retain_graph=True)
        moved = moved.to(q.dtype)
        v = _unit(q * (moved - (q.square() * moved).sum(1, keepdim=True)))
    return v


def _unit(v: Tensor) -> Tensor:
    """Vectors of length 1; those of length 0 stay. Scaled first, as squares of tiny numbers vanish."""
    largest = v.abs().amax(1, keepdim=True)
    v = v / torch.where(largest > 0, largest, 1.0)
    length: Tensor = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return v / length.clamp(min=1.0)
