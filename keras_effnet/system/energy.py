"""Energy consumption of the processor, where Linux reports it (RAPL). Pure Python.

The counters cover all processes of the machine, but no GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class _Package:
    """Energy counter of one processor package, corrected for wrap-around."""

    def __init__(self, folder: Path):
        self._counter = folder / "energy_uj"
        self._range = int((folder / "max_energy_range_uj").read_text())
        self._last = int(self._counter.read_text())
        self.microjoules = 0

    def sample(self) -> None:
        now = int(self._counter.read_text())
        self.microjoules += (now - self._last) % self._range
        self._last = now


def _packages(root: Path) -> list[_Package]:
    """Counters named `package-0` and so on; `core` and `dram` are parts of them, `psys` includes them."""
    folders = sorted(root.glob("intel-rapl:*"))
    return [_Package(folder) for folder in folders if (folder / "name").read_text().startswith("package")]


@dataclass
class EnergyMeter:
    """Result of `energy_meter`.

    Args:
        joules: Float, energy of all packages while the block ran; None before its end, or if not reported.
    """

    joules: float | None = None


@contextmanager
def energy_meter(root: Path = POWERCAP, *, interval: float = 30.0) -> Iterator[EnergyMeter]:
    """Measure the energy that the processor consumes while a block runs.

    On most systems only the superuser may read the counters; virtual machines have none.

    Args:
        root: Folder of the power capping framework.
        interval: Float, seconds between readings. Counters wrap around every few minutes under load, so readings must
            be closer than that.

    Yields:
        An `EnergyMeter`, whose `joules` are set when the block ends, even by an error.

    Example:

    >>> with energy_meter() as meter:
    ...     model.fit(batches)
    >>> meter.joules

    Source: https://docs.kernel.org/power/powercap/powercap.html
    """
    meter = EnergyMeter()
    try:
        packages = _packages(root)
    except (OSError, ValueError):  # a sum over some packages would be wrong
        packages = []
    if not packages:
        yield meter
        return

    over, failed = threading.Event(), threading.Event()

    def sample() -> None:
        try:
            for package in packages:
                package.sample()
        except (OSError, ValueError):
            failed.set()

    def watch() -> None:
        while not over.wait(interval):
            sample()

    watcher = threading.Thread(target=watch, name="energy", daemon=True)
    watcher.start()
    try:
        yield meter
    finally:
        over.set()
        watcher.join()
        sample()
        if not failed.is_set():
            meter.joules = sum(package.microjoules for package in packages) / 1e6
