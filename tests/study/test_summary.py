"""Summaries of a study against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
from study_rows import CURVE, ROWS, cost, training

from keras_effnet.errors import UserError
from keras_effnet.study.summary import (
    METRICS,
    Summary,
    chance_level,
    default_target,
    pareto_front,
    ratios,
    seconds_to,
    summarize,
)


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


def test_a_target_that_guessing_reaches_is_no_target():
    """It was 10.9% of ten classes, on 1,000 images."""
    known = [{**row, "classes": 10} if row["kind"] == "cost" else {**row, "val_images": 1000} for row in ROWS]
    weak = [{**row, "accuracy": 0.115} if row["kind"] == "training" and row["seed"] else row for row in known]
    assert default_target(known) == pytest.approx(0.475)
    assert default_target(weak) == pytest.approx(0.475)  # of the others
    assert default_target([{**row, "accuracy": 0.115} if "accuracy" in row else row for row in known]) is None
    with pytest.raises(UserError, match=r"A target of 10.9% is at the level of chance for 10 classes.*above 15.0%"):
        summarize(known, target=0.109)
    assert summarize(known, target=0.2)


@pytest.mark.parametrize(
    ("classes", "images", "level"), [(10, 1000, 0.15), (10, 20, 0.3012), (2, 10_000, 0.6), (1000, 50_000, 0.0015)]
)
def test_chance_leaves_room_for_luck(classes, images, level):
    assert chance_level(classes, images) == pytest.approx(level, abs=1e-4)


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


def test_ratios_are_of_the_costs_that_both_have():
    small, large = summarize(ROWS)
    grown = ratios(small, large)
    assert (grown["macs"], grown["step_ms"]) == (4, 2) and "energy_joules" not in grown


def test_test_images_report_where_every_training_has_been_tested():
    rows = [row | {"test_accuracy": 0.4, "test_images": 50} if row["kind"] == "training" else row for row in ROWS]
    small = summarize(rows)[0]
    assert (small.split, small.accuracies, small.images, small.val_accuracy) == ("test", (0.4, 0.4), 50, 0.51)
    partly = summarize([*rows, training("large", 2, 0.6)])  # of an earlier version
    assert {each.split for each in partly} == {"validation"} and partly[0].accuracies == (0.5, 0.52)


def test_accuracies_are_known_by_seed():
    """Networks are compared over the seeds that both have."""
    rows = [*ROWS, training("small", 5, 0.7, val_images=100)]
    small = summarize(rows)[0]
    assert small.by_seed == {0: 0.5, 1: 0.52, 5: 0.7} and small.images is None
    assert summarize([{**row, "val_images": 50} for row in rows])[0].images == 50
