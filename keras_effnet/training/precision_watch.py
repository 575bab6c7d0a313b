"""Validation of a detector during training: loss and COCO average precision. TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.detection.losses import detection_loss
from keras_effnet.detection.precision import average_precision
from keras_effnet.detection.targets import TargetAssigner
from keras_effnet.evaluation.by_task.boxes import collect_scenes

_CANDIDATES = 500  # scores per image that take part: in the first epochs thousands are alike
_FLOOR = 0.01  # of scores


class DetectorValidation:
    """Loss and average precision of a detector that ends in logits, in one pass over the validation images.

    Args:
        val: Evaluation batches of `image_pipeline(..., detector=...)`.
        spec: `DetectorSpec` of the network, with its number of classes.
        size: Height and width of the input.
    """

    def __init__(self, val: tf.data.Dataset, spec: DetectorSpec, size: tuple[int, int]):
        self._val, self._spec, self._size = val, spec, size
        self._anchors = anchor_boxes(spec, size)
        self._assign = TargetAssigner(spec, size)

    def __call__(self, model: keras.Model) -> dict[str, float]:
        """`"loss"`, `"ap"` and `"ap50"` of a network."""
        losses: list[tuple[float, int]] = []

        def outputs():
            for images, labels in self._val:
                # Each device of a strategy predicts the whole batch, and their outputs stand one after the other.
                found = {name: each[: len(images)] for name, each in model.predict_on_batch(images).items()}
                losses.append((float(detection_loss(self._targets(labels), found)), len(images)))
                yield {"boxes": found["boxes"], "scores": _sigmoid(found["logits"])}, labels

        limits = {"score_threshold": _FLOOR, "max_candidates": _CANDIDATES}
        scenes = collect_scenes(outputs(), self._anchors, self._size, **limits)
        precision = average_precision(scenes.truth, scenes.found, self._spec.classes)
        values, weights = zip(*losses, strict=True)
        return {"loss": float(np.average(values, weights=weights)), "ap": precision.ap, "ap50": precision.ap50}

    def _targets(self, labels: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        def of_image(boxes: tf.Tensor, classes: tf.Tensor, crowd: tf.Tensor) -> dict[str, tf.Tensor]:
            known = (classes >= 0) & ~tf.cast(crowd, tf.bool)
            return self._assign(tf.boolean_mask(boxes, known), tf.boolean_mask(classes, known))

        rows = zip(labels["boxes"], labels["classes"], labels["crowd"], strict=True)
        each = [of_image(*row) for row in rows]
        return {name: tf.stack([targets[name] for targets in each]) for name in ("labels", "codes")}


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(logits, "float32")))


class PrecisionWatch(keras.callbacks.Callback):
    """Add `val_loss`, `val_ap` and `val_ap50` to the results of an epoch; nan in those that are not measured.

    Args:
        measure: Function from a network to these figures, `DetectorValidation`.
        every: Int, epochs between two measurements; the last epoch is always measured.
        epochs: Int, epochs of the run.
    """

    def __init__(self, measure: Callable[[keras.Model], dict[str, float]], every: int, epochs: int):
        super().__init__()
        self._measure, self._every, self._epochs = measure, every, epochs

    def due(self, epoch: int) -> bool:
        """Whether an epoch, counted from 0, is measured."""
        return (epoch + 1) % self._every == 0 or epoch + 1 == self._epochs

    def on_epoch_end(self, epoch, logs=None):
        found = self._measure(self.model) if self.due(epoch) else dict.fromkeys(("loss", "ap", "ap50"), math.nan)
        if logs is not None:
            logs |= {f"val_{name}": value for name, value in found.items()}
