"""Moving average of the weights (EMA), evaluated after every epoch. Keras only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np

from keras_effnet.training.optimizers import innermost
from keras_effnet.transfer import NormStatistics

_BATCHES = 16  # to re-estimate batch normalization for averaged weights, every epoch


class AveragedWeights(keras.callbacks.Callback):
    """Evaluate the moving average of the weights after every epoch, as `val_ema_loss` and `val_ema_METRIC`.

    The optimizer keeps the average (`use_ema=True`), so checkpoints hold it. Batch normalization statistics are
    re-estimated for the averaged weights, with which the network has never run. Training continues with bit-identical
    weights; Keras' `SwapEMAWeights` rounds them, and `fit` leaves the average in their place.

    Args:
        val: `tf.data.Dataset` that `model.evaluate` accepts.
        batches: Batches of training images, the same ones in every iteration.
        metric: String, the metric that decides which weights are better.
        measure: Function from the network to the loss and that metric; by default `model.evaluate`.
    """

    def __init__(
        self,
        val,
        batches: Iterable,
        metric: str = "accuracy",
        measure: Callable[[keras.Model], dict[str, float]] | None = None,
    ):
        super().__init__()
        self._measure = measure or (lambda model: model.evaluate(val, return_dict=True, verbose=0))
        self.val, self.batches, self.metric = val, batches, metric
        self._weights: list[np.ndarray] = []
        self._raw: list[np.ndarray] | None = None

    def on_train_begin(self, logs=None):
        self._statistics = NormStatistics(self.model)

    def on_epoch_end(self, epoch, logs=None):
        raw = self.model.get_weights()
        innermost(self.model.optimizer).finalize_variable_values(self.model.trainable_variables)
        self._statistics.measure(self.batches, _BATCHES)
        results = self._measure(self.model)
        self._weights = self.model.get_weights()
        self.model.set_weights(raw)
        self._raw = raw
        if logs is not None:
            logs |= {f"val_ema_{key}": results[key] for key in ("loss", self.metric)}

    def on_train_end(self, logs=None):
        # When training ends, `fit` overwrites the weights with the average.
        if self._raw is not None:
            self.model.set_weights(self._raw)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Context in which the model has the averaged weights of the latest epoch."""
        raw = self.model.get_weights()
        self.model.set_weights(self._weights)
        try:
            yield
        finally:
            self.model.set_weights(raw)
