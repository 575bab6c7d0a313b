"""Simulated accuracies of two networks over paired seeds, and whether they are found to differ."""

from __future__ import annotations

import numpy as np

from keras_effnet.study.statistics.comparisons import half_width, paired


def simulated(rng, repeats, seeds, images, accuracies=(0.7, 0.7), spread=0.01):
    """Accuracies of shape (2, repeats, seeds): each training has its own, of which the images show a draw."""
    means = np.reshape(accuracies, (2, 1, 1)) + rng.normal(0, spread, (2, repeats, seeds))
    return rng.binomial(images, np.clip(means, 0, 1)) / images


def found(accuracies, images, level=0.05):
    mean, seed_error, image_error = paired(accuracies[1] - accuracies[0], images)
    return np.abs(mean) > half_width(seed_error, image_error, accuracies.shape[-1], level)
