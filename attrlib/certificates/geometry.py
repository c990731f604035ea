r"""The worst cosine of a smoothed map, from its length and the share of the noise that is lost.

Write the smoothed map at x as $h = a + b$ and the one at x + δ as $h' = a + b'$: $a$ from the noise that
both points share, $b$ and $b'$ from what only one of them has. With a bound $M$ on the length of the
attribution and a lost share $v$,

$$\|a\| \le M(1 - v), \qquad \|b\|, \|b'\| \le M v,$$

and nothing else is known. Each certificate here is the least cosine of $h$ and $h'$ over all vectors that
obey this, at a given length $H$ of $h$. Two proofs by one line serve all of them: a smaller $H$ gives a
smaller least cosine (shrink all vectors by one factor), and so does a larger $v$ (move a part of $a$ into
$b$ and $b'$). So a lower bound of $H$ and the lost share at ε answer for every δ in the ball.
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from attrlib import _check
from attrlib.certificates.volume import Values, as_given, distance_at, lost_volume

Method = Literal["tight", "uncapped", "quoted"]
METHODS: tuple[Method, ...] = get_args(Method)

ROUNDING = 1e-12
"""Radii are moved by this share to the safe side, so that rounding cannot turn their promise around."""


def certified_cosine(
    norm: Values,
    *,
    bound: float,
    eps: float,
    radius: float,
    dim: int,
    nonnegative: bool = False,
    method: Method = "tight",
) -> Values:
    r"""Return a lower bound of the cosine of a uniformly smoothed map at x and anywhere within ε of it.

    $$\min_{\|\delta\|_2 \le \epsilon} \cos\big(h(x), h(x + \delta)\big), \qquad
      h(x) = \mathbb E_{u \sim \mathcal U(B(0; r))} \, g(x + u)$$

    `worst_cosine` with the lost share of the balls; the formulas are there.

    Args:
        norm: Length H of h(x) or a lower bound of it, from 0 to `bound`: a number, or a tensor (n,).
        bound: Bound M > 0 on the length of g at *every* input; the largest value seen is none.
        eps: Budget of the attack, l2, in pixel units, from 0 to below 2r.
        radius: Radius r > 0 of the noise, in pixel units.
        dim: Entries of an image.
        nonnegative: Whether no map of g has an entry below 0.
        method: `tight`, `uncapped` or `quoted`, as in `worst_cosine`. `quoted` is no certificate.

    Returns:
        Values in [-1, 1], float64, in the form of `norm`; -1 (0 for `nonnegative`) promises nothing.
        Rising in `norm` and `radius`, falling in `eps` and `dim`. Not differentiable.

    Raises:
        ValueError: If a number is out of range, `eps` is 2r or more, where the balls do not meet, `norm`
            is above `bound`, or the method is unknown.

    Source: the problem is that of Wang and Kong 2024. The paper's text could not be consulted for its
    assumptions; the formulas and their proofs are ours.

    >>> round(certified_cosine(0.9, bound=1.0, eps=0.05, radius=4.0, dim=784), 4)
    0.9513
    """
    check_balls(eps=eps, radius=radius)
    lost = lost_volume(eps, radius, dim)
    return worst_cosine(norm, lost, bound=bound, nonnegative=nonnegative, method=method)


def worst_cosine(
    norm: Values,
    lost: float,
    *,
    bound: float,
    nonnegative: bool = False,
    method: Method = "tight",
) -> Values:
    r"""Return the least cosine of a smoothed map at two points, for any law of the noise.

    With $R = Mv$, $A = M(1 - v)$ and $\rho = 2R / H$:

    *Signed maps* have $-1$ from $\rho \ge 1$ on. Below, with $s = \min\big(A, \sqrt{H^2 - 3R^2}\big)$,

    $$\cos\Big(\arccos \frac{H^2 + s^2 - R^2}{2Hs} + \arcsin \frac Rs\Big), \qquad
      \text{which is } \sqrt{1 - \rho^2} \text{ for } s < A.$$

    The angle from h to h' is at most that from h to a plus that from a to h'. For a length $s$ of $a$
    these are at most the two terms, their sum is largest at $s^2 = H^2 - 3R^2$ or at the cap $A$, and
    vectors in one plane attain it.

    *Non-negative maps* have $\langle b, b' \rangle \ge 0$, and 0 from $\rho \ge 2$ on. With $q = R / H$,

    $$\frac{1 - q}{\sqrt{(1 - q)^2 + q^2}} \;\;(1 < \rho < 2), \qquad
      \frac{1 + qt}{\sqrt{1 + 2q^2 + 2qt}} \;\;(\rho \le 1),$$

    where $t = \min(-2q, \sqrt{1 - c^2} - c)$ and $c = (H^2 + R^2 - A^2) / 2HR$; the second is
    $\sqrt{1 - \rho^2 / 2}$ where the cap $A$ does not bind. In the worst case $b$ and $b'$ are orthogonal
    and have length R; the cap then limits the angle between h and b, and h' is h with b taken out and b'
    put in.

    Args:
        norm: Length H of the smoothed map or a lower bound of it, from 0 to `bound`: a number, or (n,).
        lost: Total variation distance v in [0, 1] of the noise around the two points: `lost_volume` for
            the ball, or `Gaussian.lost`.
        bound: Bound M > 0 on the length of the attribution at every input.
        nonnegative: Whether no map has an entry below 0.
        method: `tight`, the least value that the assumptions allow, attained by some attribution in two
            or more dimensions; `uncapped`, the shorter valid form without A; `quoted`,
            $1 / \sqrt{1 + \rho^2}$, the formula as it is usually quoted: *no lower bound*, for comparison
            only. It takes the change orthogonal to h, where the worst one is orthogonal to h'.

    Returns:
        Values in [-1, 1], float64, in the form of `norm`; -1 (0 for `nonnegative`) promises nothing.
        Where h' is zero the cosine is undefined, and the promise is for all others.

    Raises:
        ValueError: If a number is out of range, `norm` is above `bound`, or the method is unknown.

    Source: ours; the chapter on certified smoothing has the proofs as pictures. Differs from Wang and
    Kong 2024 as it is quoted, see `method`: its text could not be consulted for the assumptions.

    >>> worst_cosine(0.5, 0.2, bound=1.0)  # ρ = .8; the quoted formula says .781
    0.6
    """
    _check.positive(bound=bound)
    _check.one_of(METHODS, method=method)
    if not 0 <= lost <= 1:
        raise ValueError(f"Expected lost from 0 to 1, got {lost!r}")
    length = _lengths(norm, bound)
    return as_given(_least(length, torch.full_like(length, lost), bound, nonnegative, method), norm)


def certified_radius(
    norm: Values,
    *,
    bound: float,
    cosine: float,
    radius: float,
    dim: int,
    nonnegative: bool = False,
    method: Method = "tight",
) -> Values:
    r"""Return the largest budget within which the cosine of a smoothed map is certified.

    $$\max \{\epsilon : \texttt{certified\_cosine}(H, \epsilon, r) \ge T\}$$

    By bisection on the lost share, then `distance_at`.

    Args:
        norm: Length H of h(x) or a lower bound of it, from 0 to `bound`: a number, or a tensor (n,).
        bound: Bound M > 0 on the length of the attribution at every input.
        cosine: Cosine T that is to be kept, strictly between 0 and 1.
        radius: Radius r > 0 of the noise, in pixel units.
        dim: Entries of an image.
        nonnegative: Whether no map has an entry below 0.
        method: As in `worst_cosine`.

    Returns:
        l2 budgets in [0, 2r), float64, in the form of `norm`; 0 where nothing is certified. Falling in
        `cosine`, rising in `norm` and proportional to `radius`.

    Raises:
        ValueError: If a number is out of range, `norm` is above `bound`, or the method is unknown.

    Source: ours; see `certified_cosine`.

    >>> round(certified_radius(0.9, bound=1.0, cosine=0.9, radius=4.0, dim=784), 4)
    0.0714
    """
    _check.positive(radius=radius)
    lost = largest_loss(norm, bound=bound, cosine=cosine, nonnegative=nonnegative, method=method)
    return distance_at(lost, radius, dim) * (1 - ROUNDING)


def minimal_smoothing_radius(
    norm: Values,
    *,
    bound: float,
    eps: float,
    cosine: float,
    dim: int,
    nonnegative: bool = False,
    method: Method = "tight",
) -> Values:
    r"""Return the smallest radius of the noise at which the cosine is certified, for a given length.

    $$\min \{r : \texttt{certified\_cosine}(H, \epsilon, r) \ge T\}
      = \frac{\epsilon}{2 \sqrt{I^{-1}_{v_T}(1/2, (d + 1)/2)}}$$

    with the largest lost share $v_T$ that keeps the cosine. H itself depends on the radius, and falls as
    it grows: the result says what noise a map of this length needs. `smallest_radius` measures the length
    at each of several radii.

    Args:
        norm: Length H of h(x) or a lower bound of it, from 0 to `bound`: a number, or a tensor (n,).
        bound: Bound M > 0 on the length of the attribution at every input.
        eps: Budget of the attack, l2, in pixel units, >= 0.
        cosine: Cosine T that is to be kept, strictly between 0 and 1.
        dim: Entries of an image.
        nonnegative: Whether no map has an entry below 0.
        method: As in `worst_cosine`.

    Returns:
        Radii > eps / 2, float64, in the form of `norm`, and 0 for `eps` = 0; infinite where no radius
        will do. Rising in `eps` and `cosine`, falling in `norm`. The inverse of `certified_radius`.

    Raises:
        ValueError: If a number is out of range, `norm` is above `bound`, or the method is unknown.

    Source: ours; see `certified_cosine`.

    >>> round(minimal_smoothing_radius(0.9, bound=1.0, eps=0.07142, cosine=0.9, dim=784), 2)
    4.0
    """
    _check.nonnegative(eps=eps)
    _check.count(dim=dim)
    lost = largest_loss(norm, bound=bound, cosine=cosine, nonnegative=nonnegative, method=method)
    if eps == 0:
        return lost * 0
    if isinstance(lost, Tensor):
        return eps / distance_at(lost, 1.0, dim) * (1 + ROUNDING)
    return eps / distance_at(lost, 1.0, dim) * (1 + ROUNDING) if lost > 0 else math.inf


def largest_loss(
    norm: Values,
    *,
    bound: float,
    cosine: float,
    nonnegative: bool = False,
    method: Method = "tight",
) -> Values:
    """Return the largest lost share of the noise at which the cosine of a smoothed map is certified.

    By bisection; the end that is returned keeps the cosine.

    Args:
        norm: Length H of the smoothed map or a lower bound of it, from 0 to `bound`.
        bound: Bound M > 0 on the length of the attribution at every input.
        cosine: Cosine T that is to be kept, strictly between 0 and 1.
        nonnegative: Whether no map has an entry below 0.
        method: As in `worst_cosine`.

    Returns:
        Shares in [0, 1), float64, in the form of `norm`; 0 where nothing is certified.

    Raises:
        ValueError: If a number is out of range, `norm` is above `bound`, or the method is unknown.

    Source: ours.

    >>> round(largest_loss(0.5, bound=1.0, cosine=0.6), 12)
    0.2
    """
    _check.unit_interval(cosine=cosine)
    _check.positive(bound=bound)
    lengths = _lengths(norm, bound)
    _check.one_of(METHODS, method=method)
    low, high = torch.zeros_like(lengths), torch.ones_like(lengths)
    for _ in range(80):
        middle = (low + high) / 2
        kept = _least(lengths, middle, bound, nonnegative, method) >= cosine
        low, high = torch.where(kept, middle, low), torch.where(kept, high, middle)
    return as_given(low, norm)


def shortest(norm: Tensor, lost: float, *, bound: float, nonnegative: bool) -> Tensor:
    """The least length of h' for a length of h: that of a alone if no entry is below 0."""
    return (norm - (1 if nonnegative else 2) * bound * lost).clamp(min=0)


def _least(length: Tensor, lost: Tensor, bound: float, nonnegative: bool, method: Method) -> Tensor:
    """The least cosine for lengths of h and lost shares, one each."""
    free, kept = bound * lost, bound * (1 - lost)
    if method == "quoted":
        result = length / torch.sqrt(length**2 + (2 * free) ** 2)
        return torch.where(length > 0, result, 0)
    # Without the cap a may be as long as it likes: 2M is never reached.
    cap = kept if method == "tight" else torch.full_like(kept, 2 * bound)
    return (_nonnegative if nonnegative else _signed)(length, free, cap)


def _signed(length: Tensor, free: Tensor, cap: Tensor) -> Tensor:
    """The least cosine of signed maps; `free` is R, `cap` is A."""
    inside = torch.sqrt((length**2 - 3 * free**2).clamp(min=0))
    # Differences of squares as products, so that angles close to 0 keep their digits.
    rho, second = 2 * free / length, free / cap
    plain = torch.sqrt((1 - rho) * (1 + rho))
    gap = length - cap
    away = ((free - gap) * (free + gap) / (2 * length * cap)).clamp(0, 1)
    first = 1 - away  # cosine of the angle from h to a; `second` is the sine of that from a to h'
    capped = first * torch.sqrt((1 - second) * (1 + second)) - second * torch.sqrt(
        away * (1 + first)
    )
    return torch.where(length > 2 * free, torch.where(inside <= cap, plain, capped), -1)


def _nonnegative(length: Tensor, free: Tensor, cap: Tensor) -> Tensor:
    """The least cosine of non-negative maps; `free` is R, `cap` is A."""
    q, gap = free / length, length - free
    line = (1 - q) / torch.hypot(1 - q, q)
    away = ((cap - gap) * (cap + gap) / (2 * length * free)).clamp(0, 1)  # 1 - c
    away = torch.where(free > 0, away, 1)
    turn = torch.minimum(-2 * q, torch.sqrt(away * (2 - away)) - (1 - away))
    plane = (1 + q * turn) / torch.sqrt(1 + 2 * q**2 + 2 * q * turn)
    return torch.where(length > free, torch.where(q <= 0.5, plane, line), 0)


def _lengths(norm: float | Tensor, bound: float) -> Tensor:
    """The lengths as float64; raise unless they are from 0 to the bound."""
    length = torch.as_tensor(norm, dtype=torch.float64).detach()
    bad = ~((length >= 0) & (length <= bound))
    if bool(bad.any()):
        raise ValueError(
            f"Expected norm from 0 to bound {bound:.6g}, got {float(length[bad][0]):.6g}"
        )
    return length


def check_balls(*, eps: float, radius: float) -> None:
    """Raise unless two balls of noise at distance `eps` meet."""
    _check.nonnegative(eps=eps)
    _check.positive(radius=radius)
    if eps >= 2 * radius:
        raise ValueError(
            f"Expected eps < 2 * radius = {2 * radius:.6g}, where the balls still meet, got {eps:.6g}"
        )
