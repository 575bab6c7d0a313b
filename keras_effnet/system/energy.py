"""Energy that the processor takes, where Linux reports it (RAPL). Standard library alone.

The counters cover the whole machine, all its processes included, and no GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")


class _Package:
    """The counter of one processor package, summed over its wrap-arounds."""

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
    """Those called `package-0` and so on. `core` and `dram` are parts of them; `psys` is all of them and more."""
    folders = sorted(root.glob("intel-rapl:*"))
    return [_Package(folder) for folder in folders if (folder / "name").read_text().startswith("package")]


@dataclass
class EnergyMeter:
    """What `energy_meter` measured.

    Args:
        joules: Float, of all packages while the block ran; None until it ends, and where the platform does not tell.
    """

    joules: float | None = None


@contextmanager
def energy_meter(root: Path = POWERCAP, *, interval: float = 30.0) -> Iterator[EnergyMeter]:
    """Measures the energy that the processor's packages take while a block runs.

    Most systems let the superuser alone read the counters, and virtual machines have none.

    Args:
        root: Folder of the power capping framework.
        interval: Float, seconds between readings: a counter wraps around every few minutes under load, and two
            wrap-arounds between readings would go unseen.

    Yields:
        An `EnergyMeter`, whose `joules` are set when the block ends, by an error too.

    Example:

    >>> with energy_meter() as meter:
    ...     model.fit(batches)
    >>> meter.joules

    Source: https://docs.kernel.org/power/powercap/powercap.html
    """
    meter = EnergyMeter()
    try:
        packages = _packages(root)
    except (OSError, ValueError):  # some of several would be a wrong sum
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
