"""Power laws fitted to the errors and times of a study's networks, with calibrated intervals. NumPy and SciPy."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.study.summary import Summary

LEVEL = 0.95  # of prediction intervals


@dataclass(frozen=True)
class PowerLaw:
    """Power law y = exp(intercept) * x ** slope, fitted by least squares to the mean log y of each network.

    A network's log y scatters around the law by `between`, each of its results by `within` around that. More seeds
    reduce the second and not the first, so each network counts once, whatever its number of seeds.

    Args:
        intercept, slope: Floats.
        points: Int, number of results.
        networks: Int, number of networks.
        center, scatter: Floats, mean of log x over the networks and the sum of its squared deviations.
        residual: Float, standard deviation of the networks' mean log y about the line; NaN for two networks.
        within: Float, standard deviation of log y among the results of a network; NaN with one result of each.
        seeds: Float, number of results of a network, the harmonic mean.
    """

    intercept: float
    slope: float
    points: int
    networks: int
    center: float
    scatter: float
    residual: float
    within: float
    seeds: float

    @classmethod
    def fit(
        cls, x: Sequence[float], y: Sequence[float], *, minimum: int = 3, networks: Sequence[Hashable] | None = None
    ) -> PowerLaw:
        """Fit the law to results above 0.

        Args:
            x, y: Floats above 0, equally many.
            minimum: Int, at least 2, the number of results required.
            networks: The network of each result; by default results at the same x are of one network.

        Raises:
            UserError: Fewer than `minimum` results, or all at one x.
        """
        if len(x) < minimum or len(set(x)) < 2:
            raise UserError(
                f"A power law needs at least {minimum} results of 2 networks, got {len(x)} of {len(set(x))}; add "
                "networks (--phi) or seeds (--seeds) to the study with --resume."
            )
        labels = list(x if networks is None else networks)
        names = list(dict.fromkeys(labels))
        place = np.array([names.index(label) for label in labels])
        counts = np.bincount(place)
        logs = np.log(np.asarray(y, float))
        u, v = (np.bincount(place, each) / counts for each in (np.log(np.asarray(x, float)), logs))
        center = u.mean()
        scatter = float(((u - center) ** 2).sum())
        slope = float(((u - center) * v).sum() / scatter)
        intercept = float(v.mean() - slope * center)
        residual = _deviation(v - intercept - slope * u, len(names) - 2)
        within = _deviation(logs - v[place], len(logs) - len(names))
        seeds = float(len(counts) / (1 / counts).sum())
        return cls(intercept, slope, len(logs), len(names), float(center), scatter, residual, within, seeds)

    @property
    def between(self) -> float:
        """Standard deviation of log y between networks around the law, without the scatter of their results."""
        within = 0.0 if math.isnan(self.within) else self.within
        return math.sqrt(max(0.0, self.residual**2 - within**2 / self.seeds))

    def at(self, x: float) -> float:
        """The law's value at x."""
        return math.exp(self.intercept + self.slope * math.log(x))

    def band(self, x: float) -> tuple[float, float]:
        """95% prediction interval of the (geometric) mean result of one more network at x, if the law holds there.

        The network has as many results as those of the fit. Two networks say nothing about the scatter around a law:
        their interval is 0 to infinity.

        Source: prediction interval of simple linear regression, on the logarithms.
        """
        if self.networks < 3:
            return 0.0, math.inf
        distance = (math.log(x) - self.center) ** 2 / self.scatter
        width = self._quantile() * self.residual * math.sqrt(1 + 1 / self.networks + distance)
        middle = math.log(self.at(x))
        return math.exp(middle - width), math.exp(min(middle + width, 700.0))

    def slope_interval(self) -> tuple[float, float] | None:
        """95% confidence interval of the slope; None for two networks."""
        if self.networks < 3:
            return None
        width = self._quantile() * self.residual / math.sqrt(self.scatter)
        return self.slope - width, self.slope + width

    def _quantile(self) -> float:
        from scipy.special import stdtrit

        return float(stdtrit(self.networks - 2, 0.5 + LEVEL / 2))


def _deviation(errors: np.ndarray, degrees: int) -> float:
    return math.sqrt(float((errors**2).sum()) / degrees) if degrees > 0 else math.nan


def error_law(summaries: Sequence[Summary]) -> PowerLaw:
    """Fit the error rate as a power law of MACs, over every training of every network."""
    rows = [
        (summary.macs, max(1 - accuracy, 1e-4), summary.member)
        for summary in summaries
        for accuracy in summary.accuracies
    ]
    macs, errors, names = zip(*rows, strict=True) if rows else ([], [], [])
    return PowerLaw.fit(macs, errors, networks=names)


def time_law(summaries: Sequence[Summary], clock: str) -> PowerLaw | None:
    """Fit a measured time as a power law of MACs over some networks; None where fewer than two were timed."""
    pairs = [(each.macs, each.cost(clock)) for each in summaries if each.cost(clock)]
    if len({macs for macs, _ in pairs}) < 2:
        return None
    macs, times = zip(*pairs, strict=True)
    return PowerLaw.fit(macs, times, minimum=2, networks=range(len(pairs)))
