"""Comparisons of the accuracies of networks over paired seeds, corrected for their number. NumPy and SciPy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

LEVEL = 0.05  # share of false findings among the comparisons of one answer, if all networks were equal
MARGIN = 0.01  # accuracies that differ by less are called equal
_MOST_IMAGES = 20_000
_LEAST_P = 1e-12

Verdict = Literal["more", "less", "equal", "unclear"]


@dataclass(frozen=True)
class Comparison:
    """Difference of the accuracies of two networks that were trained with the same seeds.

    Args:
        first, last: Strings, names of the networks.
        difference: Float, mean of the accuracy of `last` minus that of `first`.
        seeds: Int, number of common seeds.
        seed_error, image_error: Floats or None, standard errors of the difference over seeds and over validation
            images, see `paired`; None with a single seed.
    """

    first: str
    last: str
    difference: float
    seeds: int
    seed_error: float | None = None
    image_error: float | None = None

    def half_width(self, level: float) -> float:
        """Half of the width of the interval that misses the difference with probability `level`."""
        if self.seed_error is None or self.image_error is None:
            return math.inf
        return float(half_width(self.seed_error, self.image_error, self.seeds, level))

    @property
    def p(self) -> float:
        """Probability of a difference as large between equal networks; 1 with a single seed."""
        from scipy.optimize import brentq

        size = abs(self.difference)
        if self.half_width(_LEAST_P) < size:
            return _LEAST_P
        if size == 0 or self.half_width(1 - 1e-9) > size:
            return 1.0
        logarithm = brentq(lambda log: self.half_width(math.exp(log)) - size, math.log(_LEAST_P), math.log(1 - 1e-9))
        return math.exp(logarithm)

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Interval that misses the difference with probability `level`."""
        width = self.half_width(level)
        return max(-1.0, self.difference - width), min(1.0, self.difference + width)


@dataclass(frozen=True)
class Judged:
    """A comparison with its verdict among others.

    Args:
        comparison: `Comparison`.
        p: Float, adjusted by Holm's method.
        low, high: Floats, interval of the difference that agrees with the verdict: it excludes 0 exactly where the
            networks are found to differ.
        verdict: `"more"` or `"less"`, `last` is more or less accurate; `"equal"`, they differ by less than the margin;
            `"unclear"`, the seeds cannot tell.
    """

    comparison: Comparison
    p: float
    low: float
    high: float
    verdict: Verdict


def paired(differences: np.ndarray, images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean of differences of accuracy over paired seeds, and its standard errors over seeds and over images.

    Seeds cannot be told apart by less than one image. The error over images is the least that their choice can cause:
    networks whose accuracies differ by a share d answer differently on at least that share of the images (McNemar),
    which has a variance of (d - d^2) / images. So two seeds that happen to agree are no certainty.

    Args:
        differences: Array of shape `(..., seeds)`, two seeds or more.
        images: Int, number of validation images.

    Returns:
        Three arrays of shape `(...)`.
    """
    mean = differences.mean(-1)
    scatter = np.maximum(differences.std(-1, ddof=1), 1 / images)
    return mean, scatter / math.sqrt(differences.shape[-1]), image_error(mean, images)


def image_error(difference: Any, images: int) -> np.ndarray:
    """Least standard error of a difference of accuracies over validation images, see `paired`."""
    share = np.abs(difference)
    return np.sqrt(np.maximum(share - share**2, 1 / images) / images)


def half_width(seed_error: Any, image_error: Any, seeds: int, level: float) -> np.ndarray:
    """Half of the width of the interval of a difference, which misses it with a probability of `level` at most.

    The widths of both errors are added in quadrature, that over seeds by Student's t, that over images by the normal
    distribution.
    """
    from scipy.special import ndtri, stdtrit  # much faster than the distributions of scipy.stats

    return np.hypot(stdtrit(seeds - 1, level / 2) * seed_error, ndtri(level / 2) * image_error)


def compare(
    first: str,
    last: str,
    accuracies: Sequence[dict[int, float]],
    images: int | None = None,
    resampled: Sequence[Sequence[Sequence[float]]] = (),
) -> Comparison | None:
    """Compare two networks over their common seeds.

    Args:
        first, last: Strings, names of the networks.
        accuracies: Two dicts from seed to accuracy, of `first` and of `last`.
        images: Int, number of validation images; by default the smallest number that these accuracies are shares of.
        resampled: Two sequences, of `first` and of `last`, with the accuracies of each seed on resamples of the images,
            which give the error over images of a metric that is no share of right answers. The draws are the same.

    Returns:
        A `Comparison`; None if they have no common seed.
    """
    before, after = accuracies
    common = sorted(before.keys() & after.keys())
    if not common:
        return None
    differences = np.array([after[seed] - before[seed] for seed in common])
    if len(common) < 2:
        return Comparison(first, last, float(differences.mean()), len(common))
    images = images or image_count([*before.values(), *after.values()])
    mean, of_seeds, of_images = paired(differences, images)
    if len(resampled) == 2 and all(resampled):
        of_images = _resampled_error(accuracies, resampled, common)
    return Comparison(first, last, float(mean), len(common), float(of_seeds), float(of_images))


def _resampled_error(
    accuracies: Sequence[dict[int, float]], resampled: Sequence[Sequence[Sequence[float]]], common: Sequence[int]
) -> np.ndarray:
    """Standard deviation over resamples of the images of the mean difference over common seeds."""
    means = []
    for by_seed, drawn in zip(accuracies, resampled, strict=True):
        of_seed = dict(zip(by_seed, drawn, strict=True))
        means.append(np.mean([of_seed[seed] for seed in common], axis=0))
    return np.std(means[1] - means[0], ddof=1)


def image_count(accuracies: Sequence[float]) -> int:
    """Smallest number of images that accuracies, rounded to five decimals, are shares of."""
    values = np.asarray(accuracies, float)
    counts = np.arange(1, _MOST_IMAGES + 1)
    products = values[:, None] * counts
    fits = (np.abs(products - np.round(products)) <= 6e-6 * counts).all(0)
    return int(counts[fits.argmax()]) if fits.any() else _MOST_IMAGES


def judged(comparisons: Sequence[Comparison], *, level: float = LEVEL, margin: float = MARGIN) -> list[Judged]:
    """Judge all comparisons of an answer together.

    By Holm's method the probability of one false finding or more is at most `level`. Two networks are equal where the
    interval of their difference lies within `margin`, which is the test of two one-sided hypotheses.

    Args:
        comparisons: `Comparison`s.
        level: Float, probability of a false finding.
        margin: Float, largest difference that is called equal.

    Returns:
        List of `Judged`, in the order given.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure (1979).
    """
    order = sorted(range(len(comparisons)), key=lambda place: comparisons[place].p)
    found: dict[int, Judged] = {}
    adjusted, share, rejected = 0.0, level, True
    for rank, place in enumerate(order):
        each, left = comparisons[place], len(order) - rank
        adjusted = min(1.0, max(adjusted, left * each.p))
        if rejected:
            share, rejected = level / left, left * each.p <= level
        low, high = each.interval(share)
        found[place] = Judged(each, adjusted, low, high, _verdict(each, rejected, low, high, margin))
    return [found[place] for place in range(len(order))]


def _verdict(comparison: Comparison, rejected: bool, low: float, high: float, margin: float) -> Verdict:
    if -margin < low and high < margin:
        return "equal"
    if not rejected:
        return "unclear"
    return "more" if comparison.difference > 0 else "less"


def points(share: float) -> str:
    """Format a difference of accuracies in points, with its sign."""
    return f"{round(100 * share, 1) + 0.0:+.1f}"  # +0.0 for the zero that is below


def uncertainty(found: Judged) -> str:
    """Interval of a difference in points, such as `-1.2 to +6.0`, or why there is none."""
    if found.comparison.seed_error is None:
        return "one seed, too few to tell it from chance"
    return f"{points(found.low)} to {points(found.high)}"


def in_words(found: Judged, margin: float = MARGIN) -> str:
    """Say in one clause how the second network's accuracy compares with the first's, and how certain that is."""
    each, last = found.comparison, found.comparison.last
    size = f"{points(each.difference)} points ({uncertainty(found)})"
    if found.verdict == "equal":
        return f"{last} is as accurate within {100 * margin:g} point{'s' * (margin != 0.01)}: {size}"
    if found.verdict == "unclear":
        return f"cannot tell whether {last} is more or less accurate: {size}"
    return f"{last} is {found.verdict} accurate: {size}"


def basis(verdicts: Sequence[Judged], looks: str = "") -> str | None:
    """Say what the intervals of an answer are; None where it has none.

    Args:
        verdicts: `Judged` comparisons.
        looks: String, the correction for looks at growing numbers of seeds; empty for none.
    """
    seeds = sorted({each.comparison.seeds for each in verdicts if each.comparison.seed_error is not None})
    if not seeds:
        return None
    span = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    several = f"for {len(verdicts)} comparisons by Holm's method" if len(verdicts) > 1 else ""
    reasons = " and ".join(each for each in (several, looks) if each)
    correction = f", corrected {reasons}" if reasons else ""
    return f"In parentheses are 95% intervals over {span} paired seeds{correction}; those that contain 0 tell nothing."


def scatter(accuracies: Sequence[Sequence[float]]) -> float | None:
    """Standard deviation over seeds, pooled over networks; None where no network has two seeds."""
    known = [np.asarray(each, float) for each in accuracies if len(each) > 1]
    degrees = sum(len(each) - 1 for each in known)
    return math.sqrt(sum(float(((each - each.mean()) ** 2).sum()) for each in known) / degrees) if degrees else None
