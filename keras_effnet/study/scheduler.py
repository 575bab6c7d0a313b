"""Schedule the trainings of a study on an executor and record each result as soon as it exists."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet.errors import UserError
from keras_effnet.study.executors import Submit, failure, unwrapped
from keras_effnet.study.results import RESULTS_JSONL, read_results
from keras_effnet.study.trial import TrainingRun, train_trial
from keras_effnet.system import jsonl
from keras_effnet.system.files import WriteError
from keras_effnet.training.checkpoints import LAST, read_rows

StudyProgress = Callable[[str, float, float], None]
Row = dict[str, Any]


def _silent(text: str, done: float, total: float) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class TrainingArguments:
    """Arguments of studies and searches: what their trainings share, and where they run.

    Args:
        options: Mapping of `TrainConfig` options that all trainings share.
        threads: Int, CPU threads of each training; 0 leaves the choice to TensorFlow.
        workers: Int, number of parallel trainings.
        cluster: String or None, the Ray cluster to train on: `"local"`, `"auto"` or its address.
        progress: Function that is called with a text, the epochs completed and the total epochs.
    """

    options: Mapping[str, Any] | None = None
    threads: int = 0
    workers: int = 1
    cluster: str | None = None
    progress: StudyProgress = _silent


_POLL = 0.5  # seconds between progress updates


def killed(folder: Path, doing: str) -> UserError:
    """The error for a training process that was killed."""
    return UserError(
        f"The process {doing} was killed, probably out of memory. Finished results are kept: continue with --resume "
        f"{folder}, or start another study with a smaller batch size."
    )


def run_trials(
    folder: Path,
    trials: Sequence[TrainingRun],
    submit: Submit,
    progress: StudyProgress,
    follow: Callable[[TrainingRun, Row], TrainingRun | None] = lambda trial, row: None,
) -> dict[str, str]:
    """Run the trainings that have no row in `results.jsonl` yet.

    Args:
        folder: Path, folder of the study.
        trials: `TrainingRun`s, in the order in which they start.
        submit: Function from `executors`.
        progress: Function that is called with a text, the epochs completed and the total epochs.
        follow: Function of a training and its row, new or from an earlier run; returns a further training, or None.

    Returns:
        Dict, failed training to its error in one line. A failure does not stop the other trainings.

    Raises:
        UserError: A process was killed, or the folder cannot be written, such as on a full disk.
    """
    results = folder / RESULTS_JSONL
    known = {_key(row): row for row in read_results(folder) if row["kind"] == "training"}
    pending = {(trial.member.name, trial.seed, trial.target): trial for trial in trials}
    waiting: dict[Future, TrainingRun] = {}
    failures: dict[str, str] = {}
    total, done = sum(trial.target for trial in trials), 0

    def settle(trial: TrainingRun, row: Row) -> None:
        nonlocal total, done
        done += trial.target
        if further := follow(trial, row):
            total += further.target
            pending[(*_key(row)[:2], further.target)] = further

    # In their original order: decisions of `follow` may depend on the rows before, and must be repeated exactly.
    for key, row in known.items():
        if key in pending:
            settle(pending.pop(key), row)
    while pending or waiting:
        for key in list(pending):
            trial = pending.pop(key)
            waiting[submit(train_trial, trial)] = trial
        finished = wait(waiting, timeout=_POLL, return_when=FIRST_COMPLETED).done
        for future in [each for each in waiting if each in finished]:  # `finished` is an unordered set
            trial = waiting.pop(future)
            row = _outcome(future, trial, Path(trial.study or folder))
            jsonl.append(results, row)
            if row["kind"] == "failure":
                failures[str(trial)] = row["error"]
            else:
                settle(trial, row)
                if trial.target == trial.epochs:
                    # Training is complete: drop the optimizer state.
                    (Path(trial.folder) / LAST).unlink(missing_ok=True)
        _tell(waiting.values(), done, total, progress)
    return failures


def _key(row: Row) -> tuple[str, int, int]:
    return row["member"], row["seed"], row["epochs"]


def _outcome(future: Future, trial: TrainingRun, folder: Path) -> Row:
    try:
        return future.result()
    except BrokenProcessPool:
        raise killed(folder, f"training {trial}") from None
    except Exception as error:
        if isinstance(unwrapped(error), WriteError):  # the other trainings write to the same disk
            raise unwrapped(error) from None
        return {"kind": "failure", "member": trial.member.name, "seed": trial.seed, "error": failure(error)}


def _tell(waiting: Iterable[TrainingRun], done: int, total: int, progress: StudyProgress) -> None:
    behind = [(trial, len(read_rows(Path(trial.folder), trial.member.watched))) for trial in waiting]
    training = ", ".join(str(trial) for trial, epochs in behind if epochs)
    progress(f"Training {training}" if training else "Training", done + sum(epochs for _, epochs in behind), total)
