"""Run folders, and files that are whole or absent: whatever writes a result writes it through here.

Imports nothing of the package but `errors`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from keras_effnet.errors import UserError

_ENVIRONMENT = "env.json"
_PACKAGES = ("keras-effnet", "tensorflow", "keras", "ai-edge-litert", "numpy")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` and moves it there only if the block succeeds.

    A crash or a full disk leaves the earlier file as it was. The temporary name keeps the suffix, which savers go by.
    """
    path = Path(path)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text)


def new_run(command: str, name: str, root: str | Path = "runs") -> Path:
    """Makes `root/command/name`, or `name-2`, `name-3`, ... where that exists.

    Raises:
        UserError: The folder cannot be written.
    """
    parent = Path(root) / command
    try:
        parent.mkdir(parents=True, exist_ok=True)
        number = 1
        while True:
            folder = parent / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
                break
            except FileExistsError:
                number += 1
    except OSError as error:
        raise UserError(f"Cannot write run folder {parent}: {error.strerror}. Choose another with --out.") from None
    write_environment(folder)
    return folder


@contextmanager
def kept_if_used(folder: Path) -> Iterator[None]:
    """Removes a run folder again if the block fails before it wrote anything but what `new_run` had."""
    try:
        yield
    except BaseException:
        if [path.name for path in folder.glob("*")] == [_ENVIRONMENT]:
            shutil.rmtree(folder)
        raise


def write_environment(folder: Path) -> None:
    """Writes `env.json`: what the results in the folder depended on."""
    write_text(folder / _ENVIRONMENT, json.dumps(environment(), indent=2) + "\n")


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
