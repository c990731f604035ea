"""What a certificate by smoothing promises, and what else its samples answer."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from attrlib.certificates import confidence, geometry
from attrlib.certificates.bounded import Bounded
from attrlib.certificates.volume import Law, UniformBall
from attrlib.types import Inputs, PerSample


@dataclass(frozen=True, kw_only=True, eq=False)
class Certificate:
    """What was certified, for each image, and what else the same samples answer.

    Each of these promises holds with probability at least 1 - `alpha` for each image, for all budgets at
    once: `lower` and `cosine`, about the ideal map; `entries`. `released` adds the chance of two more
    failures. For claims about n images together divide alpha by n.

    Made by `certify`.

    Args:
        norm: Lower bounds (n,) of the length of the ideal map, float64.
        mean: The released maps (n, …), the means over all samples, float64.
        eps: Budget of `lower`, l2, in pixel units.
        alpha: Failure probability of each image.
        samples: Noisy copies of each image.
        law: Law of the noise, `UniformBall` or `Gaussian`.
        dim: Entries of an image.
        attribution: The bounded attribution g.
    """

    norm: PerSample
    mean: Inputs
    eps: float
    alpha: float
    samples: int
    law: Law
    dim: int
    attribution: Bounded

    @property
    def radius(self) -> float:
        """Radius of the noise in pixel units; NaN for Gaussian noise."""
        return self.law.radius if isinstance(self.law, UniformBall) else math.nan

    @property
    def lower(self) -> PerSample:
        """Certified cosines (n,) at `eps`."""
        return self.cosine(self.eps)

    @property
    def abstained(self) -> Tensor:
        """Which images (n,) have no certificate at `eps`: `lower` is the least value there is."""
        return self.lower <= (0 if self.attribution.nonnegative else -1)

    def cosine(self, eps: float, *, method: geometry.Method = "tight") -> PerSample:
        """Return certified cosines of the ideal map at x and anywhere within `eps`, for another budget.

        Args:
            eps: Budget, l2, in pixel units, >= 0, and below 2r for noise in a ball.
            method: As in `worst_cosine`; `quoted` is no certificate.

        Returns:
            Values (n,) in [-1, 1], float64; -1, or 0 for non-negative maps, promises nothing.

        Raises:
            ValueError: If `eps` is out of range or the method is unknown.
        """
        return geometry.worst_cosine(
            self.norm,
            self._lost(eps),
            bound=self.attribution.bound,
            nonnegative=self.attribution.nonnegative,
            method=method,
        )

    def budget(self, cosine: float) -> PerSample:
        """Return the largest budget within which this cosine is certified.

        Args:
            cosine: Cosine that is to be kept, strictly between 0 and 1.

        Returns:
            l2 budgets (n,) in pixel units, float64; 0 where nothing is certified.

        Raises:
            ValueError: If `cosine` is out of range.
        """
        lost = geometry.largest_loss(
            self.norm,
            bound=self.attribution.bound,
            cosine=cosine,
            nonnegative=self.attribution.nonnegative,
        )
        return self.law.distance(lost, self.dim) * (1 - geometry.ROUNDING)

    def released(self, eps: float) -> PerSample:
        r"""Return certified cosines of the maps that are shown: `mean`, and its like at a point near x.

        $$\cos\Big(\theta + \arcsin \frac{\Delta}{H} + \arcsin \frac{\Delta'}{H'}\Big)$$

        with the angle θ of the ideal maps, the `vector_error` Δ of a mean map, and the least length H' of
        the ideal map near x. For a point that was chosen before its noise was drawn, with fresh noise and
        as many samples.

        Args:
            eps: Budget, l2, in pixel units, >= 0, and below 2r for noise in a ball.

        Returns:
            Values (n,) in [-1, 1], float64. They hold with probability at least 1 - 3 alpha.

        Raises:
            ValueError: If `eps` is out of range.
        """
        bound, nonnegative = self.attribution.bound, self.attribution.nonnegative
        there = geometry.shortest(self.norm, self._lost(eps), bound=bound, nonnegative=nonnegative)
        angle = self.cosine(eps).acos()
        for norm in (self.norm, there):
            error = norm.new_tensor(
                [
                    confidence.vector_error(self.samples, bound=bound, alpha=self.alpha, norm=h)
                    for h in norm.tolist()
                ]
            )
            angle = angle + torch.where(error < norm, (error / norm).clamp(max=1).asin(), math.pi)
        return angle.clamp(max=math.pi).cos().clamp(min=0 if nonnegative else -1)

    def entries(self, eps: float) -> tuple[Tensor, Tensor]:
        """Return bounds of each entry of the ideal map anywhere within `eps`, all entries at once.

        For `certified_topk_overlap`, `certified_kendall` and `certified_pixels`; narrow enough only for
        maps whose entries use their range, such as those of `sparsified`.

        Args:
            eps: Budget, l2, in pixel units, >= 0, and below 2r for noise in a ball.

        Returns:
            Lower and upper bounds in the shape of `mean`, float64.

        Raises:
            ValueError: If `eps` is out of range.
        """
        self._lost(eps)
        low, high = self.attribution.limits

        def ends(mean: Tensor) -> tuple[Tensor, Tensor]:
            here = confidence.entry_bounds(
                mean,
                samples=self.samples,
                alpha=self.alpha,
                low=low,
                high=high,
                binary=self.attribution.binary,
            )
            below, above = ((end - low) / (high - low) for end in here)
            below = self.law.lowest(below, eps, self.dim)
            above = 1 - self.law.lowest(1 - above, eps, self.dim)
            return low + (high - low) * below, low + (high - low) * above

        lower, upper = zip(*map(ends, self.mean), strict=True)
        return torch.stack(lower), torch.stack(upper)

    def _lost(self, eps: float) -> float:
        if isinstance(self.law, UniformBall):
            geometry.check_balls(eps=eps, radius=self.law.radius)
        return self.law.lost(eps, self.dim)
