"""Images in the input range of a file, computed when they are read. numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, overload

import numpy as np


@dataclass(frozen=True, eq=False)
class MappedImages:
    """A function of each image of an array, computed anew each time that the image is read.

    A float copy of a hundred images of B7 would take 0.4 GB.

    Args:
        pixels: Array of shape `(N, height, width, channels)`.
        function: Function of an image to an image of the same shape. It must not change its argument.
    """

    pixels: np.ndarray
    function: Callable[[np.ndarray], np.ndarray]

    @property
    def shape(self) -> tuple[int, ...]:
        """`(N, height, width, channels)`."""
        return self.pixels.shape

    def __len__(self) -> int:
        return len(self.pixels)

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.function, self.pixels)

    @overload
    def __getitem__(self, place: int) -> np.ndarray: ...

    @overload
    def __getitem__(self, place: slice) -> MappedImages: ...

    def __getitem__(self, place: int | slice) -> np.ndarray | MappedImages:
        if isinstance(place, slice):
            return MappedImages(self.pixels[place], self.function)
        return self.function(self.pixels[place])


ImageArray: TypeAlias = np.ndarray | MappedImages  # of shape `(N, height, width, channels)`
