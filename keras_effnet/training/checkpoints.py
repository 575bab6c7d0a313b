"""Run folder of a training: checkpoints and `results.csv`, written after every epoch. Keras only."""

from __future__ import annotations

import csv
import io
import shlex
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TypedDict

import keras

from keras_effnet.errors import UserError
from keras_effnet.system.documents import read_text
from keras_effnet.system.files import WriteError, atomic, cannot_write, disk_full, make_folder, write_text
from keras_effnet.system.run_folders import locked
from keras_effnet.system.typed_values import conform
from keras_effnet.tasks.learning import ACCURACY, Watched
from keras_effnet.training.distribution import alone, is_chief, synchronized_batch_norm
from keras_effnet.training.ema import AveragedWeights
from keras_effnet.training.optimizers import learning_rate

BEST, LAST, RESULTS_CSV = "weights/best.keras", "weights/last.keras", "results.csv"


class _Row(TypedDict):
    """Column that every row has, beside the watched metric."""

    epoch: float


def read_rows(folder: Path, watched: Watched = ACCURACY) -> list[dict[str, float]]:
    """Read a run folder's `results.csv`, one row per epoch; an empty list if there is none.

    Args:
        folder: Path of the run folder.
        watched: `Watched`, the metric that every row has: that of the run's task.

    Raises:
        UserError: The file is damaged.
    """
    path = folder / RESULTS_CSV
    if not path.exists():
        return []
    try:
        table = csv.DictReader(io.StringIO(read_text(path)))
        if not table.fieldnames:
            raise UserError("it is empty")
        return [_checked_row(row, watched) for row in table]
    except (csv.Error, ValueError) as error:
        reason = error if isinstance(error, UserError) else f"it is not a table of numbers ({error})"
        raise UserError(f"{path} is damaged: {reason}. Correct it, or remove it to resume without its rows.") from None


def _checked_row(row: dict[str, str], watched: Watched) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if not key or value is None:
            raise UserError("a row and the header differ in length")
        if value:
            numbers[key] = float(value)
    conform(numbers, _Row, "")
    if watched.column not in numbers:
        raise UserError(f"{watched.column} is missing")
    if not (numbers["epoch"].is_integer() and numbers["epoch"] >= 1):
        raise UserError(f"epoch must be an integer from 1, got {numbers['epoch']:g}")
    return numbers | {"epoch": int(numbers["epoch"])}


def best_accuracy(row: Mapping[str, float]) -> float:
    """Validation accuracy of an epoch: the better of its weights and their moving average."""
    return ACCURACY.score(row)


def resume_command(folder: Path) -> str:
    """Command that resumes a run, for the end of a message: a full stop after it would become part of the path."""
    return f"keras-effnet train --resume {shlex.quote(str(folder))}"


def next_step(folder: Path) -> str:
    """What follows when the cause of a failure is removed: resume from the last checkpoint, if there is one."""
    return f"resume: {resume_command(folder)}" if (folder / LAST).is_file() else "train again."


def resumable(error: Exception, folder: Path) -> WriteError:
    """Error for a run that cannot write its files, which ends with the command that resumes it from its checkpoint."""
    failed = cannot_write(f"to {folder}", error)
    if not (folder / LAST).is_file() or resume_command(folder) in failed.cure:
        return error if isinstance(error, WriteError) else failed
    cure = "All checkpoints are intact; free some space, or make the folder writable, and resume: "
    return WriteError(failed.what, failed.reason, cure + resume_command(folder))


def uncompiled(model: keras.Model) -> keras.Model:
    """Copy of a model without its optimizer, sharing the layers: its file is a third of the size.

    A detector trains on logits; the copy ends in scores.
    """
    outputs = model.output
    if len(model.outputs) > 1 and isinstance(outputs, dict) and "logits" in outputs:
        scores = keras.layers.Activation("sigmoid", dtype="float32", name="scores")(outputs["logits"])
        outputs = {"boxes": outputs["boxes"], "scores": scores}
    return keras.Model(model.input, outputs, name=model.name)


def save_model(model: keras.Model, path: Path) -> None:
    """Save a `.keras` file atomically."""
    with atomic(path) as temporary:
        model.save(temporary)


def writing_to(folder: Path | None, *, wait: float = 0.0) -> AbstractContextManager[None]:
    """Lock on a run folder in the process that writes there; of several that train together only the first does."""
    return locked(folder, wait=wait) if folder is not None and is_chief() else nullcontext()


class RunFolder(keras.callbacks.Callback):
    """Save `last` and `best` checkpoints and `results.csv` after every epoch, each file atomically.

    Only `last.keras` determines where a resumed run starts: its optimizer counts the steps, so no second file can
    contradict it. On resume, rows of later epochs than the checkpoint's are dropped.

    Args:
        folder: Path of the run folder.
        first_epoch: Int, epochs completed by the checkpoint that the run resumes from.
        averaged: `AveragedWeights` that precedes this callback, or None. The better of weights and average is the
            epoch's candidate for `best`.
        watched: `Watched`, the metric that decides which is better.
    """

    def __init__(
        self, folder: Path, first_epoch: int, averaged: AveragedWeights | None = None, watched: Watched = ACCURACY
    ):
        super().__init__()
        self.folder, self.averaged, self.watched = folder, averaged, watched
        self.rows = [row for row in read_rows(folder, watched) if row["epoch"] <= first_epoch]
        self.best = max(map(watched.score, self.rows), default=None)
        make_folder(folder / "weights")
        for leftover in (folder / "weights").glob(".*.keras"):  # of a run that was killed while it saved
            leftover.unlink()

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs = {key: float(value) for key, value in (logs or {}).items()}
        rate = learning_rate(self.model.optimizer)
        seconds = time.perf_counter() - self.started
        self.rows.append({"epoch": epoch + 1, **logs, "learning_rate": rate, "seconds": round(seconds, 2)})
        try:
            # In a form that every backend loads, and by this process alone.
            with alone(), synchronized_batch_norm(self.model, "none"):
                self._keep(logs)
        except (OSError, WriteError) as error:
            self.rows.pop()
            remedy = "Free some space" if disk_full(error) else "Make the folder writable"
            cure = f"{remedy} and {next_step(self.folder)}"
            if (self.folder / LAST).is_file():
                cure = f"The last good checkpoint, of epoch {epoch}, is intact; {cure[0].lower()}{cure[1:]}"
            if not epoch:
                for name in (BEST, RESULTS_CSV):  # of an epoch that was not completed
                    (self.folder / name).unlink(missing_ok=True)
            what = f"epoch {epoch + 1} to {self.folder}"
            raise WriteError(what, cannot_write(what, error).reason, cure) from None

    def _keep(self, logs: dict[str, float]) -> None:
        score = self.watched.score(logs)
        if self.best is None or score > self.best:
            average = self.averaged if self.watched.average_is_better(logs) else None
            with average.in_place() if average else nullcontext():
                save_model(uncompiled(self.model), self.folder / BEST)
            self.best = score
        self._write_rows()
        save_model(self.model, self.folder / LAST)  # last, because this file marks the epoch as completed

    def _write_rows(self):
        text = io.StringIO()
        columns = dict.fromkeys(key for row in self.rows for key in row)  # a resumed run may have further columns
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / RESULTS_CSV, text.getvalue())
