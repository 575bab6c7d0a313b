"""Confidence intervals of proportions. Pure Python."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

from keras_effnet.errors import UserError


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a proportion, valid also for few trials and for shares of 0 and 1.

    Args:
        successes: Int in [0, n].
        n: Int, number of trials, at least 1.
        level: Float in (0, 1), confidence level.

    Returns:
        `(low, high)`, floats in [0, 1].

    Raises:
        UserError: An argument is out of range.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (JASA 1927).

    Example:

    >>> low, high = wilson_interval(27, 28)
    >>> round(low, 3), round(high, 3)
    (0.823, 0.994)
    """
    if n < 1 or not 0 <= successes <= n or not 0 < level < 1:
        raise UserError(f"No interval for {successes} of {n} at level {level}: expected 0 <= successes <= n, n >= 1.")
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    share = successes / n
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n**2))) / (1 + z2 / n)
    # Exact ends: rounding would put a share of 1 outside its own interval.
    return 0.0 if successes == 0 else centre - half, 1.0 if successes == n else centre + half
