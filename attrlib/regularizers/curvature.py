"""Penalties on the slope of the loss, on its curvature, and on the curvature of the explained logit."""

from dataclasses import dataclass

import torch
from torch import Tensor

from attrlib import _check, _model, _random, _shape
from attrlib.attributions import gradient
from attrlib.regularizers._derivatives import loss_gradient, squares
from attrlib.types import Classifier, Inputs, Labels, PerSample


@dataclass(frozen=True, kw_only=True)
class InputGradientNorm:
    r"""The squared slope of the loss: how much a small change of the pixels can cost.

    $$R(x, y) = \|\nabla_x \ell(x, y)\|_2^2, \qquad \ell(x, y) = -\log \mathrm{softmax}(f(x))_y$$

    Source: Drucker & LeCun 1992 (double backpropagation); Ross & Doshi-Velez 2018, for robustness and
    readable explanations. Differs: the norm of each sample is squared and then averaged by the trainer;
    where a paper differentiates the mean of a batch, its weight depends on the batch size.

    Cost: one forward and one backward pass, differentiated once more in the weights.
    """

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
        """Return the squared norm of each sample, in squared nats per squared unit of pixel, >= 0.

        Args:
            model: Maps a batch to logits (n, classes); without batch normalisation in train mode.
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Ignored.
            generator: Ignored.

        Returns:
            Squared norms (n,), differentiable in `x` and the weights.

        Raises:
            ValueError: If a label is not a class of the model or the model mixes the samples.
        """
        slope, _ = loss_gradient(model, x, y)
        return squares(slope)


@dataclass(frozen=True, kw_only=True)
class HessianNorm:
    r"""The squared Frobenius norm of the Hessian of the explained logit, estimated with random probes.

    $$R(x, y) = \frac1m \sum_{i=1}^{m} \|H v_i\|_2^2, \quad H = \nabla_x^2 f_y(x), \quad
      v_i \sim \mathcal N(0, I)$$

    $$\mathbb{E}\,R = \|H\|_F^2 = \sum_j \lambda_j^2$$

    The map of a smooth model moves by at most $\sup \|H\|_F$ times the length of a path in pixel space.
    It needs smooth activations, such as `SmallCNN(activation=partial(nn.Softplus, beta=10))`: on a ReLU
    network $H$ is 0 almost everywhere, there is nothing to train, and the call raises.

    Source: Dombrowski et al. 2022, with Hutchinson's estimate of the norm. Differs: the probes are drawn
    anew for each call and sample; their number is ours to choose.

    Cost: one forward and one backward pass, and one more backward pass through both for each probe; all
    differentiated once more in the weights.

    Attributes:
        probes: Random directions per sample, m >= 1. The variance of the estimate falls as 1/m.

    Raises:
        ValueError: If `probes` is not a positive integer.
    """

    probes: int = 1

    def __post_init__(self) -> None:
        _check.count(probes=self.probes)

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
        """Return the estimate of each sample, in (logits per squared unit of pixel)², >= 0.

        Args:
            model: Maps a batch to logits (n, classes), with smooth activations and without batch
                normalisation in train mode.
            x: Inputs (n, …), pixels in [0, 1].
            y: Classes whose logit is explained, int64 (n,).
            z: Ignored.
            generator: Source of the probes; None is torch's global generator.

        Returns:
            Estimates (n,), differentiable in `x` and the weights.

        Raises:
            ValueError: If the second derivative is zero in the whole batch, a label is not a class of
                the model, the model mixes the samples, or `x` is not finite.
        """
        tracked = torch.is_grad_enabled()
        x = x if x.requires_grad else x.detach().requires_grad_()
        total = x.new_zeros(len(x))
        with torch.enable_grad():
            slope = gradient(model, x, y)
        curved = False
        for _ in range(self.probes):
            v = _random.normal_like(x, generator=generator)
            bend = _product(slope, x, v, create_graph=tracked)
            curved = curved or bool(bend.detach().any())
            total = total + squares(bend)
        if not curved:
            raise ValueError(
                "Expected model with a second derivative (softplus in place of ReLU), got a Hessian "
                "that is zero in the whole batch"
            )
        return total / self.probes


@dataclass(frozen=True, kw_only=True)
class Curvature:
    r"""CURE: the curvature of the loss along the sign of its gradient, by a finite difference.

    $$R(x, y) = \frac{1}{h^2} \big\|\nabla_x \ell(x + h u, y) - \nabla_x \ell(x, y)\big\|_2^2$$

    $$u = \frac{\mathrm{sign}\,\nabla_x \ell(x, y)}{\|\mathrm{sign}\,\nabla_x \ell(x, y)\|_2}$$

    with the cross-entropy ℓ; no gradient flows through $u$. As $h \to 0$ the value tends to
    $\|H u\|_2^2 \le \lambda_{\max}(H)^2$ with the Hessian $H$ of the loss, where that exists and has no
    negative eigenvalue larger in size. A larger h looks across the kinks of a ReLU network, which
    $\|H u\|$ cannot see.

    Source: Moosavi-Dezfooli et al. 2019. Differs: divided by h², so that h can change without the
    weight; gradients of single samples, so that the batch size does not matter; h is one number, in l2
    distance of pixels, with no schedule.

    Cost: two forward and two backward passes, both differentiated once more in the weights.

    Attributes:
        h: Length of the step, > 0. `x + h u` may leave [0, 1], as in the paper.

    Raises:
        ValueError: If `h` is not positive.
    """

    h: float

    def __post_init__(self) -> None:
        _check.positive(h=self.h)

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
        """Return the squared curvature of each sample, in (nats per squared unit of pixel)², >= 0.

        Args:
            model: Maps a batch to logits (n, classes); without batch normalisation in train mode.
            x: Inputs (n, …), pixels in [0, 1].
            y: True classes, int64 (n,).
            z: Ignored.
            generator: Ignored.

        Returns:
            Squared curvatures (n,), differentiable in `x` and the weights; 0 where the gradient is 0.

        Raises:
            ValueError: If a label is not a class of the model or the model mixes the samples.
        """
        here, _ = loss_gradient(model, x, y)
        sign = here.detach().sign()
        length = sign.flatten(1).square().sum(1).sqrt().clamp(min=1.0)
        u = sign / _shape.wide(length, x)
        there, _ = loss_gradient(model, x + self.h * u, y)
        return squares((there - here) / self.h)


def _product(slope: Inputs, x: Inputs, v: Tensor, *, create_graph: bool) -> Inputs:
    """The Hessian, whose model's gradient is `slope`, times v; zero where there is no path to `x`."""
    if not slope.requires_grad:
        return torch.zeros_like(x)
    with _model.second_derivative():
        return torch.autograd.grad(
            slope, x, v, create_graph=create_graph, retain_graph=True, materialize_grads=True
        )[0]
