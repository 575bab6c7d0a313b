"""How long a file takes on this machine, for one picture. Imports `interpreter`, `runs`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.errors import UserError
from keras_effnet.export.interpreter import TFLiteModel
from keras_effnet.runs import cpu_name

MIN_RUNS = 5  # timed, however slow the file is: fewer have no quartiles to speak of
MAX_SECONDS = 10.0
_BURST = 5  # runs of a file before the next one has its turn
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
    if min(threads, runs) < 1 or warmup < 0:
        raise UserError(f"threads and runs must be at least 1, got {threads} and {runs}.")
    if not max_seconds > 0:
        raise UserError(f"max_seconds must be above 0, got {max_seconds}.")
    timers = [_Timer(TFLiteModel(path, threads), runs, warmup, max_seconds) for path in tflite_paths]
    while sum(timer.burst() for timer in timers):  # a sum, as each has its turn
        pass
    return [timer.report(threads) for timer in timers]


class _Timer:
    """Runs a file again and again, until it was run often or long enough."""

    def __init__(self, model: TFLiteModel, runs: int, warmup: int, max_seconds: float):
        self._model, self._runs = model, runs
        picture = np.random.default_rng(0).integers(0, 256, model.input_shape).astype("float32")
        self._batch = model.quantized_input(picture)
        warm: list[float] = []
        while len(warm) < warmup and (not warm or sum(warm) < _WARMUP_SHARE * max_seconds):
            warm.append(self._run())
        self._seconds = max_seconds - sum(warm)
        self._times: list[float] = []

    def _run(self) -> float:
        started = time.perf_counter()
        self._model.run(self._batch)
        return time.perf_counter() - started

    def burst(self) -> bool:
        """A few runs, of those that are left; whether there were any."""
        for count in range(_BURST):
            times = self._times
            if len(times) >= self._runs or (len(times) >= MIN_RUNS and sum(times) >= self._seconds):
                return count > 0
            times.append(self._run())
        return True

    def report(self, threads: int) -> LatencyReport:
        low, median, high = np.percentile(self._times, (25, 50, 75)) * 1e3
        return LatencyReport(float(median), float(high - low), len(self._times), threads, cpu_name())
