"""Callbacks that watch a run: non-finite losses, seeds of an epoch, pauses, validation at chance level. Keras only."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import keras

from keras_effnet.errors import UserError
from keras_effnet.training.checkpoints import LAST, read_rows, resume_command
from keras_effnet.training.optimizers import learning_rate

logger = logging.getLogger(__name__)


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
    """Warns, once, when a network that learns its training images only guesses on those for validation.

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
            f"Epoch {epoch + 1}: {training:.0%} of the training images are right but {validation:.0%} in validation, "
            f"as by chance. Likely causes: batch normalization statistics that lag behind a short run{lag}, pixels in "
            "another range in validation than in training, or its classes numbered in another order."
        )
