"""Decoding of a window of a JPEG at 1/2, 1/4 or 1/8 of its size. TensorFlow.

libjpeg computes fewer pixels per block of 8 x 8 from its low frequencies alone. This filters and reduces the image in
one step and leaves little to do but entropy decoding.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from keras_effnet.datasets.image_formats.limits import ANTIALIASED_FROM

_SCALES = (1, 2, 4, 8)


class Window(NamedTuple):
    """Decoded window of an image, possibly at a smaller scale.

    Args:
        pixels: `uint8` tensor of shape `(height, width, 3)` that contains the window and at most one pixel more on each
            side.
        box: `float32` tensor `[top, left, height, width]`, the exact place of the window in `pixels`, in pixels: whole
            numbers at full size, otherwise multiples of 1/2, 1/4 or 1/8.
        scale: Scalar `int32` tensor: 1 at full size; 2, 4 or 8 at half, a quarter or an eighth of it.
    """

    pixels: tf.Tensor
    box: tf.Tensor
    scale: tf.Tensor


def whole_window(pixels: tf.Tensor) -> Window:
    """`Window` of pixels decoded at full size."""
    box = tf.concat([(0, 0), tf.shape(pixels)[:2]], axis=0)
    return Window(pixels, tf.cast(box, tf.float32), tf.constant(1))


# Traced once and not again for every pipeline.
@tf.function(
    input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((4,), tf.int32), tf.TensorSpec((), tf.int32)],
    autograph=False,
)
def decode_jpeg_window(contents: tf.Tensor, window: tf.Tensor, target: tf.Tensor) -> Window:
    """Decode a window of a JPEG at the smallest size that leaves enough pixels to resize it to `target`.

    Args:
        contents: Scalar string tensor.
        window: `int32` tensor `[top, left, height, width]` within the image at full size.
        target: Scalar `int32` tensor, side of the square to which the window will be resized, in pixels.

    Returns:
        A `Window`, in the orientation in which the image is stored.
    """
    begin, extent = window[:2], window[2:]
    enough = tf.reduce_min(extent) // target >= [ANTIALIASED_FROM * scale // 2 for scale in _SCALES[1:]]
    index = tf.reduce_sum(tf.cast(enough, tf.int32))
    scale = tf.gather(_SCALES, index)
    first, last = begin // scale, (begin + extent - 1) // scale
    cut = tf.concat([first, last - first + 1], axis=0)
    pixels = tf.switch_case(index, [_decoder(contents, cut, each) for each in _SCALES])
    # Powers of 2 divide exactly.
    box = tf.concat([begin - first * scale, extent], axis=0) / scale
    return Window(pixels, tf.cast(box, tf.float32), scale)


def _decoder(contents: tf.Tensor, cut: tf.Tensor, scale: int):
    return lambda: tf.io.decode_and_crop_jpeg(contents, cut, channels=3, ratio=scale)
