"""Focal loss and Huber loss of a detector, without a one-hot tensor of anchors times classes. TensorFlow.

Source: Lin et al., Focal Loss for Dense Object Detection (ICCV 2017); EfficientDet (CVPR 2020), section 5.1.
"""

from __future__ import annotations

import tensorflow as tf

from keras_effnet.detection.loss_constants import ALPHA, BOX_WEIGHT, GAMMA, HUBER_DELTA

_LARGEST = 15.0  # logit from which 1 - p is below the resolution of float32


# Compiled, each is one pass over the logits. As one function with two results it takes twice as long as both together.
@tf.function(jit_compile=True)
def _sum_if_absent(logits: tf.Tensor) -> tf.Tensor:
    """Sum of the loss if no class were present anywhere."""
    return tf.reduce_sum(_negative(logits)[0])


@tf.function(jit_compile=True)
def _slope_if_absent(logits: tf.Tensor) -> tf.Tensor:
    """Gradient of that sum."""
    return _negative(logits)[1]


def _negative(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(1 - alpha) p^gamma * -log(1 - p) and its derivative."""
    odds = tf.exp(tf.minimum(logits, _LARGEST))
    absent = 1 / (1 + odds)
    p = odds * absent
    loss = tf.maximum(-tf.math.log(absent), logits)  # beyond `_LARGEST`, -log(1 - p) is the logit itself
    weight = (1 - ALPHA) * p * tf.sqrt(p)  # gamma 1.5
    return weight * loss, weight * (GAMMA * absent * loss + p)


def _positive(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Alpha (1 - p)^gamma * -log(p) and its derivative."""
    q = tf.sigmoid(-logits)
    loss = tf.nn.softplus(-logits)
    weight = ALPHA * q * tf.sqrt(q)
    return weight * loss, -weight * (GAMMA * (1 - q) * loss + q)


@tf.custom_gradient
def _focal_sum(logits: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, object]:
    total, slope = _sum_if_absent(logits), _slope_if_absent(logits)
    places = tf.where(labels >= 0)
    places = tf.concat([places, tf.gather_nd(tf.cast(labels, tf.int64), places)[:, None]], axis=1)
    present = tf.gather_nd(logits, places)
    (positive, rising), (negative, falling) = _positive(present), _negative(present)
    total += tf.reduce_sum(positive - negative)
    slope = tf.tensor_scatter_nd_add(slope, places, rising - falling)
    return total, lambda upstream: (upstream * slope, None)


def focal_loss(labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    """Focal loss of a batch, alpha 0.25 and gamma 1.5, divided by the batch's positive anchors plus 1.

    Args:
        labels: int32 tensor of shape `(N, anchors)`, numbers of classes, -1 for background.
        logits: float32 tensor of shape `(N, anchors, classes)`.

    Returns:
        A float32 scalar.
    """
    return _focal_sum(logits, labels) / normalizer(labels)


def box_loss(labels: tf.Tensor, codes: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
    """Huber loss of the codes of positive anchors, delta 0.1, mean of the four, divided like `focal_loss`.

    Args:
        labels: int32 tensor of shape `(N, anchors)`, -1 for background.
        codes: float32 tensor of shape `(N, anchors, 4)`, the targets.
        predicted: float32 tensor of shape `(N, anchors, 4)`.

    Returns:
        A float32 scalar, without `BOX_WEIGHT`.
    """
    positive = tf.where(labels >= 0)
    error = tf.abs(tf.gather_nd(predicted, positive) - tf.gather_nd(codes, positive))
    near = tf.minimum(error, HUBER_DELTA)
    return tf.reduce_sum(near * (error - near / 2)) / (4 * normalizer(labels))


def normalizer(labels: tf.Tensor) -> tf.Tensor:
    """Positive anchors of the batch, plus 1."""
    return tf.reduce_sum(tf.cast(labels >= 0, tf.float32)) + 1


def detection_loss(targets: dict[str, tf.Tensor], outputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Focal loss plus 50 times the box loss.

    Args:
        targets: Dict of `"labels"` and `"codes"`, batches of what `TargetAssigner` returns.
        outputs: Dict of `"logits"` and `"boxes"`: a detector built with `classifier_activation=None`.

    Returns:
        A float32 scalar.
    """
    labels = targets["labels"]
    return focal_loss(labels, outputs["logits"]) + BOX_WEIGHT * box_loss(labels, targets["codes"], outputs["boxes"])
