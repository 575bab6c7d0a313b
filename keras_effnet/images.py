"""From bytes to pixels: the one decoder, and the check of many files before a long run relies on them.

TensorFlow, and Pillow for the rarer formats; imports `errors`.
"""

from __future__ import annotations

import functools
import io
import re
import stat
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
# A header may claim any size. TensorFlow refuses a JPEG beyond 2^29 bytes of pixels, which is this many; Pillow, too.
MAX_PIXELS = 178_956_970
MAX_BYTES = 1 << 30  # of a file
# Huffman coding spends a bit or more on each block of 64 pixels, so that a whole JPEG has at most 512 pixels a byte.
_JPEG_PIXELS_PER_BYTE = 512
_PLENTY_OF_SCANS = 16  # of a progressive JPEG; a small one may have more, each costs a walk over all coefficients
_PNG = b"\x89PNG\r\n\x1a\n"
_PILLOW_FORMATS = ("BMP", "GIF", "WEBP")


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
    # TensorFlow takes the palette of a BMP for grey levels, refuses WebP with alpha or animation, and decodes all
    # frames of a GIF before it drops all but one.
    contents = tf.convert_to_tensor(contents)
    start = tf.strings.substr(contents, 0, 2)
    by_pillow = (start == b"BM") | (start == b"GI") | (_bytes_at(contents, 8, 12) == b"WEBP")
    image = tf.cond(
        by_pillow,
        lambda: tf.numpy_function(_decode_with_pillow, [contents], tf.uint8),
        lambda: tf.io.decode_image(_plausible(contents), channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_window(contents, box_of_shape: Callable) -> tf.Tensor:
    """Decodes a part of a picture; of a JPEG that part alone, which nearly halves the work.

    Whatever `decode` accepts, this decodes in every window: `tests/test_fuzz.py` looks for a file where it does not.

    Args:
        contents: Scalar string tensor.
        box_of_shape: Function from the picture's shape, an `int32` tensor `[height, width]`, to the window, an `int32`
            tensor `[top, left, height, width]` that lies within the picture and is not empty.

    Returns:
        A `uint8` tensor of shape `(height, width, 3)`, those of the window.
    """

    def jpeg():
        shape = tf.io.extract_jpeg_shape(contents)[:2]
        return tf.io.decode_and_crop_jpeg(_plausible_jpeg(contents, shape), box_of_shape(shape), channels=3)

    def other():
        image = decode(contents)
        top, left, height, width = tf.unstack(box_of_shape(tf.shape(image)[:2]), num=4)
        return image[top : top + height, left : left + width]

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(contents), jpeg, other), (None, None, 3))


def _bytes_at(contents, start: int, stop: int) -> tf.Tensor:
    """Some bytes of a string, empty where it is too short."""
    head = tf.strings.substr(contents, 0, stop)
    return tf.strings.substr(head, tf.minimum(start, tf.strings.length(head)), stop - start)


def _plausible(contents) -> tf.Tensor:
    """The same bytes, unless they are a JPEG or PNG whose header claims too much for its pixels to be allocated."""

    def png():
        sides = tf.io.decode_raw(_bytes_at(contents, 16, 24), tf.int32, little_endian=False)
        # TensorFlow's own limit is three times as high.
        return _unless_more(_pixels(sides), tf.constant(MAX_PIXELS, tf.int64), contents)

    return tf.case(
        [
            (tf.io.is_jpeg(contents), lambda: _plausible_jpeg(contents, tf.io.extract_jpeg_shape(contents)[:2])),
            ((_bytes_at(contents, 0, 8) == _PNG) & (tf.strings.length(contents) >= 24), png),
        ],
        default=lambda: tf.identity(contents),
    )


def _plausible_jpeg(contents, shape) -> tf.Tensor:
    """A JPEG of a few bytes and a huge size would decode, to grey: its missing data are no error to libjpeg."""
    most = _JPEG_PIXELS_PER_BYTE * tf.cast(tf.strings.length(contents), tf.int64)
    return _unless_more(_pixels(shape), most, contents)


def _pixels(sides) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(sides, tf.int64))


def _unless_more(pixels, most, contents) -> tf.Tensor:
    possible = tf.debugging.assert_less_equal(pixels, most, message="Claims more pixels than it can hold")
    with tf.control_dependencies([] if possible is None else [possible]):
        return tf.identity(contents)


def _decode_with_pillow(contents: bytes | np.ndarray) -> np.ndarray:
    if isinstance(contents, np.ndarray):  # so it comes outside of a graph: an array of one object
        contents = contents.item()
    try:
        _refuse_huge(*_webp_canvas(contents))
        with Image.open(io.BytesIO(contents), formats=_PILLOW_FORMATS) as image:
            _refuse_huge(*image.size)  # before its pixels are allocated
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise what they like on a damaged file
        # In a pipeline TensorFlow turns this type, and not others, into InvalidArgumentError.
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _refuse_huge(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"claims {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")


def _webp_canvas(contents: bytes) -> tuple[int, int]:
    """The canvas of an extended WebP, which older Pillows allocate when they open it; (0, 0) for other files."""
    if contents[8:16] != b"WEBPVP8X":
        return 0, 0
    return tuple(int.from_bytes(contents[start : start + 3], "little") + 1 for start in (24, 27))


def _reason(error: Exception) -> str:
    message = str(error).split("\nCondition")[0].replace("\n", " ")
    message = message.split("}} ")[-1].split(" [Op:")[0]
    return message[:120].rstrip(". ")


def _read_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file that is not absurdly large; reading a pipe might never end."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("Not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"File of {status.st_size / 2**30:.1f} GiB, more than {MAX_BYTES >> 30}")
    contents = Path(path).read_bytes()
    _refuse_endless(contents)
    return contents


def _refuse_endless(contents: bytes) -> None:
    """Refuses a progressive JPEG of so many scans that a few kilobytes would take hours."""
    if not contents.startswith(b"\xff\xd8") or contents.count(b"\xff\xda") <= _PLENTY_OF_SCANS:
        return
    scans = _scans(contents)
    height, width, _ = tf.io.extract_jpeg_shape(contents).numpy().tolist()
    if scans * height * width > _PLENTY_OF_SCANS * MAX_PIXELS:
        raise ValueError(f"JPEG of {width} x {height} pixels in {scans} scans")


def _scans(contents: bytes) -> int:
    """Scans of a JPEG up to its end marker; behind that cameras append videos, in which any bytes occur."""
    scans, place = 0, 2
    while marker := re.compile(rb"\xff([^\x00\xd0-\xd7\xff])").search(contents, place):
        code, place = marker[1][0], marker.end()
        if code == 0xD9:
            break
        scans += code == 0xDA
        place += int.from_bytes(contents[place : place + 2])  # a segment says its length; the coded data do not
    return scans


def read(path: str | Path) -> np.ndarray:
    """Reads a picture file as a `uint8` array of shape `(height, width, 3)`.

    Raises:
        UserError: The file is missing or cannot be decoded.
    """
    if not Path(path).is_file():
        raise UserError(f"Picture {path} does not exist.")
    try:
        return decode(_read_bytes(path)).numpy()
    except (*_UNDECODABLE, OSError) as error:
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


@functools.cache
def _compiled_decode() -> Callable:
    """`decode` as a graph: called file by file it takes a third of the time of its operators one by one."""
    return tf.function(decode, input_signature=[tf.TensorSpec((), tf.string)])


def examine_bytes(contents: bytes, name: str) -> tuple[bytes, np.ndarray] | BadFile:
    """The bytes and their pixels, as `decode` gives them; or why there are none."""
    try:
        _refuse_endless(contents)
        try:
            return contents, _compiled_decode()(contents).numpy()
        except _UNDECODABLE:
            # Once more outside of the graph, whose errors bury the reason under a traceback.
            return contents, decode(contents).numpy()
    except _UNDECODABLE as error:
        return BadFile(name, _reason(error))


def examine(path: str) -> tuple[bytes, np.ndarray] | BadFile:
    """`examine_bytes` of a file."""
    try:
        contents = _read_bytes(path)
    except (ValueError, OSError) as error:
        return BadFile(str(path), _reason(error))
    return examine_bytes(contents, str(path))


def in_parallel(work: Callable, items: Sequence, progress: Callable[[Iterable], Iterable] = iter) -> list:
    """Results of `work` for all items, in their order, by as many threads as there are cores and some more."""
    with ThreadPoolExecutor() as pool:
        try:
            return list(progress(pool.map(work, items)))
        except BaseException:  # an interruption should not wait for the rest of a million files
            pool.shutdown(cancel_futures=True)
            raise


def find_bad_files(paths: Sequence[str], progress: Callable[[Iterable], Iterable] = iter) -> list[BadFile]:
    """Decodes every file with the decoder that training will use, and lists those that fail.

    What passes can be decoded by `decode` and, in any window, by `decode_window`.

    Args:
        paths: Paths of picture files.
        progress: Wraps the iteration, for a progress bar.
    """

    def bad_or_none(path: str) -> BadFile | None:
        found = examine(path)
        return found if isinstance(found, BadFile) else None

    return [bad for bad in in_parallel(bad_or_none, paths, progress) if bad]
