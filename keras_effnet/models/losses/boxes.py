"""Keras losses of a detector's two outputs. Keras; the arithmetic is TensorFlow's, of `keras_effnet.detection`.

Registered, so that a `.keras` file compiled with them opens wherever this package is imported.
"""

from __future__ import annotations

import keras
from keras import ops


@keras.saving.register_keras_serializable("keras_effnet")
class AnchorFocalLoss(keras.losses.Loss):
    """Focal loss of the output `"logits"`; targets are numbers of classes of shape `(N, anchors)`, -1 for background.

    Each batch is divided by its positive anchors plus 1. Computed in float32 under any precision.
    """

    def __init__(self, name: str = "anchor_focal_loss", **options):
        super().__init__(name=name, **options | {"dtype": "float32"})

    def call(self, y_true, y_pred):
        """Loss of a batch."""
        from keras_effnet.detection.losses import focal_loss

        return focal_loss(ops.cast(y_true, "int32"), y_pred)


@keras.saving.register_keras_serializable("keras_effnet")
class AnchorBoxLoss(keras.losses.Loss):
    """Huber loss of the output `"boxes"`, weighted by 50; targets are those of `box_targets`.

    Each batch is divided by its positive anchors plus 1. Computed in float32 under any precision.
    """

    def __init__(self, name: str = "anchor_box_loss", **options):
        super().__init__(name=name, **options | {"dtype": "float32"})

    def call(self, y_true, y_pred):
        """Loss of a batch."""
        from keras_effnet.detection.losses import BOX_WEIGHT, box_loss

        labels = ops.cast(y_true[..., 4], "int32")
        return BOX_WEIGHT * box_loss(labels, y_true[..., :4], y_pred)


def box_targets(labels, codes):
    """Codes of the anchors and, as a fifth value, 0 for those that belong to a box and -1 for background.

    Args:
        labels: int32 tensor of shape `(N, anchors)`, -1 for background.
        codes: float32 tensor of shape `(N, anchors, 4)`.

    Returns:
        A float32 tensor of shape `(N, anchors, 5)`.
    """
    return ops.concatenate([codes, ops.cast(ops.minimum(labels, 0), "float32")[..., None]], axis=-1)
