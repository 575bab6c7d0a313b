"""How long a file takes on this machine, for one image. Imports `interpreter`, `timing`, `runs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.export.tflite_file.interpreter import TFLiteModel
from keras_effnet.system.machine import cpu_name
from keras_effnet.system.timing import Timer

MAX_SECONDS = 10.0


@dataclass(frozen=True)
class LatencyReport:
    """Time of one image through a `.tflite` file.

    Args:
        median_ms: Float, milliseconds.
        iqr_ms: Float, distance between the quartiles, milliseconds: how noisy the machine was.
        runs: Int, timed runs; fewer than asked for where the time was up.
        threads: Int.
        cpu: String. A figure without its processor says nothing.
    """

    median_ms: float
    iqr_ms: float
    runs: int
    threads: int
    cpu: str


def benchmark(
    tflite_path: str | Path | bytes,
    threads: int = 1,
    *,
    runs: int = 50,
    warmup: int = 5,
    max_seconds: float = MAX_SECONDS,
) -> LatencyReport:
    """Times a `.tflite` file on one image at a time.

    Args:
        tflite_path: Path of the file, or its bytes.
        threads: Int, threads of the interpreter.
        runs: Int, timed runs; of a slow file as many as fit into `max_seconds`, and no fewer than 5.
        warmup: Int, runs before them; a slow file takes one.
        max_seconds: Float, time for all of it.

    Returns:
        A `LatencyReport`.

    Raises:
        UserError: The file cannot be run, or a count is below 1.
    """
    (report,) = benchmark_in_turn([tflite_path], threads, runs=runs, warmup=warmup, max_seconds=max_seconds)
    return report


def benchmark_in_turn(
    tflite_paths: Sequence[str | Path | bytes],
    threads: int = 1,
    *,
    runs: int = 50,
    warmup: int = 5,
    max_seconds: float = MAX_SECONDS,
) -> list[LatencyReport]:
    """Times several files a few runs at a time each, so that a machine which is busy for a while is so for all of them.

    Args:
        tflite_paths: Paths of the files, or their bytes.
        threads, runs, warmup, max_seconds: As in `benchmark`, for each file.

    Returns:
        A `LatencyReport` for each file.

    Raises:
        UserError: As in `benchmark`.
    """
    if threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}.")
    timers = [
        Timer(_inference(path, threads), runs=runs, warmup=warmup, max_seconds=max_seconds) for path in tflite_paths
    ]
    while sum(timer.burst() for timer in timers):  # a sum, as each has its turn
        pass
    timings = [timer.timing() for timer in timers]
    return [LatencyReport(timed.median_ms, timed.iqr_ms, timed.runs, threads, cpu_name()) for timed in timings]


def _inference(path: str | Path | bytes, threads: int) -> Callable[[], object]:
    """What runs a file on an image of noise."""
    model = TFLiteModel(path, threads)
    image = np.random.default_rng(0).integers(0, 256, model.input_shape).astype("float32")
    return partial(model.run, model.quantized_input(image))
