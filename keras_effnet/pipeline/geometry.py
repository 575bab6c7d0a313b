"""Resizing and cropping of images for training and evaluation. TensorFlow."""

from __future__ import annotations

import math

import tensorflow as tf

from keras_effnet.pipeline.augmentation import Augmentation
from keras_effnet.preprocessing import PIXELS, ImageSpec


def resize(image, size: int, interpolation: str = "bilinear") -> tf.Tensor:
    """Half-pixel centres, no antialiasing: bilinear is then what a browser's canvas computes, to half a grey level."""
    resized = tf.image.resize(image, (size, size), method=interpolation, antialias=False)
    resized = tf.cast(resized, tf.float32)  # as it is, but for images that have the size already
    # Beside an edge bicubic leaves the range of pixels.
    return tf.clip_by_value(resized, *PIXELS) if interpolation == "bicubic" else resized


def evaluation_image(image, input_spec: ImageSpec) -> tf.Tensor:
    """Cuts the central square of `input_spec.crop` of the shorter side and resizes it to `input_spec.size`.

    Args:
        image: `uint8` tensor of shape `(height, width, 3)`.
        input_spec: `ImageSpec`.

    Returns:
        A `float32` tensor of shape `(size, size, 3)`, values 0..255.
    """
    shape = tf.shape(image)[:2]
    side = tf.cast(tf.round(input_spec.crop * tf.cast(tf.reduce_min(shape), tf.float32)), tf.int32)
    top = (shape - side) // 2
    return resize(image[top[0] : top[0] + side, top[1] : top[1] + side], input_spec.size, input_spec.interpolation)


def crop_window(shape, draws, augmentation: Augmentation) -> tf.Tensor:
    """A crop window `[top, left, height, width]` within an image of `shape`; its area is uniform in `crop_scale`.

    `draws` are `CROP_DRAWS` numbers, uniform in 0..1.

    TensorFlow's own sampler favours small windows (a median of 0.57 for areas of 0.35 to 1, and hardly ever the whole
    image), so that evaluation would show objects smaller than any seen in training.
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


def crop(image, box) -> tf.Tensor:
    """Cut the window `[top, left, height, width]` out of an image of shape `(height, width, 3)`."""
    return image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
