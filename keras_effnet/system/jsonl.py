"""Results as lines of JSON, appended one by one: a kill costs the line being written and no other.

Standard library and `errors` alone.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_effnet.errors import UserError


def read(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none where there is no file. A torn last line is passed over.

    Raises:
        UserError: A line other than the last is no JSON object.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else {}
            if not isinstance(row, dict):
                raise ValueError("no object")
        except ValueError:
            if number == len(lines):  # it has no line end: whoever wrote it was killed
                break
            raise UserError(f"{path}, line {number}, is no row of results. Mend or remove that line.") from None
        if row:
            rows.append(row)
    return rows


def append(path: str | Path, row: dict[str, Any]) -> None:
    """Adds a row, in one write that has reached the disk on return. What a kill left of an earlier line is cut off."""
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        end = _end_of_whole_lines(descriptor)
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError as error:
            os.ftruncate(descriptor, end)
            raise UserError(f"Cannot write to {path}: {error.strerror}. Make room, then resume the study.") from None
    finally:
        os.close(descriptor)


def _end_of_whole_lines(descriptor: int) -> int:
    """Bytes up to and with the last line end."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, size).rfind(b"\n") + 1 if size else 0


@contextmanager
def alone_in(folder: str | Path) -> Iterator[None]:
    """Holds a folder for this process, until it ends in whatever way.

    Raises:
        UserError: Another process holds it.
    """
    import fcntl

    descriptor = os.open(Path(folder) / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"Another process works in {folder}; wait for it, or end it.") from None
        yield
    finally:
        os.close(descriptor)
