"""Latency of `.tflite` files on this machine, one image at a time, measured inside a worker process for each file.

LiteRT and numpy; never TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_effnet.errors import UserError, whole_number
from keras_effnet.export.isolation.isolated import IsolatedModel
from keras_effnet.system.machine import cpu_name

MAX_SECONDS = 10.0
MOST_THREADS = 1024  # LiteRT silently runs with fewer when it cannot start as many


@dataclass(frozen=True)
class LatencyReport:
    """Latency of a `.tflite` file for one image.

    Args:
        median_ms: Float, milliseconds.
        iqr_ms: Float, interquartile range in milliseconds, a measure of noise.
        runs: Int, timed runs; fewer than requested if `max_seconds` was reached.
        threads: Int.
        cpu: String, name of the processor.
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
    """Measure the latency of a `.tflite` file, one image at a time.

    Args:
        tflite_path: Path of the file, or its bytes.
        threads: Int, number of interpreter threads.
        runs: Int, timed runs; a slow file gets as many as fit in `max_seconds`, but at least 5.
        warmup: Int, untimed runs first; a slow file gets one.
        max_seconds: Float, time limit for all runs.

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
    """Measure several files in alternating short bursts, so that background load affects all of them alike.

    Args:
        tflite_paths: Paths or bytes of the files.
        threads, runs, warmup, max_seconds: As in `benchmark`, for each file.

    Returns:
        A `LatencyReport` for each file.

    Raises:
        UserError: As in `benchmark`.
    """
    threads, runs, warmup = (
        whole_number("threads", threads),
        whole_number("runs", runs),
        whole_number("warmup", warmup, 0),
    )
    if threads > MOST_THREADS:
        raise UserError(f"threads must be at most {MOST_THREADS}, got {threads}.")
    timers = [
        IsolatedModel(path, threads).timer(runs=runs, warmup=warmup, max_seconds=max_seconds) for path in tflite_paths
    ]
    while sum(timer.burst() for timer in timers):  # sum, not any: every timer gets its burst
        pass
    timings = [timer.timing() for timer in timers]
    return [LatencyReport(timed.median_ms, timed.iqr_ms, timed.runs, threads, cpu_name()) for timed in timings]
