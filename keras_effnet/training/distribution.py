"""Strategies for training on several devices: TensorFlow's on one host, data parallelism of JAX on several.

All devices hold the same weights, and each computes a part of every batch. Frameworks are imported when a strategy is
used.
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
    """All GPUs; without one, the logical CPUs, of which tests create several."""
    import tensorflow as tf

    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


@cache
def _mirrored_strategy():
    """One strategy per process: the collective operations of a second one would reuse the first one's keys and fail."""
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
    except Exception as error:  # a missing TPU raises various errors
        raise UserError(f"--strategy tpu found no TPU on this machine: {first_line(error)}") from error
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

    # Without Keras' own sharding, which gives the processes unequal numbers of batches if the last one is smaller, so
    # that they wait for each other forever. `local_part` gives each process an equal part of every batch.
    distribution = keras.distribution.DataParallel(devices=_data_parallel_devices(), auto_shard_dataset=False)
    with distribution.scope():
        yield distribution


@dataclass(frozen=True)
class _Engine:
    """Requirements and implementation of a strategy.

    Args:
        backend: String, the Keras backend that it needs; None for any.
        devices: Function that returns the number of devices.
        scope: Function that returns the context in which models are built and trained.
        accumulates: Bool, whether gradient accumulation works.
    """

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
    """Number of tasks in TensorFlow's `TF_CONFIG`; managed clouds set it even for a single one."""
    try:
        cluster = json.loads(os.environ.get("TF_CONFIG") or "{}").get("cluster", {})
        return sum(len(tasks) for tasks in cluster.values())
    except (ValueError, AttributeError, TypeError):
        raise UserError("TF_CONFIG is set but is not JSON with a cluster; unset it.") from None


def check_strategy(name: str, *, gradient_accumulation: int = 1) -> str:
    """Check that a strategy works on this machine, before anything is built.

    Args:
        name: String, one of `STRATEGIES`.
        gradient_accumulation: Int, batches whose gradients are accumulated for one update.

    Returns:
        String, the name.

    Raises:
        UserError: The strategy is unknown, needs another Keras backend or cannot accumulate gradients; or this process
            is one of several that this strategy would not connect.

    Example:

    >>> from keras_effnet.training import distribution
    >>> distribution.check_strategy("mirrored")
    'mirrored'
    """
    engine = _ENGINES[declared_options(TrainConfig)["strategy"].check(name)]
    _check_backend(name, engine)
    if gradient_accumulation > 1 and not engine.accumulates:
        raise UserError(
            f"--strategy {name} cannot accumulate gradients over {gradient_accumulation} batches: Keras fails. "
            "Increase the batch size, or use --strategy none or data-parallel."
        )
    if name in ("none", "mirrored"):
        if _tf_config_tasks() > 1:
            raise UserError(f"TF_CONFIG names {_tf_config_tasks()} tasks; each would train alone. {NO_MULTIWORKER}")
        if in_a_group():
            raise UserError(
                f"{PROCESSES} is {number(PROCESSES)}; with --strategy {name} each process would train alone. Use "
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
    """Context in which a model is built, compiled and trained under a strategy.

    Args:
        name: String, one of `STRATEGIES`, as returned by `check_strategy`. `"none"` does nothing.

    Yields:
        The `tf.distribute.Strategy`, the `keras.distribution.DataParallel`, or None.

    Example:

    >>> from keras_effnet.training import distribution
    >>> with distribution.scope("mirrored"):
    ...     model = keras_effnet.EfficientNetB0(weights=None, classes=10)
    ...     model.compile("adam", "sparse_categorical_crossentropy")
    """
    with _ENGINES[one_of("strategy", name, STRATEGIES)].scope() as strategy:
        yield strategy


def replicas(name: str) -> int:
    """Number of devices that share a batch, over all hosts."""
    return _ENGINES[one_of("strategy", name, STRATEGIES)].devices()


def check_batch_size(batch_size: int, name: str) -> int:
    """Number of images of a batch that each device computes.

    Args:
        batch_size: Int, images per step over all devices.
        name: String, one of `STRATEGIES`.

    Raises:
        UserError: The batch cannot be divided evenly among the devices.
    """
    count = replicas(name)
    if batch_size % count:
        nearest = max(count, round(batch_size / count) * count)
        raise UserError(f"A batch of {batch_size} cannot be divided among {count} devices; use {nearest}.")
    return batch_size // count


def local_part(data, name: str):
    """Part of each batch that the devices of this process compute.

    Every process must receive the same batches in the same order. A smaller last batch that cannot be divided evenly is
    padded with its own first images, so that no process waits for the others.

    Args:
        data: `tf.data.Dataset` of batches, tensors in any structure.
        name: String, one of `STRATEGIES`.

    Returns:
        A `tf.data.Dataset` with as many batches; `data` itself for TensorFlow's strategies, which split batches
        themselves.
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
    """Context with synchronized batch normalization: statistics of the whole batch instead of each device's part.

    Enter it before `compile`. The layers are restored on exit, because Keras refuses files with `synchronized=True` on
    other backends than TensorFlow. JAX needs no change: there a batch divided among devices is still one batch.

    Args:
        model: Keras model, not compiled yet.
        name: String, the strategy; `"none"` turns synchronization off.

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
