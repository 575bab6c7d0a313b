"""Budgets of seconds: pace measured with as many trainings as will run, and epochs that fill the time."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace

import pytest
from study_rows import ROWS, training

from keras_effnet.errors import UserError
from keras_effnet.study.adaptive.pace import Stopwatch, measure_pace, pace_of
from keras_effnet.study.adaptive.time_budgets import measured_paces, unused_time
from keras_effnet.study.networks import Member
from keras_effnet.study.protocol import Budget, Pace, Protocol, training_epochs
from keras_effnet.study.results import RESULTS_JSONL, read_results
from keras_effnet.study.statistics.clock_noise import time_sentence
from keras_effnet.study.summary import summarize
from keras_effnet.system import jsonl

PROTOCOL = Protocol({}, Budget("seconds", 60.0))
MEMBERS = [Member("small", "family", 0.0, "b0"), Member("large", "family", 0.0, "b1")]
COSTS = {"small": {"step_ms": 100.0, "predict_ms": 20.0}, "large": {"step_ms": 200.0, "predict_ms": 40.0}}


def watch(*ends: float, started: float = 0.0) -> Stopwatch:
    found = Stopwatch(started)
    found.ends = list(ends)
    return found


def test_a_pace_is_that_of_whole_epochs_and_tracing_is_apart():
    """Steps of 0.1 s after one of 5.1, validation batches of 0.02 after one of 1.02."""
    found = pace_of([watch(5.1, 5.2, 5.3)], [watch(11.02, 11.04, started=10.0)], steps=70, batches=8)
    assert found == Pace(pytest.approx(5.0 + 1.0), pytest.approx(70 * 0.1 + 8 * 0.02))
    assert found.seconds(3) == pytest.approx(6 + 3 * 7.16)
    twice = pace_of([watch(5.1, 5.2)], [watch(1.02, 1.04)], steps=70, batches=8, passes=2)
    assert twice.epoch_seconds == pytest.approx(7 + 2 * 0.16)


def test_image_sizes_that_grow_are_traced_each_and_averaged():
    found = pace_of([watch(2.1, 2.2), watch(3.3, 3.6)], [watch(0.5, 0.6)], steps=10, batches=1)
    assert found == Pace(pytest.approx(2.0 + 3.0 + 0.4), pytest.approx(10 * 0.2 + 0.1))


def test_a_single_batch_has_no_tracing_to_tell_apart():
    assert pace_of([watch(0.4)], [watch(0.1)], steps=1, batches=1) == Pace(0.0, pytest.approx(0.5))


def test_the_epochs_fill_what_tracing_leaves_of_the_time():
    def epochs(first, epoch):
        return training_epochs(PROTOCOL, MEMBERS[0], COSTS["small"], 10, (64, 64), pace=Pace(first, epoch))

    assert epochs(10, 5) == 10 and epochs(0, 5) == 12 and epochs(59, 5) == 1
    assert Budget("epochs", 3).epochs(seconds_per_epoch=1, macs_per_epoch=1, first_seconds=9) == 3


@pytest.fixture
def measured():
    """What was asked to be measured, by a function that submits; each copy takes longer than the one before."""
    asked: list[str] = []

    def submit(function, protocol, member, step_ms):
        assert function is measure_pace and step_ms == COSTS[member.name]["step_ms"]
        asked.append(member.name)
        future: Future = Future()
        future.set_result(Pace(4.0, 10.0 * asked.count(member.name)))
        return future

    return submit, asked


def test_each_network_is_timed_beside_as_many_as_will_run_and_only_once(tmp_path, measured):
    submit, asked = measured
    arguments = (tmp_path, PROTOCOL, MEMBERS, COSTS, submit, 3, lambda *_: None)
    found = measured_paces(*arguments)
    assert asked == ["small"] * 3 + ["large"] * 3
    assert found == {"small": Pace(4.0, 20.0), "large": Pace(4.0, 20.0)}
    assert [(row["kind"], row["member"], row["workers"]) for row in read_results(tmp_path)] == [
        ("pace", "small", 3),
        ("pace", "large", 3),
    ]
    assert measured_paces(*arguments) == found and len(asked) == 6
    assert measured_paces(tmp_path, Protocol({}), *arguments[2:]) == {}  # its budget is no time


def test_a_network_that_an_earlier_version_trained_keeps_its_epochs(tmp_path, measured):
    submit, asked = measured
    jsonl.append(tmp_path / RESULTS_JSONL, training("small", 0, 0.5, curve=[]))
    assert set(measured_paces(tmp_path, PROTOCOL, MEMBERS, COSTS, submit, 1, lambda *_: None)) == {"large"}
    assert asked == ["large"]


def test_a_network_that_cannot_be_trained_does_not_end_the_study(tmp_path, measured):
    def submit(function, protocol, member, step_ms):
        if member.name == "small":
            (future := Future()).set_exception(UserError("The loss became NaN."))
            return future
        return measured[0](function, protocol, member, step_ms)

    assert set(measured_paces(tmp_path, PROTOCOL, MEMBERS, COSTS, submit, 1, lambda *_: None)) == {"large"}


def test_time_that_whole_epochs_leave_unused_is_said():
    assert unused_time(60, {"small": 58, "large": 61}) is None and unused_time(60, {}) is None
    said = unused_time(60, {"small": 50, "large": 95, "huge": 59})
    assert said.startswith(
        "Trainings are whole epochs: of 60 seconds large takes 95 (2 networks are more than 10% off)"
    )


def test_the_answer_says_predicted_against_real_seconds():
    summaries = summarize(ROWS)
    assert time_sentence(summaries) is None
    small, large = summaries
    timed = [replace(small, predicted_seconds=small.train_seconds), replace(large, predicted_seconds=100.0)]
    assert time_sentence(timed) == (
        "Trainings took x0.85 to x1.00 of the predicted seconds, 1 of 2 networks within 10%; farthest is large, 85 s "
        "instead of 100."
    )
