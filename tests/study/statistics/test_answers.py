"""The answer of a study: least squares for times, paired intervals for accuracies, and what it cannot tell."""

from __future__ import annotations

import pytest
from scipy.stats import linregress, t
from study_rows import ROWS, cost, training

from keras_effnet.study.statistics.answers import answer, power_sentence
from keras_effnet.study.statistics.sample_size import seeds_needed
from keras_effnet.study.summary import summarize


def answered(rows) -> str:
    return "\n".join(answer(summarize(rows)))


def seeds(member, *accuracies):
    return [training(member, seed, accuracy, val_images=500) for seed, accuracy in enumerate(accuracies)]


TWO = [cost("large", 8e6, 40.0), cost("small", 2e6, 20.0)]


def test_the_answer_holds_the_ratios():
    text = answered(ROWS)
    assert "From small to large MACs grew x4.00; training step x2.00" in text
    assert "By least squares over two networks, which give no interval" in text
    assert "training step 0.50;" in text  # log 2 / log 4


def test_the_power_of_time_is_fitted_to_all_networks_and_has_an_interval():
    """It was that of the two end points: 0.77, of what is 0.83 give or take 1.15."""
    import numpy as np

    macs, times = [1e6, 2e6, 4e6, 8e6], [10.0, 30.0, 35.0, 60.0]
    rows = [cost(f"n{place}", *pair) for place, pair in enumerate(zip(macs, times, strict=True))]
    rows += [training(f"n{place}", 0, 0.5) for place in range(4)]
    fit = linregress(np.log(macs), np.log(times))
    width = t.ppf(0.975, 2) * fit.stderr
    expected = f"training step {fit.slope:.2f} (95% interval {fit.slope - width:.2f} to {fit.slope + width:.2f})"
    assert "least squares over 4 networks" in answered(rows) and expected in answered(rows)


def test_two_seeds_do_not_make_a_finding_of_two_points():
    text = answered([*TWO, *seeds("small", 0.5, 0.52), *seeds("large", 0.52, 0.54)])
    assert "By accuracy, cannot tell whether large is more or less accurate: +2.0 points (-" in text
    assert "95% intervals over 2 paired seeds; those that contain 0 tell nothing." in text
    needed = seeds_needed(0.02, 500, scatter=0.02 / 2**0.5)
    assert f"To see a difference of 2 points on 500 validation images, {needed} seeds are needed" in text


def test_what_seeds_show_is_said_without_a_but():
    text = answered([*TWO, *seeds("small", 0.5, 0.52, 0.51, 0.5), *seeds("large", 0.6, 0.61, 0.61, 0.59)])
    assert "By accuracy, large is more accurate: +9.5 points (+" in text and "To see a difference" not in text


def test_equality_is_shown_where_it_can_be():
    rows = [
        {**row, "val_images": 50_000}
        for row in (*seeds("small", 0.5, 0.502, 0.498), *seeds("large", 0.501, 0.503, 0.499))
    ]
    assert "large is as accurate within 1 point: +0.1 points (" in answered([*TWO, *rows])


def test_one_seed_says_nothing_of_chance():
    text = answered([row for row in ROWS if row.get("seed") != 1])
    assert "+10.0 points (one seed, too few to tell it from chance)" in text


def test_others_are_set_beside_the_nearest_in_macs():
    rows = [*ROWS, cost("resnet18", 9e6, 30.0, model="resnet18", axis="family"), *seeds("resnet18", 0.55, 0.56)]
    assert "Against large, at x1.12 the MACs and x0.75 the training step, cannot tell whether resnet18 is" in answered(
        rows
    )
    assert "corrected for 2 comparisons by Holm's method" in answered(rows)


def test_the_answer_is_of_the_efficientnets_alone():
    """A ResNet may have the most MACs: what it grew by is no answer to how EfficientNets scale."""
    rows = [*ROWS, cost("resnet18", 9e7, 30.0, model="resnet18", axis="family"), *seeds("resnet18", 0.55)]
    assert answer(summarize(rows))[0].startswith("From small to large MACs grew x4.00")


def test_one_network_answers_nothing():
    assert answer(summarize(ROWS[1:4])) == ["A study of one network has nothing to compare; add another."]


def axis(name, macs, *accuracies, phi=1.0):
    return [{**cost(name, macs, 30.0, axis=name), "phi": phi}, *seeds(name, *accuracies)]


def test_the_axis_that_won_is_named_with_the_lead_over_each_other():
    rows = [cost("base", 2e6, 20.0, axis="baseline"), *seeds("base", 0.5, 0.5, 0.51, 0.5)]
    rows += axis("depth", 4e6, 0.55, 0.56, 0.55, 0.54) + axis("width", 4.1e6, 0.61, 0.6, 0.62, 0.61)
    rows += axis("resolution", 4e6, 0.6, 0.62, 0.61, 0.62) + axis("depth-less", 3e6, 0.9, phi=0.5)
    (line,) = [line for line in answered(rows).splitlines() if line.startswith("At phi 1")]
    assert line.startswith("At phi 1, resolution scaling is the most accurate, with 61.3%: ")
    assert "better than depth, +6.2 points (+" in line and "cannot be told from width, +0.3 points (-" in line
    assert "not compared at equal cost" not in line
    expensive = [{**row, "macs": 6e6} if row.get("axis") == "width" else row for row in rows]
    assert "Their MACs differ by x1.50, so they are not compared at equal cost." in answered(expensive)


@pytest.mark.parametrize(
    ("images", "said"), [(500, "35 seeds are needed if they scatter by 2.2 points, as usual"), (50, "no number")]
)
def test_a_study_says_beforehand_what_it_can_see(images, said):
    assert said in power_sentence(images, 1)
