"""Run a scaling study: every network is trained with every seed by one frozen protocol.

Results are written as soon as they exist, and an interrupted study can be resumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from keras_effnet.study.adaptive.cost_groups import measured_costs
from keras_effnet.study.adaptive.learning_rates import tuned_rates
from keras_effnet.study.adaptive.time_budgets import measured_paces, unused_time
from keras_effnet.study.adaptive.until_clear import train_until_clear, within_hours
from keras_effnet.study.executors import check_engine, engine
from keras_effnet.study.measurement.held_out import trial_folder
from keras_effnet.study.networks import Member, cost_warnings
from keras_effnet.study.plan import Plan, begin, prepare
from keras_effnet.study.protocol import Budget, Pace, training_epochs
from keras_effnet.study.results import read_results
from keras_effnet.study.scheduler import TrainingArguments, run_trials
from keras_effnet.study.statistics.answers import power_sentence
from keras_effnet.study.statistics.looks import Looks
from keras_effnet.study.summary import check_target
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system.typed_values import called_with


@dataclass(frozen=True)
class StudyResult:
    """Results of a study.

    Args:
        folder: Path, with `results.jsonl`, `protocol.yaml`, `env.json` and the run folder of every training.
        rows: List of dicts, the rows of `results.jsonl`: one of kind `"cost"` for each network, one of kind
            `"training"` for each training, and `"roofline"` and `"failure"` rows.
        failures: Mapping, failed training to its error in one line.
    """

    folder: Path
    rows: list[dict[str, Any]]
    failures: Mapping[str, str]


@dataclass(frozen=True)
class StudyArguments(TrainingArguments):
    """Arguments of `run`."""

    data: str | Mapping[str, Any]
    members: Sequence[Member]
    folder: str | Path
    budget: Budget | None = field(default=None, kw_only=True)
    seeds: int = field(default=3, kw_only=True)
    announce: Callable[[str], None] = field(default=lambda text: None, kw_only=True)
    target: float | None = field(default=None, kw_only=True)
    rates: Sequence[float] = field(default=(), kw_only=True)
    max_seeds: int | None = field(default=None, kw_only=True)
    max_hours: float | None = field(default=None, kw_only=True)


@called_with(StudyArguments)
def run(given: StudyArguments) -> StudyResult:
    """Train every network with every seed and measure the cost of each; an existing study is resumed.

    Costs are measured before any training, so that trainings do not disturb the timing, and networks in turn, so that
    other load affects them alike. With a budget of seconds, the pace of each network is then measured with as many
    trainings of it at once as `workers`. A finished training is never repeated; one that was killed continues from its
    last epoch.

    Args:
        data: Source for `datasets.load`, or a mapping of its arguments. Where there are test images, they alone report:
            validation images choose. A source without them gives a tenth of its training images, a mapping the share
            `test_split` that it names.
        members: `Member`s, from `scaled`, `family` or `progressive`.
        folder: Folder of the study. An existing one is resumed: its protocol must be the same, and its networks and
            seeds are kept and joined with those given here.
        budget: `Budget` of each training; default: 3 epochs.
        seeds: Int, at least 1, trainings of each network.
        options, threads, workers, cluster, progress: See `TrainingArguments`.
        announce: Function that is called with what to know before the first training: sizes at which MACs jump, axes
            of unequal cost, and the seeds that it takes to see a difference.
        target: Float in (0, 1) or None, accuracy for the time to a target, which is checked before any training.
        rates: Floats, learning rates out of which each network gets the one with the best validation accuracy after a
            third of the epochs, see `protocol.rate_grid`; by default all have that of `options`.
        max_seeds: Int or None, number up to which seeds are added to networks whose comparison is unclear: doubled
            until every comparison of the answer is settled. None adds no seeds.
        max_hours: Float or None, time of this run after which no more seeds are added.

    Returns:
        A `StudyResult`. Failed trainings are listed in `failures`; the next run repeats them.

    Raises:
        UserError: The folder has another protocol, there is no data, the target is at chance level, the disk is full,
            or a process was killed.

    Example:

    >>> from keras_effnet import study
    >>> from keras_effnet.study.networks import scaled
    >>> result = study.run("digits-cluttered", scaled("b0", [-3, -2, -1]), "runs/study/digits", seeds=2)
    """
    progress, announce = given.progress, given.announce
    check_engine(given.workers, given.cluster)
    progress("Loading the data", 0, 1)
    names = ("data", "members", "seeds", "budget", "options", "threads", "rates", "max_seeds")
    plan, dataset = prepare(**{name: getattr(given, name) for name in names})
    classes, images = len(dataset.class_names), (len(dataset.train), len(dataset.val))
    guessable = not any(member.detects for member in plan.members)
    check_target(given.target, classes if guessable else None, images[1])
    for warning in cost_warnings(given.members, plan.protocol.options):
        announce(warning)
    if len(plan.members) > 1 and guessable:
        kind = "test" if dataset.test else "validation"
        announce(power_sentence(len(dataset.held_out), len(plan.members) - 1, kind=kind))
    folder = Path(given.folder)
    with begin(folder, plan, dataset) as whole:
        with engine() as submit:
            costs = measured_costs(folder, whole, classes, submit, progress)
        at_once = min(given.workers, len(whole.members) * (whole.max_seeds or whole.seeds))
        with engine(given.workers, given.cluster) as submit:
            paces = measured_paces(folder, whole.protocol, whole.members, costs, submit, at_once, progress)
            runs = _Runs(folder, whole, costs, classes, images, paces)
            if unequal := unused_time(whole.protocol.budget.amount, runs.planned_seconds()):
                announce(unequal)
            if whole.protocol.rates:
                every = runs.up_to({member.name: 1 for member in whole.members})
                runs = replace(runs, rates=tuned_rates(folder, every, submit, progress))
            failures = train_until_clear(
                [member.name for member in whole.members],
                Looks(whole.seeds, whole.max_seeds or whole.seeds),
                lambda seeds: run_trials(folder, runs.up_to(seeds), submit, progress),
                lambda: read_results(folder),
                within_hours(given.max_hours, lambda: read_results(folder), given.workers),
                announce,
            )
        return StudyResult(folder, read_results(folder), failures)


@dataclass(frozen=True)
class _Runs:
    """Trainings of a study.

    Args:
        folder, plan: Of the study.
        costs: Mapping, name of each network to its row of kind `"cost"`.
        classes: Int, number of classes of the data.
        images: Pair of ints, numbers of training and validation images.
        paces: Mapping, name of each network to its `Pace`, for a budget of seconds.
        rates: Mapping, name of each network to its learning rate, where it has one of its own.
    """

    folder: Path
    plan: Plan
    costs: Mapping[str, Mapping[str, Any]]
    classes: int
    images: tuple[int, int]
    paces: Mapping[str, Pace] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)

    def up_to(self, seeds: Mapping[str, int]) -> list[TrainingRun]:
        """Trainings with the first seeds of each network, seed by seed: an interrupted study has every network."""
        return [
            self._training(member, seed)
            for seed in range(max(seeds.values()))
            for member in self.plan.members
            if seed < seeds[member.name]
        ]

    def _training(self, member: Member, seed: int) -> TrainingRun:
        protocol, place = self.plan.protocol, trial_folder(self.folder, member.name, seed)
        epochs, pace = self._epochs(member), self.paces.get(member.name)
        seconds = pace.seconds(epochs) if pace else None
        if member.name in self.rates:
            protocol = protocol.at_rate(self.rates[member.name])
        study = str(self.folder.resolve())
        return TrainingRun(protocol, member, seed, epochs, str(place.resolve()), study=study, predicted_seconds=seconds)

    def _epochs(self, member: Member) -> int:
        pace = self.paces.get(member.name)
        return training_epochs(self.plan.protocol, member, self.costs[member.name], self.classes, self.images, pace)

    def planned_seconds(self) -> dict[str, float]:
        """Predicted duration of a training of each network, where its pace was measured."""
        members = [member for member in self.plan.members if member.name in self.paces]
        return {member.name: self.paces[member.name].seconds(self._epochs(member)) for member in members}
