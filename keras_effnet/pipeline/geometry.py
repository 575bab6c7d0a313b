"""Resizing and cropping of images for training and evaluation. TensorFlow."""

from __future__ import annotations

import math

import tensorflow as tf

from keras_effnet.datasets.image_formats.jpeg_scaling import Window, whole_window
from keras_effnet.datasets.image_formats.limits import ANTIALIASED_FROM
from keras_effnet.pipeline.augmentation import Augmentation
from keras_effnet.preprocessing import PIXELS, ImageSpec

_KERNELS = {"bilinear": "triangle", "bicubic": "keyscubic"}


def resize(image: tf.Tensor, size: int, interpolation: str = "bilinear") -> tf.Tensor:
    """Resize with half-pixel centres; with antialiasing if both sides are reduced to a quarter or less.

    Up to there, bilinear interpolation matches a browser's canvas to half a grey level. Beyond, most pixels would be
    skipped, and what remains depends on noise. Training and evaluation must agree on this: a network trained on
    filtered images loses accuracy on unfiltered ones and vice versa.

    Args:
        image: Tensor of shape `(height, width, 3)`, values 0..255.
        size: Int, side of the result in pixels.
        interpolation: `"bilinear"` or `"bicubic"`.

    Returns:
        A `float32` tensor of shape `(size, size, 3)`, values 0..255.
    """
    return resize_window(whole_window(image), size, interpolation)


def resize_window(window: Window, size: int, interpolation: str = "bilinear") -> tf.Tensor:
    """Resize a decoded window as `resize` does, with antialiasing if it was decoded at a smaller scale.

    Args:
        window: `Window`.
        size: Int, side of the result in pixels.
        interpolation: `"bilinear"` or `"bicubic"`.

    Returns:
        A `float32` tensor of shape `(size, size, 3)`, values 0..255.
    """
    pixels, box, scale = window
    much = (scale > 1) | (tf.reduce_min(tf.shape(pixels)[:2]) // size >= ANTIALIASED_FROM)
    resized = tf.cond(
        much, lambda: _filtered(pixels, box, size, interpolation), lambda: _interpolated(pixels, size, interpolation)
    )
    # Bicubic interpolation overshoots at edges.
    return tf.clip_by_value(resized, *PIXELS) if interpolation == "bicubic" else resized


def _interpolated(pixels: tf.Tensor, size: int, interpolation: str) -> tf.Tensor:
    resized = tf.image.resize(pixels, (size, size), method=interpolation, antialias=False)
    return tf.cast(resized, tf.float32)  # an image that already has the size keeps its dtype above


def _filtered(pixels: tf.Tensor, box: tf.Tensor, size: int, interpolation: str) -> tf.Tensor:
    """Antialiased resizing of a window whose bounds may lie between pixels."""
    scale = size / box[2:]
    filtered = tf.raw_ops.ScaleAndTranslate(
        images=pixels[None],
        size=(size, size),
        scale=scale,
        translation=-box[:2] * scale,
        kernel_type=_KERNELS[interpolation],
        antialias=True,
    )[0]
    return tf.clip_by_value(filtered, *PIXELS)  # the sum of many products exceeds 255 by a rounding error


def fit_scales(shape: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """Pixels of the input per pixel of the image, vertically and horizontally.

    Args:
        shape: Int tensor `[height, width, ...]` of the image.
        spec: `ImageSpec` with a `fit` that keeps the whole image.

    Returns:
        A `float32` tensor of shape `(2,)`; with letterboxing both are equal.
    """
    scales = spec.size / tf.cast(shape[:2], tf.float32)
    return scales if spec.fit == "stretch" else tf.fill((2,), tf.reduce_min(scales))


def placed(image: tf.Tensor, extent: tf.Tensor, spec: ImageSpec) -> tf.Tensor:
    """Resize to an extent within the input and pad below and to the right with the mean pixel."""
    sides = tf.clip_by_value(tf.cast(tf.round(extent), tf.int32), 1, spec.size)
    much = tf.reduce_min(tf.shape(image)[:2] // sides) >= ANTIALIASED_FROM
    pixels = tf.cast(image, tf.float32)
    resized = tf.cond(
        much,
        lambda: tf.image.resize(pixels, sides, method=spec.interpolation, antialias=True),
        lambda: tf.image.resize(pixels, sides, method=spec.interpolation, antialias=False),
    )
    mean = tf.constant(spec.padding, tf.float32)
    missing = spec.size - sides
    padded = tf.pad(resized - mean, ((0, missing[0]), (0, missing[1]), (0, 0))) + mean
    return tf.clip_by_value(tf.ensure_shape(padded, (spec.size, spec.size, spec.channels)), 0, 255)


def evaluation_image(image: tf.Tensor, input_spec: ImageSpec) -> tf.Tensor:
    """Make an image the square input of a network, by its `fit`.

    `"crop"` cuts out the central square of `input_spec.crop` times the shorter side and resizes it; `"stretch"` and
    `"letterbox"` keep the whole image, for detectors.

    Args:
        image: `uint8` tensor of shape `(height, width, 3)`, values 0..255.
        input_spec: `ImageSpec` of the network.

    Returns:
        A `float32` tensor of shape `(size, size, 3)`, values 0..255.

    Example:

    >>> image = tf.zeros((480, 640, 3), tf.uint8)
    >>> keras_effnet.pipeline.evaluation_image(image, ImageSpec(224)).shape
    TensorShape([224, 224, 3])
    """
    if input_spec.fit != "crop":
        return placed(
            image, tf.cast(tf.shape(image)[:2], tf.float32) * fit_scales(tf.shape(image), input_spec), input_spec
        )
    return resize(crop(image, _central_window(image, input_spec)), input_spec.size, input_spec.interpolation)


def evaluation_mask(mask: tf.Tensor, input_spec: ImageSpec) -> tf.Tensor:
    """Cut and resize a mask as `evaluation_image` does with its image; classes are not interpolated.

    Args:
        mask: `uint8` tensor of shape `(height, width)`.
        input_spec: `ImageSpec` of the network.

    Returns:
        A `uint8` tensor of shape `(size, size)`.
    """
    return resize_mask(crop(mask, _central_window(mask, input_spec)), input_spec.size)


def resize_mask(mask: tf.Tensor, size: int) -> tf.Tensor:
    """Resize a mask of shape `(height, width)` to `(size, size)`: each pixel has the class nearest to its centre."""
    return tf.image.resize(mask[..., None], (size, size), method="nearest")[..., 0]


def _central_window(image: tf.Tensor, input_spec: ImageSpec) -> tf.Tensor:
    shape = tf.shape(image)[:2]
    side = tf.cast(tf.round(input_spec.crop * tf.cast(tf.reduce_min(shape), tf.float32)), tf.int32)
    top = (shape - side) // 2
    return tf.stack([top[0], top[1], side, side])


def crop_window(shape: tf.Tensor, draws: tf.Tensor, augmentation: Augmentation) -> tf.Tensor:
    """Choose the window of a random-resized crop, with an area uniform in `augmentation.crop_scale`.

    TensorFlow's own sampler favours small windows (a median of 0.57 for areas of 0.35 to 1, and hardly ever the whole
    image), so that objects would appear smaller in evaluation than ever in training.

    Args:
        shape: Int tensor `[height, width, ...]` of the image.
        draws: Float tensor of shape `(4,)`, uniform in [0, 1).
        augmentation: `Augmentation`.

    Returns:
        An `int32` tensor `[top, left, height, width]`, within the image.
    """
    sides = tf.cast(shape[:2], tf.float32)
    smallest, largest = augmentation.crop_scale
    narrowest, widest = map(math.log, augmentation.crop_ratio)
    area = tf.reduce_prod(sides) * (smallest + draws[0] * (largest - smallest))
    ratio = tf.exp(narrowest + draws[1] * (widest - narrowest))
    extent = tf.round(tf.sqrt(area * tf.stack([1 / ratio, ratio])))
    extent = tf.clip_by_value(extent, 1, sides)
    begin = tf.floor(draws[2:] * (sides - extent + 1))
    return tf.cast(tf.concat([begin, extent], axis=0), tf.int32)


def crop(image: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
    """Cut the window `[top, left, height, width]` out of an image or mask."""
    return image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
