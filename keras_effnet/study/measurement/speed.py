"""Time of one training step and one prediction of a Keras model, compiled as by `fit` and `predict`. TensorFlow."""

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
    """Block until all devices have finished their queued work, `value` included.

    Fetching a value instead would copy it, and the loss of a step is available before its weight update.
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
    """Time one training step (forward, backward, optimizer, metrics) as `model.fit` runs it, on a batch in memory.

    This trains the model on that batch. The first step, which traces the graph, is not timed.

    Args:
        model: Compiled `keras.Model`, on the TensorFlow backend of Keras.
        images: Array of shape `(batch, height, width, channels)`.
        labels: Array of labels in the form that the model's loss expects.
        runs: Int, timed steps; fewer, but at least 5, where they exceed `max_seconds`.
        warmup: Int, untimed steps after the first.
        max_seconds: Float, time limit for all steps but the first.

    Returns:
        A `Timing`.

    Raises:
        UserError: The model is not compiled, or Keras uses another backend.

    Example:

    >>> training_step(model, images, labels).median_ms
    """
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"Timing a step needs the tensorflow backend of Keras, got {keras.backend.backend()!r}.")
    if not model.compiled:
        raise UserError(f"{model.name} has no loss and optimizer; call compile() before timing its steps.")
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
    """Time the prediction of one batch, up to probabilities in host memory; the first call, which traces, is not timed.

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
