"""What memory this machine has to spare, by its system and by the control groups of its containers.

Standard library and `errors` alone.
"""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from keras_effnet.errors import UserError

_KB = 1024


def _number(path: Path) -> int | None:
    """The number in a file of one; None where there is no file, or `max`."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _group_free(folder: Path, limit: str, usage: str, cache: str) -> int | None:
    """Bytes that a control group leaves, its file cache counted as free; None where it sets no limit."""
    most, used = _number(folder / limit), _number(folder / usage)
    if most is None or used is None:
        return None
    with suppress(OSError):
        lines = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        used -= int(lines.get(cache, 0))
    return max(0, most - used)


def host_bytes(root: Path = Path("/")) -> tuple[int, str]:
    """Bytes of memory that the system and the control groups of this process leave, and what sets the limit.

    Args:
        root: Folder under which `proc` and `sys` lie.

    Raises:
        UserError: The system does not tell.
    """
    try:
        meminfo = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines() if ":" in line)
        free = [(int(meminfo["MemAvailable"].split()[0]) * _KB, "memory")]
    except (OSError, KeyError, ValueError):
        try:
            free = [(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "memory")]
        except (ValueError, OSError, AttributeError):
            raise UserError("This system does not tell how much memory is free; give a batch size.") from None
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
        # A group is bound by those above it; inside a container its own path may be hidden, and the top is the group.
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
    """The processor's name, for every figure of speed that is shown."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def environment() -> dict[str, object]:
    """What a run depended on: Python, packages, processor."""
    versions = {}
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
