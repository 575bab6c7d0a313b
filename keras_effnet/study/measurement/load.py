"""Load of other processes on this machine while something is measured. psutil."""

from __future__ import annotations

import time
from types import TracebackType

import psutil


class OtherLoad:
    """Number of cores that other processes use inside a `with` block.

    Example:

    >>> with OtherLoad() as load:
    ...     measure(function)
    >>> load.cores
    """

    cores: float | None = None  # None before the end, or where the platform does not report it

    def __enter__(self) -> OtherLoad:
        self._before = self._counters()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        (then, busy, own), (now, busy_now, own_now) = self._before, self._counters()
        if now > then:
            self.cores = max(0.0, ((busy_now - busy) - (own_now - own)) / (now - then))

    @staticmethod
    def _counters() -> tuple[float, float, float]:
        """Wall time, busy time of all cores, and processor time of this process, in seconds."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Time of guests is contained in that of users.
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        own = psutil.Process().cpu_times()
        return time.perf_counter(), sum(times) - idle - guests, own.user + own.system
