"""Results that the processes of `pytest -n` share: the first process that asks makes them, the others wait and copy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock


def folder_made_once(name: str, make: Callable[[Path], None], factory: pytest.TempPathFactory) -> Path:
    """Folder of this process' own with what `make` writes into an empty folder, once for all processes of a session.

    Args:
        name: String, unique among the callers.
        make: Function that fills the folder it is given.
        factory: Pytest's `tmp_path_factory`.

    Returns:
        Path of the copy. Tests may write into it.
    """
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"shared-{name}"
    with FileLock(shared.with_suffix(".lock")):
        if not shared.exists():
            unfinished = shared.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a process that failed
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(shared)
    return Path(shutil.copytree(shared, factory.mktemp(name) / name))
