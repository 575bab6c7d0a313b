"""Decoding of single images, and reasons why files cannot be decoded. TensorFlow; Pillow for all but JPEG and PNG."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_effnet.datasets.image_formats.exif_orientation import (
    UPRIGHT,
    jpeg_orientation,
    orientation,
    stored_window,
    upright,
    upright_shape,
    upright_window,
)
from keras_effnet.datasets.image_formats.jpeg_scaling import Window, decode_jpeg_window, whole_window
from keras_effnet.datasets.image_formats.limits import IMPLAUSIBLE, MAX_PIXELS
from keras_effnet.datasets.image_formats.pillow_decoder import decode_with_pillow
from keras_effnet.datasets.image_formats.rare_branches import rare
from keras_effnet.errors import UserError, tensorflow_reason

_UNDECODABLE = (tf.errors.InvalidArgumentError, ValueError)  # from TensorFlow's decoders, and from Pillow's
MAX_BYTES = 1 << 30  # of a file
# Huffman coding spends at least one bit per block of 64 pixels, so a complete JPEG has at most 512 pixels per byte.
_JPEG_PIXELS_PER_BYTE = 512
_MAX_FULL_SIZE_SCANS = 16  # of a progressive JPEG; a small one may have more, each costs a walk over all coefficients
_PNG = b"\x89PNG\r\n\x1a\n"


class BadFile(NamedTuple):
    """Path of a file that cannot be decoded, and the reason."""

    path: str
    reason: str


def decode(contents: tf.Tensor) -> tf.Tensor:
    """Decode JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, JPEG 2000, PNM or HEIF bytes to RGB.

    The format is recognised by the contents. Grayscale, palette and CMYK images are converted to RGB, alpha is dropped,
    16 bits are reduced to the 8 high ones, the first frame of an animation and the first page of a TIFF are used, and
    an image with an EXIF orientation is turned upright.

    Args:
        contents: Scalar string tensor.

    Returns:
        A `uint8` tensor of shape `(height, width, 3)`.
    """
    # TensorFlow reads palette indices of a BMP as grey levels, refuses WebP with alpha or animation, decodes all frames
    # of a GIF before it drops all but the first, and does not know the other formats. Pillow's images are upright.
    contents = tf.convert_to_tensor(contents)

    def by_tensorflow():
        image = tf.io.decode_image(_check_header(contents), channels=3, expand_animations=False)
        return upright(image, orientation(contents))

    image = tf.cond(
        tf.io.is_jpeg(contents) | (tf.strings.substr(contents, 0, len(_PNG)) == _PNG),
        by_tensorflow,
        lambda: tf.numpy_function(decode_with_pillow, [contents], tf.uint8),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_window(contents: tf.Tensor, box_of_shape: Callable, target: int | None = None) -> Window:
    """Decode a window of an upright image, skipping the rest of a JPEG.

    If the window will be reduced a lot, a JPEG is decoded at 1/2, 1/4 or 1/8 of its size: `target` says to what.

    Every image that `decode` accepts can be decoded in every window and for every target;
    `tests/datasets/test_fuzz.py` searches for counterexamples.

    Args:
        contents: Scalar string tensor.
        box_of_shape: Function from the shape of the upright image, an `int32` tensor `[height, width]`, to the window,
            an `int32` tensor `[top, left, height, width]` that lies within the image and is not empty.
        target: Int, side of the square to which the window will be resized, in pixels; None decodes at full size.

    Returns:
        A `Window`. At full size, its pixels are the window.
    """

    def jpeg():
        stored = tf.io.extract_jpeg_shape(contents)[:2]
        checked = _check_jpeg_size(contents, stored)
        turn = jpeg_orientation(contents)
        least = tf.int32.max if target is None else target

        def as_stored():
            return decode_jpeg_window(checked, box_of_shape(stored), least)

        def turned():
            shape = upright_shape(stored, turn)
            window = stored_window(box_of_shape(shape), shape, turn)
            pixels, box, scale = decode_jpeg_window(checked, window, least)
            return Window(upright(pixels, turn), upright_window(box, tf.shape(pixels)[:2], turn), scale)

        return tf.cond(turn == UPRIGHT, as_stored, rare(turned))

    def other():
        image = decode(contents)
        top, left, height, width = tf.unstack(box_of_shape(tf.shape(image)[:2]), num=4)
        return whole_window(image[top : top + height, left : left + width])

    window = tf.cond(tf.io.is_jpeg(contents), jpeg, rare(other))
    return window._replace(pixels=tf.ensure_shape(window.pixels, (None, None, 3)))


def _bytes_at(contents: tf.Tensor, start: int, stop: int) -> tf.Tensor:
    """Bytes `start` to `stop` of a string; empty if the string is too short."""
    head = tf.strings.substr(contents, 0, stop)
    return tf.strings.substr(head, tf.minimum(start, tf.strings.length(head)), stop - start)


def _check_header(contents: tf.Tensor) -> tf.Tensor:
    """Return the bytes unchanged, or fail on a JPEG or PNG whose header claims too many pixels to allocate."""

    def jpeg():
        return _check_jpeg_size(contents, tf.io.extract_jpeg_shape(contents)[:2])

    def other():  # without further branches: these cost more than decoding a small image
        head = tf.strings.substr(contents, 0, 24)
        is_png = (tf.strings.substr(head, 0, 8) == _PNG) & (tf.strings.length(head) == 24)
        padded = tf.strings.substr(tf.strings.join([head, bytes(24)]), 16, 8)
        sides = tf.io.decode_raw(padded, tf.int32, little_endian=False)
        # TensorFlow's own limit is three times as high.
        return _assert_at_most(tf.where(is_png, _pixels(sides), 0), tf.constant(MAX_PIXELS, tf.int64), contents)

    return tf.cond(tf.io.is_jpeg(contents), jpeg, other)


def _check_jpeg_size(contents: tf.Tensor, shape: tf.Tensor) -> tf.Tensor:
    """Fail on a JPEG too short for its size: libjpeg would fill the missing pixels with grey, without an error."""
    most = _JPEG_PIXELS_PER_BYTE * tf.cast(tf.strings.length(contents), tf.int64)
    return _assert_at_most(_pixels(shape), most, contents)


def _pixels(sides: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(sides, tf.int64))


def _assert_at_most(pixels: tf.Tensor, most: tf.Tensor, contents: tf.Tensor) -> tf.Tensor:
    # The ops of `tf.debugging` add a branch, which takes longer than the comparison.
    possible = tf.raw_ops.Assert(condition=pixels <= most, data=[IMPLAUSIBLE])
    with tf.control_dependencies([] if possible is None else [possible]):
        return tf.identity(contents)


def read_bytes(path: str | Path) -> bytes:
    """Read a regular file of at most `MAX_BYTES`; a pipe, for instance, might block forever."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("Not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"File of {status.st_size / 2**30:.1f} GiB, more than {MAX_BYTES >> 30}")
    contents = Path(path).read_bytes()
    _check_scan_count(contents)
    return contents


def _check_scan_count(contents: bytes) -> None:
    """Refuse a progressive JPEG with so many scans that decoding a few kilobytes would take hours."""
    if not contents.startswith(b"\xff\xd8") or contents.count(b"\xff\xda") <= _MAX_FULL_SIZE_SCANS:
        return
    scans, width, height = _scans(contents)
    if scans * width * height > _MAX_FULL_SIZE_SCANS * MAX_PIXELS:
        raise ValueError(f"JPEG of {width} x {height} pixels in {scans} scans")


def _scans(contents: bytes) -> tuple[int, int, int]:
    """Number of scans, width and height of a JPEG.

    Stops at the end marker: cameras append videos behind it, which contain arbitrary bytes.
    """
    scans, width, height, place = 0, 0, 0, 2
    while marker := re.compile(rb"\xff([^\x00\xd0-\xd7\xff])").search(contents, place):
        code, place = marker[1][0], marker.end()
        if code == 0xD9:
            break
        if code in (0xC0, 0xC1, 0xC2):
            height, width = (int.from_bytes(contents[place + skip : place + skip + 2]) for skip in (3, 5))
        scans += code == 0xDA
        place += int.from_bytes(contents[place : place + 2])  # length of the segment; the coded data have none
    return scans, width, height


def read(path: str | Path) -> np.ndarray:
    """Read an image file as a `uint8` array of shape `(height, width, 3)`.

    Raises:
        UserError: The file is missing or cannot be decoded.
    """
    if not Path(path).exists():
        raise UserError(f"Image {path} does not exist.")
    try:
        return decode(read_bytes(path)).numpy()
    except (*_UNDECODABLE, OSError) as error:
        raise UserError(f"{path} is not an image that can be decoded: {tensorflow_reason(error)}.") from None


def decode_all(contents: tf.data.Dataset, names: Sequence[str]) -> Iterator[tuple[bytes, np.ndarray] | BadFile]:
    """Decode many images in parallel, in order.

    Args:
        contents: `tf.data.Dataset` of scalar strings; elements may fail, as with `tf.io.read_file`.
        names: Names of the images, for `BadFile`.

    Yields:
        Pairs of the bytes and the decoded pixels of each image, or a `BadFile` in place of one that fails.
    """
    # Python threads that call `decode` would be simpler but deadlock occasionally: TensorFlow raises an error under a
    # lock and needs the GIL to build it, so two files that fail at the same time wait for each other.
    return collect(contents.map(lambda item: (item, decode(item)), num_parallel_calls=tf.data.AUTOTUNE), names)


def collect(decoded: tf.data.Dataset, names: Sequence[str]) -> Iterator[tuple[bytes, np.ndarray] | BadFile]:
    """Yield the elements of a `tf.data.Dataset` of bytes and pixels; a `BadFile` in place of each that fails."""
    elements = iter(decoded)
    for name in names:
        try:
            item, pixels = next(elements)
        except tf.errors.OpError as error:
            yield BadFile(name, tensorflow_reason(error))
        else:
            yield item.numpy(), pixels.numpy()
