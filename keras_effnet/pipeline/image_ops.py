"""Image operations of augmentation policies, as a few tensor ops on bytes each. TensorFlow.

Every operation is `(image, strength) -> image`, `uint8` of shape `(height, width, 3)` in and out, and matches the
Pillow function of that name. Meaning of the strength, and the value without effect:

| operation | strength | no effect |
|---|---|---|
| rotate | degrees, counterclockwise | 0 |
| shear_x, shear_y | horizontal shift per row, or vertical shift per column, in pixels | 0 |
| translate_x, translate_y | shift to the left or up, as a fraction of the side | 0 |
| posterize | bits kept, an integer | 8 |
| solarize | threshold from which values are inverted | 256 |
| solarize_add | added to values below 128 | 0 |
| brightness, contrast, color, sharpness | factor | 1 |
| auto_contrast, equalize, invert | none | |

Geometric operations fill uncovered pixels with `FILL` and use nearest-neighbour sampling, as published.
"""

from __future__ import annotations

import tensorflow as tf

FILL = 128  # mid grey, as published
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, the weights of Pillow's grayscale conversion


def to_bytes(image: tf.Tensor) -> tf.Tensor:
    """Convert pixels to `uint8`; floats are rounded and clipped to 0..255."""
    image = tf.convert_to_tensor(image)
    return image if image.dtype == tf.uint8 else tf.saturate_cast(tf.round(image), tf.uint8)


def _clip_to_bytes(values: tf.Tensor) -> tf.Tensor:
    """Convert to bytes as Pillow does: clip to 0..255, then truncate."""
    return tf.cast(tf.clip_by_value(values, 0, 255), tf.uint8)


def identity(image: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Return the image unchanged."""
    return image


# ------------------------------------------------------------------ geometry


def _warp(image: tf.Tensor, x_from, y_from) -> tf.Tensor:
    """Take each pixel from the one nearest to `x_from(x, y), y_from(x, y)`, in pixels from the top left centre.

    A gather in an image with a grey border takes a third of the time of TensorFlow's projective transform, which
    interpolates every channel.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    rows, columns = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
    x, y = tf.range(columns)[None, :], tf.range(rows)[:, None]
    column = tf.clip_by_value(tf.floor(x_from(x, y) + 1.5), 0, columns + 1)
    row = tf.clip_by_value(tf.floor(y_from(x, y) + 1.5), 0, rows + 1)
    source = tf.cast(row, tf.int32) * (width + 2) + tf.cast(column, tf.int32)
    bordered = tf.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=tf.constant(FILL, tf.uint8))
    return tf.ensure_shape(tf.gather(tf.reshape(bordered, (-1, 3)), source), image.shape)


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Rotate counterclockwise about the centre."""
    shape = tf.cast(tf.shape(image), tf.float32)
    middle_x, middle_y = (shape[1] - 1) / 2, (shape[0] - 1) / 2
    angle = degrees * (3.141592653589793 / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    return _warp(
        image,
        lambda x, y: cosine * (x - middle_x) + (middle_x - sine * (y - middle_y)),
        lambda x, y: sine * (x - middle_x) + (middle_y + cosine * (y - middle_y)),
    )


def shear_x(image: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Shear horizontally: shift each row in proportion to its distance from the top."""
    # Pillow measures from pixel centres, hence the half pixel.
    return _warp(image, lambda x, y: x + slope * (y + 0.5), lambda x, y: y + 0 * x)


def shear_y(image: tf.Tensor, slope: tf.Tensor) -> tf.Tensor:
    """Shear vertically: shift each column in proportion to its distance from the left."""
    return _warp(image, lambda x, y: x + 0 * y, lambda x, y: y + slope * (x + 0.5))


def translate_x(image: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Shift to the left by a fraction of the width."""
    pixels = share * tf.cast(tf.shape(image)[1], tf.float32)
    return _warp(image, lambda x, y: x + pixels + 0 * y, lambda x, y: y + 0 * x)


def translate_y(image: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Shift up by a fraction of the height."""
    pixels = share * tf.cast(tf.shape(image)[0], tf.float32)
    return _warp(image, lambda x, y: x + 0 * y, lambda x, y: y + pixels + 0 * x)


# ------------------------------------------------------------------ values of a pixel


def invert(image: tf.Tensor, strength: tf.Tensor | None = None) -> tf.Tensor:
    """Invert every value: 255 minus it."""
    return 255 - image


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keep the highest bits of every value, at least one."""
    # At least one bit is kept, as in the published policies, where TensorFlow's shift by eight bits had that effect.
    dropped = tf.cast(8 - tf.clip_by_value(tf.floor(bits), 1, 8), tf.uint8)
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, dropped), dropped)


def _mask_at_least(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Mask with 255 where a value is at least `threshold`, else 0; masking bits is many times as fast as `tf.where`."""
    # A threshold of 256 does not fit a byte, and no value reaches it.
    least = tf.cast(tf.clip_by_value(threshold, 0, 255), tf.uint8)
    reachable = tf.cast(threshold < 256, tf.uint8) * 255
    return tf.cast(image >= least, tf.uint8) * reachable


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Invert all values at or above a threshold."""
    return tf.bitwise.bitwise_xor(image, _mask_at_least(image, tf.floor(threshold)))


def solarize_add(image: tf.Tensor, addition: tf.Tensor) -> tf.Tensor:
    """Add to all values below 128."""
    added = _clip_to_bytes(tf.cast(image, tf.float32) + tf.floor(addition))
    bright = _mask_at_least(image, tf.constant(128.0))
    return tf.bitwise.bitwise_or(
        tf.bitwise.bitwise_and(image, bright), tf.bitwise.bitwise_and(added, tf.bitwise.invert(bright))
    )


def _rows(image: tf.Tensor) -> tf.Tensor:
    """Reshape to `(height, 3 * width)`: tensor ops are several times as fast on long rows as on triples."""
    return tf.reshape(image, (-1, 3 * tf.shape(image)[1]))


def _extremes(image: tf.Tensor, reduce) -> tf.Tensor:
    """Minimum or maximum of each channel, an `int32` tensor of shape `(3,)`."""
    return tf.cast(reduce(tf.reshape(reduce(_rows(image), axis=0), (-1, 3)), axis=0), tf.int32)


def auto_contrast(image: tf.Tensor, strength: tf.Tensor | None = None) -> tf.Tensor:
    """Stretch each channel to 0..255."""
    low, high = (tf.cast(_extremes(image, reduce), tf.float32) for reduce in (tf.reduce_min, tf.reduce_max))
    # A constant channel is left unchanged.
    scale = tf.where(high > low, 255 / tf.maximum(high - low, 1), 1.0)
    offset = tf.where(high > low, -low * scale, 0.0)
    scale, offset = (tf.tile(values, tf.shape(image)[1:2]) for values in (scale, offset))
    return tf.reshape(_clip_to_bytes(tf.cast(_rows(image), tf.float32) * scale + offset), tf.shape(image))


def equalize(image: tf.Tensor, strength: tf.Tensor | None = None) -> tf.Tensor:
    """Equalize the histogram of each channel."""
    # The three channels share one histogram and one lookup table, side by side.
    places = tf.cast(_rows(image), tf.int32) + tf.tile(tf.constant((0, 256, 512)), tf.shape(image)[1:2])
    counts = tf.reshape(tf.raw_ops.Bincount(arr=places, size=768, weights=tf.constant((), tf.int32)), (3, 256))
    # Pixels per output level, without those of the highest value, as Pillow computes it.
    step = (tf.reduce_sum(counts, axis=1) - tf.gather(counts, _extremes(image, tf.reduce_max), batch_dims=1)) // 255
    step = step[:, None]
    table = (tf.cumsum(counts, axis=1, exclusive=True) + step // 2) // tf.maximum(step, 1)
    table = tf.where(step > 0, tf.minimum(table, 255), tf.range(256)[None, :])
    return tf.reshape(tf.gather(tf.reshape(tf.cast(table, tf.uint8), (-1,)), places), tf.shape(image))


# ------------------------------------------------------------------ blends with a degenerate image


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend with black."""
    return _clip_to_bytes(factor * tf.cast(image, tf.float32))


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend with the mean grey level of the image."""
    values = tf.cast(image, tf.float32)
    grey = tf.round(tf.tensordot(tf.reduce_mean(values, axis=(0, 1)), tf.constant(LUMA), 1))
    return _clip_to_bytes(grey + factor * (values - grey))


def mix_channels(values: tf.Tensor, matrix: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Compute `values @ matrix + offset` for each pixel; the shape is that of `values`."""
    return tf.reshape(tf.matmul(tf.reshape(values, (-1, 3)), matrix) + offset, tf.shape(values))


def saturation_matrix(factor: tf.Tensor) -> tf.Tensor:
    """Matrix of shape `(3, 3)` that blends a pixel with its grey value."""
    return factor * tf.eye(3) + (1 - factor) * tf.constant(LUMA)[:, None]


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend with the grey version of the image."""
    return _clip_to_bytes(mix_channels(tf.cast(image, tf.float32), saturation_matrix(factor), 0.0))


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blend with a smoothed version of the image."""
    values = tf.cast(image, tf.float32)
    kernel = tf.constant(((1, 1, 1), (1, 5, 1), (1, 1, 1)), tf.float32) / 13
    kernel = tf.tile(kernel[:, :, None, None], (1, 1, 3, 1))
    smooth = tf.nn.depthwise_conv2d(values[None], kernel, (1, 1, 1, 1), "VALID")[0]
    inside = values[1:-1, 1:-1]
    smooth = tf.round(smooth)
    # Pillow's filter leaves the outermost pixels unchanged.
    return _clip_to_bytes(values + tf.pad((factor - 1) * (inside - smooth), ((1, 1), (1, 1), (0, 0))))


OPERATIONS = {
    operation.__name__: operation
    for operation in (
        identity,
        auto_contrast,
        equalize,
        invert,
        rotate,
        posterize,
        solarize,
        solarize_add,
        color,
        contrast,
        brightness,
        sharpness,
        shear_x,
        shear_y,
        translate_x,
        translate_y,
    )
}
NAMES = tuple(OPERATIONS)
_FUNCTIONS = [tf.function(operation, autograph=False) for operation in OPERATIONS.values()]  # traced once per shape


def apply(image: tf.Tensor, number: tf.Tensor, strength: tf.Tensor) -> tf.Tensor:
    """Run the operation `NAMES[number]`, and only that one.

    Each operation is a separate function. `tf.switch_case` would inline all of them into the caller's graph, where
    skipping those not chosen takes as long as running the chosen one.

    Args:
        image: `uint8` tensor of shape `(height, width, 3)`.
        number: Scalar `int32` tensor, index into `NAMES`.
        strength: Scalar `float32` tensor.

    Returns:
        A `uint8` tensor of the same shape.
    """
    signature = (tf.TensorSpec(image.shape, tf.uint8), tf.TensorSpec((), tf.float32))
    branches = [function.get_concrete_function(*signature) for function in _FUNCTIONS]
    (result,) = tf.raw_ops.StatelessCase(
        branch_index=number, input=(image, strength), Tout=(tf.uint8,), branches=branches
    )
    return tf.ensure_shape(result, image.shape)
