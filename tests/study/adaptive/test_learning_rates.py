"""Learning rates are chosen on validation accuracy, once, and recorded; by trainings that only return numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from study_rows import ROWS

from keras_effnet.errors import UserError
from keras_effnet.study.adaptive.learning_rates import tuned_rates
from keras_effnet.study.networks import Member
from keras_effnet.study.plan import Plan
from keras_effnet.study.protocol import Protocol, rate_grid
from keras_effnet.study.results import RESULTS_JSONL, read_results
from keras_effnet.study.statistics.answers import answer
from keras_effnet.study.summary import summarize
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system import jsonl

RATES = rate_grid(4e-3)
PROTOCOL = Protocol({"source": "digits"}, rates=RATES)
ACCURACIES = {"small": (0.3, 0.5, 0.4), "large": (0.6, 0.6, None)}  # None: the training fails


def training(name, epochs=9) -> TrainingRun:
    member = Member(name, "compound", 0.0, "b0")
    return TrainingRun(PROTOCOL, member, 0, epochs, "unused", study="the study")


def stand_in(calls):
    """Function in place of `run_trials`, with the accuracies of `ACCURACIES`."""

    def run(folder, trials, submit, progress):
        folder.mkdir(exist_ok=True)
        for trial in trials:
            calls.append(trial)
            name, _, rate = trial.member.name.partition("-lr")
            accuracy = ACCURACIES[name][RATES.index(float(rate))]
            row = {"kind": "training", "member": trial.member.name, "seed": 0, "epochs": trial.epochs}
            if accuracy is not None:
                jsonl.append(folder / RESULTS_JSONL, row | {"accuracy": accuracy})
        return {}

    return run


def tuned(folder, names=("small", "large")):
    calls: list[TrainingRun] = []
    return tuned_rates(folder, [training(name) for name in names], None, None, stand_in(calls)), calls


def test_each_network_gets_the_rate_of_the_best_validation_accuracy(tmp_path):
    chosen, calls = tuned(tmp_path)
    assert chosen == {"small": 4e-3, "large": 4e-3}  # of equal ones the protocol's own
    assert [trial.protocol.options["learning_rate"] for trial in calls] == [*RATES] * 2
    assert {trial.epochs for trial in calls} == {3} and not any(trial.reports for trial in calls)


def test_the_choice_is_recorded_and_not_repeated(tmp_path):
    tuned(tmp_path, ["small"])
    chosen, calls = tuned(tmp_path)
    assert chosen == {"small": 4e-3, "large": 4e-3} and {trial.member.name[:5] for trial in calls} == {"large"}
    row = read_results(tmp_path)[0]
    assert row["tried"] == [
        {"learning_rate": rate, "accuracy": accuracy} for rate, accuracy in zip(RATES, ACCURACIES["small"], strict=True)
    ]


def test_a_training_that_fails_with_every_rate_keeps_that_of_the_protocol(tmp_path, monkeypatch):
    monkeypatch.setitem(ACCURACIES, "small", (None, None, None))
    assert tuned(tmp_path)[0] == {"large": 4e-3}


def test_a_progressive_network_is_tuned_at_all_of_its_sizes(tmp_path):
    calls: list[TrainingRun] = []
    growing = replace(training("small", 6), member=Member("small", "progressive", 0.0, "b0", progressive="32,48,64"))
    tuned_rates(tmp_path, [growing], None, None, stand_in(calls))
    assert {trial.epochs for trial in calls} == {3}


def test_the_answer_names_the_rates_and_says_where_the_best_was_the_last_one_tried():
    tried = [{"learning_rate": rate, "accuracy": accuracy} for rate, accuracy in ((1e-3, 0.4), (3e-3, 0.45))]
    row = {"kind": "tuning", "member": "small", "learning_rate": 3e-3, "epochs": 1, "tried": tried}
    text = "\n".join(answer(summarize([*ROWS, row])))
    assert "on the validation images: small 0.003 (0.001: 40.0%, 0.003: 45.0%)." in text
    assert "The largest rate was the best for small" in text and "The smallest rate" not in text


def test_rates_are_part_of_the_protocol(tmp_path):
    plan = Plan(PROTOCOL, (Member("small", "family", 0.0, "b0"),), 1)
    plan.save(tmp_path)
    assert Plan.read(tmp_path) == plan and RATES == (0.00133333, 0.004, 0.012)
    with pytest.raises(UserError, match="started with rates"):
        replace(plan, protocol=replace(PROTOCOL, rates=())).joined(plan)
    with pytest.raises(UserError, match="must be above 0"):
        Protocol({}, rates=(0.0,))
    assert PROTOCOL.at_rate(1e-3).options["learning_rate"] == 1e-3 and PROTOCOL.at_rate(1e-3).rates == ()
