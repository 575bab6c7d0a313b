"""Evaluation of a trained network by its task, and the figure that shows it. TensorFlow.

`eval` tells more; this is what a training reports at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task import drawings
from keras_effnet.evaluation.by_task.decisions import collect_decisions, evaluate_binary, evaluate_labels
from keras_effnet.evaluation.by_task.segments import evaluate_masks
from keras_effnet.evaluation.by_task.values import collect_values, evaluate_values
from keras_effnet.evaluation.metrics import evaluate

_ROWS = 8  # images in masks.png


@dataclass(frozen=True, eq=False)
class Judgement:
    """Metrics of a network.

    Args:
        evaluation: The metrics, of a class of the task.
        score: Float, the watched one.
        draw: Function from the names of the classes and a folder that draws the figure of the task there.
    """

    evaluation: Any
    score: float
    draw: Callable[[Sequence[str], Path], None]


def judge(model: keras.Model, val: tf.data.Dataset, dataset: ImageDataset) -> Judgement:
    """Evaluate a network on validation batches by the task of a dataset.

    Raises:
        UserError: A prediction is NaN or infinite.
    """
    return _JUDGES[dataset.task](model, val, dataset)


def _outputs(model: keras.Model, val: tf.data.Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for images, labels in val:
        yield np.asarray(model.predict_on_batch(images)), labels.numpy()


def _classes(model: keras.Model, val: tf.data.Dataset, dataset: ImageDataset) -> Judgement:
    found = evaluate(model.predict(val, verbose=0), dataset.val.labels)
    return Judgement(found, found.accuracy, lambda names, folder: _confusion(found.confusion, names, folder))


def _confusion(matrix: np.ndarray, names: Sequence[str], folder: Path) -> None:
    plots.confusion_matrix(matrix, names, folder / "confusion.png")


def _binary(model: keras.Model, val: tf.data.Dataset, dataset: ImageDataset) -> Judgement:
    found = evaluate_binary(collect_decisions([(model.predict(val, verbose=0), dataset.val.labels)]))
    score = found.decision.accuracy
    return Judgement(found, score, lambda names, folder: _confusion(found.confusion, names, folder))


def _labels(model: keras.Model, val: tf.data.Dataset, dataset: ImageDataset) -> Judgement:
    decisions = collect_decisions([(model.predict(val, verbose=0), dataset.val.labels)])
    found = evaluate_labels(decisions)

    def draw(names: Sequence[str], folder: Path) -> None:
        path = folder / "precision_recall.png"
        drawings.precision_recall(decisions.truth, decisions.scores, found.labels, names, path)

    return Judgement(found, found.mean_ap, draw)


def _values(model: keras.Model, val: tf.data.Dataset, dataset: ImageDataset) -> Judgement:
    values = collect_values([(model.predict(val, verbose=0), dataset.val.labels)])
    found = evaluate_values(values)
    return Judgement(
        found,
        found.r2,
        lambda names, folder: drawings.scatter(values, found.values, names, folder / "scatter.png"),
    )


def _masks(model: keras.Model, val: tf.data.Dataset, dataset: ImageDataset) -> Judgement:
    found = evaluate_masks(_outputs(model, val))

    def draw(names: Sequence[str], folder: Path) -> None:
        images, truths = next(iter(val.unbatch().batch(_ROWS)))
        predicted = np.asarray(model.predict_on_batch(images)).argmax(axis=-1)
        titles = [f"IoU {iou:.2f}" for iou in found.image_iou[: len(images)]]
        drawings.mask_rows(images.numpy(), truths.numpy(), predicted, titles, names, folder / "masks.png")

    return Judgement(found, found.mean_iou, draw)


_JUDGES: dict[str, Callable[[keras.Model, tf.data.Dataset, ImageDataset], Judgement]] = {
    "classification": _classes,
    "binary": _binary,
    "multilabel": _labels,
    "regression": _values,
    "segmentation": _masks,
}
