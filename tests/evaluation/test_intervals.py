"""Confidence intervals against scipy's."""

from __future__ import annotations

import pytest

from keras_effnet.errors import UserError
from keras_effnet.evaluation.intervals import wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # scipy 1.17.1, binomtest(successes, n).proportion_ci(method="wilson")
        (27, 28, 0.8228780225664668, 0.9936674801509623),
        (1, 1, 0.20654931437723745, 1.0),
        (20, 20, 0.8388748419471808, 1.0),
        (0, 10, 0.0, 0.27753279986288926),
        (486, 500, 0.9535535973250512, 0.9832490252792435),
        (50, 100, 0.4038315303659956, 0.5961684696340044),
    ],
)
def test_95_percent_intervals_equal_scipys(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-12)


def test_other_levels_equal_scipys():
    binomtest = pytest.importorskip("scipy.stats").binomtest
    for successes, n, level in [(3, 7, 0.5), (990, 1000, 0.99), (10_000, 10_000, 0.9)]:
        expected = binomtest(successes, n).proportion_ci(level, method="wilson")
        assert wilson_interval(successes, n, level) == pytest.approx(tuple(expected), abs=1e-12)


def test_a_share_of_0_or_1_lies_within_its_interval_exactly():
    for n in range(1, 300):
        assert wilson_interval(n, n)[1] == 1.0 and wilson_interval(0, n)[0] == 0.0


@pytest.mark.parametrize(("successes", "n", "level"), [(0, 0, 0.95), (5, 4, 0.95), (-1, 4, 0.95), (1, 4, 1.0)])
def test_impossible_counts_and_levels_are_refused(successes, n, level):
    with pytest.raises(UserError, match=f"No interval for {successes} of {n} at level {level}"):
        wilson_interval(successes, n, level)
