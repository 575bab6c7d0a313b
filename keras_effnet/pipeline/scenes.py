"""Images with boxes: fitting to the network's input, scale jitter, flips and mosaic that boxes follow. TensorFlow.

Boxes are (y0, x0, y1, x1) in pixels. A box row also holds its class and whether it is a crowd: shape `(B, 6)`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import tensorflow as tf

from keras_effnet.errors import UserError
from keras_effnet.pipeline.augmentation import Augmentation, augment_image, flips
from keras_effnet.pipeline.geometry import crop, evaluation_image, fit_scales, placed
from keras_effnet.preprocessing import ImageSpec

_VISIBLE = 0.3  # share of a box's area that must remain, or it is dropped: what is left cannot be recognized
_MIDDLE = (0.3, 0.7)  # where the quadrants of a mosaic meet, in shares of the side
BOX_COLUMNS = 6
PADDED = -1.0  # class of the rows that fill a batch


class Scene(NamedTuple):
    """An image with its boxes.

    Args:
        image: `float32` tensor of shape `(size, size, 3)`, values 0..255.
        rows: `float32` tensor of shape `(B, 6)`: y0, x0, y1, x1 in pixels of the image, class, crowd.
    """

    image: tf.Tensor
    rows: tf.Tensor


def check_augmentation(augmentation: Augmentation) -> None:
    """Refuse augmentation that boxes cannot follow.

    Raises:
        UserError: A policy, which rotates and shears, or MixUp or CutMix.
    """
    if augmentation.policy != "none":
        raise UserError(
            f"policy {augmentation.policy} rotates and shears images, which boxes do not follow; for detection use "
            "color_jitter, scale_low and scale_high, or leave it out."
        )
    if augmentation.mixes:
        raise UserError("mixup and cutmix mix one label per image; for the boxes of detection there is mosaic.")


def evaluation_scene(image: tf.Tensor, rows: tf.Tensor, spec: ImageSpec) -> tuple[tf.Tensor, dict[str, tf.Tensor]]:
    """Fit a whole image to the network's input, and its boxes with it.

    Args:
        image: `uint8` tensor of shape `(height, width, 3)`.
        rows: `float32` tensor of shape `(B, 6)`.
        spec: `ImageSpec`.

    Returns:
        The image, `float32` of shape `(size, size, 3)`, and its labels: `boxes` of shape `(B, 4)` in pixels of the
        input, `classes`, `crowd`, and `scale` of shape `(2,)`, by which to divide for pixels of the image.
    """
    scales = fit_scales(tf.shape(image), spec)
    labels = {
        "boxes": rows[:, :4] * tf.tile(scales, (2,)),
        "classes": tf.cast(rows[:, 4], tf.int32),
        "crowd": rows[:, 5] > 0,
        "scale": scales,
    }
    return evaluation_image(image, spec), labels


def training_scene(
    image: tf.Tensor, rows: tf.Tensor, spec: ImageSpec, augmentation: Augmentation, seed: tf.Tensor, draws: tf.Tensor
) -> Scene:
    """Fit an image at a random scale, cut or pad it to the network's input, flip it and change its colours.

    Crowds are left out, and boxes of which less than 30% remain.

    Args:
        image: `uint8` tensor of shape `(height, width, 3)`.
        rows: `float32` tensor of shape `(B, 6)`.
        spec: `ImageSpec`.
        augmentation: `Augmentation`: `scale_jitter`, `flip`, `color_jitter` and `erasing`.
        seed: Integer tensor of shape `(2,)`.
        draws: Float tensor of shape `(4,)`, uniform in [0, 1).

    Source: scale jitter, Tan, Pang & Le, EfficientDet (CVPR 2020), section 5.1.
    """
    smallest, largest = augmentation.scale_jitter
    scales = fit_scales(tf.shape(image), spec) * (smallest + draws[0] * (largest - smallest))
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    window = tf.minimum(tf.maximum(tf.round(spec.size / scales), 1), sides)
    begin = tf.floor(draws[2:] * (sides - window + 1))
    cut = crop(image, tf.cast(tf.concat([begin, window], axis=0), tf.int32))
    pixels = placed(cut, window * scales, spec)
    rows = moved(rows[rows[:, 5] == 0], begin, scales, tf.minimum(window * scales, float(spec.size)))
    if augmentation.flip:
        pixels, rows = tf.cond(flips(seed), lambda: mirrored(pixels, rows), lambda: (pixels, rows))
    return Scene(augment_image(pixels, seed, replace(augmentation, flip=False)), rows)


def moved(rows: tf.Tensor, begin: tf.Tensor, scales: tf.Tensor, extent: tf.Tensor) -> tf.Tensor:
    """Rows after a window that begins at `begin` was scaled to `extent` pixels; boxes that are hardly visible go."""
    boxes = (rows[:, :4] - tf.tile(begin, (2,))) * tf.tile(scales, (2,))
    return _visible(boxes, rows, tf.zeros((2,)), extent)


def _visible(boxes: tf.Tensor, rows: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Rows with the part of their boxes within a rectangle, as far as enough of it is left."""
    cut = tf.concat([tf.clip_by_value(boxes[:, :2], low, high), tf.clip_by_value(boxes[:, 2:], low, high)], axis=1)
    left = _areas(cut) >= _VISIBLE * _areas(boxes)
    sides = tf.reduce_min(cut[:, 2:] - cut[:, :2], axis=1)
    return tf.boolean_mask(tf.concat([cut, rows[:, 4:]], axis=1), left & (sides >= 1))


def _areas(boxes: tf.Tensor) -> tf.Tensor:
    return tf.reduce_prod(tf.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)


def mirrored(image: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Flip an image and its boxes horizontally."""
    y0, x0, y1, x1, number, crowd = tf.unstack(rows, num=BOX_COLUMNS, axis=1)
    width = tf.cast(tf.shape(image)[1], tf.float32)
    return tf.reverse(image, axis=(1,)), tf.stack([y0, width - x1, y1, width - x0, number, crowd], axis=1)


def mosaic(images: tf.Tensor, rows: tf.Tensor, seed: tf.Tensor, share: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Make a share of the images of a batch of the quadrants of four, each at its own place and scale.

    Unlike YOLO's mosaic, quadrants are not reduced, so objects keep the sizes of the scale jitter.

    Args:
        images: `float32` tensor of shape `(batch, size, size, 3)`.
        rows: `float32` tensor of shape `(batch, B, 6)`, filled up with the class -1.
        seed: Integer tensor of shape `(2,)`.
        share: Float in 0..1.

    Returns:
        Images of the same shape, and rows of shape `(batch, 4 B, 6)`.
    """
    count, size = tf.shape(images)[0], tf.shape(images)[1]
    draws = tf.random.stateless_uniform((count, 3), seed)
    middle = tf.where(draws[:, :1] < share, _MIDDLE[0] + draws[:, 1:] * (_MIDDLE[1] - _MIDDLE[0]), 1.0)
    middle = tf.round(middle * tf.cast(size, tf.float32))  # of an image that is left alone: its corner
    places = tf.range(tf.cast(size, tf.float32))
    upper, left = (places[None] < middle[:, axis, None] for axis in (0, 1))
    pixels, found = tf.zeros_like(images), []
    for quadrant in range(4):
        below, right = divmod(quadrant, 2)
        mask = (upper if not below else ~upper)[:, :, None] & (left if not right else ~left)[:, None, :]
        partner_images, partner_rows = (tf.roll(each, quadrant, axis=0) for each in (images, rows))
        pixels += tf.where(mask[..., None], partner_images, 0.0)
        whole = tf.cast(size, tf.float32)
        low = middle * (below, right)
        high = tf.where(tf.constant((below, right)) > 0, whole, middle)
        found.append(_in_quadrant(partner_rows, low[:, None], high[:, None]))
    return pixels, tf.concat(found, axis=1)


def _in_quadrant(rows: tf.Tensor, low: tf.Tensor, high: tf.Tensor) -> tf.Tensor:
    """Rows of a batch within a rectangle of each image; those that are hardly visible get the class -1."""
    boxes = rows[..., :4]
    cut = tf.concat([tf.clip_by_value(each, low, high) for each in (boxes[..., :2], boxes[..., 2:])], axis=-1)
    before, after = (tf.reduce_prod(tf.maximum(each[..., 2:] - each[..., :2], 0), axis=-1) for each in (boxes, cut))
    kept = (after >= _VISIBLE * before) & (tf.reduce_min(cut[..., 2:] - cut[..., :2], axis=-1) >= 1)
    number = tf.where(kept, rows[..., 4], PADDED)
    return tf.concat([cut, number[..., None], rows[..., 5:]], axis=-1)
