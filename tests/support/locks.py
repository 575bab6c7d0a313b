"""A second process that holds the lock of a folder, for tests of what the first is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_HOLD = """
import sys
from keras_effnet.system.run_folders import locked
with locked(sys.argv[1]):
    print("in", flush=True)
    input()
"""


@contextmanager
def held_by_another(folder: Path) -> Iterator[subprocess.Popen]:
    """Yield a process that has locked the folder; it is killed at the end of the block."""
    command = [sys.executable, "-c", _HOLD, str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as other:
        try:
            assert other.stdout.readline() == "in\n"
            yield other
        finally:
            other.kill()
