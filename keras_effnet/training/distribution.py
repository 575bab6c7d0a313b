"""Training on several devices: which engine shares a batch, on which of Keras' backends, and what does not work.

One batch is cut up among devices that hold the same weights, by TensorFlow on one host and by Keras' own
`keras.distribution` on JAX over several. Imports `process_group`, `errors`; frameworks wait until a
strategy is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

from keras_effnet.config.declarations import declared_options
from keras_effnet.config.train_config import NO_MULTIWORKER, STRATEGIES, TrainConfig
from keras_effnet.errors import UserError, first_line, one_of
from keras_effnet.training.processes import PROCESSES, alone, in_a_group, is_chief, join, number

__all__ = [
    "STRATEGIES",
    "alone",
    "check_batch_size",
    "check_strategy",
    "is_chief",
    "local_part",
    "replicas",
    "scope",
    "synchronized_batch_norm",
]


def _mirrored_devices() -> list[str]:
    """All GPUs; without one, the logical CPUs, of which a test may make several."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


@cache
def _mirrored_strategy():
    """One for the whole process: a second one's collective operations would take the first one's numbers, and fail."""
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(_mirrored_devices())


@contextmanager
def _mirrored() -> Iterator[Any]:
    strategy = _mirrored_strategy()
    with strategy.scope():
        yield strategy


@cache
def _tpu_strategy():
    import tensorflow as tf

    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver("")
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except Exception as error:  # each way of having no TPU fails in its own
        raise UserError(f"--strategy tpu finds no TPU on this machine: {first_line(error)}") from error
    return tf.distribute.TPUStrategy(resolver)


@contextmanager
def _tpu() -> Iterator[Any]:
    strategy = _tpu_strategy()
    with strategy.scope():
        yield strategy


def _data_parallel_devices() -> list[str]:
    import keras

    join()
    return keras.distribution.list_devices()


@contextmanager
def _data_parallel() -> Iterator[Any]:
    import keras

    # Not Keras' own sharding: it gives the processes unequal numbers of batches when the last one is smaller, and then
    # they wait for each other for ever. `local_part` gives each an equal part of every batch.
    distribution = keras.distribution.DataParallel(devices=_data_parallel_devices(), auto_shard_dataset=False)
    with distribution.scope():
        yield distribution


@dataclass(frozen=True)
class _Engine:
    """What a strategy needs and does: Keras' backend (None: any), its devices, its scope, gradient accumulation."""

    backend: str | None
    devices: Callable[[], int]
    scope: Callable[[], AbstractContextManager]
    accumulates: bool


_ENGINES: dict[str, _Engine] = {
    "none": _Engine(None, lambda: 1, nullcontext, True),
    "mirrored": _Engine("tensorflow", lambda: len(_mirrored_devices()), _mirrored, False),
    "tpu": _Engine("tensorflow", lambda: _tpu_strategy().num_replicas_in_sync, _tpu, False),
    "data-parallel": _Engine("jax", lambda: len(_data_parallel_devices()), _data_parallel, True),
}


def _tf_config_tasks() -> int:
    """How many tasks TensorFlow's `TF_CONFIG` names; managed clouds set it for a single one too."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return sum(len(tasks) for tasks in cluster.values())
    except (ValueError, AttributeError, TypeError):
        raise UserError("TF_CONFIG is set, but is no JSON with a cluster in it; unset it.") from None


def check_strategy(name: str, *, gradient_accumulation: int = 1) -> str:
    """Returns a strategy's name if it can work here, before anything is built.

    Args:
        name: String, one of `STRATEGIES`.
        gradient_accumulation: Int, batches that are summed up for one step.

    Raises:
        UserError: There is no such strategy; it needs another backend of Keras, or cannot accumulate gradients; or
            this process is one of several, which this strategy would not bring together.

    Example:

    >>> keras_effnet.training.distribution.check_strategy("mirrored")
    'mirrored'
    """
    engine = _ENGINES[declared_options(TrainConfig)["strategy"].check(name)]
    _check_backend(name, engine)
    if gradient_accumulation > 1 and not engine.accumulates:
        raise UserError(
            f"--strategy {name} cannot accumulate gradients, here over {gradient_accumulation} batches: Keras fails. "
            "Raise the batch size, or use --strategy none or data-parallel."
        )
    if name in ("none", "mirrored"):
        if _tf_config_tasks() > 1:
            raise UserError(f"TF_CONFIG names {_tf_config_tasks()} tasks; each would train alone. {NO_MULTIWORKER}")
        if in_a_group():
            raise UserError(
                f"{PROCESSES} is {number(PROCESSES)}; with --strategy {name} each would train alone. Add "
                "--strategy data-parallel."
            )
    return name


def _check_backend(name: str, engine: _Engine) -> None:
    if engine.backend is None:
        return
    import keras

    backend = keras.backend.backend()
    if backend != engine.backend:
        raise UserError(
            f"--strategy {name} needs Keras' {engine.backend} backend, not {backend}: "
            f"set KERAS_BACKEND={engine.backend} before Python starts."
        )


@contextmanager
def scope(name: str) -> Iterator[Any]:
    """Where a model is built, compiled and trained for a strategy.

    Args:
        name: String, one of `STRATEGIES`, as `check_strategy` returned it. `"none"` does nothing.

    Yields:
        The `tf.distribute.Strategy`, the `keras.distribution.DataParallel`, or None.

    Example:

    >>> with keras_effnet.training.distribution.scope("mirrored"):
    ...     model = keras_effnet.EfficientNetB0(weights=None, classes=10)
    ...     model.compile("adam", "sparse_categorical_crossentropy")
    """
    with _ENGINES[one_of("strategy", name, STRATEGIES)].scope() as strategy:
        yield strategy


def replicas(name: str) -> int:
    """How many devices share a batch, those of all hosts together."""
    return _ENGINES[one_of("strategy", name, STRATEGIES)].devices()


def check_batch_size(batch_size: int, name: str) -> int:
    """Returns the part of a batch that each device computes.

    Raises:
        UserError: The batch size, that of all devices together, cannot be shared evenly.
    """
    count = replicas(name)
    if batch_size % count:
        nearest = max(count, round(batch_size / count) * count)
        raise UserError(f"A batch of {batch_size} cannot be shared by {count} devices; take {nearest}.")
    return batch_size // count


def local_part(data, name: str):
    """The part of each batch that the devices of this process compute.

    Every process must be given the same batches in the same order. A smaller last batch that cannot be shared evenly is
    filled up with its own first images, so that no process is left waiting for the others.

    Args:
        data: `tf.data.Dataset` of batches, tensors in any structure.
        name: String, one of `STRATEGIES`.

    Returns:
        A `tf.data.Dataset` of as many batches; for TensorFlow's strategies, which cut up batches themselves, `data`.
    """
    if name != "data-parallel":
        return data
    import jax
    import tensorflow as tf

    devices, processes, process = replicas(name), jax.process_count(), jax.process_index()

    def part(*batch):
        size = tf.shape(tf.nest.flatten(batch)[0])[0]
        share = -(-size // devices) * devices // processes
        mine = tf.range(process * share, (process + 1) * share) % size
        parts = tf.nest.map_structure(lambda tensor: tf.gather(tensor, mine), batch)
        return parts if len(parts) > 1 else parts[0]

    return data.map(part, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


@contextmanager
def synchronized_batch_norm(model, name: str = "mirrored") -> Iterator[None]:
    """Batch normalization that measures the whole batch instead of each device's part, for TensorFlow's strategies.

    To be entered before `compile`. Afterwards the layers are as before, so that files saved then open everywhere: Keras
    refuses `synchronized=True` on other backends. On JAX there is nothing to do, a shared batch is one batch.

    Args:
        model: Keras model, not compiled yet.
        name: String, the strategy; `"none"` changes nothing.

    Source: synchronized batch normalization, Peng et al., MegDet (CVPR 2018).
    """
    import keras

    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [layer.synchronized for layer in norms]
    try:
        for layer in norms:
            layer.synchronized = name != "none" and keras.backend.backend() == "tensorflow"
        yield
    finally:
        for layer, value in zip(norms, before, strict=True):
            layer.synchronized = value
