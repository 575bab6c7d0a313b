"""What happens between the epochs of a training: checkpoints and results kept, a hollow success noticed.

Keras alone, no `tf.`; imports `averaging`, `optimizers`, `runs`, `errors`.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import shlex
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

import keras

from keras_effnet.averaging import AveragedWeights
from keras_effnet.errors import UserError
from keras_effnet.optimizers import learning_rate
from keras_effnet.strategies import alone, synchronized_batch_norm
from keras_effnet.system.files import atomic, write_text

logger = logging.getLogger(__name__)

BEST, LAST, RESULTS = "weights/best.keras", "weights/last.keras", "results.csv"


def read_rows(folder: Path) -> list[dict[str, float]]:
    """The rows of a run folder's `results.csv`, one an epoch; none where there is no such file."""
    path = folder / RESULTS
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(stream)]
    return [row | {"epoch": int(row["epoch"])} for row in rows]


def best_accuracy(row: Mapping[str, float]) -> float:
    """The validation accuracy of an epoch, of its weights or of their average, whichever is better."""
    return max(row["val_accuracy"], row.get("val_ema_accuracy", -1.0))


def resume_command(folder: Path) -> str:
    """What to type to go on with a run, for the end of a message: no full stop may become part of the path."""
    return f"keras-effnet train --resume {shlex.quote(str(folder))}"


def uncompiled(model: keras.Model) -> keras.Model:
    """The same layers as a model without optimizer: a third of the file, and nothing to restore."""
    return keras.Model(model.input, model.output, name=model.name)


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a `.keras` file, whole or not at all."""
    with atomic(path) as temporary:
        model.save(temporary)


class RunFolder(keras.callbacks.Callback):
    """Keeps `last` and `best` checkpoints and `results.csv` after every epoch, each file whole or absent.

    `last.keras` alone decides where a resumed run starts: its optimizer has counted the steps, so no second file can
    contradict it. Rows of epochs that the checkpoint does not hold are dropped on resume.

    Args:
        folder: Path of the run folder.
        first_epoch: Int, epochs behind the checkpoint that the run goes on from.
        averaged: `AveragedWeights` that stands before this in the callbacks, or None. The better of both weights is
            the epoch's candidate for `best`.
    """

    def __init__(self, folder: Path, first_epoch: int, averaged: AveragedWeights | None = None):
        super().__init__()
        self.folder, self.averaged = folder, averaged
        self.rows = [row for row in read_rows(folder) if row["epoch"] <= first_epoch]
        self.best = max(map(best_accuracy, self.rows), default=-1.0)
        (folder / "weights").mkdir(parents=True, exist_ok=True)
        for leftover in (folder / "weights").glob(".*.keras"):  # of a run that was killed while saving
            leftover.unlink()

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs = {key: float(value) for key, value in (logs or {}).items()}
        rate = learning_rate(self.model.optimizer)
        seconds = time.perf_counter() - self.started
        self.rows.append({"epoch": epoch + 1, **logs, "learning_rate": rate, "seconds": round(seconds, 2)})
        try:
            # As a file for any backend, and without the other processes.
            with alone(), synchronized_batch_norm(self.model, "none"):
                self._keep(logs)
        except OSError as error:
            self.rows.pop()
            cure = "Make room and train anew."
            if epoch:
                cure = f"The last good checkpoint, of epoch {epoch}, is intact; make room and go on: "
                cure += resume_command(self.folder)
            raise UserError(
                f"Cannot write epoch {epoch + 1} to {self.folder}: {error.strerror or error}. {cure}"
            ) from None

    def _keep(self, logs: dict[str, float]) -> None:
        accuracy = best_accuracy(logs)
        if accuracy > self.best:
            average = accuracy > logs["val_accuracy"]
            with self.averaged.in_place() if average else nullcontext():
                save_model(uncompiled(self.model), self.folder / BEST)
            self.best = accuracy
        self._write_rows()
        save_model(self.model, self.folder / LAST)  # last: only now does the epoch count

    def _write_rows(self):
        text = io.StringIO()
        columns = dict.fromkeys(key for row in self.rows for key in row)  # a resumed run may note more than it did
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / RESULTS, text.getvalue())


class FiniteWatch(keras.callbacks.Callback):
    """Stops a run whose loss is no longer a number, at that step: no such weights reach a checkpoint.

    Args:
        folder: Path of the run folder, or None.
    """

    def __init__(self, folder: Path | None):
        super().__init__()
        self.folder = folder

    def on_train_batch_end(self, batch, logs=None):
        if math.isfinite(float((logs or {}).get("loss", 0.0))):
            return
        rate = learning_rate(self.model.optimizer)
        raise UserError(
            f"The loss became NaN or infinite at step {batch + 1} of epoch {self.epoch + 1}, at a learning rate of "
            f"{rate:.3g}. {self._cure(rate)}"
        )

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def _cure(self, rate: float) -> str:
        lower = f"{rate / 3:.1g}"
        if self.folder is None or not (self.folder / LAST).is_file():
            return f"Train anew at a lower one, {lower} perhaps (learning_rate, --learning-rate)."
        epoch = read_rows(self.folder)[-1]["epoch"]
        return (
            f"The last good checkpoint is {self.folder / LAST}, of epoch {epoch}; go on from it at a lower rate: "
            f"{resume_command(self.folder)} --learning-rate {lower}"
        )


class EpochSeeds(keras.callbacks.Callback):
    """Seeds dropout and stochastic depth by the number of the epoch.

    No `.keras` file holds the state of their random generators. So a resumed run draws what an unbroken one would.

    Args:
        seed: Int.
    """

    def __init__(self, seed: int):
        super().__init__()
        self.seed = seed

    def on_epoch_begin(self, epoch, logs=None):
        for number, layer in enumerate(self.model.layers):
            if generator := getattr(layer, "seed_generator", None):
                generator.state.assign([(self.seed + number) % 2**32, (epoch << 20) % 2**32])


class Pause(keras.callbacks.Callback):
    """Ends a training after so many epochs in all, though its schedule goes on; a resumed run carries on from there.

    Args:
        epochs: Int.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 >= self.epochs:
            self.model.stop_training = True


class ChanceWatch(keras.callbacks.Callback):
    """Warns, once, when a network that learns its training pictures only guesses on those for validation.

    Such a gap is more than overfitting: as a rule the network computes otherwise in validation, or is asked otherwise.
    """

    def __init__(self, classes: int):
        super().__init__()
        chance = 1 / classes
        # Half again as much as guessing, but never more than 5 points of it; and what no guessing comes to.
        self.guessed, self.learned = chance + min(chance / 2, 0.05), chance + 0.25
        self.warned = False

    def on_epoch_end(self, epoch, logs=None):
        training, validation = logs["accuracy"], logs["val_accuracy"]
        if self.warned or validation > self.guessed or training < self.learned:
            return
        self.warned = True
        momenta = [layer.momentum for layer in self.model.layers if hasattr(layer, "moving_mean")]
        highest = max(momenta, default=0.0)
        lag = f" (bn_momentum is {highest:g}: lower it to 0.9 or less)" if highest > 0.9 else ""
        logger.warning(
            f"Epoch {epoch + 1}: {training:.0%} of the training pictures are right but {validation:.0%} in validation, "
            f"as by chance. Likely causes: batch normalization statistics that lag behind a short run{lag}, pixels in "
            "another range in validation than in training, or its classes numbered in another order."
        )
