"""Moving average of the weights (EMA), evaluated after every epoch. Keras only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np

from keras_effnet.training.optimizers import innermost
from keras_effnet.transfer import NormStatistics

_BATCHES = 16  # to re-estimate batch normalization for averaged weights, every epoch


class AveragedWeights(keras.callbacks.Callback):
    """Evaluate the moving average of the weights after an epoch, as `val_ema_loss` and `val_ema_METRIC`.

    The optimizer keeps the average (`use_ema=True`), so checkpoints hold it. Batch normalization statistics are
    re-estimated for the averaged weights, with which the network has never run. Training continues with bit-identical
    weights; Keras' `SwapEMAWeights` rounds them, and `fit` leaves the average in their place.

    Args:
        val: `tf.data.Dataset` that `model.evaluate` accepts.
        batches: Batches of training images, the same ones in every iteration.
        metric: String, the metric that decides which weights are better.
        measure: Function from the network to the loss and that metric; by default `model.evaluate`.
        due: Function from the number of an epoch, from 0, to whether it is evaluated; the figures of others are nan.
    """

    def __init__(
        self,
        val,
        batches: Iterable,
        metric: str = "accuracy",
        measure: Callable[[keras.Model], dict[str, float]] | None = None,
        due: Callable[[int], bool] = lambda epoch: True,
    ):
        super().__init__()
        self._measure = measure or (lambda model: model.evaluate(val, return_dict=True, verbose=0))
        self.val, self.batches, self.metric, self._due = val, batches, metric, due
        self._weights: list[np.ndarray] = []
        self._raw: list[np.ndarray] | None = None

    def on_train_begin(self, logs=None):
        self._statistics = NormStatistics(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self._raw = self.model.get_weights()
        results = self._evaluated(self._raw) if self._due(epoch) else dict.fromkeys(("loss", self.metric), math.nan)
        if logs is not None:
            logs |= {f"val_ema_{key}": results[key] for key in ("loss", self.metric)}

    def _evaluated(self, raw: list[np.ndarray]) -> dict[str, float]:
        """Figures of the average; the network then has its weights back."""
        innermost(self.model.optimizer).finalize_variable_values(self.model.trainable_variables)
        self._statistics.measure(self.batches, _BATCHES)
        results = self._measure(self.model)
        self._weights = self.model.get_weights()
        self.model.set_weights(raw)
        return results

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
