"""Time of one training step and one prediction of a Keras model, compiled as by `fit` and `predict`. TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.errors import UserError
from keras_effnet.models.batch_norm import fused_batch_norm
from keras_effnet.system.timing import Timer, Timing
from keras_effnet.training.cpu_kernels.gradients import fused_gradients


def synchronize(value: object = None) -> None:
    """Block until all devices have finished their queued work, `value` included.

    Fetching a value instead would copy it, and the loss of a step is available before its weight update.
    """
    tf.test.experimental.sync_devices()


@dataclass(frozen=True, eq=False)
class Clock:
    """A traced function with its timer, so that several networks can be timed in turn.

    Args:
        timer: `Timer`; its bursts run the function.
        trace_seconds: Float, duration of the first call, which traces the graph.
        steps: Int, steps that one call runs.
    """

    timer: Timer
    trace_seconds: float
    steps: int = 1

    def timing(self) -> Timing:
        """Statistics of one step, over the runs so far."""
        timed = self.timer.timing()
        return replace(timed, median_ms=timed.median_ms / self.steps, iqr_ms=timed.iqr_ms / self.steps)

    def finished(self) -> Timing:
        """Statistics of one step after all runs."""
        while self.timer.burst():
            pass
        return self.timing()


def step_clock(
    model: keras.Model,
    images: np.ndarray | tf.Tensor,
    labels: np.ndarray | tf.Tensor,
    *,
    runs: int = 20,
    warmup: int = 3,
    max_seconds: float = 5.0,
) -> Clock:
    """Trace one training step and prepare its timing; arguments and errors as of `training_step`."""
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"Timing a step needs the tensorflow backend of Keras, got {keras.backend.backend()!r}.")
    if not model.compiled:
        raise UserError(f"{model.name} has no loss and optimizer; call compile() before timing its steps.")
    batch = tf.data.Dataset.from_tensors((images, labels)).repeat()
    batches = iter(model.distribute_strategy.experimental_distribute_dataset(batch))
    model.optimizer.build(model.trainable_variables)
    with fused_batch_norm(model), fused_gradients(model):  # as `training.train` does; the traced step keeps the kernels
        model.make_train_function()
        step = partial(model.train_function, batches)
        traced = _first_call(step)
    timer = Timer(step, synchronize=synchronize, runs=runs, warmup=warmup, max_seconds=max_seconds)
    return Clock(timer, traced, model.steps_per_execution)


def prediction_clock(
    model: keras.Model,
    images: np.ndarray | tf.Tensor,
    *,
    runs: int = 20,
    warmup: int = 3,
    max_seconds: float = 5.0,
) -> Clock:
    """Trace the prediction of one batch and prepare its timing; arguments as of `prediction`."""
    predict = partial(model.predict_on_batch, keras.ops.convert_to_tensor(images))
    traced = _first_call(predict)
    return Clock(Timer(predict, runs=runs, warmup=warmup, max_seconds=max_seconds), traced)


def _first_call(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    synchronize(function())
    return time.perf_counter() - started


def run_in_turn(clocks: Iterable[Clock], told: Callable[[int], None] = lambda number: None) -> None:
    """Run the timers of several functions in alternating short bursts, so that background load affects all alike.

    Args:
        clocks: `Clock`s.
        told: Function that is called before each round of bursts, with the number of those before it.
    """
    timers = [clock.timer for clock in clocks]
    for number in count():
        told(number)
        if not sum(timer.burst() for timer in timers):  # sum, not any: every timer gets its burst
            return


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
    return step_clock(model, images, labels, runs=runs, warmup=warmup, max_seconds=max_seconds).finished()


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
    return prediction_clock(model, images, runs=runs, warmup=warmup, max_seconds=max_seconds).finished()
