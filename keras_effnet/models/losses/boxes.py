"""Keras losses of a detector's two outputs. Keras only.

TensorFlow computes them with the kernels of `keras_effnet.detection`, other backends with operations of Keras.

Registered, so that a `.keras` file compiled with them opens wherever this package is imported. Losses have the shape
(1,): Keras divides them by the number of devices of a strategy, which it does not do with scalars.
"""

from __future__ import annotations

import keras
from keras import ops

from keras_effnet.detection.loss_constants import ALPHA, BOX_WEIGHT, GAMMA, HUBER_DELTA


@keras.saving.register_keras_serializable("keras_effnet")
class AnchorFocalLoss(keras.losses.Loss):
    """Focal loss of the output `"logits"`; targets are numbers of classes of shape `(N, anchors)`, -1 for background.

    Each batch is divided by its positive anchors plus 1. Computed in float32 under any precision.
    """

    def __init__(self, name: str = "anchor_focal_loss", **options):
        super().__init__(name=name, **options | {"dtype": "float32"})

    def call(self, y_true, y_pred):
        """Loss of a batch."""
        labels = ops.cast(y_true, "int32")
        if keras.backend.backend() != "tensorflow":
            return portable_focal_loss(labels, y_pred)[None]
        from keras_effnet.detection.losses import focal_loss

        return focal_loss(labels, y_pred)[None]


@keras.saving.register_keras_serializable("keras_effnet")
class AnchorBoxLoss(keras.losses.Loss):
    """Huber loss of the output `"boxes"`, weighted by 50; targets are those of `box_targets`.

    Each batch is divided by its positive anchors plus 1. Computed in float32 under any precision.
    """

    def __init__(self, name: str = "anchor_box_loss", **options):
        super().__init__(name=name, **options | {"dtype": "float32"})

    def call(self, y_true, y_pred):
        """Loss of a batch."""
        labels, codes = ops.cast(y_true[..., 4], "int32"), y_true[..., :4]
        if keras.backend.backend() != "tensorflow":
            return BOX_WEIGHT * portable_box_loss(labels, codes, y_pred)[None]
        from keras_effnet.detection.losses import box_loss

        return BOX_WEIGHT * box_loss(labels, codes, y_pred)[None]


def box_targets(labels, codes):
    """Codes of the anchors and, as a fifth value, 0 for those that belong to a box and -1 for background.

    Args:
        labels: int32 tensor of shape `(N, anchors)`, -1 for background.
        codes: float32 tensor of shape `(N, anchors, 4)`.

    Returns:
        A float32 tensor of shape `(N, anchors, 5)`.
    """
    return ops.concatenate([codes, ops.cast(ops.minimum(labels, 0), "float32")[..., None]], axis=-1)


def portable_focal_loss(labels, logits):
    """`detection.focal_loss` in operations of Keras, of fixed shapes, for the compilers of other backends."""
    present = ops.expand_dims(labels, -1) == ops.arange(logits.shape[-1], dtype="int32")
    right = ops.where(present, logits, -logits)  # logit of the right answer
    weight = ops.where(present, ALPHA, 1 - ALPHA) * ops.exp(-GAMMA * ops.softplus(right))
    return ops.sum(weight * ops.softplus(-right)) / _normalizer(labels)


def portable_box_loss(labels, codes, predicted):
    """`detection.box_loss` in operations of Keras, of fixed shapes."""
    error = ops.where(ops.expand_dims(labels, -1) >= 0, ops.abs(predicted - codes), 0.0)
    near = ops.minimum(error, HUBER_DELTA)
    return ops.sum(near * (error - near / 2)) / (4 * _normalizer(labels))


def _normalizer(labels):
    return ops.sum(ops.cast(labels >= 0, "float32")) + 1
