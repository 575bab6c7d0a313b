"""Throughput and loss scale among the results of a run; TensorBoard and Weights & Biases. TensorFlow."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_effnet.errors import UserError
from keras_effnet.system.files import write_text

_WANDB_ID = "wandb-id.txt"


class Throughput(keras.callbacks.Callback):
    """Add `images_per_second` and `input_bound` to the results of every epoch.

    `input_bound` is the share of the training time that steps wait for their batch: near 0 the device is busy, near
    1 more cores, a cache or smaller files would help. The first step of an epoch, which may compile, is excluded.

    Args:
        batch_size: Int, images per step.

    Example:

    >>> throughput = Throughput(32)
    >>> model.fit(throughput.watch(batches), callbacks=[throughput])
    """

    def __init__(self, batch_size: int):
        super().__init__()
        self.batch_size = batch_size
        self._delivered: deque[float] = deque()
        self._first: float | None = None

    def watch(self, data: tf.data.Dataset) -> tf.data.Dataset:
        """Record the time at which each batch is ready; the batches are unchanged."""

        def note():
            self._delivered.append(time.perf_counter())

        def noted(*batch):
            with tf.control_dependencies([tf.numpy_function(note, [], [])]):
                return tf.nest.map_structure(tf.identity, batch)

        # Prefetched in a separate thread: a step does not wait for a batch that is ready.
        return data.map(noted).prefetch(1)

    def on_train_begin(self, logs=None):
        self._delivered.clear()  # under a strategy Keras has already taken a batch to inspect it

    def on_epoch_begin(self, epoch, logs=None):
        self._steps, self._waited, self._first = 0, 0.0, None

    def on_train_batch_begin(self, batch, logs=None):
        self._asked = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        delivered = self._delivered.popleft() if self._delivered else self._asked
        if self._first is None:
            self._first = now
            return
        self._steps += 1
        self._waited += max(0.0, delivered - self._asked)
        self._last = now

    def on_epoch_end(self, epoch, logs=None):
        if self._first is not None and self._steps and logs is not None:
            seconds = self._last - self._first
            logs["images_per_second"] = round(self._steps * self.batch_size / seconds, 2)
            logs["input_bound"] = round(min(1.0, self._waited / seconds), 4)


class LossScale(keras.callbacks.Callback):
    """Add the `loss_scale` of mixed_float16 to the results of every epoch; a falling scale is an early sign of NaN."""

    def on_epoch_end(self, epoch, logs=None):
        scale = getattr(self.model.optimizer, "dynamic_scale", None)
        if scale is not None and logs is not None:
            logs["loss_scale"] = float(keras.ops.convert_to_numpy(scale))


class WandbLogger(keras.callbacks.Callback):
    """Log a run's results to Weights & Biases after every epoch.

    A resumed run continues the same record, whose id is stored in the run folder. Without an internet connection, set
    `WANDB_MODE=offline` and upload the record later with `wandb sync`.

    Args:
        project: String.
        folder: Path of the run folder.
        config: Options of the run, stored with it.

    Raises:
        UserError: The package wandb is not installed.
    """

    def __init__(self, project: str, folder: str | Path, config: Mapping[str, Any]):
        super().__init__()
        try:
            import wandb
        except ImportError:
            raise UserError('Weights & Biases is not installed: pip install "keras-effnet[wandb]".') from None
        self._wandb, self._project, self._config = wandb, project, dict(config)
        self._folder = Path(folder)
        self._run: Any = None  # wandb has no types here: it need not be installed

    def on_train_begin(self, logs=None):
        if self._run is not None:  # called again for every stage of progressive resizing
            return
        path = self._folder / _WANDB_ID
        known = path.read_text(encoding="utf-8").strip() if path.is_file() else None
        self._run = self._wandb.init(
            project=self._project,
            name=self._folder.name,
            id=known,
            resume="allow",
            dir=str(self._folder),
            config=self._config,
        )
        write_text(path, f"{self._run.id}\n")

    def on_epoch_end(self, epoch, logs=None):
        self._run.log({"epoch": epoch + 1, **(logs or {})}, step=epoch + 1)

    def close(self) -> None:
        """Close the record."""
        if self._run is not None:
            self._run.finish()
            self._run = None


def tensorboard(folder: str | Path) -> keras.callbacks.Callback:
    """Keras' TensorBoard callback, writing to `tensorboard/` in a run folder.

    Raises:
        UserError: The package tensorboard is not installed.
    """
    if find_spec("tensorboard") is None:  # without it TensorFlow fails in the middle of the run
        raise UserError('TensorBoard is not installed: pip install "keras-effnet[tensorboard]".')
    return keras.callbacks.TensorBoard(str(Path(folder) / "tensorboard"), write_graph=False)
