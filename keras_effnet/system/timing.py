"""Benchmark timing: warm-up, synchronization, median and quartiles. numpy.

Framework-neutral: results with a `.numpy()` are fetched, or the caller passes a function that synchronizes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import UserError

MIN_RUNS = 5  # at least, however slow the function is: fewer have no meaningful quartiles
_BURST = 5  # consecutive runs before another timer has its turn
_WARMUP_SHARE = 0.2  # of the time, at most, after the first run


@dataclass(frozen=True)
class Timing:
    """Duration of one call.

    Args:
        median_ms: Float, milliseconds.
        iqr_ms: Float, interquartile range in milliseconds, a measure of noise.
        runs: Int, timed runs; fewer than requested if the time ran out.
    """

    median_ms: float
    iqr_ms: float
    runs: int


def wait(value: object) -> None:
    """Block until a value is computed, by fetching everything in it that has a `.numpy()` method.

    Args:
        value: Result of a function; lists, tuples and dicts are searched.
    """
    if callable(fetch := getattr(value, "numpy", None)):
        fetch()
    elif isinstance(value, Mapping):
        wait(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            wait(each)


class Timer:
    """Repeated timing of one function, in bursts.

    Several timers that run their bursts in turn are affected alike by other load on the machine.

    Args:
        function: Function without arguments.
        synchronize: Function that takes the result of `function` and blocks until it is computed; it is timed too.
        runs: Int, timed runs; for a slow function as many as fit into `max_seconds`, but at least 5.
        warmup: Int, runs before them; fewer, but at least one, for a slow function.
        max_seconds: Float, total time.

    Raises:
        UserError: A count or the time is too small.
    """

    def __init__(
        self,
        function: Callable[[], object],
        *,
        synchronize: Callable[[object], object] = wait,
        runs: int = 20,
        warmup: int = 3,
        max_seconds: float = 5.0,
    ):
        if runs < 1 or warmup < 0:
            raise UserError(f"runs must be at least 1 and warmup at least 0, got {runs} and {warmup}.")
        if not max_seconds > 0:
            raise UserError(f"max_seconds must be above 0, got {max_seconds}.")
        self._function, self._synchronize, self._runs = function, synchronize, runs
        warm: list[float] = []
        while len(warm) < warmup and (not warm or sum(warm) < _WARMUP_SHARE * max_seconds):
            warm.append(self._run())
        self._seconds = max_seconds - sum(warm)
        self._times: list[float] = []

    def _run(self) -> float:
        started = time.perf_counter()
        self._synchronize(self._function())
        return time.perf_counter() - started

    def burst(self) -> bool:
        """Time a few of the remaining runs; return whether there were any."""
        for count in range(_BURST):
            times = self._times
            if len(times) >= self._runs or (len(times) >= MIN_RUNS and sum(times) >= self._seconds):
                return count > 0
            times.append(self._run())
        return True

    def timing(self) -> Timing:
        """Statistics of the runs so far."""
        low, median, high = np.percentile(self._times, (25, 50, 75)) * 1e3
        return Timing(float(median), float(high - low), len(self._times))


def measure(
    function: Callable[[], object],
    *,
    synchronize: Callable[[object], object] = wait,
    runs: int = 20,
    warmup: int = 3,
    max_seconds: float = 5.0,
) -> Timing:
    """Time a function, waiting for its result.

    Args:
        function, synchronize, runs, warmup, max_seconds: As in `Timer`. Call a function that traces or compiles once
            before measuring it, because that takes from the time.

    Returns:
        A `Timing`.

    Raises:
        UserError: A count or the time is too small.

    Example:

    >>> measure(lambda: np.sort(values), runs=50).median_ms
    """
    timer = Timer(function, synchronize=synchronize, runs=runs, warmup=warmup, max_seconds=max_seconds)
    while timer.burst():
        pass
    return timer.timing()
