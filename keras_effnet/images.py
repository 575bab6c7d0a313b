"""From bytes to pixels: the one decoder, and the check of many files before a long run relies on them.

TensorFlow, and Pillow for the rarer formats; imports `errors`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_effnet.errors import UserError

_UNDECODABLE = (tf.errors.InvalidArgumentError, ValueError)  # from TensorFlow's decoders, and from Pillow's
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
    # TensorFlow takes the palette of a BMP for grey levels, and refuses WebP with alpha or animation.
    by_pillow = (tf.strings.substr(contents, 0, 2) == b"BM") | (_bytes_at(contents, 8, 12) == b"WEBP")
    image = tf.cond(
        by_pillow,
        lambda: tf.numpy_function(_decode_with_pillow, [contents], tf.uint8),
        lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def _bytes_at(contents, start: int, stop: int) -> tf.Tensor:
    """Some bytes of a string, empty where it is too short."""
    head = tf.strings.substr(contents, 0, stop)
    return tf.strings.substr(head, tf.minimum(start, tf.strings.length(head)), stop - start)


def _decode_with_pillow(contents: bytes) -> np.ndarray:
    try:
        return np.asarray(Image.open(io.BytesIO(contents)).convert("RGB"))
    except Exception as error:  # Pillow's plugins raise what they like on a damaged file
        # In a pipeline TensorFlow turns this type, and not others, into InvalidArgumentError.
        raise ValueError(f"{type(error).__name__}: {error}") from None


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
    except _UNDECODABLE as error:
        raise UserError(f"{path} is not a picture that can be decoded: {_reason(error)}.") from None


def list_pictures(folder: str | Path) -> list[str]:
    """All picture files below a folder, sorted; hidden files and folders left out."""
    return sorted(
        str(path)
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in EXTENSIONS and not _hidden(path.relative_to(folder)) and path.is_file()
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def find_bad_files(paths: Sequence[str], progress: Callable[[Iterable], Iterable] = iter) -> list[BadFile]:
    """Decodes every file with the decoder that training will use, and lists those that fail.

    Args:
        paths: Paths of picture files.
        progress: Wraps the iteration, for a progress bar.
    """

    def check(path: str) -> BadFile | None:
        try:
            decode(Path(path).read_bytes())
        except (*_UNDECODABLE, OSError) as error:
            return BadFile(path, _reason(error))
        return None

    with ThreadPoolExecutor() as pool:
        return [bad for bad in progress(pool.map(check, paths)) if bad]
