"""Power laws fitted to the errors of a study, with confidence bands. NumPy and SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.study.summary import Summary

LEVEL = 0.95  # of prediction intervals


@dataclass(frozen=True)
class PowerLaw:
    """Power law y = exp(intercept) * x ** slope, fitted by least squares on the logarithms.

    Args:
        intercept, slope: Floats.
        points: Int, number of points of the fit.
        center, scatter: Floats, mean of log x and the sum of its squared deviations.
        residual: Float, standard deviation of log y about the line; NaN for two points.
    """

    intercept: float
    slope: float
    points: int
    center: float
    scatter: float
    residual: float

    @classmethod
    def fit(cls, x: Sequence[float], y: Sequence[float], *, minimum: int = 3) -> PowerLaw:
        """Fit the law to points above 0.

        Args:
            x, y: Floats above 0, equally many.
            minimum: Int, at least 2, the number of points required. A fit to two points has no prediction interval.

        Raises:
            UserError: Fewer than `minimum` points, or all at one x.
        """
        if len(x) < minimum or len(set(x)) < 2:
            raise UserError(
                f"A power law needs at least {minimum} results of 2 networks, got {len(x)} of {len(set(x))}; add "
                "networks (--phi) or seeds (--seeds) to the study with --resume."
            )
        u, v = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
        center = u.mean()
        scatter = float(((u - center) ** 2).sum())
        slope = float(((u - center) * v).sum() / scatter)
        intercept = float(v.mean() - slope * center)
        errors = v - intercept - slope * u
        residual = math.sqrt(float((errors**2).sum()) / (len(u) - 2)) if len(u) > 2 else math.nan
        return cls(intercept, slope, len(u), float(center), scatter, residual)

    def at(self, x: float) -> float:
        """The law's value at x."""
        return math.exp(self.intercept + self.slope * math.log(x))

    def band(self, x: float) -> tuple[float, float]:
        """95% prediction interval of one more result at x, if the law holds there.

        Source: prediction interval of simple linear regression, on the logarithms.
        """
        from scipy.stats import t

        distance = (math.log(x) - self.center) ** 2 / self.scatter
        error = self.residual * math.sqrt(1 + 1 / self.points + distance)
        width = float(t.ppf(0.5 + LEVEL / 2, self.points - 2)) * error
        middle = math.log(self.at(x))
        return math.exp(middle - width), math.exp(middle + width)


def error_law(summaries: Sequence[Summary]) -> PowerLaw:
    """Fit the error rate as a power law of MACs, over every training of every network."""
    pairs = [(summary.macs, max(1 - accuracy, 1e-4)) for summary in summaries for accuracy in summary.accuracies]
    return PowerLaw.fit(*zip(*pairs, strict=True)) if pairs else PowerLaw.fit([], [])
