"""Losses and a metric that Keras lacks: errors in units of the values' spread, weights of rare labels, R². Keras only.

All are registered, so that a `.keras` file compiled with them opens once this module is imported, and without it by
`load_model(path, compile=False)`; a network without its optimizer, such as `best.keras`, holds neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

_TINY = 1e-7  # lower bound of probabilities, Keras' own
_ROUNDING = 1e-5  # share of the squares up to which sums of float32 show a spread where there is none


@keras.saving.register_keras_serializable("keras_effnet")
class StandardizedError(keras.losses.Loss):
    """Mean squared error in units of the values' spread, so that prices and rooms count alike.

    Args:
        scale: Floats, the standard deviation of each value.

    Example:

    >>> float(StandardizedError([10.0, 2.0])(np.array([[10.0, 2.0]]), np.array([[20.0, 4.0]])))
    1.0
    """

    def __init__(self, scale: Sequence[float], name: str = "standardized_squared_error", **options: Any):
        super().__init__(name=name, **options)
        self.scale = [float(each) for each in scale]

    def call(self, y_true, y_pred):
        """Loss of each image."""
        return ops.mean(ops.square((y_true - y_pred) / ops.convert_to_tensor(self.scale, y_pred.dtype)), axis=-1)

    def get_config(self):
        """Arguments of the constructor."""
        return super().get_config() | {"scale": self.scale}


@keras.saving.register_keras_serializable("keras_effnet")
class WeightedBinaryCrossentropy(keras.losses.Loss):
    """Binary cross-entropy in which the presence and the absence of each label have their own weights.

    Args:
        absent: Floats, the weight of each label where it is absent.
        present: Floats, the weight of each label where it is present.
        label_smoothing: Float in [0, 1), as in Keras.

    Example:

    >>> loss = WeightedBinaryCrossentropy([0.5], [2.0])
    >>> round(float(loss(np.array([[1.0]]), np.array([[0.5]]))), 3)
    1.386
    """

    def __init__(
        self,
        absent: Sequence[float],
        present: Sequence[float],
        label_smoothing: float = 0.0,
        name: str = "weighted_binary_crossentropy",
        **options: Any,
    ):
        super().__init__(name=name, **options)
        self.absent, self.present = ([float(each) for each in weights] for weights in (absent, present))
        self.label_smoothing = label_smoothing

    def call(self, y_true, y_pred):
        """Loss of each image."""
        likely = ops.clip(y_pred, _TINY, 1 - _TINY)
        y_true = ops.cast(y_true, y_pred.dtype)
        soft = y_true * (1 - self.label_smoothing) + self.label_smoothing / 2
        absent, present = (ops.convert_to_tensor(each, y_pred.dtype) for each in (self.absent, self.present))
        weights = absent + (present - absent) * y_true
        return ops.mean(-weights * (soft * ops.log(likely) + (1 - soft) * ops.log(1 - likely)), axis=-1)

    def get_config(self):
        """Arguments of the constructor."""
        config = {"absent": self.absent, "present": self.present, "label_smoothing": self.label_smoothing}
        return super().get_config() | config


@keras.saving.register_keras_serializable("keras_effnet")
class MeanR2(keras.metrics.Metric):
    """Mean R² of the values that vary, as `evaluate_values` computes it; NaN if none does.

    `keras.metrics.R2Score` counts a value that is the same in all images as 0, and of values far from 0 its sums keep
    few digits.

    Args:
        center: Floats, one per value, near its mean: sums are of distances from it.

    Example:

    >>> metric = MeanR2([1.0, 7.0])
    >>> metric.update_state(np.array([[0.0, 7.0], [2.0, 7.0]]), np.array([[0.0, 8.0], [1.0, 6.0]]))
    >>> float(metric.result())
    0.5
    """

    def __init__(self, center: Sequence[float], name: str = "r2", **options: Any):
        super().__init__(name=name, **options)
        self.center = [float(each) for each in center]
        self.count = self.add_weight((), "zeros", name="count")
        self.distance, self.squares, self.residual = (
            self.add_weight((len(self.center),), "zeros", name=name) for name in ("distance", "squares", "residual")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Add the values of a batch, true and predicted, of shape `(batch, values)`; weights are ignored."""
        truth, predicted = (ops.cast(each, self.dtype) for each in (y_true, y_pred))
        distance = truth - ops.convert_to_tensor(self.center, self.dtype)
        self.count.assign_add(ops.cast(ops.shape(truth)[0], self.dtype))
        self.distance.assign_add(ops.sum(distance, axis=0))
        self.squares.assign_add(ops.sum(ops.square(distance), axis=0))
        self.residual.assign_add(ops.sum(ops.square(predicted - truth), axis=0))

    def result(self):
        """Mean R² so far."""
        spread = self.squares - ops.square(self.distance) / ops.maximum(self.count, 1)
        varies = spread > _ROUNDING * self.squares
        explained = 1 - self.residual / ops.where(varies, spread, 1.0)
        known = ops.sum(ops.cast(varies, self.dtype))
        return ops.where(known > 0, ops.sum(ops.where(varies, explained, 0.0)) / ops.maximum(known, 1), np.nan)

    def get_config(self):
        """Arguments of the constructor."""
        return super().get_config() | {"center": self.center}
