"""From bytes to pixels: the one decoder, and the check of many files before a long run relies on them.

TensorFlow, and Pillow for the rarer formats; imports `errors`.
"""

from __future__ import annotations

import io
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_BMP_PIXELS_PER_BYTE = 128  # two bytes say "255 times this colour"
_IMPLAUSIBLE = "Claims more pixels than it can hold"
_MAX_FULL_SIZE_SCANS = 16  # of a progressive JPEG; a small one may have more, each costs a walk over all coefficients
_PNG = b"\x89PNG\r\n\x1a\n"
# What TensorFlow puts before a message, and what Pillow puts into one.
_NOISE = re.compile(
    r"\{\{.*?\}\} ?|Error in user-defined function .*? iterator: \S+ "
    r"|ValueError: (?=\w+: )| <_io.BytesIO object at \w+>"
)
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
        lambda: tf.io.decode_image(_check_header(contents), channels=3, expand_animations=False),
    )
    return tf.ensure_shape(image, (None, None, 3))


def decode_window(contents, box_of_shape: Callable) -> tf.Tensor:
    """Decodes a part of an image; of a JPEG that part alone.

    Decodes in every window whatever `decode` accepts: `tests/datasets/test_fuzz.py` searches for counterexamples.

    Args:
        contents: Scalar string tensor.
        box_of_shape: Function from the image's shape, an `int32` tensor `[height, width]`, to the window, an `int32`
            tensor `[top, left, height, width]` that lies within the image and is not empty.

    Returns:
        A `uint8` tensor of shape `(height, width, 3)`, those of the window.
    """

    def jpeg():
        shape = tf.io.extract_jpeg_shape(contents)[:2]
        return tf.io.decode_and_crop_jpeg(_check_jpeg_size(contents, shape), box_of_shape(shape), channels=3)

    def other():
        image = decode(contents)
        top, left, height, width = tf.unstack(box_of_shape(tf.shape(image)[:2]), num=4)
        return image[top : top + height, left : left + width]

    return tf.ensure_shape(tf.cond(tf.io.is_jpeg(contents), jpeg, other), (None, None, 3))


def _bytes_at(contents, start: int, stop: int) -> tf.Tensor:
    """Some bytes of a string, empty where it is too short."""
    head = tf.strings.substr(contents, 0, stop)
    return tf.strings.substr(head, tf.minimum(start, tf.strings.length(head)), stop - start)


def _check_header(contents) -> tf.Tensor:
    """The same bytes, unless they are a JPEG or PNG whose header claims too much for its pixels to be allocated."""

    def png():
        sides = tf.io.decode_raw(_bytes_at(contents, 16, 24), tf.int32, little_endian=False)
        # TensorFlow's own limit is three times as high.
        return _assert_at_most(_pixels(sides), tf.constant(MAX_PIXELS, tf.int64), contents)

    return tf.case(
        [
            (tf.io.is_jpeg(contents), lambda: _check_jpeg_size(contents, tf.io.extract_jpeg_shape(contents)[:2])),
            ((_bytes_at(contents, 0, 8) == _PNG) & (tf.strings.length(contents) >= 24), png),
        ],
        default=lambda: tf.identity(contents),
    )


def _check_jpeg_size(contents, shape) -> tf.Tensor:
    """A JPEG of a few bytes and a huge size would decode, to grey: its missing data are no error to libjpeg."""
    most = _JPEG_PIXELS_PER_BYTE * tf.cast(tf.strings.length(contents), tf.int64)
    return _assert_at_most(_pixels(shape), most, contents)


def _pixels(sides) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(sides, tf.int64))


def _assert_at_most(pixels, most, contents) -> tf.Tensor:
    possible = tf.debugging.assert_less_equal(pixels, most, message=_IMPLAUSIBLE)
    with tf.control_dependencies([] if possible is None else [possible]):
        return tf.identity(contents)


def _decode_with_pillow(contents: bytes | np.ndarray) -> np.ndarray:
    if isinstance(contents, np.ndarray):  # so it comes outside of a graph: an array of one object
        contents = contents.item()
    try:
        _check_pixel_count(*_webp_canvas(contents))
        with Image.open(io.BytesIO(contents), formats=_PILLOW_FORMATS) as image:
            _check_pixel_count(*image.size)  # before its pixels are allocated
            if image.format == "BMP" and image.width * image.height > _BMP_PIXELS_PER_BYTE * len(contents):
                raise ValueError(_IMPLAUSIBLE)  # Pillow would fill it up byte by byte, for minutes
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow's plugins raise what they like on a damaged file
        # In a pipeline TensorFlow turns this type, and not others, into InvalidArgumentError.
        raise ValueError(f"{type(error).__name__}: {error}") from None


def _check_pixel_count(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"claims {width} x {height} pixels, more than {MAX_PIXELS / 1e6:.0f} million")


def _webp_canvas(contents: bytes) -> tuple[int, int]:
    """The canvas of an extended WebP, which older Pillows allocate when they open it; (0, 0) for other files."""
    if contents[8:16] != b"WEBPVP8X":
        return 0, 0
    return tuple(int.from_bytes(contents[start : start + 3], "little") + 1 for start in (24, 27))


def _reason(error: Exception) -> str:
    """The one sentence in an error that says what is wrong with the file."""
    message = str(error).split("\n\t [[")[0].split("\nTraceback")[0].split("\nCondition")[0]
    message = _NOISE.sub("", message).split(" [Op:")[0]
    if asserted := re.match(r"assertion failed: \[(.*?)\]", message):
        message = asserted[1]
    return message.replace("\n", " ")[:120].rstrip(". ")


def _read_bytes(path: str | Path) -> bytes:
    """The bytes of a regular file that is not absurdly large; reading a pipe might never end."""
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("Not a regular file")
    if status.st_size > MAX_BYTES:
        raise ValueError(f"File of {status.st_size / 2**30:.1f} GiB, more than {MAX_BYTES >> 30}")
    contents = Path(path).read_bytes()
    _check_scan_count(contents)
    return contents


def _check_scan_count(contents: bytes) -> None:
    """Refuses a progressive JPEG of so many scans that a few kilobytes would take hours."""
    if not contents.startswith(b"\xff\xd8") or contents.count(b"\xff\xda") <= _MAX_FULL_SIZE_SCANS:
        return
    scans, width, height = _scans(contents)
    if scans * width * height > _MAX_FULL_SIZE_SCANS * MAX_PIXELS:
        raise ValueError(f"JPEG of {width} x {height} pixels in {scans} scans")


def _scans(contents: bytes) -> tuple[int, int, int]:
    """Scans of a JPEG, its width and height; behind its end marker cameras append videos, in which any bytes occur."""
    scans, width, height, place = 0, 0, 0, 2
    while marker := re.compile(rb"\xff([^\x00\xd0-\xd7\xff])").search(contents, place):
        code, place = marker[1][0], marker.end()
        if code == 0xD9:
            break
        if code in (0xC0, 0xC1, 0xC2):
            height, width = (int.from_bytes(contents[place + skip : place + skip + 2]) for skip in (3, 5))
        scans += code == 0xDA
        place += int.from_bytes(contents[place : place + 2])  # a segment says its length; the coded data do not
    return scans, width, height


def read(path: str | Path) -> np.ndarray:
    """Reads an image file as a `uint8` array of shape `(height, width, 3)`.

    Raises:
        UserError: The file is missing or cannot be decoded.
    """
    if not Path(path).is_file():
        raise UserError(f"Image {path} does not exist.")
    try:
        return decode(_read_bytes(path)).numpy()
    except (*_UNDECODABLE, OSError) as error:
        raise UserError(f"{path} is not an image that can be decoded: {_reason(error)}.") from None


def list_images(folder: str | Path) -> list[str]:
    """All image files below a folder, sorted; hidden files and folders left out."""
    return sorted(
        str(path)
        for path in Path(folder).rglob("*")
        if path.suffix.lower() in EXTENSIONS and not _hidden(path.relative_to(folder)) and path.is_file()
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def decode_all(contents: tf.data.Dataset, names: Sequence[str]) -> Iterator[tuple[bytes, np.ndarray] | BadFile]:
    """Decodes many images in parallel; what cannot be decoded comes as a `BadFile` in its place.

    Args:
        contents: `tf.data.Dataset` of scalar strings, or one whose elements fail, as `tf.io.read_file` does.
        names: Their names, for `BadFile`.

    Yields:
        The bytes of each image and its pixels, as `decode` gives them, in order.
    """
    # Threads of Python that call `decode` would be simpler, and now and then stop for ever: TensorFlow takes a lock to
    # raise an error and another thread's GIL to build it, so two files that fail at once wait for each other.
    decoded = iter(contents.map(lambda item: (item, decode(item)), num_parallel_calls=tf.data.AUTOTUNE))
    for name in names:
        try:
            item, pixels = next(decoded)
        except tf.errors.OpError as error:
            yield BadFile(name, _reason(error))
        else:
            yield item.numpy(), pixels.numpy()


def decode_files(paths: Sequence[str]) -> Iterator[tuple[bytes, np.ndarray] | BadFile]:
    """`decode_all` of files."""
    with ThreadPoolExecutor() as pool:
        refused = list(pool.map(_read_error, paths))  # without TensorFlow
    sound = [str(path) for path, bad in zip(paths, refused, strict=True) if not bad]
    files = tf.data.Dataset.from_tensor_slices(tf.constant(sound, tf.string))
    decoded = decode_all(files.map(tf.io.read_file, num_parallel_calls=tf.data.AUTOTUNE), sound)
    yield from (bad or next(decoded) for bad in refused)


def _read_error(path: str) -> BadFile | None:
    try:
        _read_bytes(path)
    except (ValueError, OSError) as error:
        return BadFile(str(path), _reason(error))
    return None


def find_bad_files(paths: Sequence[str], progress: Callable[[Iterable], Iterable] = iter) -> list[BadFile]:
    """Decodes every file with the decoder that training will use, and lists those that fail.

    What passes can be decoded by `decode` and, in any window, by `decode_window`.

    Args:
        paths: Paths of image files.
        progress: Wraps the iteration, for a progress bar.
    """
    return [found for found in progress(decode_files(paths)) if isinstance(found, BadFile)]
