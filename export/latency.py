"""How long a file takes on this machine, for one picture. Imports `interpreter`, `runs`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.export.interpreter import TFLiteModel
from keras_effnet.runs import cpu_name


@dataclass(frozen=True)
class LatencyReport:
    """Time of one picture through a `.tflite` file.

    Args:
        median_ms: Float, milliseconds.
        iqr_ms: Float, distance between the quartiles, milliseconds: how noisy the machine was.
        runs: Int, timed runs.
        threads: Int.
        cpu: String. A figure without its processor says nothing.
    """

    median_ms: float
    iqr_ms: float
    runs: int
    threads: int
    cpu: str


def benchmark(tflite_path: str | Path, threads: int = 1, *, runs: int = 50, warmup: int = 5) -> LatencyReport:
    """Times a `.tflite` file on one picture at a time.

    Args:
        tflite_path: Path of the file.
        threads: Int, threads of the interpreter.
        runs: Int, timed runs.
        warmup: Int, runs before them.

    Returns:
        A `LatencyReport`.

    Raises:
        UserError: The file cannot be run, or a count is below 1.
    """
    if min(threads, runs) < 1 or warmup < 0:
        raise UserError(f"threads and runs must be at least 1, got {threads} and {runs}.")
    model = TFLiteModel(tflite_path, threads)
    picture = np.random.default_rng(0).integers(0, 256, model.input_shape).astype("float32")
    batch = model.quantized_input(picture)
    times = []
    for _ in range(warmup + runs):
        started = time.perf_counter()
        model.run(batch)
        times.append(time.perf_counter() - started)
    low, median, high = np.percentile(times[warmup:], (25, 50, 75)) * 1e3
    return LatencyReport(float(median), float(high - low), runs, threads, cpu_name())
