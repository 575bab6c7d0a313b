"""Lazily read tensors of weights files: known shape, values read on demand.

All readers return them, so shapes are compared before a malicious file can exhaust the memory. Text from files is
passed through `printable` before it is shown. numpy.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import UserError


def printable(text: object, limit: int = 160) -> str:
    """Make text from a file safe to show: one line, no control characters, limited length."""
    shown = " ".join(str(text)[: limit + 1].split())
    shown = "".join(letter if letter.isprintable() else "?" for letter in shown)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive, refusing one whose members overlap, which could unpack to gigabytes."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.compress_size for member in archive.infolist()) > path.stat().st_size:
            raise UserError("its members are larger than the whole file; refused")
        yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read an uncompressed member of an archive; torch and Keras never compress, zip bombs do."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise UserError(f"it lacks {printable(name)}") from None
    if member.compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{printable(name)} in it is compressed, unlike any weights file; refused")
    return archive.read(member)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file.

    Args:
        shape: Tuple of ints.
        read: Function without arguments that returns the values as an array of that shape.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    def transpose(self, axes: tuple[int, ...]) -> StoredTensor:
        """The tensor with permuted axes; unchanged if its rank differs from that of `axes`."""
        if len(axes) != len(self.shape):  # comparing the shapes reports it later
            return self
        return StoredTensor(tuple(self.shape[axis] for axis in axes), lambda: self.read().transpose(axes))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self.read(), dtype)
