"""What a network is trained towards, by task: targets, loss, metrics, weights of rare labels. TensorFlow.

`TASKS[task].learning` names them; the functions are here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.config.train_config import TrainConfig
from keras_effnet.datasets.labels.masks import IGNORED, Masks
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.datasets.stratification import class_weights
from keras_effnet.errors import UserError
from keras_effnet.models.losses.boxes import AnchorBoxLoss, AnchorFocalLoss, box_targets
from keras_effnet.models.losses.weighted import MeanR2, StandardizedError, WeightedBinaryCrossentropy
from keras_effnet.pipeline.batches import one_hot
from keras_effnet.pipeline.caching import without_autograph
from keras_effnet.tasks import TASKS, Learning, TaskName
from keras_effnet.training.by_task.networks import UNITS, Units

_Targets = Callable[[Any, int], Any]
_Weighting = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]


@dataclass(frozen=True)
class Objective:
    """Functions by which `model.fit` trains for a task.

    Args:
        learning: `Learning` of the task.
        targets: Function from labels as the pipeline gives them, and the outputs of the network, to the loss's.
        loss: Function from the network, config and weights to a Keras loss, or to one for each output.
        metrics: Function from the network to new Keras metrics.
        weigh: Function from targets and class weights to sample weights; None if the loss holds the weights.
        rare: Function from a dataset to its balanced weights.
    """

    learning: Learning
    targets: _Targets
    loss: Callable[[keras.Model, TrainConfig, np.ndarray | None], Any]
    metrics: Callable[[keras.Model], list[keras.metrics.Metric]]
    weigh: _Weighting | None
    rare: Callable[[ImageDataset], np.ndarray]

    def prepared(self, data: tf.data.Dataset, outputs: int, weights: np.ndarray | None) -> tf.data.Dataset:
        """Batches with the targets of the loss, and with sample weights if classes have weights."""

        @without_autograph
        def convert(images, labels):
            targets = self.targets(labels, outputs)
            if weights is None or self.weigh is None:
                return images, targets
            return images, targets, self.weigh(targets, tf.constant(weights, tf.float32))

        return data.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def objective(task: TaskName) -> Objective:
    """The objective of a task.

    Raises:
        UserError: The task is not learnt from labels.
    """
    if task not in _OBJECTIVES:
        raise UserError(f"A network for {task} cannot be trained on labels; tasks are: {', '.join(_OBJECTIVES)}.")
    return _OBJECTIVES[task]


def balanced_weights(dataset: ImageDataset) -> np.ndarray:
    """Weights that let rare classes or labels of a dataset count as much as frequent ones.

    Raises:
        UserError: The dataset is one of numbers.
    """
    return objective(dataset.task).rare(dataset)


# ------------------------------------------------------------------ targets


def _soft_classes(labels: tf.Tensor, outputs: int) -> tf.Tensor:
    """Probabilities of the classes, which label smoothing needs."""
    return labels if labels.shape.rank == 2 else one_hot(labels, outputs)


def _soft_decisions(labels: tf.Tensor, outputs: int) -> tf.Tensor:
    """Probability of the second class, of shape `(batch, 1)`."""
    return _soft_classes(labels, 2)[:, 1:]


def _numbers(labels: tf.Tensor, outputs: int) -> tf.Tensor:
    labels = tf.cast(labels, tf.float32)
    return labels[:, None] if labels.shape.rank == 1 else labels


def _of_anchors(labels: dict[str, tf.Tensor], outputs: int) -> dict[str, tf.Tensor]:
    return {"boxes": box_targets(labels["labels"], labels["codes"]), "logits": labels["labels"]}


def _unchanged(labels: tf.Tensor, outputs: int) -> tf.Tensor:
    return labels


# ------------------------------------------------------------------ weights


def _class_weights(targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(targets, weights)


def _decision_weights(targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return weights[0] + (weights[1] - weights[0]) * targets[:, 0]


def _pixel_weights(targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    inside = targets != IGNORED
    return tf.where(inside, tf.gather(weights, tf.where(inside, targets, 0)), 0.0)


def _of_classes(dataset: ImageDataset) -> np.ndarray:
    return class_weights(dataset.train.labels, len(dataset.class_names))


def _of_labels(dataset: ImageDataset) -> np.ndarray:
    """Weights of shape `(2, L)` of absent and present labels; each label's average 1 over the images."""
    present = dataset.train.labels.sum(axis=0)
    counts = np.stack([len(dataset.train) - present, present])
    return len(dataset.train) / (2 * np.maximum(counts, 1))


def _of_values(dataset: ImageDataset) -> np.ndarray:
    raise UserError("class_weight balanced is for classes and labels; numbers have none: leave it out for regression.")


def _of_boxes(dataset: ImageDataset) -> np.ndarray:
    raise UserError("class_weight balanced is for classes and labels; leave it out for detection.")


def _of_pixels(dataset: ImageDataset) -> np.ndarray:
    """Weights by the share of pixels; they average 1 over the pixels."""
    masks: Masks = dataset.train.labels
    pixels = masks.counts().sum(axis=0)[: len(dataset.class_names)].astype("float64")
    present = pixels > 0
    return np.where(present, pixels.sum() / (present.sum() * np.maximum(pixels, 1)), 0.0)


# ------------------------------------------------------------------ losses and metrics


def _categorical(model: keras.Model, config: TrainConfig, weights: np.ndarray | None) -> keras.losses.Loss:
    return keras.losses.CategoricalCrossentropy(label_smoothing=config.label_smoothing)


def _binary(model: keras.Model, config: TrainConfig, weights: np.ndarray | None) -> keras.losses.Loss:
    return keras.losses.BinaryCrossentropy(label_smoothing=config.label_smoothing)


def _of_each_label(model: keras.Model, config: TrainConfig, weights: np.ndarray | None) -> keras.losses.Loss:
    if weights is None:
        return keras.losses.BinaryCrossentropy(label_smoothing=config.label_smoothing)
    absent, present = weights.tolist()
    return WeightedBinaryCrossentropy(absent, present, config.label_smoothing)


def _units(model: keras.Model) -> Units:
    """Units in which a network predicts values: those of its last layer."""
    last, outputs = model.layers[-1], model.output_shape[-1]
    mean, deviation = (last.offset, last.scale) if last.name == UNITS else (0.0, 1.0)
    return Units(*(tuple(np.broadcast_to(each, outputs).tolist()) for each in (mean, deviation)))


def _standardized(model: keras.Model, config: TrainConfig, weights: np.ndarray | None) -> keras.losses.Loss:
    return StandardizedError(_units(model).deviation)


def _of_masks(model: keras.Model, config: TrainConfig, weights: np.ndarray | None) -> keras.losses.Loss:
    return keras.losses.SparseCategoricalCrossentropy(ignore_class=IGNORED)


def _of_detector(model: keras.Model, config: TrainConfig, weights: np.ndarray | None) -> dict[str, keras.losses.Loss]:
    return {"boxes": AnchorBoxLoss(), "logits": AnchorFocalLoss()}


def _metrics_of_labels(model: keras.Model) -> list[keras.metrics.Metric]:
    labels = model.output_shape[-1]
    precision_recall = keras.metrics.AUC(curve="PR", multi_label=True, num_labels=labels, name="map")
    return [precision_recall, keras.metrics.BinaryAccuracy(name="accuracy")]


def _metrics_of_values(model: keras.Model) -> list[keras.metrics.Metric]:
    return [keras.metrics.MeanAbsoluteError(name="mae"), MeanR2(_units(model).mean)]


def _metrics_of_masks(model: keras.Model) -> list[keras.metrics.Metric]:
    classes = model.output_shape[-1]
    return [keras.metrics.MeanIoU(classes, ignore_class=IGNORED, sparse_y_pred=False, name="mean_iou")]


def _learning(task: TaskName) -> Any:
    return TASKS[task].learning


_OBJECTIVES: dict[str, Objective] = {
    "classification": Objective(
        _learning("classification"),
        targets=_soft_classes,
        loss=_categorical,
        metrics=lambda model: [keras.metrics.CategoricalAccuracy(name="accuracy")],
        weigh=_class_weights,
        rare=_of_classes,
    ),
    "binary": Objective(
        _learning("binary"),
        targets=_soft_decisions,
        loss=_binary,
        metrics=lambda model: [keras.metrics.BinaryAccuracy(name="accuracy"), keras.metrics.AUC(name="auc")],
        weigh=_decision_weights,
        rare=_of_classes,
    ),
    "multilabel": Objective(
        _learning("multilabel"),
        targets=_numbers,
        loss=_of_each_label,
        metrics=_metrics_of_labels,
        weigh=None,
        rare=_of_labels,
    ),
    "regression": Objective(
        _learning("regression"),
        targets=_numbers,
        loss=_standardized,
        metrics=_metrics_of_values,
        weigh=None,
        rare=_of_values,
    ),
    "segmentation": Objective(
        _learning("segmentation"),
        targets=_unchanged,
        loss=_of_masks,
        metrics=_metrics_of_masks,
        weigh=_pixel_weights,
        rare=_of_pixels,
    ),
    "detection": Objective(
        _learning("detection"),
        targets=_of_anchors,
        loss=_of_detector,
        metrics=lambda model: [],
        weigh=None,
        rare=_of_boxes,
    ),
}
