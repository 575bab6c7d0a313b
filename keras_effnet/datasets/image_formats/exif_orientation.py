"""EXIF orientation of JPEG and PNG files, read from their bytes and applied to pixels and windows. TensorFlow.

TensorFlow's decoders ignore the tag. Everything here is TensorFlow ops, so that it also runs in the workers of a
tf.data service, and costs some 20 microseconds for a file without the tag.
"""

from __future__ import annotations

import tensorflow as tf

UPRIGHT = 1
_TAG, _SHORT = 0x0112, 3  # the tag, and the only type that the standard allows for it
_ENTRY = 12  # bytes of a directory entry
_JPEG_HEADER = 1 << 17  # bytes searched for Exif: two segments of the largest size
_MAX_EXIF = 1 << 16
_APP0, _QUANTIZATION = b"\xff\xe0", b"\xff\xdb"
_JPEG_EXIF, _PNG_EXIF = rb"Exif\x00\x00", rb"eXIf"  # regular expressions of what precedes the Exif data

_CONTENTS = tf.TensorSpec((), tf.string)
_PIXELS, _TURN = tf.TensorSpec((None, None, 3), tf.uint8), tf.TensorSpec((), tf.int32)


# Functions of TensorFlow, so that they are traced once and not again for every pipeline.
@tf.function(input_signature=[_CONTENTS], autograph=False)
def orientation(contents: tf.Tensor) -> tf.Tensor:
    """Read the EXIF orientation of a JPEG or PNG file.

    Never fails: 1 for a file without the tag, with a damaged one, and for other formats.

    Args:
        contents: Scalar string tensor.

    Returns:
        A scalar `int32` tensor in 1..8; 1 is upright.

    Source: Exif 2.32, section 4.6.4; PNG third edition, eXIf.
    """
    return tf.case(
        [
            (tf.io.is_jpeg(contents), lambda: jpeg_orientation(contents)),
            (tf.strings.substr(contents, 0, 4) == b"\x89PNG", lambda: _search(contents, _PNG_EXIF)),
        ],
        default=_upright,
    )


@tf.function(input_signature=[_CONTENTS], autograph=False)
def jpeg_orientation(contents: tf.Tensor) -> tf.Tensor:
    """Like `orientation`, for a file that is known to start as a JPEG."""
    # Most files have no segment, or only the 16 bytes of JFIF, before the quantization tables: six cheap ops tell.
    head = tf.strings.substr(contents, 0, 22)
    first, after_jfif = tf.strings.substr(head, 2, 2), tf.strings.substr(head, -2, 2)
    plain = (first == _QUANTIZATION) | ((first == _APP0) & (after_jfif == _QUANTIZATION))

    return tf.cond(plain, _upright, lambda: _search(tf.strings.substr(contents, 0, _JPEG_HEADER), _JPEG_EXIF))


def _upright() -> tf.Tensor:
    return tf.constant(UPRIGHT)


def _search(contents: tf.Tensor, start_of_exif: bytes) -> tf.Tensor:
    """Orientation in the Exif data that follow the first match of a regular expression."""
    # A literal is searched for much faster than the expression that also matches everything in front of it.
    without = tf.strings.regex_replace(contents, start_of_exif, b"", replace_global=False)

    def parse():
        exif = tf.strings.regex_replace(contents, rb"^\C*?" + start_of_exif, b"", replace_global=False)
        return _tiff_orientation(tf.strings.substr(exif, 0, _MAX_EXIF))

    return tf.cond(tf.strings.length(without) < tf.strings.length(contents), parse, _upright)


def _tiff_orientation(exif: tf.Tensor) -> tf.Tensor:
    """Orientation in the first directory of Exif data, which are laid out as a TIFF file.

    Slices of tensors end where the tensor ends, so this is total without a single branch.
    """
    order = tf.strings.substr(exif, 0, 4)
    little = order == b"II*\0"
    raw = tf.cast(tf.io.decode_raw(exif, tf.uint8), tf.int32)
    start = tf.maximum(_number(raw[4:8], little), 0)
    start = tf.minimum(start, _MAX_EXIF)
    end = start + 2 + _ENTRY * _number(raw[start : start + 2], little)
    entries = raw[start + 2 : end]
    table = tf.reshape(entries[: tf.size(entries) // _ENTRY * _ENTRY], (-1, _ENTRY))
    matching = (_number(table[:, :2], little) == _TAG) & (_number(table[:, 2:4], little) == _SHORT)
    value = tf.reduce_max(tf.where(matching, _number(table[:, 8:10], little), 0))
    valid = (little | (order == b"MM\0*")) & (value >= 1) & (value <= 8)
    return tf.where(valid, value, UPRIGHT)


def _number(raw: tf.Tensor, little: bool | tf.Tensor) -> tf.Tensor:
    """Numbers of 2 or 4 bytes along the last axis. Those above 2^31 come out negative."""
    weights = tf.bitwise.left_shift(1, tf.range(0, 8 * tf.shape(raw)[-1], 8))
    return tf.reduce_sum(raw * tf.where(little, weights, weights[::-1]), axis=-1)


def upright_shape(shape: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Shape `[height, width]` of the upright image, from that of the stored one and its orientation."""
    return tf.where(turn >= 5, shape[::-1], shape)


def stored_window(box: tf.Tensor, shape: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Window of the stored image that shows the same as a window of the upright image.

    Args:
        box: `int32` tensor `[top, left, height, width]` in the upright image.
        shape: `int32` tensor `[height, width]` of the upright image.
        turn: Scalar `int32` tensor, orientation in 1..8.

    Returns:
        An `int32` tensor `[top, left, height, width]` in the stored image.
    """
    begin, extent = box[:2], box[2:]
    begin = tf.where(tf.stack(_flips(turn)), shape - begin - extent, begin)
    return tf.concat([upright_shape(begin, turn), upright_shape(extent, turn)], axis=0)


def upright_window(box: tf.Tensor, shape: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Window of the upright image that shows the same as a window of the stored image; inverse of `stored_window`.

    Args:
        box: Tensor `[top, left, height, width]` in the stored image, which may lie between pixels.
        shape: `int32` tensor `[height, width]` of the stored image.
        turn: Scalar `int32` tensor, orientation in 1..8.

    Returns:
        A tensor `[top, left, height, width]` of the type of `box`, in the upright image.
    """
    begin, extent = upright_shape(box[:2], turn), upright_shape(box[2:], turn)
    far = upright_shape(tf.cast(shape, box.dtype), turn) - begin - extent
    return tf.concat([tf.where(tf.stack(_flips(turn)), far, begin), extent], axis=0)


@tf.function(input_signature=[_PIXELS, _TURN], autograph=False)
def upright(image: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Turn a stored image of shape `(height, width, 3)` upright.

    Args:
        image: `uint8` tensor of shape `(height, width, 3)`.
        turn: Scalar `int32` tensor, orientation in 1..8.

    Returns:
        A `uint8` tensor of shape `(height, width, 3)`, or `(width, height, 3)` for the orientations 5 to 8.
    """

    def turned():
        transposed = tf.cond(turn >= 5, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
        rows, columns = _flips(turn)
        flipped = tf.cond(rows, lambda: tf.reverse(transposed, (0,)), lambda: transposed)
        return tf.cond(columns, lambda: tf.reverse(flipped, (1,)), lambda: flipped)

    return tf.cond(turn == UPRIGHT, lambda: image, turned)


def _flips(turn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether rows and columns are to be reversed, after transposing for the orientations 5 to 8."""
    return tf.reduce_any(turn == (3, 4, 7, 8)), tf.reduce_any(turn == (2, 3, 6, 7))
