"""How long a call takes: warmed up, waited for, median and quartiles. Imports `errors`, and numpy for the quartiles.

No framework: what must be waited for says so itself, or the caller says how.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from keras_effnet.errors import UserError

MIN_RUNS = 5  # timed, however slow the function is: fewer have no quartiles to speak of
_BURST = 5  # runs of a function before the next one has its turn
_WARMUP_SHARE = 0.2  # of the time, at most, after the first run


@dataclass(frozen=True)
class Timing:
    """How long one call takes.

    Args:
        median_ms: Float, milliseconds.
        iqr_ms: Float, distance between the quartiles, milliseconds: how noisy the machine was.
        runs: Int, timed runs; fewer than asked for where the time was up.
    """

    median_ms: float
    iqr_ms: float
    runs: int


def wait(value: object) -> None:
    """Blocks until a value is computed: fetches all in it that has a `.numpy()`, lists and dicts searched through.

    Args:
        value: Whatever a function returned. What has no `.numpy()` is there already.
    """
    if callable(fetch := getattr(value, "numpy", None)):
        fetch()
    elif isinstance(value, Mapping):
        wait(list(value.values()))
    elif isinstance(value, (list, tuple)):
        for each in value:
            wait(each)


class Timer:
    """Calls a function again and again, until it was called often or long enough.

    Several timers that take their bursts in turn see the same machine: while it is busy, it is so for all of them.

    Args:
        function: Called without arguments.
        synchronize: Function of what `function` returned, which blocks until that is computed. It counts as time.
        runs: Int, timed runs; of a slow function as many as fit into `max_seconds`, and no fewer than 5 of them.
        warmup: Int, runs before them; a slow function takes one.
        max_seconds: Float, time for all of it.

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
        """A few runs, of those that are left; whether there were any."""
        for count in range(_BURST):
            times = self._times
            if len(times) >= self._runs or (len(times) >= MIN_RUNS and sum(times) >= self._seconds):
                return count > 0
            times.append(self._run())
        return True

    def timing(self) -> Timing:
        """What the runs so far took."""
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
    """Times a function that computes what it returns, now or later.

    Args:
        function, synchronize, runs, warmup, max_seconds: As in `Timer`. A function that traces or compiles at its first
            call wants that call before this one: it would use the time up.

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
