"""From bytes to pixels: the one decoder, and the check of many files before a long run relies on them.

TensorFlow only; imports `errors`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_effnet.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")


class BadFile(NamedTuple):
    """A file that cannot be decoded, and why."""

    path: str
    reason: str


def decode(contents) -> tf.Tensor:
    """Decodes JPEG, PNG, GIF, BMP or WebP bytes to RGB.

    Grayscale and palettes become RGB, CMYK is converted, alpha is dropped, 16 bits become 8, and of an animation the
    first frame is taken.

    Args:
        contents: Scalar string tensor.

    Returns:
        A `uint8` tensor of shape `(height, width, 3)`.
    """
    image = tf.io.decode_image(contents, channels=3, expand_animations=False)
    return tf.ensure_shape(image, (None, None, 3))


def _reason(error: Exception) -> str:
    message = str(error).replace("\n", " ")
    message = message.split("}} ")[-1].split(" [Op:")[0]
    return message[:120].rstrip(". ")


def read(path: str | Path) -> np.ndarray:
    """Reads a picture file as a `uint8` array of shape `(height, width, 3)`.

    Raises:
        UserError: The file is missing or cannot be decoded.
    """
    if not Path(path).is_file():
        raise UserError(f"Picture {path} does not exist.")
    try:
        return decode(Path(path).read_bytes()).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise UserError(f"{path} is not a picture that can be decoded: {_reason(error)}.") from None


def list_pictures(folder: str | Path) -> list[str]:
    """All picture files below a folder, sorted; hidden ones left out."""
    return sorted(
        str(path)
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    )


def find_bad_files(paths: Sequence[str], progress: Callable[[Iterable], Iterable] = iter) -> list[BadFile]:
    """Decodes every file with the decoder that training will use, and lists those that fail.

    Args:
        paths: Paths of picture files.
        progress: Wraps the iteration, for a progress bar.
    """

    def check(path: str) -> BadFile | None:
        try:
            decode(Path(path).read_bytes())
        except (tf.errors.InvalidArgumentError, OSError) as error:
            return BadFile(path, _reason(error))
        return None

    with ThreadPoolExecutor() as pool:
        return [bad for bad in progress(pool.map(check, paths)) if bad]
