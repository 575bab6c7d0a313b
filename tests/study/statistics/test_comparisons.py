"""Comparisons over seeds: simulated false findings, Holm's correction, equality, and words that say no more."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ttest_rel
from simulated_studies import found, simulated

from keras_effnet.study.statistics.comparisons import (
    Comparison,
    basis,
    compare,
    image_count,
    in_words,
    judged,
    scatter,
)


@pytest.mark.parametrize("images", [100, 500, 10_000])
@pytest.mark.parametrize("seeds", range(2, 11))
def test_equal_networks_differ_in_5_of_100_studies_at_most(seeds, images):
    """Twice the standard error was exceeded in 17.5% with two seeds, 11.7% with three."""
    rng = np.random.default_rng(seeds)
    for spread in (0.0, 0.02):
        assert found(simulated(rng, 40_000, seeds, images, spread=spread), images).mean() <= 0.0545  # 4 errors of 0.11%


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_networks_that_know_other_images_differ_in_5_of_100_at_most(seeds):
    """Accuracies are equal on all images there are, not on those of this study."""
    rng = np.random.default_rng(seeds)
    known = rng.beta(0.5, 0.2, (1000, 200))  # probability that an image is answered right, alike for both
    accuracies = (rng.random((2, seeds, 1000, 200)) < known).mean(-1).transpose(0, 2, 1)
    assert found(accuracies, 200).mean() <= 0.06


def comparison(difference, seed_error=0.001, image_error=0.001, seeds=5, last="b"):
    return Comparison("a", last, difference, seeds, seed_error, image_error)


def test_any_of_five_comparisons_of_equal_networks_is_a_finding_in_5_of_100_answers_at_most():
    rng, answers = np.random.default_rng(0), 400
    accuracies = simulated(rng, answers * 5, 3, 500).reshape(2, answers, 5, 3)
    false = 0
    for answer in range(answers):
        pairs = [[dict(enumerate(each[answer, place])) for each in accuracies] for place in range(5)]
        verdicts = judged([compare("a", "b", pair, 500) for pair in pairs])
        false += any(each.verdict in ("more", "less") for each in verdicts)
    assert false / answers <= 0.05 + 3 * (0.05 * 0.95 / answers) ** 0.5


def test_the_interval_over_seeds_is_that_of_a_paired_t_test():
    """With so many images, only seeds count."""
    first, last = [0.61, 0.6, 0.63, 0.58], [0.64, 0.62, 0.64, 0.63]
    each = compare("a", "b", [dict(enumerate(first)), dict(enumerate(last))], images=10**9)
    reference = ttest_rel(last, first)
    assert each.p == pytest.approx(reference.pvalue, rel=1e-3)
    assert each.interval(0.05) == pytest.approx(tuple(reference.confidence_interval(0.95)), abs=1e-4)


def test_pairing_removes_what_a_seed_does_to_both():
    rng = np.random.default_rng(0)
    shared = rng.normal(0.7, 0.05, 6)
    both = [dict(enumerate(shared)), dict(enumerate(shared + 0.03 + rng.normal(0, 0.002, 6)))]
    assert judged([compare("a", "b", both, 5000)])[0].verdict == "more"


@pytest.mark.parametrize("difference", [0.001, 0.002, 0.01, 0.02])
def test_two_seeds_that_happen_to_agree_are_no_certainty(difference):
    """Their standard error was 0, and +0.1 point a finding."""
    each = compare("a", "b", [{0: 0.7, 1: 0.71}, {0: 0.7 + difference, 1: 0.71 + difference}], images=500)
    assert each.seed_error > 0 and judged([each])[0].verdict == "unclear"


def test_networks_are_compared_over_their_common_seeds():
    assert compare("a", "b", [{0: 0.5, 1: 0.6}, {1: 0.7, 2: 0.9}]) == Comparison("a", "b", pytest.approx(0.1), 1)
    assert compare("a", "b", [{0: 0.5}, {1: 0.7}]) is None


@pytest.mark.parametrize("images", [7, 360, 500, 1000])
def test_the_number_of_images_follows_from_the_accuracies(images):
    right = [3, images // 2, images - 1]
    assert image_count([round(each / images, 5) for each in right]) == images


def test_holms_method_by_hand():
    """p of 0.01, 0.03 and 0.04 of three comparisons become 0.03, 0.06 and 0.06."""

    class Known(Comparison):
        @property
        def p(self):
            return self.difference

    given = [Known("a", "b", p, 5, 0.001, 0.001) for p in (0.04, 0.01, 0.03)]
    found = judged(given)
    assert [each.p for each in found] == pytest.approx([0.06, 0.03, 0.06])
    assert [each.comparison for each in found] == given


@pytest.mark.parametrize("count", [1, 2, 5])
def test_intervals_exclude_0_exactly_where_a_difference_is_found(count):
    rng = np.random.default_rng(count)
    for _ in range(50):
        given = [comparison(float(rng.normal(0, 0.005)), last=str(place)) for place in range(count)]
        for each in judged(given, margin=1e-9):
            assert (each.low > 0 or each.high < 0) == (each.verdict != "unclear") == (each.p <= 0.05)


def test_verdicts_and_their_words():
    found = judged([comparison(0.05), comparison(-0.05), comparison(0.001), comparison(0.02, seed_error=0.02)])
    assert [each.verdict for each in found] == ["more", "less", "equal", "unclear"]
    more, less, equal, unclear = map(in_words, found)
    assert more.startswith("b is more accurate: +5.0 points (+4.")
    assert basis(found).startswith("In parentheses are 95% intervals over 5 paired seeds, corrected for 4 comparisons")
    assert less.startswith("b is less accurate: -5.0 points")
    assert equal.startswith("b is as accurate within 1 point: +0.1 points")
    assert unclear.startswith("cannot tell whether b is more or less accurate: +2.0 points (-")


def test_one_seed_tells_nothing():
    (found,) = judged([Comparison("a", "b", 0.3, 1)])
    assert (found.verdict, found.p) == ("unclear", 1.0)
    assert in_words(found).endswith("+30.0 points (one seed, too few to tell it from chance)")


def test_scatter_is_pooled_over_networks():
    assert scatter([(0.5, 0.52), (0.7, 0.74), (0.9,)]) == pytest.approx(((0.02**2 / 2 + 0.04**2 / 2) / 2) ** 0.5)
    assert scatter([(0.5,), (0.6,)]) is None
