"""Quantiles of the Beta distribution in plain Python: SciPy is too heavy for these alone."""

from __future__ import annotations

import math

_TINY = 1e-300  # in place of a denominator of zero
_PRECISE = 1e-14
_NEAR = 1e-8  # Newton's next step squares it
_STEPS = 200


def beta_cdf(x: float, a: float, b: float) -> float:
    """The chance of a value up to ``x``: the regularized incomplete beta function I_x(a, b).

    The continued fraction of DLMF 8.17.22, by Lentz's method; it converges fast below the mean,
    so above it I_x(a, b) = 1 - I_(1-x)(b, a) is used.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_cdf(1 - x, b, a)
    c, d = 1.0, 1 / _nonzero(1 - (a + b) * x / (a + 1))
    total = d
    for m in range(1, _STEPS):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            c, d = _nonzero(1 + term / c), 1 / _nonzero(1 + term * d)
            total *= c * d
        if abs(c * d - 1) < _PRECISE:
            break
    return math.exp(_log_density(x, a, b)) * x * (1 - x) / a * total


def beta_quantile(chance: float, a: float, b: float) -> float:
    """The value below which a Beta(a, b) falls with ``chance``, for a and b from 1 on.

    Newton's steps from the mean; one that leaves what the root is known to lie in is halved.
    """
    low, high, x = 0.0, 1.0, a / (a + b)
    for _ in range(_STEPS):
        miss = beta_cdf(x, a, b) - chance
        low, high = (low, x) if miss > 0 else (x, high)
        step = x - miss / math.exp(_log_density(x, a, b))
        if abs(step - x) < _NEAR:
            return step
        x = step if low < step < high else (low + high) / 2
    return x


def _log_density(x: float, a: float, b: float) -> float:
    norm = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    return norm + (a - 1) * math.log(x) + (b - 1) * math.log1p(-x)


def _nonzero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
