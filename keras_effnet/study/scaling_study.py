"""The scaling study: networks x seeds, each trained by one frozen protocol, every result kept as soon as it is there.

Imports `protocol`, `members`, `plans`, `runner`, `engines`, `trials`, `ledger`, `errors`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.architecture.baselines import architecture_spec
from keras_effnet.study.costs import measure_cost, measure_roofline
from keras_effnet.study.executors import engine
from keras_effnet.study.networks import Member
from keras_effnet.study.plan import RESULTS_JSONL, Plan, begin, prepare
from keras_effnet.study.protocol import Budget, Protocol, macs_per_epoch
from keras_effnet.study.scheduler import Progress, killed, run_trials
from keras_effnet.study.trial import TrainingRun
from keras_effnet.system import jsonl


@dataclass(frozen=True)
class StudyResult:
    """What a study left.

    Args:
        folder: Path, with `results.jsonl`, `protocol.yaml`, `env.json` and the run folder of every trial.
        rows: List of dicts, as in `results.jsonl`: of kind `"cost"`, one a network, and `"training"`, one a trial.
        failures: Mapping of trial -> what went wrong, in one line.
    """

    folder: Path
    rows: list[dict[str, Any]]
    failures: Mapping[str, str]


def run(
    data: str | Mapping[str, Any],
    members: Sequence[Member],
    folder: str | Path,
    *,
    budget: Budget | None = None,
    seeds: int = 3,
    options: Mapping[str, Any] | None = None,
    threads: int = 0,
    workers: int = 1,
    cluster: str | None = None,
    progress: Progress = lambda text, done, total: None,
) -> StudyResult:
    """Trains every network with every seed and measures what each costs; goes on where an earlier run stopped.

    Costs are measured one network at a time, before any training, so that parallel trainings do not disturb the
    clock. A finished trial is never repeated; one that was killed goes on from its last epoch.

    Args:
        data: What `datasets.load` takes, or a mapping of its arguments.
        members: `Member`s, see `members.scaled`, `members.family`, `members.progressive`.
        folder: The study's folder. One that exists is gone on with: its protocol must be this one, its networks and
            seeds are kept and those given here added.
        budget: `Budget` of each training; 3 epochs unless given.
        seeds: Int, trainings of each network.
        options: Mapping of `TrainConfig` options that all trainings share.
        threads: Int, of each training; 0 leaves that to TensorFlow.
        workers: Int, trainings at a time.
        cluster: String or None, a Ray cluster to run them on: `"local"`, `"auto"` or its address.
        progress: Called with a text, epochs done and epochs in all.

    Returns:
        A `StudyResult`. Trials that failed are in `failures`; another run tries them again.

    Raises:
        UserError: Another protocol than the folder's, no data, a full disk, or a process that was killed.

    Example:

    >>> from keras_effnet import study
    >>> from keras_effnet.study.networks import scaled
    >>> result = study.run("digits-cluttered", scaled("b0", [-3, -2, -1]), "runs/study/digits", seeds=2)
    """
    progress("Looking at the data", 0, 1)
    plan, dataset = prepare(data, members, seeds, budget=budget, options=options, threads=threads)
    classes, images = len(dataset.class_names), (len(dataset.train), len(dataset.val))
    folder = Path(folder)
    with begin(folder, plan) as whole:
        costs = _measured(folder, whole, classes, progress)
        with engine(workers, cluster) as submit:
            failures = run_trials(folder, _trials(folder, whole, costs, classes, images), submit, progress)
        return StudyResult(folder, jsonl.read(folder / RESULTS_JSONL), failures)


def _measured(folder: Path, plan: Plan, classes: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """What each network costs, and a roofline of each kind of network; measured where no earlier run did."""
    rows = jsonl.read(folder / RESULTS_JSONL)
    costs = {row["member"]: row for row in rows if row["kind"] == "cost"}
    seen = {row["member"] for row in rows if row["kind"] == "roofline"}
    work = [(measure_cost, member) for member in plan.members if member.name not in costs]
    work += [(measure_roofline, member) for member in _kinds(plan.members) if member.name not in seen]
    with engine() as submit:
        for number, (measure, member) in enumerate(work):
            progress(f"Measuring {member.name}", number, len(work))
            try:
                row = submit(measure, plan.protocol, member, classes).result()
            except BrokenProcessPool:
                raise killed(folder, f"measuring {member.name}") from None
            jsonl.append(folder / RESULTS_JSONL, row)
            if row["kind"] == "cost":
                costs[member.name] = row
    return costs


def _kinds(members: Sequence[Member]) -> list[Member]:
    """One network of each build: EfficientNets differ among themselves in size, ResNets from them in what they do."""
    first: dict[tuple[str, bool], Member] = {}
    for member in members:
        stage = architecture_spec(member.model).stages[0]
        first.setdefault((stage.block, stage.se_ratio > 0), member)
    return list(first.values())


def _trials(
    folder: Path, plan: Plan, costs: Mapping[str, Mapping[str, Any]], classes: int, images
) -> list[TrainingRun]:
    """All trainings, seed by seed: a study that is broken off has something of every network."""
    trials = []
    for seed in range(plan.seeds):
        for member in plan.members:
            epochs = _epochs(plan.protocol, member, costs[member.name], classes, images)
            place = folder / "trials" / member.name / f"seed{seed}"
            trials.append(TrainingRun(plan.protocol, member, seed, epochs, str(place.resolve())))
    return trials


def _epochs(protocol: Protocol, member: Member, cost: Mapping[str, Any], classes: int, images) -> int:
    train, val = images
    config = protocol.config(member)
    milliseconds = (
        train // config.batch_size * cost["step_ms"] + math.ceil(val / config.batch_size) * cost["predict_ms"]
    )
    epochs = protocol.budget.epochs(
        seconds_per_epoch=milliseconds / 1e3, macs_per_epoch=macs_per_epoch(config, member, train, classes)
    )
    return max(epochs, len(member.sizes))  # one an image size at least
