"""MixUp and CutMix: the images of a batch mixed with each other, and their labels. TensorFlow."""

from __future__ import annotations

import tensorflow as tf


def _beta(count, seed: tf.Tensor, alpha: float) -> tf.Tensor:
    """Draw `count` values from Beta(alpha, alpha), as X / (X + Y) of two Gamma variables."""
    # Gamma draws with a small alpha underflow float32.
    pair = tf.random.stateless_gamma((2, count), seed, tf.constant(alpha, tf.float64), dtype=tf.float64)
    return tf.cast(tf.math.divide_no_nan(pair[0], pair[0] + pair[1]), tf.float32)


def _previous_in_batch(batch: tf.Tensor) -> tf.Tensor:
    """Return for each element the previous one of the batch: batches are shuffled, so this is a random partner."""
    return tf.roll(batch, 1, axis=0)


def _mixed_labels(labels: tf.Tensor, own) -> tf.Tensor:
    return own[:, None] * labels + (1 - own[:, None]) * _previous_in_batch(labels)


def mixup(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """MixUp: blend each image and its label with another of the batch, by a share drawn from Beta(alpha, alpha).

    Args:
        images: `float32` tensor of shape `(batch, height, width, 3)`.
        labels: `float32` tensor of shape `(batch, classes)`, probabilities.
        seed: Integer tensor of shape `(2,)`.
        alpha: Float above 0. Small values leave most images almost unchanged.

    Returns:
        Images and labels of the same shapes.

    Source: Zhang et al., mixup (ICLR 2018).
    """
    own = _beta(tf.shape(images)[0], seed, alpha)
    shares = own[:, None, None, None]
    return shares * images + (1 - shares) * _previous_in_batch(images), _mixed_labels(labels, own)


def cutmix(images: tf.Tensor, labels: tf.Tensor, seed: tf.Tensor, alpha: float) -> tuple[tf.Tensor, tf.Tensor]:
    """CutMix: replace a rectangle of each image by that of another, and mix the labels by the area replaced.

    The rectangle has the image's aspect ratio, an area drawn from Beta(alpha, alpha) and a uniform centre. It is
    clipped at the edges, and the labels are weighted by the pixels actually replaced.

    Args:
        images: `float32` tensor of shape `(batch, height, width, 3)`.
        labels: `float32` tensor of shape `(batch, classes)`, probabilities.
        seed: Integer tensor of shape `(2,)`.
        alpha: Float above 0; 1 gives uniform areas.

    Returns:
        Images and labels of the same shapes.

    Source: Yun et al., CutMix (ICCV 2019).
    """
    count, height, width = tf.unstack(tf.shape(images)[:3])
    side = tf.sqrt(1 - _beta(count, seed, alpha))
    centres = tf.random.stateless_uniform((2, count), seed + 1)

    def inside(length, centre):
        """Bool tensor: rows (or columns) of each image that the rectangle covers."""
        length = tf.cast(length, tf.float32)
        first, last = (centre - side / 2) * length, (centre + side / 2) * length
        places = tf.range(length)[None, :] + 0.5
        return (places >= first[:, None]) & (places < last[:, None])

    rows, columns = inside(height, centres[0]), inside(width, centres[1])
    other = tf.cast(rows[:, :, None] & columns[:, None, :], tf.float32)[..., None]
    own = 1 - tf.reduce_mean(other, axis=(1, 2, 3))
    return images + other * (_previous_in_batch(images) - images), _mixed_labels(labels, own)
