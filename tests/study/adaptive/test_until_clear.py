"""Seeds are added where they matter, by a trainer that only draws numbers."""

from __future__ import annotations

import numpy as np
import pytest
from study_rows import cost, training

from keras_effnet.errors import UserError
from keras_effnet.study.adaptive.until_clear import train_until_clear, within_hours
from keras_effnet.study.networks import Member
from keras_effnet.study.plan import Plan
from keras_effnet.study.protocol import Protocol
from keras_effnet.study.statistics.looks import Looks

IMAGES = 500


class Trainer:
    """A study whose trainings answer each image with the probability of the network.

    `b0` is compared with `b1`, and each other network with the one of the two that is closest in MACs.
    """

    def __init__(self, **accuracies: float):
        self.accuracies, self.trained = accuracies, []
        self.rows = [
            cost(name, 1e6 * 4**place, 30.0, model=name, axis="family") for place, name in enumerate(accuracies)
        ]

    def train(self, wanted):
        known = {(row["member"], row["seed"]) for row in self.rows if row["kind"] == "training"}
        for name, seeds in wanted.items():
            for seed in range(seeds):
                if (name, seed) not in known:
                    rng = np.random.default_rng([seed, len(name), ord(name[-1])])
                    accuracy = rng.binomial(IMAGES, self.accuracies[name]) / IMAGES
                    self.rows.append(training(name, seed, accuracy, val_images=IMAGES))
                    self.trained.append((name, seed))
        return {}

    def run(self, looks, **options):
        told: list[str] = []
        failures = train_until_clear(
            list(self.accuracies), looks, self.train, lambda: self.rows, announce=told.append, **options
        )
        seeds = {name: sum(each == name for each, _ in self.trained) for name in self.accuracies}
        return seeds, told, failures


def test_seeds_are_added_only_to_networks_whose_comparison_is_unclear():
    study = Trainer(b0=0.4, b1=0.7, resnet18=0.71)
    seeds, told, _ = study.run(Looks(3, 12))
    assert seeds["b0"] == 3 and seeds["b1"] == seeds["resnet18"] > 3
    assert told[0] == "After 3 seeds one comparison is unclear: b1 and resnet18 get 6 seeds."


def test_a_clear_study_gets_no_seeds():
    seeds, told, _ = Trainer(b0=0.2, b1=0.8).run(Looks(4, 16))
    assert seeds == {"b0": 4, "b1": 4} and told == []


def test_the_most_seeds_end_a_study_that_stays_open():
    seeds, told, _ = Trainer(b0=0.5, b1=0.51).run(Looks(2, 7))
    assert seeds == {"b0": 7, "b1": 7} and len(told) == 2


def test_an_interrupted_study_takes_the_same_decisions_and_repeats_nothing():
    whole = Trainer(b0=0.5, b1=0.52, resnet18=0.8)
    _, told, _ = whole.run(Looks(2, 16))
    killed = Trainer(b0=0.5, b1=0.52, resnet18=0.8)
    killed.rows += [row for row in whole.rows if row["kind"] == "training"][:-3]
    assert killed.run(Looks(2, 16))[1] == told
    assert sorted(killed.trained) == sorted(whole.trained[-3:])


def test_a_failed_training_ends_the_additions():
    study = Trainer(b0=0.5, b1=0.5)
    study.train = lambda wanted: {"b0 seed 0": "The loss became NaN."}
    assert study.run(Looks(2, 8))[2] == {"b0 seed 0": "The loss became NaN."}


def test_the_time_of_further_seeds_is_taken_from_the_finished_ones():
    study = Trainer(b0=0.5, b1=0.51)
    hours = 100 / 3600  # a training takes 40 s
    assert study.run(Looks(2, 16), affordable=within_hours(hours, lambda: study.rows))[0] == {"b0": 2, "b1": 2}
    affordable = within_hours(hours, lambda: study.rows, workers=2)
    assert affordable({"b0": 2, "b1": 2}) and not affordable({"b0": 3, "b1": 3})
    assert within_hours(None, lambda: study.rows)({"b0": 10**6})


def test_the_most_seeds_are_kept_in_the_plan(tmp_path):
    plan = Plan(Protocol({"source": "digits"}), (Member("small", "family", 0.0, "b0"),), 3, 12)
    plan.save(tmp_path)
    assert Plan.read(tmp_path) == plan
    later = Plan(plan.protocol, plan.members, 3)
    assert later.joined(plan).max_seeds == 12 and later.joined(later).max_seeds is None
    with pytest.raises(UserError, match="max_seeds must be at least the 3 seeds"):
        Plan(plan.protocol, plan.members, 3, 2)
