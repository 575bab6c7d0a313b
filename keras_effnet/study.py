"""The scaling study: networks x seeds, each trained by one frozen protocol, every result kept as soon as it is there.

Imports `protocol`, `members`, `ledger`, `engines`, `trials`, `datasets`, `runs`, `errors`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from keras_effnet import ledger
from keras_effnet.callbacks import LAST, read_rows
from keras_effnet.engines import engine, failure
from keras_effnet.errors import UserError
from keras_effnet.members import Member
from keras_effnet.protocol import Budget, Protocol, macs_per_epoch
from keras_effnet.runs import write_environment, write_text
from keras_effnet.trials import Trial, load_data, measure_cost, train_trial

RESULTS, PROTOCOL = "results.jsonl", "protocol.yaml"
_POLL = 0.5  # seconds between looks at how far the trainings are


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


@dataclass(frozen=True)
class Plan:
    """A study as its folder keeps it.

    Args:
        protocol: `Protocol`.
        members: Tuple of `Member`s, with different names.
        seeds: Int, trainings of each, seeded 0, 1, 2 ...
    """

    protocol: Protocol
    members: tuple[Member, ...]
    seeds: int

    def __post_init__(self):
        names = [member.name for member in self.members]
        if not names:
            raise UserError("A study needs at least one network.")
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"Two networks of the study are called {name!r}.")
        if self.seeds < 1:
            raise UserError(f"A study needs at least one seed, got {self.seeds}.")

    def save(self, folder: Path) -> None:
        values = self.protocol.to_dict() | {"members": [asdict(member) for member in self.members], "seeds": self.seeds}
        write_text(folder / PROTOCOL, yaml.safe_dump(values, sort_keys=False))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan of an earlier study.

        Raises:
            UserError: There is none, or it is damaged.
        """
        path = folder / PROTOCOL
        if not path.is_file():
            raise UserError(f"{folder} is no study: it has no {PROTOCOL}.")
        try:
            values = yaml.safe_load(path.read_text())
            members, seeds = values.pop("members"), values.pop("seeds")
            return cls(Protocol.from_dict(values), tuple(Member(**member) for member in members), seeds)
        except (yaml.YAMLError, KeyError, TypeError, AttributeError):
            raise UserError(f"{path} is damaged. Start the study anew.") from None

    def joined(self, earlier: Plan) -> Plan:
        """This and what an earlier run of the study already had; the protocol must be the same.

        Raises:
            UserError: Another protocol, or another network of the same name.
        """
        for name, value in self.protocol.to_dict().items():
            before = earlier.protocol.to_dict()[name]
            if value != before:
                raise UserError(
                    f"The study was begun with {name} {before!r}, now it is {value!r}: its results would not compare. "
                    "Give the new one another --name."
                )
        known = {member.name: member for member in earlier.members}
        for member in self.members:
            if known.setdefault(member.name, member) != member:
                raise UserError(f"{member.name} was another network when the study began; give it another --name.")
        return Plan(self.protocol, tuple(known.values()), max(self.seeds, earlier.seeds))


Progress = Callable[[str, float, float], None]


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
        budget: `Budget` of each training; 8 epochs unless given.
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
    >>> from keras_effnet.members import scaled
    >>> result = study.run("digits-cluttered", scaled("b0", [-3, -2, -1]), "runs/study/digits", seeds=2)
    """
    origin = dict(data) if isinstance(data, Mapping) else {"source": str(data)}
    protocol = Protocol(origin, budget or Budget(), dict(options or {}), threads)
    plan, folder = Plan(protocol, tuple(members), seeds), Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"Cannot write study folder {folder}: {error.strerror}.") from None
    with ledger.alone_in(folder), ExitStack() as stack:
        if (folder / PROTOCOL).exists():
            plan = plan.joined(Plan.read(folder))
        progress("Looking at the data", 0, 1)
        dataset = load_data(protocol, plan.members[0])
        plan.save(folder)
        write_environment(folder)
        classes, pictures = len(dataset.class_names), (len(dataset.train), len(dataset.val))
        costs = _costs(folder, plan, classes, progress)
        submit = stack.enter_context(engine(workers, cluster))
        failures = _trainings(folder, _trials(folder, plan, costs, classes, pictures), submit, progress)
        return StudyResult(folder, ledger.read(folder / RESULTS), failures)


def _costs(folder: Path, plan: Plan, classes: int, progress: Progress) -> dict[str, dict[str, Any]]:
    """What each network costs, measured where no earlier run did."""
    known = {row["member"]: row for row in ledger.read(folder / RESULTS) if row["kind"] == "cost"}
    with engine() as submit:
        for number, member in enumerate(plan.members):
            if member.name in known:
                continue
            progress(f"Timing {member.name}", number, len(plan.members))
            try:
                row = submit(measure_cost, plan.protocol, member, classes).result()
            except BrokenProcessPool:
                raise _killed(folder, f"timing {member.name}") from None
            ledger.append(folder / RESULTS, row)
            known[member.name] = row
    return known


def _killed(folder: Path, doing: str) -> UserError:
    return UserError(
        f"The process {doing} was killed; memory may have run out. What was finished is kept: run it again on "
        f"{folder} (--resume), with a smaller --batch-size in another study if it happens again."
    )


def _trials(folder: Path, plan: Plan, costs: Mapping[str, Mapping[str, Any]], classes: int, pictures) -> list[Trial]:
    """All trainings, seed by seed: a study that is broken off has something of every network."""
    trials = []
    for seed in range(plan.seeds):
        for member in plan.members:
            epochs = _epochs(plan.protocol, member, costs[member.name], classes, pictures)
            place = folder / "trials" / member.name / f"seed{seed}"
            trials.append(Trial(plan.protocol, member, seed, epochs, str(place.resolve())))
    return trials


def _epochs(protocol: Protocol, member: Member, cost: Mapping[str, Any], classes: int, pictures) -> int:
    train, val = pictures
    config = protocol.config(member)
    milliseconds = (
        train // config.batch_size * cost["step_ms"] + math.ceil(val / config.batch_size) * cost["predict_ms"]
    )
    epochs = protocol.budget.epochs(
        seconds_per_epoch=milliseconds / 1e3, macs_per_epoch=macs_per_epoch(config, member, train, classes)
    )
    return max(epochs, len(member.sizes))  # one an image size at least


def _trainings(folder: Path, trials: Sequence[Trial], submit, progress: Progress) -> dict[str, str]:
    """Runs what is not yet in the ledger; returns what failed, and why."""
    finished = {(row["member"], row["seed"]) for row in ledger.read(folder / RESULTS) if row["kind"] == "training"}
    waiting: dict[Future, Trial] = {
        submit(train_trial, trial): trial for trial in trials if (trial.member.name, trial.seed) not in finished
    }
    failures: dict[str, str] = {}
    while waiting:
        done, _ = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED)
        for future in done:
            trial = waiting.pop(future)
            name = f"{trial.member.name}, seed {trial.seed}"
            try:
                row = future.result()
            except BrokenProcessPool:
                raise _killed(folder, f"training {name}") from None
            except Exception as error:  # of whatever kind: the other trials do not depend on it
                failures[name] = failure(error)
                continue
            ledger.append(folder / RESULTS, row)
            (Path(trial.folder) / LAST).unlink(missing_ok=True)  # the optimizer's slots; nothing goes on from here
        _tell(trials, waiting.values(), progress)
    return failures


def _tell(trials: Sequence[Trial], waiting: Iterable[Trial], progress: Progress) -> None:
    behind = [(trial, len(read_rows(Path(trial.folder)))) for trial in waiting]
    total = sum(trial.target for trial in trials)
    done = total - sum(trial.target - epochs for trial, epochs in behind)
    training = ", ".join(f"{trial.member.name} seed {trial.seed}" for trial, epochs in behind if epochs)
    progress(f"Training {training}" if training else "Training", done, total)
