"""`Masks`: a class for each pixel of every image, from arrays, files or encoded PNGs. NumPy and Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_effnet.errors import UserError, first_line

IGNORED = 255  # of a pixel that belongs to no class, neither in training nor in evaluation
VALUES = 256
_CLASS_MODES = ("L", "P", "1", "I;16", "I")


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks of the images of a split: the value of a pixel is its class, 255 is ignored.

    Args:
        source: `uint8` array of shape `(N, height, width)`, a tuple of N paths of grey or palette PNG files, or a tuple
            of the N encoded files.
        white: Bool, whether 255 stands for class 1, as in masks of black and white.
    """

    source: np.ndarray | tuple[str, ...] | tuple[bytes, ...]
    white: bool = False

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, indices: Any) -> Masks:
        """Select masks, as an array is indexed by an array of indices or a slice."""
        return self.select(np.arange(len(self))[indices])

    def select(self, indices: np.ndarray) -> Masks:
        """Select the masks at `indices`, in that order."""
        chosen = np.asarray(indices, int)
        if isinstance(self.source, np.ndarray):
            return replace(self, source=self.source[chosen])
        return replace(self, source=tuple(self.source[i] for i in chosen))

    def read(self, index: int) -> np.ndarray:
        """Read one mask, `uint8` of shape `(height, width)`.

        Raises:
            UserError: The file is missing or damaged, or no mask.
        """
        source = self.source[index]
        return whitened(source) if self.white and isinstance(source, np.ndarray) else read_mask(source, self.white)

    @property
    def paths(self) -> tuple[str, ...]:
        """Paths of the files; empty for masks in memory."""
        return tuple(each for each in self.source if isinstance(each, str)) if isinstance(self.source, tuple) else ()

    def counts(self) -> np.ndarray:
        """Number of pixels of each value in each mask, an int array of shape `(N, 256)`; reads all masks."""
        found = np.zeros((len(self), VALUES), "int64")
        with ThreadPoolExecutor() as pool:
            rows = pool.map(lambda index: np.bincount(self.read(index).ravel(), minlength=VALUES), range(len(self)))
            for row, counted in zip(found, rows, strict=True):
                row[:] = counted
        return found

    def contents(self) -> Iterator[bytes]:
        """Yield what identifies each mask: its pixels, its encoded bytes, or the name and size of its file."""
        for each in self.source:
            if isinstance(each, str):
                yield f"{Path(each).name} {_size(each)}".encode(errors="surrogateescape")
            else:
                yield bytes(each) if isinstance(each, bytes) else np.ascontiguousarray(each).tobytes()


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return -1


def join(first: Masks, second: Masks) -> Masks:
    """Concatenate the masks of two splits of a dataset."""
    if isinstance(first.source, np.ndarray) and isinstance(second.source, np.ndarray):
        return replace(first, source=np.concatenate([first.source, second.source]))
    return replace(first, source=(*first.source, *second.source))


def whitened(mask: np.ndarray) -> np.ndarray:
    """A mask of black and white as classes 0 and 1."""
    return np.where(mask == IGNORED, 1, mask).astype("uint8")


def read_mask(source: str | bytes | np.ndarray, white: bool = False) -> np.ndarray:
    """Read a mask from a file, its encoded bytes, or an array.

    Args:
        source: Path of a grey or palette PNG file, its bytes, or a `uint8` array of shape `(height, width)`.
        white: Bool, whether 255 stands for class 1.

    Returns:
        A `uint8` array of shape `(height, width)`.

    Raises:
        UserError: The file is missing or damaged, or its pixels are colours.
    """
    if isinstance(source, np.ndarray):
        return whitened(source) if white else source
    from PIL import Image

    name = source if isinstance(source, str) else "An encoded mask"
    try:
        with Image.open(source if isinstance(source, str) else io.BytesIO(source)) as image:
            if image.mode not in _CLASS_MODES:
                raise UserError(
                    f"{name} holds colours ({image.mode}), not class numbers: save masks as grey or palette PNG files "
                    "whose values are classes."
                )
            values = np.asarray(image)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"Mask {name} does not exist.") from None
    except Exception as error:  # damaged files raise errors of many types
        raise UserError(f"{name} is not a mask that can be decoded: {first_line(error)[:120]}.") from None
    if values.max(initial=0) >= VALUES or values.min(initial=0) < 0:
        raise UserError(f"{name} holds the value {values.max(initial=0)}; classes are 0 to 254, and 255 is ignored.")
    mask = values.astype("uint8")
    return whitened(mask) if white else mask


def encode_mask(mask: np.ndarray) -> bytes:
    """Encode a mask as a grey PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()


def upright_size(path: str) -> tuple[int, int] | None:
    """Height and width of an image file as it is seen; None if Pillow cannot tell."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            width, height = image.size
            return (width, height) if image.getexif().get(0x0112, 1) >= 5 else (height, width)
    except Exception:  # such files are found when all images are decoded
        return None


def mask_names(used: Sequence[int], given: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the classes of masks: those given, or the numbers up to the largest."""
    return tuple(given) if given else tuple(map(str, range(1 + max(used, default=0))))
