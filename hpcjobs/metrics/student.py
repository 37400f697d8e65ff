"""The t distribution, without scipy."""

from __future__ import annotations

import math
from statistics import NormalDist

_EXACT_T = 100


def t_quantile(degrees: int) -> float:
    """The two-sided 95% quantile of Student's t distribution with `degrees` >= 1 degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4 (exact, up to 100 degrees) and
    26.7.5 (above them; its error is below 1e-9 there).
    """
    if degrees > _EXACT_T:
        x = NormalDist().inv_cdf(0.975)
        terms = (
            (x**3 + x) / 4, (5 * x**5 + 16 * x**3 + 3 * x) / 96, (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
            (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
        )  # fmt: skip
        return x + math.fsum(term / float(degrees) ** power for power, term in enumerate(terms, 1))
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def _within(angle: float, degrees: int) -> float:
    """The probability of |T| <= sqrt(degrees) * tan(angle)."""
    sine, cosine, odd = math.sin(angle), math.cos(angle), degrees % 2
    if degrees == 1:
        return 2 * angle / math.pi
    term = total = cosine if odd else 1.0
    for power in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (power - 1) / power
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
