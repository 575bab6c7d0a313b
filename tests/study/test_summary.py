"""Summaries of a study against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from keras_effnet.errors import UserError
from keras_effnet.study.summary import (
    METRICS,
    Summary,
    answer,
    default_target,
    pareto_front,
    ratios,
    seconds_to,
    summarize,
)

CURVE = [{"val_accuracy": accuracy, "seconds": 10.0} for accuracy in (0.2, 0.5, 0.4, 0.6)]


def cost(member, macs, step_ms, model="b0", axis="compound"):
    names = ("params", "activations", "step_iqr_ms", "train_images_per_second", "predict_ms", "predict_iqr_ms")
    names += ("predict_images_per_second", "tflite_ms", "tflite_iqr_ms", "tflite_bytes", "phi")
    values = dict.fromkeys(names, 1.0) | {"axis": axis, "model": model, "image_size": 64}
    return {"kind": "cost", "member": member, "macs": macs, "step_ms": step_ms, **values}


def training(member, seed, accuracy, seconds=40.0, curve=CURVE, **changes):
    row = {"kind": "training", "member": member, "seed": seed, "accuracy": accuracy, "epochs": 4, "curve": curve}
    row |= {"train_seconds": seconds, "input_bound": 0.25, "energy_joules": None, "peak_memory_mb": 100.0}
    return row | changes


ROWS = [
    cost("large", 8e6, 40.0),
    cost("small", 2e6, 20.0),
    training("small", 1, 0.52),
    training("small", 0, 0.5),
    training("large", 0, 0.6, seconds=80),
    training("large", 1, 0.64, seconds=90),
]


def test_means_and_spread_over_seeds_cheapest_first():
    small, large = summarize(ROWS)
    assert (small.member, large.member) == ("small", "large")
    assert small.accuracies == (0.5, 0.52) and small.accuracy == pytest.approx(0.51)
    assert small.spread == pytest.approx(0.02 / math.sqrt(2))  # of two values, their distance over the root of 2
    assert (large.train_seconds, large.input_bound, large.energy_joules) == (85, 0.25, None)


def test_a_network_that_was_not_trained_is_left_out():
    assert [each.member for each in summarize(ROWS[:3])] == ["small"]
    assert summarize(ROWS[:2]) == []


def test_time_to_an_accuracy_counts_whole_epochs():
    assert (seconds_to(CURVE, 0.5), seconds_to(CURVE, 0.55), seconds_to(CURVE, 0.7)) == (20, 40, None)
    assert default_target(ROWS) == pytest.approx(0.475) and default_target(ROWS[:2]) is None
    assert [each.seconds_to_target for each in summarize(ROWS, target=0.5)] == [20, 20]
    assert [each.seconds_to_target for each in summarize(ROWS, target=0.9)] == [None, None]


def test_units_of_costs():
    small, _ = summarize(ROWS)
    assert (small.cost("macs"), small.cost("step_ms"), small.cost("energy_joules")) == (2.0, 20.0, None)
    with pytest.raises(UserError, match="Did you mean 'macs'"):
        small.cost("mac")


def test_every_metric_is_a_field():
    assert set(METRICS) <= set(Summary.__dataclass_fields__)


def test_the_front_is_what_nothing_beats():
    costs = {"a": 1e6, "b": 2e6, "as good for more": 2.5e6, "c": 3e6, "d": 3e6, "e": 4e6}
    rows = [cost(name, macs, 1.0) for name, macs in costs.items()]
    accuracies = {"a": 0.3, "b": 0.5, "as good for more": 0.5, "c": 0.5, "d": 0.6, "e": 0.55}
    rows += [training(name, 0, accuracy) for name, accuracy in accuracies.items()]
    assert [each.member for each in pareto_front(summarize(rows), "macs")] == ["a", "b", "d"]
    assert pareto_front(summarize(rows), "energy_joules") == []


def test_the_answer_holds_the_ratios():
    small, large = summarize(ROWS)
    grown = ratios(small, large)
    assert (grown["macs"], grown["step_ms"]) == (4, 2) and "energy_joules" not in grown
    text = " ".join(answer([small, large]))
    assert "MACs grew x4.00; training step x2.00" in text
    assert "to the power 0.50;" in text  # log 2 / log 4
    # 11 points; the standard error of a difference of means is sqrt(.02^2/2/2 + .04^2/2/2) = 2.2 points.
    assert "+11.0 points, more than twice its standard error over seeds, 2.2." in text


@pytest.mark.parametrize(("points", "verdict"), [(4, "no more than"), (5, "more than")])
def test_twice_the_standard_error_is_the_border(points, verdict):
    """That is 4.5 points here, as in the test above."""
    middle = 0.51 + points / 100
    rows = [*ROWS[:4], training("large", 0, middle - 0.02), training("large", 1, middle + 0.02)]
    assert f"+{points}.0 points, {verdict} twice" in " ".join(answer(summarize(rows)))


def test_noise_is_called_noise():
    rows = [*ROWS[:4], training("large", 0, 0.51), training("large", 1, 0.55)]
    assert "+2.0 points, no more than twice its standard error" in " ".join(answer(summarize(rows)))


def test_one_seed_says_nothing_of_chance():
    rows = [row for row in ROWS if row.get("seed") != 1]
    assert "with one seed, too few to tell it from chance" in " ".join(answer(summarize(rows)))


def test_others_are_set_beside_the_nearest_in_macs():
    rows = [*ROWS, cost("resnet18", 9e6, 30.0, model="resnet18", axis="family"), training("resnet18", 0, 0.55)]
    assert "large against resnet18 at x1.12 its MACs and x0.75 its step: 62.0% to 55.0%" in answer(summarize(rows))[-1]


def test_the_answer_is_of_the_efficientnets_alone():
    """A ResNet may have the most MACs: what it grew by is no answer to how EfficientNets scale."""
    rows = [*ROWS, cost("resnet18", 9e7, 30.0, model="resnet18", axis="family"), training("resnet18", 0, 0.55)]
    assert answer(summarize(rows))[0].startswith("From small to large MACs grew x4.00")


def test_one_network_answers_nothing():
    assert answer(summarize(ROWS[1:4])) == ["A study of one network has nothing to compare; add another."]
