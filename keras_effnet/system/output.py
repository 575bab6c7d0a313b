"""Keeps C++ libraries off the terminal: they write to file descriptors, past `sys.stdout`. Standard library only."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def captured_output() -> Iterator[list[str]]:
    """Keeps what is printed meanwhile, from Python and from C++, off the terminal and in the list that it yields."""
    lines: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with tempfile.TemporaryFile(mode="w+", errors="replace") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield lines
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in enumerate(saved, start=1):
                os.dup2(original, descriptor)
                os.close(original)
            log.seek(0)
            lines.extend(log.read().splitlines())
