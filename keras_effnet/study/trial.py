"""One training of a study, run in its own process. TensorFlow is loaded there."""

from __future__ import annotations

import math
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from keras_effnet.errors import UserError
from keras_effnet.study.measurement.held_out import ANSWERS, Answers
from keras_effnet.study.networks import Member
from keras_effnet.study.protocol import Protocol
from keras_effnet.system.files import WriteError, make_folder, write_text
from keras_effnet.system.machine import peak_resident_bytes
from keras_effnet.system.output import captured_output

_CURVE = ("epoch", "loss", "accuracy", "val_loss", "seconds")
LOG = "log.txt"


@dataclass(frozen=True)
class TrainingRun:
    """One training of a study.

    Args:
        protocol: `Protocol`.
        member: `Member`, the network to train.
        seed: Int.
        epochs: Int, length of the learning rate schedule.
        folder: String, its run folder.
        until: Int or None, number of epochs after which the training pauses; it continues with a larger value.
        study: String or None, the folder of the study, whose data the training must have.
        reports: Bool, whether it answers for the held-out images at the end; False for what chooses.
        predicted_seconds: Float or None, its duration by the measured pace of the network.
    """

    protocol: Protocol
    member: Member
    seed: int
    epochs: int
    folder: str
    until: int | None = None
    study: str | None = None
    reports: bool = True
    predicted_seconds: float | None = None

    def __str__(self) -> str:
        return f"{self.member.name} seed {self.seed}"

    @property
    def target(self) -> int:
        """Number of epochs completed when the training ends or pauses."""
        return min(self.until or self.epochs, self.epochs)


def limit_threads(threads: int) -> None:
    """Compute with this many threads in this process, in operations and input pipeline together.

    As many operations run side by side as there are threads, each in half as many: most layers of a small network gain
    little from more.

    Args:
        threads: Int; 0 leaves the choice to TensorFlow, which must not have computed anything yet.
    """
    import tensorflow as tf

    if threads:
        tf.config.threading.set_inter_op_parallelism_threads(threads)  # those of tf.data too
        tf.config.threading.set_intra_op_parallelism_threads(math.ceil(threads / 2))


def _peak_memory_mb() -> float:
    return round(peak_resident_bytes() / 1e6, 1)


def _finite(value: float) -> float | None:
    """Round a number for JSON; None for NaN and infinity, as the validation loss of an early epoch can be."""
    return round(value, 5) if math.isfinite(value) else None


def load_data(protocol: Protocol, member: Member, **options):
    """Load the data of a study; cluttered scenes are drawn at the input size of the network."""
    from keras_effnet import datasets

    dataset = datasets.load(**{"image_size": member.image_size, **protocol.data, **options})
    check_task(dataset, member)
    return dataset


def check_task(dataset: Any, member: Member) -> None:
    """Refuse data for which a network is not: boxes are for detectors, classes for all others.

    Raises:
        UserError: They do not fit.
    """
    from keras_effnet.datasets.labels.conversion import require_task

    if dataset.task == "detection" and not member.detects:
        raise UserError(
            f"{dataset.name} has boxes, and {member.name} is no detector: `keras-effnet study DATA --models "
            "det-lite0,det-d0` compares some."
        )
    if dataset.task != "detection":
        cure = "Studies compare classifiers and detectors, searches classifiers; keras-effnet train takes other tasks."
        require_task(dataset.name, dataset.task, "classification", cure)
        if member.detects:
            raise UserError(f"{member.name} is a detector, and {dataset.name} has no boxes.")


def check_data(dataset: Any, folder: Path) -> None:
    """Refuse data that have changed since a study or search was started in `folder`.

    Raises:
        UserError: Images were added, removed, replaced or relabelled.
    """
    from keras_effnet.datasets.findings.data_identity import check_identity

    check_identity(dataset, folder, "or start anew with another --name")


def train_trial(trial: TrainingRun) -> dict[str, Any]:
    """Start or resume a training and return its row of `results.jsonl`.

    `accuracy` is the validation accuracy of the last epoch: that of the best epoch would be selected on the validation
    images and so be biased. `test_accuracy` is that of the same weights on the test images, where there are any. Of a
    detector both are average precisions, which `metric` says.
    """
    folder = Path(trial.folder)
    make_folder(folder)
    lines: list[str] = []
    try:
        with captured_output() as lines:
            return _train(trial, folder)
    except Exception:
        lines.append(traceback.format_exc())  # the results have only one line of the error
        raise
    finally:
        with suppress(OSError, WriteError):  # a full disk has already raised an error
            write_text(folder / LOG, "\n".join(lines) + "\n")


def _train(trial: TrainingRun, folder: Path) -> dict[str, Any]:
    limit_threads(trial.protocol.threads)
    from keras_effnet.system.energy import energy_meter
    from keras_effnet.training.checkpoints import LAST, read_rows
    from keras_effnet.training.run import fit_dataset
    from keras_effnet.training.watchers import Pause

    config = trial.protocol.config(trial.member, seed=trial.seed, epochs=trial.epochs)
    dataset, resume = load_data(trial.protocol, trial.member), (folder / LAST).is_file()
    watched = trial.member.watched
    rows, peak = read_rows(folder, watched), None
    if trial.study is not None:
        check_data(dataset, Path(trial.study))
    with energy_meter() as energy:
        if len(rows) < trial.target:
            (folder / ANSWERS).unlink(missing_ok=True)
            fit_dataset(dataset, config, folder, resume=resume, callbacks=[Pause(trial.target)])
            rows, peak = read_rows(folder, watched), _peak_memory_mb()
    tested: dict[str, Any] = {}
    if trial.reports and trial.target == trial.epochs:
        tested = (
            _held_out_boxes(dataset, config, folder) if trial.member.detects else _held_out(dataset, config, folder)
        )
    score = watched.column
    rows = rows[: trial.target]
    waits = [row["input_bound"] for row in rows if "input_bound" in row]
    return {
        "kind": "training",
        "member": trial.member.name,
        "seed": trial.seed,
        **({"metric": watched.title} if trial.member.detects else {}),
        "accuracy": rows[-1][score],
        "best_accuracy": max(row[score] for row in rows if not math.isnan(row[score])),
        "epochs": len(rows),
        "scheduled_epochs": trial.epochs,
        "learning_rate": config.learning_rate,
        "val_images": len(dataset.val),
        **tested,
        "train_seconds": round(sum(row["seconds"] for row in rows), 2),
        **({} if trial.predicted_seconds is None else {"predicted_seconds": round(trial.predicted_seconds, 2)}),
        "input_bound": round(fmean(waits), 4) if waits else None,
        "energy_joules": None if resume else energy.joules,
        "peak_memory_mb": peak,
        "curve": [
            {name: _finite(row[name]) for name in _CURVE if name in row} | {"val_accuracy": _finite(row[score])}
            for row in rows
        ],
    }


def _held_out(dataset: Any, config: Any, folder: Path) -> dict[str, Any]:
    """Answer for the held-out images of a classifier, and return what the row tells of test images."""
    answers = Answers.read(folder) or _answers(dataset, config, folder)
    if dataset.test is None:
        return {}
    return {"test_accuracy": round(answers.accuracy, 5), "test_images": len(answers.truth)}


def _held_out_boxes(dataset: Any, config: Any, folder: Path) -> dict[str, Any]:
    """Average precision on held-out images, and on resamples of them, which all networks of a study have alike."""
    from keras_effnet.study.measurement.held_out_boxes import box_scores

    found = box_scores(dataset, config, folder)
    tested = {} if dataset.test is None else {"test_accuracy": round(found.ap, 5), "test_images": found.images}
    return tested | {"resampled": [round(value, 5) for value in found.resampled]}


def _answers(dataset: Any, config: Any, folder: Path) -> Answers:
    """Predict the held-out images and store the answers: the last weights are removed once the row is written."""
    from keras_effnet.evaluation.metrics import collect_outcomes
    from keras_effnet.training.run import predict_held_out

    found = collect_outcomes([(predict_held_out(dataset, config, folder), dataset.held_out.labels)])
    columns = (found.labels, found.predicted, (100 * found.confidence).round().astype(int))
    answers = Answers("test" if dataset.test else "validation", *(tuple(column.tolist()) for column in columns))
    answers.save(folder)
    return answers
