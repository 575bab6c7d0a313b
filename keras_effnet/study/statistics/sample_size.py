"""Number of seeds that a comparison of two networks needs. NumPy and SciPy."""

from __future__ import annotations

import math

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.study.statistics.comparisons import LEVEL, MARGIN, half_width, image_error

POWER = 0.8  # usual: a true difference is missed once in five studies
TO_SEE = 2 * MARGIN  # difference of accuracies that a study should be able to find
_DRAWS = 20_000
_MOST_SEEDS = 1000


def expected_scatter(images: int, accuracy: float = 0.5) -> float:
    """Standard deviation of the accuracy over seeds, as if every training answered each image independently.

    For the studies in `docs/results` this is within a tenth of the standard deviation that was found.

    Args:
        images: Int, number of validation images.
        accuracy: Float in (0, 1).
    """
    return math.sqrt(accuracy * (1 - accuracy) / images)


def power(difference: float, seeds: int, scatter: float, images: int, level: float = LEVEL) -> float:
    """Probability that `comparisons.paired` finds a true difference between two networks.

    Args:
        difference: Float, true difference of the accuracies.
        seeds: Int, at least 2, trainings of each network.
        scatter: Float, standard deviation of the accuracy of one network over seeds.
        images: Int, number of validation images.
        level: Float, probability of a false finding.
    """
    rng = np.random.default_rng(0)
    variance = 2 * scatter**2  # of a difference
    mean = rng.normal(difference, math.sqrt(variance / seeds), _DRAWS)
    deviation = np.sqrt(variance * rng.chisquare(seeds - 1, _DRAWS) / (seeds - 1))
    seed_error = np.maximum(deviation, 1 / images) / math.sqrt(seeds)
    width = half_width(seed_error, image_error(mean, images), seeds, level)
    return float((np.abs(mean) > width).mean())


def seeds_needed(
    difference: float = TO_SEE,
    images: int = 500,
    *,
    scatter: float | None = None,
    comparisons: int = 1,
    chance: float = POWER,
) -> int | None:
    """Trainings of each network with which a study finds a true difference with probability `chance`.

    Args:
        difference: Float above 0, true difference of the accuracies of two networks.
        images: Int, number of validation images.
        scatter: Float, standard deviation over seeds; default: `expected_scatter`.
        comparisons: Int, comparisons that are judged together.
        chance: Float in (0, 1).

    Returns:
        Int, at least 2; None where no number of seeds up to 1000 is enough, because there are too few images.

    Raises:
        UserError: A number is out of range.

    Example:

    >>> seeds_needed(0.02, images=500)
    """
    if not 0 < difference < 1 or images < 1 or not 0 < chance < 1 or comparisons < 1:
        raise UserError(
            f"A difference and a chance must lie between 0 and 1, with at least one image and comparison; got "
            f"{difference}, {chance}, {images} and {comparisons}."
        )
    known = expected_scatter(images) if scatter is None else scatter
    level = LEVEL / comparisons

    def enough(seeds: int) -> bool:
        return power(difference, seeds, known, images, level) >= chance

    if not enough(_MOST_SEEDS):
        return None
    few, many = 1, _MOST_SEEDS
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if enough(middle) else (middle, many)
    return many
