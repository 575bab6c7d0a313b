"""Metrics of predicted masks, accumulated batch by batch: memory does not grow with the number of pixels. numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from keras_effnet.datasets.labels.masks import IGNORED
from keras_effnet.errors import UserError
from keras_effnet.evaluation.agreement import masks
from keras_effnet.evaluation.by_task.outputs import Batches, mean_known


@dataclass(frozen=True, eq=False)
class MaskEvaluation:
    """Metrics of a segmentation.

    Args:
        confusion: Int array of shape `(classes, classes)`, pixels; rows true, columns predicted.
        image_iou: Float array of shape `(N,)`, mean IoU of each image over the classes that it has, truly or as
            predicted; NaN for an image whose pixels are all ignored.
        ignored: Int, pixels that are not evaluated.
    """

    confusion: np.ndarray
    image_iou: np.ndarray
    ignored: int

    @property
    def samples(self) -> int:
        """Number of images."""
        return len(self.image_iou)

    @property
    def iou(self) -> tuple[float, ...]:
        """Intersection over union of each class over all images; NaN if it neither occurs nor is predicted."""
        return tuple(_iou(self.confusion).tolist())

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that occur or are predicted."""
        return mean_known(self.iou)

    @property
    def recall(self) -> tuple[float, ...]:
        """Share of each class's pixels that are predicted as that class; NaN if it does not occur."""
        return tuple(_ratio(self.confusion.diagonal(), self.confusion.sum(axis=1)).tolist())

    @property
    def precision(self) -> tuple[float, ...]:
        """Share of the pixels predicted as each class that have it; NaN if it is not predicted."""
        return tuple(_ratio(self.confusion.diagonal(), self.confusion.sum(axis=0)).tolist())

    @property
    def pixels(self) -> tuple[int, ...]:
        """Number of evaluated pixels of each class."""
        return tuple(self.confusion.sum(axis=1).tolist())

    @property
    def accuracy(self) -> float:
        """Share of pixels with the right class; NaN if all are ignored."""
        total = self.confusion.sum()
        return float(self.confusion.trace() / total) if total else float("nan")


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, of one matrix or of a stack of them."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(hits, confusion.sum(axis=-1) + confusion.sum(axis=-2) - hits)


def evaluate_masks(batches: Batches) -> MaskEvaluation:
    """Compute IoU and pixel accuracy, batch by batch.

    Args:
        batches: Pairs of outputs, a float array of shape `(N, height, width, classes)`, or with one channel for two
            classes, and true masks, an int array of shape `(N, height, width)` whose value 255 is ignored.

    Raises:
        UserError: There are no images, a mask is of another size than the output or has a class beyond it, or an
            output is NaN or infinite.

    Example:

    >>> outputs = np.eye(2)[np.array([[[0, 1], [1, 1]]])]
    >>> evaluate_masks([(outputs, np.array([[[0, 1], [1, 255]]]))]).mean_iou
    1.0
    """
    total, ious, ignored = np.zeros((0, 0), int), [], 0
    for outputs, truth in batches:
        if not len(truth):
            continue
        counted = pixel_confusions(outputs, truth)
        total = counted.sum(axis=0) + (total if total.size else 0)
        ious += [mean_known(row) for row in _iou(counted).tolist()]
        ignored += int((truth == IGNORED).sum())
    if not ious:
        raise UserError("No images to evaluate.")
    return MaskEvaluation(total, np.array(ious), ignored)


def pixel_confusions(outputs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Count pixels by true and predicted class: an int array of shape `(N, classes, classes)`, rows true.

    Args:
        outputs: As in `evaluate_masks`.
        truth: As in `evaluate_masks`.

    Raises:
        UserError: As in `evaluate_masks`.
    """
    classes = max(outputs.shape[-1], 2)
    if outputs.shape[:3] != truth.shape:
        raise UserError(f"The network gives masks of {outputs.shape[1:3]}, the true ones are of {truth.shape[1:]}.")
    if not np.isfinite(outputs).all():
        raise UserError("The model returns NaN or infinite values.")
    known = truth != IGNORED
    truth = truth.astype("int64")
    highest = int(truth[known].max(initial=0))
    if highest >= classes:
        raise UserError(f"The masks have at least {highest + 1} classes but the model knows {classes}.")
    codes = truth * classes + masks(outputs)
    rows = (np.bincount(code[here], minlength=classes**2) for code, here in zip(codes, known, strict=True))
    return np.stack([row.reshape(classes, classes) for row in rows])


def worst_masks(found: MaskEvaluation, count: int) -> np.ndarray:
    """Indices of the images with the lowest IoU, lowest first."""
    order = np.argsort(found.image_iou, kind="stable")  # NaN last
    return order[:count]
