"""A tensor that still lies in a file: its shape is known, its values are read when they are asked for.

Every reader of weights yields these, so that shapes are compared before a hostile file can fill the memory; what such a
file says goes through `printable` before a message repeats it. Numpy; imports `errors`.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_effnet.errors import UserError


def printable(text: object, limit: int = 160) -> str:
    """What a file says, as a message may repeat it: one line, no control characters, of bounded length."""
    shown = " ".join(str(text)[: limit + 1].split())
    shown = "".join(letter if letter.isprintable() else "?" for letter in shown)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


@contextmanager
def open_archive(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip archive whose members do not share their bytes, by which a small one would hold gigabytes."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.compress_size for member in archive.infolist()) > path.stat().st_size:
            raise UserError("its members are larger than the whole file; refused")
        yield archive


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member of an archive, stored as it is: torch and Keras compress nothing, a zip bomb must."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise UserError(f"it lacks {printable(name)}") from None
    if member.compress_type != zipfile.ZIP_STORED:
        raise UserError(f"{printable(name)} in it is compressed, which weights never are; refused")
    return archive.read(member)


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file.

    Args:
        shape: Tuple of ints.
        read: Function without arguments that gives the values as an array of that shape.
    """

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]

    def transpose(self, axes: tuple[int, ...]) -> StoredTensor:
        """The same tensor with its axes in another order; of another rank than `axes` it stays as it is."""
        if len(axes) != len(self.shape):  # the comparison of shapes will name it
            return self
        return StoredTensor(tuple(self.shape[axis] for axis in axes), lambda: self.read().transpose(axes))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return np.asarray(self.read(), dtype)
