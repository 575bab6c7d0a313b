"""How long one training step and one prediction of a Keras model take, compiled as `fit` and `predict` compile them.

Imports `timing`, `errors`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.errors import UserError
from keras_effnet.models.batch_norm import fused_batch_norm
from keras_effnet.system.timing import Timing, measure


def synchronize(value: object = None) -> None:
    """Blocks until all devices are done with what they were given, so with `value` too.

    To fetch a value would copy it, and a step's loss is known before its weights are.
    """
    tf.test.experimental.sync_devices()


def training_step(
    model: keras.Model,
    images: np.ndarray | tf.Tensor,
    labels: np.ndarray | tf.Tensor,
    *,
    runs: int = 20,
    warmup: int = 3,
    max_seconds: float = 5.0,
) -> Timing:
    """Times one training step, forward, backward, optimizer and metrics, as `model.fit` runs it. The batch is there.

    The model is trained by it, on the one batch. Its first step, which traces, is not timed.

    Args:
        model: Compiled `keras.Model`, on Keras' TensorFlow backend.
        images: Array of shape `(batch, height, width, channels)`.
        labels: Array of labels, as the model's loss takes them.
        runs: Int, timed steps; of slow ones as many as fit into `max_seconds`, and no fewer than 5.
        warmup: Int, steps before them, after the first.
        max_seconds: Float, time for all steps but the first.

    Returns:
        A `Timing`.

    Raises:
        UserError: The model is not compiled, or Keras has another backend.

    Example:

    >>> training_step(model, images, labels).median_ms
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"Training steps are timed on Keras' tensorflow backend, got {keras.backend.backend()!r}.")
    if not model.compiled:
        raise UserError(f"{model.name} has no loss and optimizer; call its compile() before its steps are timed.")
    batch = tf.data.Dataset.from_tensors((images, labels)).repeat()
    batches = iter(model.distribute_strategy.experimental_distribute_dataset(batch))
    model.optimizer.build(model.trainable_variables)
    with fused_batch_norm(model):  # as `training.train` does
        model.make_train_function()
        step = partial(model.train_function, batches)
        step()
        timed = measure(step, synchronize=synchronize, runs=runs, warmup=warmup, max_seconds=max_seconds)
    steps = model.steps_per_execution
    return replace(timed, median_ms=timed.median_ms / steps, iqr_ms=timed.iqr_ms / steps)


def prediction(
    model: keras.Model,
    images: np.ndarray | tf.Tensor,
    *,
    runs: int = 20,
    warmup: int = 3,
    max_seconds: float = 5.0,
) -> Timing:
    """Times one prediction of a batch, up to the probabilities in the host's memory. The first, which traces, is not.

    Args:
        model: `keras.Model`, compiled or not.
        images: Array of shape `(batch, height, width, channels)`.
        runs, warmup, max_seconds: As in `training_step`.

    Returns:
        A `Timing`.

    Example:

    >>> 1e3 * len(images) / prediction(model, images).median_ms  # images a second
    """
    predict = partial(model.predict_on_batch, keras.ops.convert_to_tensor(images))
    predict()
    return measure(predict, runs=runs, warmup=warmup, max_seconds=max_seconds)
