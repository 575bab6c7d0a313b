"""JSON Lines logs that survive a kill: at most the line being written is lost. Pure Python."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

from keras_effnet.errors import UserError
from keras_effnet.system.files import cannot_write


def read(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON Lines file; an incomplete last line is skipped, a missing file has no rows.

    Raises:
        UserError: A line other than the last is not a JSON object.
    """
    path = Path(path)
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else {}
            if not isinstance(row, dict):
                raise ValueError("not an object")
        except ValueError:
            if number == len(lines):  # without a line end: its writer was killed
                break
            raise UserError(f"{path}, line {number}, is not a JSON object. Correct or remove that line.") from None
        if row:
            rows.append(row)
    return rows


def append(path: str | Path, row: dict[str, Any]) -> None:
    """Append a row and flush it to disk; the rest of an incomplete earlier line is cut off.

    Raises:
        WriteError: The disk is full or the file cannot be written; its rows are unchanged.
    """
    line = json.dumps(row, allow_nan=False).encode() + b"\n"
    try:
        _append_line(path, line)
    except OSError as error:
        raise cannot_write(f"to {path}", error) from None


def _append_line(path: str | Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
    try:
        end = _end_of_whole_lines(descriptor)
        os.ftruncate(descriptor, end)
        os.lseek(descriptor, end, os.SEEK_SET)
        try:
            written = os.write(descriptor, line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, end)
            raise
    finally:
        os.close(descriptor)


def _end_of_whole_lines(descriptor: int) -> int:
    """Bytes up to and including the last line end."""
    size = os.lseek(descriptor, 0, os.SEEK_END)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return os.read(descriptor, size).rfind(b"\n") + 1 if size else 0
