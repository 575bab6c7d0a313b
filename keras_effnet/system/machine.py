"""Memory of this machine and process, processor name, and versions. Pure Python.

Free memory is limited by the operating system and by the control groups of containers.
"""

from __future__ import annotations

import os
import platform
import sys
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import psutil

from keras_effnet.errors import UserError

_KB = 1024


def resident_bytes() -> int:
    """Resident memory of this process now."""
    return int(psutil.Process().memory_info().rss)


def peak_resident_bytes() -> int:
    """Peak resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # `getrusage` there includes what the parent held when it started this process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * _KB
    info = psutil.Process().memory_info()
    if hasattr(info, "peak_wset"):  # Windows
        return int(info.peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else _KB)


def _number(path: Path) -> int | None:
    """The number in a file; None if the file is missing or says `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _group_free(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Free bytes of a control group, with its file cache counted as free; None if it has no limit."""
    most, used = _number(folder / limit), _number(folder / usage)
    if most is None or used is None:
        return None
    with suppress(OSError):
        lines = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used -= int(lines.get(cache, 0))
    return max(0, most - used)


def host_bytes(root: Path = Path("/")) -> tuple[int, str]:
    """Free memory in bytes, by the system and by the control groups of this process, and what limits it.

    Args:
        root: Folder that contains `proc` and `sys`.

    Returns:
        A pair of bytes and a description of the limiting memory.

    Raises:
        UserError: The system does not report it.
    """
    try:
        meminfo = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines() if ":" in line)
        free = [(int(meminfo["MemAvailable"].split()[0]) * _KB, "memory")]
    except (OSError, KeyError, ValueError):
        try:
            free = [(psutil.virtual_memory().available, "memory")]
        except (OSError, NotImplementedError):
            raise UserError("The free memory of this system is unknown; give a batch size.") from None
    groups = []
    with suppress(OSError):
        groups = [line.split(":", 2)[1:] for line in (root / "proc/self/cgroup").read_text().splitlines()]
    for controllers, path in groups:
        if "memory" in controllers.split(","):
            base, names = (
                "sys/fs/cgroup/memory",
                ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            )
        elif not controllers:
            base, names = "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        # Parent groups limit a group too; inside a container the path may be hidden, and the root is the group.
        inner = root / base / path.strip("/")
        for folder in (inner, *inner.parents):
            left = _group_free(folder, *names)
            if left is not None:
                free.append((left, "memory of the container"))
            if folder == root / base:
                break
    return min(free)


_PACKAGES = ("keras-effnet", "tensorflow", "keras", "ai-edge-litert", "numpy")


def cpu_name() -> str:
    """Name of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment() -> dict[str, object]:
    """Facts that results depend on: Python, package versions, processor."""
    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "packages": versions,
    }
