"""Callbacks that watch a run: non-finite losses, seeds per epoch, pauses, validation at chance level. Keras only."""

from __future__ import annotations

import logging
import math
from pathlib import Path

import keras

from keras_effnet.errors import UserError
from keras_effnet.tasks.learning import ACCURACY, Watched
from keras_effnet.training.checkpoints import LAST, read_rows, resume_command
from keras_effnet.training.optimizers import learning_rate

logger = logging.getLogger(__name__)


class FiniteWatch(keras.callbacks.Callback):
    """Stop a run at the step whose loss is NaN or infinite, before its weights reach a checkpoint.

    Args:
        folder: Path of the run folder, or None.
        watched: `Watched`, the metric in the run's results.
    """

    def __init__(self, folder: Path | None, watched: Watched = ACCURACY):
        super().__init__()
        self.folder, self.watched = folder, watched

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
            return f"Train again at a lower rate, for example {lower} (learning_rate, --learning-rate)."
        epoch = read_rows(self.folder, self.watched)[-1]["epoch"]
        return (
            f"The last good checkpoint is {self.folder / LAST}, of epoch {epoch}; resume from it at a lower rate: "
            f"{resume_command(self.folder)} --learning-rate {lower}"
        )


class EpochSeeds(keras.callbacks.Callback):
    """Seed dropout and stochastic depth from the epoch number, so that a resumed run draws the same numbers.

    A `.keras` file does not hold the state of the random generators.

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
    """Stop a training early, with its schedule unfinished, so that it can be resumed later.

    Args:
        epochs: Int, epochs after which to stop, counted from the beginning of the run.
    """

    def __init__(self, epochs: int):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 >= self.epochs:
            self.model.stop_training = True


class ChanceWatch(keras.callbacks.Callback):
    """Warn once when training accuracy rises while validation stays at chance level.

    Such a gap is more than overfitting: usually the network or its input differs between training and validation.

    Args:
        classes: Int.
    """

    def __init__(self, classes: int):
        super().__init__()
        chance = 1 / classes
        # Chance level: up to 1.5 times guessing, at most 5 points above it. Learned: 25 points above guessing.
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
            f"Epoch {epoch + 1}: training accuracy is {training:.0%} but validation accuracy {validation:.0%}, chance "
            f"level. Likely causes: batch normalization statistics that lag behind a short run{lag}, a different pixel "
            "range in validation than in training, or classes in a different order."
        )
