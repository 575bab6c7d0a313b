"""Sampling and thinning out of baselines, with an objective that is computed instead of trained."""

from __future__ import annotations

import pytest

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.architecture.specs import expand
from keras_effnet.complexity.counting import count
from keras_effnet.errors import UserError
from keras_effnet.search.baseline_halving import Generations, Scored, ordered, reward, search_generations
from keras_effnet.search.baseline_space import BaselineSpace

pytest.importorskip("optuna", reason="the search needs Optuna")
SPACE = BaselineSpace(architecture_spec("b0", image_size=32))
LIMIT = 1.0  # all candidates cost as much as the baseline, where cost is not the subject


def macs(spec) -> int:
    return count(spec, classes=10).macs


def alike(spec) -> int:
    """All networks cost the same: counting takes longer than what is tested."""
    return 1


def kernels(spec) -> float:
    """An objective that likes kernels of 5 and no squeeze-and-excite."""
    return sum((stage.kernel == 5) + (stage.se_ratio == 0) for stage in spec.stages) / (2 * len(spec.stages))


class Trainer:
    def __init__(self, objective=kernels, failing=()):
        self.objective, self.failing, self.calls = objective, failing, []

    def __call__(self, specs, epochs):
        self.calls.append((epochs, [spec.name for spec in specs]))
        return {spec.name: self.objective(spec) * epochs / 9 for spec in specs if spec.name not in self.failing}


def searched(train, extent, price=None, counted=alike):
    costs = price or (lambda specs: {spec.name: 1.0 for spec in specs})
    return search_generations(SPACE, extent, counted, lambda own: LIMIT, costs, train)


EXTENT = Generations(12, 6, (1, 3, 9))


def test_the_baseline_is_one_of_its_space_and_is_tried_first():
    assert expand(SPACE.spec(SPACE.own)) == expand(SPACE.base)
    for name, value in SPACE.own.items():
        assert value in SPACE.choices[name]
    train = Trainer()
    searched(train, EXTENT)
    assert train.calls[0][1][0] == SPACE.spec(SPACE.own).name


def test_every_entry_changes_the_network_and_its_name():
    for name, values in SPACE.choices.items():
        specs = [SPACE.spec({**SPACE.own, name: value}) for value in values]
        different = len({(expand(each), each.activation) for each in specs})
        assert len({each.name for each in specs}) == different and different >= min(2, len(values)), name


@pytest.mark.parametrize("base", ["lite0", "v2-b0", "mobilenetv2"])
def test_other_baselines_are_in_their_own_space(base):
    space = BaselineSpace(architecture_spec(base))
    assert all(value in space.choices[name] for name, value in space.own.items())
    assert expand(space.spec(space.own)) == expand(space.base)


def test_a_generation_is_thinned_out_and_the_best_are_trained_longest():
    train = Trainer()
    found = {each.spec.name: each for each in searched(train, EXTENT)}
    assert [(epochs, len(names)) for epochs, names in train.calls] == [(1, 6), (3, 2), (9, 1)] * 2
    generation = train.calls[0][1]
    longest = max(generation, key=lambda name: kernels(found[name].spec))
    assert found[longest].epochs == 9 and sum(each.epochs == 9 for each in found.values()) == 2


def test_candidates_cost_about_as_much_as_the_baseline():
    own = macs(SPACE.base)
    assert all(0.5 <= macs(each.spec) / own <= 1.25 for each in searched(Trainer(), EXTENT, counted=macs))


def test_sampling_learns_from_results():
    """The second half of a search is better than the first, which is drawn at random."""
    found = searched(Trainer(), Generations(60, 10, (9,)))
    values = [kernels(each.spec) for each in found]
    assert sum(values[-20:]) / 20 > sum(values[:20]) / 20 + 0.1


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_a_repeated_search_asks_for_the_same_candidates(sampler):
    first, again = Trainer(), Trainer()
    extent = Generations(12, 6, (1, 3, 9), sampler=sampler)
    assert searched(first, extent) == searched(again, extent) and first.calls == again.calls
    assert searched(Trainer(), Generations(12, 6, (1, 3, 9), seed=1)) != searched(Trainer(), EXTENT)


def test_a_failed_training_drops_out():
    train = Trainer()
    searched(train, EXTENT)
    failing = train.calls[0][1][2]
    found = searched(Trainer(failing=[failing]), EXTENT)
    assert failing not in [each.spec.name for each in found] and len(found) >= 10


def test_what_cannot_be_priced_is_not_trained():
    train = Trainer()
    searched(train, EXTENT)
    dropped = train.calls[0][1][1]
    again = Trainer()
    searched(again, EXTENT, lambda specs: {spec.name: 1.0 for spec in specs if spec.name != dropped})
    assert all(dropped not in names for _, names in again.calls)


def test_the_reward_trades_accuracy_for_cost_as_published():
    assert reward(0.8, 2.0, 2.0) == 0.8
    assert reward(0.8, 4.0, 2.0) == pytest.approx(0.8 * 2**-0.07) == pytest.approx(0.762, abs=1e-3)


def test_the_front_comes_before_what_it_dominates():
    base = SPACE.base
    cheap, good, worse = (Scored(base, *figures, 9, 0.0) for figures in ((1.0, 0.5), (2.0, 0.7), (2.0, 0.6)))
    best = Scored(base, 2.0, 0.6, 9, 0.9)
    assert ordered([worse, good, cheap], "nsga2")[-1] is worse
    assert ordered([good, best], "tpe")[0] is best


@pytest.mark.parametrize("wrong", [{"count": 1}, {"size": 1}, {"reduction": 1}, {"sampler": "random"}])
def test_a_senseless_extent_is_refused(wrong):
    with pytest.raises(UserError):
        Generations(**{"count": 8, "size": 4, "rungs": (1,)} | wrong)
