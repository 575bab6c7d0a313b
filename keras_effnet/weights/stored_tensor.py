"""Lazily read tensors of weights files: known shape, values read on demand.

All readers return them, so shapes are compared before a malicious file can exhaust the memory. Text from files is
passed through `printable` before it is shown. numpy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


def printable(text: object, limit: int = 160) -> str:
    """Make text from a file safe to show: one line, no control characters, limited length."""
    shown = " ".join(str(text)[: limit + 1].split())
    shown = "".join(letter if letter.isprintable() else "?" for letter in shown)
    return shown if len(shown) <= limit else f"{shown[:limit]}..."


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
