"""Pace of a training: seconds of an epoch of the real pipeline, validation included, and of its tracing. TensorFlow."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from keras_effnet.study.networks import Member
from keras_effnet.study.protocol import Pace, Protocol
from keras_effnet.study.trial import limit_threads, load_data
from keras_effnet.system.output import captured_output

_SECONDS = 8.0  # of training steps that are timed
_FEWEST, _VALIDATION = 12, 8  # batches of training at least, of validation at most


class Stopwatch:
    """Durations of the batches of one pass over data.

    Args:
        started: Float, time of its beginning in seconds.
    """

    def __init__(self, started: float):
        self.started = started
        self.ends: list[float] = []

    @property
    def batch(self) -> float:
        """Mean seconds of a batch after the first."""
        if len(self.ends) < 2:
            return (self.ends[0] - self.started) if self.ends else 0.0
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)

    @property
    def first(self) -> float:
        """Seconds that the first batch took longer than the others."""
        return max(0.0, self.ends[0] - self.started - self.batch) if self.ends else 0.0


def pace_of(
    trained: Sequence[Stopwatch], validated: Sequence[Stopwatch], steps: int, batches: int, passes: int = 1
) -> Pace:
    """Pace of whole epochs from the batches of short ones.

    Args:
        trained: `Stopwatch`s of the training steps, one for each image size.
        validated: Those of the validations.
        steps: Int, training steps of an epoch.
        batches: Int, validation batches.
        passes: Int, validations of an epoch: two with a moving average of the weights.
    """
    epoch = steps * fmean(each.batch for each in trained) + passes * batches * fmean(each.batch for each in validated)
    return Pace(sum(each.first for each in (*trained, *validated)), epoch)


def measure_pace(protocol: Protocol, member: Member, step_ms: float) -> Pace:
    """Train a network for some seconds as a study does, with its input pipeline and validation, and time the batches.

    Args:
        protocol: `Protocol`.
        member: `Member`.
        step_ms: Float, time of a training step on an idle machine, from which the number of steps follows.
    """
    with captured_output(), tempfile.TemporaryDirectory() as folder:
        limit_threads(protocol.threads)
        import keras

        from keras_effnet.training.run import fit_dataset

        trained: list[Stopwatch] = []
        validated: list[Stopwatch] = []

        class Watch(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                trained.append(Stopwatch(time.perf_counter()))

            def on_train_batch_end(self, batch, logs=None):
                trained[-1].ends.append(time.perf_counter())

            def on_test_begin(self, logs=None):
                validated.append(Stopwatch(time.perf_counter()))

            def on_test_batch_end(self, batch, logs=None):
                validated[-1].ends.append(time.perf_counter())

        config = protocol.config(member, epochs=len(member.sizes))
        dataset, size = load_data(protocol, member), config.batch_size
        steps, batches = len(dataset.train) // size, math.ceil(len(dataset.val) / size)
        some = min(max(_FEWEST, math.ceil(1e3 * _SECONDS / step_ms / len(member.sizes))), steps)
        short = replace(
            dataset, train=dataset.train.sample(some * size), val=dataset.val.sample(min(batches, _VALIDATION) * size)
        )
        fit_dataset(short, config, Path(folder), callbacks=[Watch()])
        return pace_of(trained, validated, steps, batches, passes=2 if config.ema else 1)


def pace_row(member: Member, paces: Sequence[Pace], threads: int) -> dict[str, Any]:
    """Row of `results.jsonl` for the mean of measurements that ran at the same time."""
    figures = {name: round(value, 3) for name, value in asdict(Pace.mean(paces)).items()}
    return {"kind": "pace", "member": member.name, **figures, "workers": len(paces), "threads": threads}
