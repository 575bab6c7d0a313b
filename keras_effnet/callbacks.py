"""What happens between the epochs of a training: checkpoints and results kept, a hollow success noticed.

Keras alone, no `tf.`; imports `runs`.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from pathlib import Path

import keras

from keras_effnet.runs import atomic, write_text

logger = logging.getLogger(__name__)

BEST, LAST, RESULTS = "weights/best.keras", "weights/last.keras", "results.csv"


def read_rows(folder: Path) -> list[dict[str, float]]:
    """The rows of a run folder's `results.csv`, one an epoch; none where there is no such file."""
    path = folder / RESULTS
    if not path.exists():
        return []
    with path.open(newline="") as stream:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(stream)]
    return [row | {"epoch": int(row["epoch"])} for row in rows]


def uncompiled(model: keras.Model) -> keras.Model:
    """The same layers as a model without optimizer: a third of the file, and nothing to restore."""
    return keras.Model(model.input, model.output, name=model.name)


def save_model(model: keras.Model, path: Path) -> None:
    """Saves a `.keras` file, whole or not at all."""
    with atomic(path) as temporary:
        model.save(temporary)


def _learning_rate(optimizer: keras.optimizers.Optimizer) -> float:
    """The rate that an optimizer has come to; of one with a rate for each stage, the classifier's."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # loss scaling
    return float(keras.ops.convert_to_numpy(getattr(optimizer, "optimizers", [optimizer])[-1].learning_rate))


class RunFolder(keras.callbacks.Callback):
    """Keeps `last` and `best` checkpoints and `results.csv` after every epoch, each file whole or absent.

    `last.keras` alone decides where a resumed run starts: its optimizer has counted the steps, so no second file can
    contradict it. Rows of epochs that the checkpoint does not hold are dropped on resume.
    """

    def __init__(self, folder: Path, first_epoch: int):
        super().__init__()
        self.folder = folder
        self.rows = [row for row in read_rows(folder) if row["epoch"] <= first_epoch]
        self.best = max((row["val_accuracy"] for row in self.rows), default=-1.0)
        (folder / "weights").mkdir(parents=True, exist_ok=True)
        for leftover in (folder / "weights").glob(".*.keras"):  # of a run that was killed while saving
            leftover.unlink()

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        logs = {key: float(value) for key, value in (logs or {}).items()}
        if not math.isfinite(logs["loss"]):
            return
        rate = _learning_rate(self.model.optimizer)
        seconds = time.perf_counter() - self.started
        self.rows.append({"epoch": epoch + 1, **logs, "learning_rate": rate, "seconds": round(seconds, 2)})
        if logs["val_accuracy"] > self.best:
            self.best = logs["val_accuracy"]
            save_model(uncompiled(self.model), self.folder / BEST)
        self._write_rows()
        save_model(self.model, self.folder / LAST)  # last: only now does the epoch count

    def _write_rows(self):
        text = io.StringIO()
        writer = csv.DictWriter(text, self.rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_text(self.folder / RESULTS, text.getvalue())


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
        lag = f" (bn_momentum is {max(momenta):g}: lower it to 0.9 or less)" if momenta else ""
        logger.warning(
            f"Epoch {epoch + 1}: {training:.0%} of the training pictures are right but {validation:.0%} in validation, "
            f"as by chance. Likely causes: batch normalization statistics that lag behind a short run{lag}, pixels in "
            "another range in validation than in training, or its classes numbered in another order."
        )
