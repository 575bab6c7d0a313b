"""Seeds that a comparison needs: simulated studies of that many seeds find what they should."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_studies import found, simulated

from keras_effnet.errors import UserError
from keras_effnet.study.statistics.sample_size import expected_scatter, power, seeds_needed


@pytest.mark.parametrize(("points", "images"), [(2, 1000), (5, 500), (10, 100), (2, 10_000)])
def test_studies_of_so_many_seeds_find_the_difference_in_8_of_10(points, images):
    needed = seeds_needed(points / 100, images)
    rng, accuracies = np.random.default_rng(points), (0.5 - points / 200, 0.5 + points / 200)
    for seeds, at_least, at_most in ((needed, 0.77, 0.97), (needed - 1, 0.0, 0.82)):
        if seeds > 1:
            share = found(simulated(rng, 4000, seeds, images, accuracies, spread=0), images).mean()
            assert at_least <= share <= at_most, (seeds, share)


def test_the_computed_power_is_the_simulated_one():
    rng = np.random.default_rng(0)
    for seeds in (2, 4, 8):
        share = found(simulated(rng, 10_000, seeds, 500, (0.48, 0.52), spread=0.0), 500).mean()
        assert power(0.04, seeds, expected_scatter(500), 500) == pytest.approx(share, abs=0.03)


def test_smaller_differences_fewer_images_and_more_comparisons_need_more_seeds():
    needed = seeds_needed(0.03, 500)
    assert seeds_needed(0.02, 500) > needed > seeds_needed(0.05, 500)
    assert seeds_needed(0.03, 250) > needed > seeds_needed(0.03, 2000)
    assert seeds_needed(0.03, 500, comparisons=6) > needed
    assert seeds_needed(0.03, 500, scatter=0.01) < needed
    assert seeds_needed(0.005, 100) is None


@pytest.mark.parametrize("wrong", [{"difference": 0}, {"images": 0}, {"chance": 1}, {"comparisons": 0}])
def test_senseless_questions_are_refused(wrong):
    with pytest.raises(UserError, match="must lie between 0 and 1"):
        seeds_needed(**wrong)
