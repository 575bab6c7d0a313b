"""Load of other processes on this machine while something is measured. psutil."""

from __future__ import annotations

import time
from contextlib import suppress
from types import TracebackType

import psutil


class OtherLoad:
    """Number of cores that other processes, apart from children of this one, use inside a `with` block.

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
        """Wall time, busy time of all cores, and processor time of this process and its children, in seconds."""
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        # Time of guests is contained in that of users.
        guests = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
        return time.perf_counter(), sum(times) - idle - guests, _own_seconds()


def _own_seconds() -> float:
    """Processor time of this process and its children, those that have ended included."""
    process = psutil.Process()
    own = process.cpu_times()
    total = own.user + own.system + getattr(own, "children_user", 0.0) + getattr(own, "children_system", 0.0)
    for child in process.children(recursive=True):
        with suppress(psutil.Error):  # it has ended since
            times = child.cpu_times()
            total += times.user + times.system
    return total
