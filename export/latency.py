"""How long a file takes on this machine, for one picture. Imports `interpreter`, `runs`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.export.interpreter import TFLiteModel
from keras_effnet.runs import cpu_name

MIN_RUNS = 5  # timed, however slow the file is: fewer have no quartiles to speak of
MAX_SECONDS = 10.0
_WARMUP_SHARE = 0.2  # of the time, at most, after the first run


@dataclass(frozen=True)
class LatencyReport:
    """Time of one picture through a `.tflite` file.

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
    """Times a `.tflite` file on one picture at a time.

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
    if min(threads, runs) < 1 or warmup < 0:
        raise UserError(f"threads and runs must be at least 1, got {threads} and {runs}.")
    if not max_seconds > 0:
        raise UserError(f"max_seconds must be above 0, got {max_seconds}.")
    model = TFLiteModel(tflite_path, threads)
    picture = np.random.default_rng(0).integers(0, 256, model.input_shape).astype("float32")
    batch = model.quantized_input(picture)
    spent = sum(_timed(model, batch, warmup, at_least=1, seconds=_WARMUP_SHARE * max_seconds))
    times = _timed(model, batch, runs, at_least=MIN_RUNS, seconds=max_seconds - spent)
    low, median, high = np.percentile(times, (25, 50, 75)) * 1e3
    return LatencyReport(float(median), float(high - low), len(times), threads, cpu_name())


def _timed(model: TFLiteModel, batch: np.ndarray, runs: int, *, at_least: int, seconds: float) -> list[float]:
    """Seconds of each of `runs` runs, or of those that fit into the time, `at_least` so many."""
    times: list[float] = []
    while len(times) < runs and (len(times) < at_least or sum(times) < seconds):
        started = time.perf_counter()
        model.run(batch)
        times.append(time.perf_counter() - started)
    return times
