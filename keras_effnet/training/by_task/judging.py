"""Evaluation of a trained network by its task, and the figure that shows it. TensorFlow.

`eval` tells more; this is what a training reports at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_effnet import transfer
from keras_effnet.architecture.detectors import DetectorSpec
from keras_effnet.datasets.splits import ImageDataset
from keras_effnet.detection.anchors import anchor_boxes
from keras_effnet.evaluation import plots
from keras_effnet.evaluation.by_task import box_drawings, drawings
from keras_effnet.evaluation.by_task.boxes import collect_scenes, evaluate_boxes
from keras_effnet.evaluation.by_task.decisions import collect_decisions, evaluate_binary, evaluate_labels
from keras_effnet.evaluation.by_task.segments import evaluate_masks
from keras_effnet.evaluation.by_task.values import collect_values, evaluate_values
from keras_effnet.evaluation.metrics import evaluate
from keras_effnet.tasks.thresholds import THRESHOLDS, write_thresholds

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


def judge(
    model: keras.Model, val: tf.data.Dataset, dataset: ImageDataset, detector: DetectorSpec | None = None
) -> Judgement:
    """Evaluate a network on validation batches by the task of a dataset, a detector with the anchors of its spec.

    Raises:
        UserError: A prediction is NaN or infinite.
    """
    if detector is not None:
        return _boxes(model, val, dataset, detector)
    return _JUDGES[dataset.task](model, val, dataset)


def judge_better_statistics(
    model: keras.Model, batches: tf.data.Dataset, judged: Callable[[], Judgement], announce: Callable[[str], None]
) -> Judgement:
    """Keep the batch normalization statistics of training, or re-estimated ones if the network scores higher with them.

    Re-estimation helps where moving averages lag behind, as in short runs, and costs a point or two where they do not:
    the batches are augmented, and dropout and stochastic depth, with which the weights were trained, are off.

    Args:
        model: Keras model; it gets the statistics that are kept.
        batches: Training batches.
        judged: Function that evaluates the model.
        announce: Function called with a line about the choice.
    """
    weights, trained = model.get_weights(), judged()
    transfer.reestimate_batch_norm(model, batches)
    if all(map(np.array_equal, weights, model.get_weights())):  # all of it is frozen
        return trained
    measured = judged()
    better = measured.score > trained.score
    kept = "re-estimated" if better else "kept as trained"
    announce(f"Batch normalization: {kept} ({trained.score:.3f} as trained, {measured.score:.3f} re-estimated).")
    if better:
        return measured
    model.set_weights(weights)
    return trained


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
        write_thresholds(folder / THRESHOLDS, names, [_known(label.best_threshold) for label in found.labels])

    return Judgement(found, found.mean_ap, draw)


def _known(threshold: float) -> float:
    return 0.5 if np.isnan(threshold) else threshold  # no validation image has the label


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


def _boxes(model: keras.Model, val: tf.data.Dataset, dataset: ImageDataset, detector: DetectorSpec) -> Judgement:
    size = (detector.image_size, detector.image_size)
    batches = ((model.predict_on_batch(images), labels) for images, labels in val)
    scenes = collect_scenes(batches, anchor_boxes(detector, size), size)
    found = evaluate_boxes(scenes, len(dataset.class_names))

    def draw(names: Sequence[str], folder: Path) -> None:
        box_drawings.precision_recall(scenes, found.ap.by_class, names, folder / "precision_recall.png")
        images, labels = next(iter(val.unbatch().batch(_ROWS)))
        scale = [np.tile(each, 2) for each in labels["scale"].numpy()]
        shown = [each.above(found.threshold) for each in scenes.found[: len(images)]]
        boxes = [
            box_drawings.detected_boxes(replace(each, boxes=each.boxes * own), names)
            for each, own in zip(shown, scale, strict=True)
        ]
        titles = [f"{len(each)} found, {len(true.boxes)} true" for each, true in zip(shown, scenes.truth, strict=False)]
        box_drawings.box_grid(images.numpy(), boxes, titles, folder / "detections.png")

    return Judgement(found, found.ap.ap, draw)


_JUDGES: dict[str, Callable[[keras.Model, tf.data.Dataset, ImageDataset], Judgement]] = {
    "classification": _classes,
    "binary": _binary,
    "multilabel": _labels,
    "regression": _values,
    "segmentation": _masks,
}
